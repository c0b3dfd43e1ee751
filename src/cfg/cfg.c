/* libconfig behind our own door: the only file that includes it. */
#include "cfg/cfg.h"

#include <errno.h>
#include <libconfig.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "cfg/cfg_text.h"
#include "cfg/cfg_value.h"

enum { WHERE = 4200, GROUP = 256 };

struct chunk { /* memory of loaded strings and lists */
    struct chunk *next;
    max_align_t data[];
};

struct record {
    char *group, *key, *text, *origin;
    const char *help; /* a table's, static */
};

struct cfg {
    config_t tree;
    struct cfg_text text;
    char *path;
    struct chunk *chunks;
    struct record *record; /* every key that was asked for */
    int n_records, cap;
};

/* A setting with this hook came from the command line. */
static char from_command_line;

static void *take(void *owner, size_t bytes)
{
    struct cfg *c = owner;
    struct chunk *m = malloc(sizeof *m + bytes);
    if (!m)
        return NULL;
    m->next = c->chunks;
    c->chunks = m;
    return m->data;
}

static char *copy_text(struct cfg *c, const char *s)
{
    char *m = take(c, strlen(s) + 1);
    return m ? strcpy(m, s) : NULL;
}

/* ---- places ---- */

/* "[3]" -> 3, else -1 */
static int index_of(const char *part)
{
    char *end;
    if (part[0] != '[')
        return -1;
    long v = strtol(part + 1, &end, 10);
    return end[0] == ']' && !end[1] && v >= 0 && v < 1 << 20 ? (int)v : -1;
}

/* The next part of a dotted path into part; the rest. "a[1]" counts as "a.[1]". */
static const char *next_part(const char *s, char *part, size_t cap)
{
    size_t n = *s == '[' ? strcspn(s, "]") + 1 : strcspn(s, ".[");
    snprintf(part, cap, "%.*s", (int)(n < cap ? n : cap - 1), s);
    s += n <= strlen(s) ? n : strlen(s);
    return *s == '.' ? s + 1 : s;
}

static config_setting_t *child(config_setting_t *at, const char *part)
{
    int i = index_of(part);
    if (i < 0)
        return config_setting_is_group(at) ? config_setting_get_member(at, part) : NULL;
    if (config_setting_is_group(at))
        return i == 0 ? at : NULL; /* a single group stands for a list of one */
    return config_setting_is_aggregate(at) ? config_setting_get_elem(at, (unsigned)i) : NULL;
}

static config_setting_t *find(const struct cfg *c, const char *path)
{
    config_setting_t *at = config_root_setting(&c->tree);
    char part[GROUP];
    while (at && *path) {
        path = next_part(path, part, sizeof part);
        at = child(at, part);
    }
    return at;
}

static void where(const struct cfg *c, const config_setting_t *s, char *out, size_t cap)
{
    bool ours = config_setting_get_hook(s) == &from_command_line || !c->text.n_files;
    cfg_text_where(ours ? NULL : &c->text, (int)config_setting_source_line(s), out, cap);
}

/* ---- overrides ---- */

static int copy_into(config_setting_t *to, const config_setting_t *from);

static int copy_children(config_setting_t *to, const config_setting_t *from)
{
    int rc = ERR_OK;
    for (int i = 0; i < config_setting_length(from) && !rc; i++) {
        const config_setting_t *f = config_setting_get_elem(from, (unsigned)i);
        config_setting_t *t = config_setting_add(to, config_setting_name(f), config_setting_type(f));
        rc = t ? copy_into(t, f) : err_set(ERR_NOMEM, "no memory for an option of the command line");
    }
    return rc;
}

static int copy_into(config_setting_t *to, const config_setting_t *from)
{
    config_setting_set_hook(to, &from_command_line);
    config_setting_set_format(to, config_setting_get_format(from));
    switch (config_setting_type(from)) {
    case CONFIG_TYPE_INT: config_setting_set_int(to, config_setting_get_int(from)); return ERR_OK;
    case CONFIG_TYPE_INT64: config_setting_set_int64(to, config_setting_get_int64(from)); return ERR_OK;
    case CONFIG_TYPE_FLOAT: config_setting_set_float(to, config_setting_get_float(from)); return ERR_OK;
    case CONFIG_TYPE_BOOL: config_setting_set_bool(to, config_setting_get_bool(from)); return ERR_OK;
    case CONFIG_TYPE_STRING: config_setting_set_string(to, config_setting_get_string(from)); return ERR_OK;
    default: return copy_children(to, from);
    }
}

/* The group that holds the last part of the path; groups on the way are made. */
static config_setting_t *parent_of(struct cfg *c, const char *path, char *last, size_t cap)
{
    config_setting_t *at = config_root_setting(&c->tree);
    path = next_part(path, last, cap);
    while (at && *path) {
        config_setting_t *down = child(at, last);
        if (!down && index_of(last) < 0 && config_setting_is_group(at))
            down = config_setting_add(at, last, *path == '[' ? CONFIG_TYPE_LIST : CONFIG_TYPE_GROUP);
        if (!down && index_of(last) == config_setting_length(at) && config_setting_is_list(at))
            down = config_setting_add(at, NULL, CONFIG_TYPE_GROUP);
        at = down;
        path = next_part(path, last, cap);
    }
    return at;
}

/* The value as libconfig reads it; words that are no libconfig value are strings. */
static int parse_value(config_t *mini, const char *text, const char *override)
{
    struct buf b = {0};
    int rc = buf_printf(&b, "v = %s;\n", text);
    rc = rc ? rc : cfg_text_check(NULL, buf_text(&b));
    if (!rc && !config_read_string(mini, buf_text(&b))) {
        buf_clear(&b);
        rc = buf_puts(&b, "v = \"");
        for (const char *s = text; *s && !rc; s++)
            rc = *s == '"' || *s == '\\' ? buf_printf(&b, "\\%c", *s) : buf_add(&b, s, 1);
        rc = rc ? rc : buf_puts(&b, "\";\n");
        if (!rc && !config_read_string(mini, buf_text(&b)))
            rc = err_set(ERR_ARG, "command line: '%s' is not KEY=VALUE in libconfig's syntax", override);
    }
    buf_free(&b);
    return rc;
}

static int apply(struct cfg *c, const char *override)
{
    const char *eq = strchr(override, '=');
    char path[GROUP], last[GROUP];
    config_t mini;
    config_setting_t *at, *to, *from;
    if (!eq || eq == override || eq - override >= GROUP)
        return err_set(ERR_ARG, "command line: '%s' is not KEY=VALUE", override);
    snprintf(path, sizeof path, "%.*s", (int)(eq - override), override);
    at = parent_of(c, path, last, sizeof last);
    if (!at || !config_setting_is_group(at) || index_of(last) >= 0)
        return err_set(ERR_ARG, "command line: '%s': there is no place '%s' in the job", override, path);
    config_init(&mini);
    int rc = parse_value(&mini, eq + 1, override);
    if (!rc) {
        from = config_lookup(&mini, "v");
        config_setting_remove(at, last);
        to = config_setting_add(at, last, config_setting_type(from));
        rc = to ? copy_into(to, from) : err_set(ERR_ARG, "command line: '%s': '%s' is not a name", override, last);
    }
    config_destroy(&mini);
    return rc;
}

/* ---- open, close ---- */

int cfg_open(struct cfg **out, const char *path, const char *const *overrides, int n_overrides)
{
    struct cfg *c = calloc(1, sizeof *c);
    char place[WHERE];
    int rc = ERR_OK;
    *out = NULL;
    if (!c)
        return err_set(ERR_NOMEM, "no memory for the configuration");
    config_init(&c->tree);
    config_set_auto_convert(&c->tree, CONFIG_FALSE);
    c->path = strdup(path ? path : "command line");
    if (path)
        rc = cfg_text_read(&c->text, path);
    if (!rc && path && !config_read_string(&c->tree, buf_text(&c->text.text))) {
        cfg_text_where(&c->text, config_error_line(&c->tree), place, sizeof place);
        rc = err_set(ERR_ARG, "%s: %s", place, config_error_text(&c->tree));
    }
    for (int i = 0; i < n_overrides && !rc; i++)
        rc = apply(c, overrides[i]);
    if (rc) {
        cfg_close(c);
        return rc;
    }
    *out = c;
    return ERR_OK;
}

void cfg_close(struct cfg *c)
{
    if (!c)
        return;
    config_destroy(&c->tree);
    cfg_text_free(&c->text);
    while (c->chunks) {
        struct chunk *next = c->chunks->next;
        free(c->chunks);
        c->chunks = next;
    }
    free(c->record);
    free(c->path);
    free(c);
}

int cfg_count(const struct cfg *c, const char *path)
{
    const config_setting_t *s = find(c, path);
    if (!s)
        return -1;
    return config_setting_is_list(s) || config_setting_is_array(s) ? config_setting_length(s) : 1;
}

/* ---- load ---- */

static int record(struct cfg *c, const char *group, const struct cfg_field *f, const char *text, const char *origin)
{
    if (c->n_records == c->cap) {
        int cap = c->cap ? 2 * c->cap : 64;
        struct record *v = realloc(c->record, (size_t)cap * sizeof *v);
        if (!v)
            return err_set(ERR_NOMEM, "no memory for the record of options");
        c->record = v;
        c->cap = cap;
    }
    struct record *r = &c->record[c->n_records];
    *r = (struct record){copy_text(c, group), copy_text(c, f->name), copy_text(c, text), copy_text(c, origin),
                         f->help ? f->help : ""};
    if (!r->group || !r->key || !r->text || !r->origin)
        return err_set(ERR_NOMEM, "no memory for the record of options");
    c->n_records++;
    return ERR_OK;
}

static bool to_item(const config_setting_t *s, struct cfg_item *out)
{
    *out = (struct cfg_item){0};
    switch (config_setting_type(s)) {
    case CONFIG_TYPE_INT:
        out->kind = CFG_ITEM_INT;
        out->i = config_setting_get_int(s);
        return true;
    case CONFIG_TYPE_INT64:
        out->kind = CFG_ITEM_INT;
        out->i = config_setting_get_int64(s);
        return true;
    case CONFIG_TYPE_FLOAT:
        out->kind = CFG_ITEM_REAL;
        out->r = config_setting_get_float(s);
        return true;
    case CONFIG_TYPE_BOOL:
        out->kind = CFG_ITEM_BOOL;
        out->i = config_setting_get_bool(s);
        return true;
    case CONFIG_TYPE_STRING:
        out->kind = CFG_ITEM_STR;
        out->s = config_setting_get_string(s);
        return true;
    default: return false;
    }
}

static int load_setting(struct cfg *c, const config_setting_t *s, const struct cfg_field *f, void *opts)
{
    char place[WHERE];
    bool list = config_setting_is_array(s) || config_setting_is_list(s);
    int n = list ? config_setting_length(s) : 1, rc = ERR_OK;
    struct cfg_item *item = calloc((size_t)n + 1, sizeof *item);
    where(c, s, place, sizeof place);
    if (!item)
        return err_set(ERR_NOMEM, "no memory for option %s", f->name);
    for (int i = 0; i < n && !rc; i++)
        if (!to_item(list ? config_setting_get_elem(s, (unsigned)i) : s, &item[i]))
            rc = err_set(ERR_ARG, "%s: %s is a group, a value is needed", place, f->name);
    if (!rc)
        rc = cfg_value_set(f, opts, &(struct cfg_found){.where = place, .item = item, .n = n, .list = list}, take, c);
    free(item);
    return rc;
}

static int load_field(struct cfg *c, const char *group, config_setting_t *g, const struct cfg_field *f, void *opts)
{
    config_setting_t *s = g && config_setting_is_group(g) ? config_setting_get_member(g, f->name) : NULL;
    char place[WHERE] = "default";
    struct buf b = {0};
    int rc;
    if (s) {
        where(c, s, place, sizeof place);
        rc = load_setting(c, s, f, opts);
    } else if (f->required) {
        if (g && g != config_root_setting(&c->tree))
            where(c, g, place, sizeof place);
        else
            snprintf(place, sizeof place, "%s", c->path);
        return err_set(ERR_ARG, "%s: %s%s%s is missing: %s", place, group, *group ? "." : "", f->name,
                       f->help ? f->help : "it is required");
    } else {
        rc = cfg_value_set_default(f, opts, take, c);
    }
    rc = rc ? rc : cfg_value_text(f, opts, &b);
    rc = rc ? rc : record(c, group, f, buf_text(&b), place);
    buf_free(&b);
    return rc;
}

int cfg_load(struct cfg *c, const char *group, const struct cfg_field *fields, void *opts)
{
    config_setting_t *g = find(c, group);
    char place[WHERE];
    int rc = ERR_OK;
    if (g && !config_setting_is_group(g)) {
        where(c, g, place, sizeof place);
        return err_set(ERR_ARG, "%s: %s is a value, a group { ... } is needed", place, group);
    }
    for (const struct cfg_field *f = fields; f->name && !rc; f++)
        rc = load_field(c, group, g, f, opts);
    return rc;
}

/* Lists of defaults without a cfg live as long as the process. */
static void *take_for_good(void *owner, size_t bytes)
{
    static struct chunk *all;
    struct chunk *m = malloc(sizeof *m + bytes);
    (void)owner;
    if (!m)
        return NULL;
    m->next = all;
    all = m;
    return m->data;
}

int cfg_defaults(const struct cfg_field *fields, void *opts)
{
    int rc = ERR_OK;
    for (const struct cfg_field *f = fields; f->name && !rc; f++)
        rc = cfg_value_set_default(f, opts, take_for_good, NULL);
    return rc;
}

/* ---- finish ---- */

static bool asked(const struct cfg *c, const char *group, const char *key)
{
    for (int i = 0; i < c->n_records; i++)
        if (!strcmp(c->record[i].group, group) && !strcmp(c->record[i].key, key))
            return true;
    return false;
}

/* Was a table loaded from this place or from one inside it? */
static bool entered(const struct cfg *c, const char *path)
{
    size_t n = strlen(path);
    for (int i = 0; i < c->n_records; i++) {
        const char *g = c->record[i].group;
        if (!strncmp(g, path, n) && (g[n] == '\0' || g[n] == '.' || g[n] == '['))
            return true;
    }
    return false;
}

/* What could stand in this group: its keys, and groups below it. */
static const char *suggestion(const struct cfg *c, const char *group, const char *key)
{
    size_t n = strlen(group);
    const char **v = calloc((size_t)c->n_records + 1, sizeof *v), *best = NULL;
    int k = 0;
    for (int i = 0; v && i < c->n_records; i++) {
        const char *g = c->record[i].group;
        if (!strcmp(g, group))
            v[k++] = c->record[i].key;
        else if (!*group || (!strncmp(g, group, n) && g[n] == '.'))
            v[k++] = *group ? g + n + 1 : g;
    }
    best = v ? cfg_nearest(key, v, k) : NULL;
    free(v);
    return best;
}

static int unknown(const struct cfg *c, const char *group, const config_setting_t *s)
{
    char place[WHERE], near[GROUP] = "";
    const char *name = config_setting_name(s), *best = suggestion(c, group, name);
    where(c, s, place, sizeof place);
    if (best)
        snprintf(near, sizeof near, "; did you mean '%.*s'?", (int)strcspn(best, ".["), best);
    return err_set(ERR_ARG, "%s: %s%s%s is unknown%s", place, group, *group ? "." : "", name, near);
}

static int check_group(const struct cfg *c, const config_setting_t *g, const char *path);

static int check_member(const struct cfg *c, const config_setting_t *s, const char *group)
{
    char path[GROUP + 16], elem[GROUP + 32];
    const char *name = config_setting_name(s);
    int rc = ERR_OK;
    if (asked(c, group, name))
        return ERR_OK;
    snprintf(path, sizeof path, "%s%s%s", group, *group ? "." : "", name);
    snprintf(elem, sizeof elem, "%s.[0]", path);
    if (!entered(c, path) || config_setting_is_scalar(s) || config_setting_is_array(s))
        return unknown(c, group, s);
    if (config_setting_is_group(s))
        return check_group(c, s, entered(c, elem) ? elem : path);
    for (int i = 0; i < config_setting_length(s) && !rc; i++) {
        const config_setting_t *e = config_setting_get_elem(s, (unsigned)i);
        snprintf(elem, sizeof elem, "%s.[%d]", path, i);
        if (config_setting_is_group(e) && entered(c, elem))
            rc = check_group(c, e, elem);
        else
            rc = unknown(c, group, s);
    }
    return rc;
}

static int check_group(const struct cfg *c, const config_setting_t *g, const char *path)
{
    int rc = ERR_OK;
    for (int i = 0; i < config_setting_length(g) && !rc; i++)
        rc = check_member(c, config_setting_get_elem(g, (unsigned)i), path);
    return rc;
}

int cfg_finish(struct cfg *c)
{
    return check_group(c, config_root_setting(&c->tree), "");
}

/* ---- records ---- */

bool cfg_record_at(const struct cfg *c, int i, struct cfg_record *out)
{
    if (i < 0 || i >= c->n_records)
        return false;
    const struct record *r = &c->record[i];
    *out = (struct cfg_record){r->group, r->key, r->text, r->origin, r->help};
    return true;
}

int cfg_print(const struct cfg *c, struct buf *out)
{
    int rc = ERR_OK;
    for (int i = 0; i < c->n_records && !rc; i++) {
        const struct record *r = &c->record[i];
        rc = buf_printf(out, "%s%s%s = %s;  # %s\n", r->group, r->group[0] ? "." : "", r->key, r->text, r->origin);
    }
    return rc;
}

const char *cfg_source(const struct cfg *c)
{
    return buf_text(&c->text.text);
}

const char *cfg_path(const struct cfg *c)
{
    return c->path;
}
