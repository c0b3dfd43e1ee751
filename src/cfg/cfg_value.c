/* Typed values. */
#include "cfg/cfg_value.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "cfg/cfg.h"

static void *member(const struct cfg_field *f, void *opts)
{
    return (char *)opts + f->at;
}

static void show(const struct cfg_item *i, char *out, size_t cap)
{
    if (i->kind == CFG_ITEM_INT)
        snprintf(out, cap, "%lld", (long long)i->i);
    else if (i->kind == CFG_ITEM_REAL)
        snprintf(out, cap, "%.12g", i->r);
    else if (i->kind == CFG_ITEM_BOOL)
        snprintf(out, cap, "%s", i->i ? "true" : "false");
    else
        snprintf(out, cap, "\"%.200s\"", i->s);
}

static int wrong(const struct cfg_field *f, const struct cfg_found *v, const struct cfg_item *i, const char *need)
{
    char text[256];
    show(i, text, sizeof text);
    return err_set(ERR_ARG, "%s: %s = %s: %s is needed", v->where, f->name, text, need);
}

static int check_range(const struct cfg_field *f, const struct cfg_found *v, double x)
{
    if (x >= f->min && x <= f->max)
        return ERR_OK;
    return err_set(ERR_ARG, "%s: %s = %.12g is outside [%.12g, %.12g]", v->where, f->name, x, f->min, f->max);
}

static int to_int(const struct cfg_field *f, const struct cfg_found *v, const struct cfg_item *i, int64_t *out)
{
    if (i->kind == CFG_ITEM_REAL && fabs(i->r) <= 9007199254740992.0 && i->r == floor(i->r))
        *out = (int64_t)i->r;
    else if (i->kind == CFG_ITEM_INT)
        *out = i->i;
    else
        return wrong(f, v, i, "an integer");
    return check_range(f, v, (double)*out);
}

static int to_real(const struct cfg_field *f, const struct cfg_found *v, const struct cfg_item *i, double *out)
{
    if (i->kind != CFG_ITEM_INT && i->kind != CFG_ITEM_REAL)
        return wrong(f, v, i, "a number");
    *out = i->kind == CFG_ITEM_INT ? (double)i->i : i->r;
    return check_range(f, v, *out);
}

static int to_str(const struct cfg_field *f, const struct cfg_found *v, const struct cfg_item *i, const char **out,
                  cfg_alloc *alloc, void *owner)
{
    char *copy;
    if (i->kind != CFG_ITEM_STR)
        return wrong(f, v, i, "a string in double quotes");
    copy = alloc(owner, strlen(i->s) + 1);
    if (!copy)
        return err_set(ERR_NOMEM, "no memory for option %s", f->name);
    strcpy(copy, i->s);
    *out = copy;
    return ERR_OK;
}

/* The index of the word in "a|b|c", or -1. */
static int choice(const char *list, const char *w)
{
    size_t n = strlen(w);
    int k = 0;
    for (const char *s = list; s && *s; k++) {
        size_t m = strcspn(s, "|");
        if (m == n && !strncmp(s, w, n))
            return k;
        s += m + (s[m] == '|');
    }
    return -1;
}

static int to_enum(const struct cfg_field *f, const struct cfg_found *v, int *out)
{
    char need[256];
    int k = v->item[0].kind == CFG_ITEM_STR ? choice(f->choices, v->item[0].s) : -1;
    snprintf(need, sizeof need, "one of %s, in double quotes,", f->choices);
    if (k < 0)
        return wrong(f, v, &v->item[0], need);
    *out = k;
    return ERR_OK;
}

static int to_list(const struct cfg_field *f, void *opts, const struct cfg_found *v, cfg_alloc *alloc, void *owner)
{
    void *mem = alloc(owner, (size_t)(v->n ? v->n : 1) * 8);
    int rc = mem ? ERR_OK : err_set(ERR_NOMEM, "no memory for option %s", f->name);
    for (int k = 0; k < v->n && !rc; k++) {
        if (f->type == CFG_T_INTS)
            rc = to_int(f, v, &v->item[k], (int64_t *)mem + k);
        else if (f->type == CFG_T_REALS)
            rc = to_real(f, v, &v->item[k], (double *)mem + k);
        else
            rc = to_str(f, v, &v->item[k], (const char **)mem + k, alloc, owner);
    }
    if (rc)
        return rc;
    if (f->type == CFG_T_INTS)
        *(struct cfg_ints *)member(f, opts) = (struct cfg_ints){v->n, mem};
    else if (f->type == CFG_T_REALS)
        *(struct cfg_reals *)member(f, opts) = (struct cfg_reals){v->n, mem};
    else
        *(struct cfg_strs *)member(f, opts) = (struct cfg_strs){v->n, mem};
    return ERR_OK;
}

int cfg_value_set(const struct cfg_field *f, void *opts, const struct cfg_found *v, cfg_alloc *alloc, void *owner)
{
    if (f->type == CFG_T_INTS || f->type == CFG_T_REALS || f->type == CFG_T_STRS)
        return to_list(f, opts, v, alloc, owner);
    if (v->list || v->n != 1)
        return err_set(ERR_ARG, "%s: %s is a list, one value is needed", v->where, f->name);
    switch (f->type) {
    case CFG_T_INT: return to_int(f, v, v->item, member(f, opts));
    case CFG_T_REAL: return to_real(f, v, v->item, member(f, opts));
    case CFG_T_STR: return to_str(f, v, v->item, member(f, opts), alloc, owner);
    case CFG_T_ENUM: return to_enum(f, v, member(f, opts));
    default:
        if (v->item[0].kind != CFG_ITEM_BOOL)
            return wrong(f, v, v->item, "true or false (without quotes)");
        *(bool *)member(f, opts) = v->item[0].i != 0;
        return ERR_OK;
    }
}

/* "512, 2048" as items; the text must outlive them. */
static int parse_list(const struct cfg_field *f, char *text, struct cfg_item *item, int cap)
{
    int n = 0;
    for (char *s = strtok_r(text, ",", &text); s && n < cap; s = strtok_r(NULL, ",", &text)) {
        while (*s == ' ')
            s++;
        for (char *e = s + strlen(s); e > s && e[-1] == ' ';)
            *--e = '\0';
        item[n] = (struct cfg_item){.kind = f->type == CFG_T_STRS ? CFG_ITEM_STR : CFG_ITEM_REAL, .s = s, .r = strtod(s, NULL)};
        n++;
    }
    return n;
}

int cfg_value_set_default(const struct cfg_field *f, void *opts, cfg_alloc *alloc, void *owner)
{
    enum { MAX = 64 };
    struct cfg_item item[MAX];
    char text[1024];
    switch (f->type) {
    case CFG_T_INT: *(int64_t *)member(f, opts) = (int64_t)f->def_num; return ERR_OK;
    case CFG_T_REAL: *(double *)member(f, opts) = f->def_num; return ERR_OK;
    case CFG_T_BOOL: *(bool *)member(f, opts) = f->def_num != 0; return ERR_OK;
    case CFG_T_ENUM: *(int *)member(f, opts) = (int)f->def_num; return ERR_OK;
    case CFG_T_STR: *(const char **)member(f, opts) = f->def_str; return ERR_OK;
    default:
        snprintf(text, sizeof text, "%s", f->def_str ? f->def_str : "");
        int n = parse_list(f, text, item, MAX);
        return to_list(f, opts, &(struct cfg_found){.where = "default", .item = item, .n = n, .list = true}, alloc, owner);
    }
}

static int quote(struct buf *out, const char *s)
{
    int rc = buf_puts(out, "\"");
    for (; s && *s && !rc; s++)
        rc = *s == '"' || *s == '\\' ? buf_printf(out, "\\%c", *s) : *s == '\n' ? buf_puts(out, "\\n") : buf_add(out, s, 1);
    return rc ? rc : buf_puts(out, "\"");
}

static int integer(struct buf *out, int64_t v)
{
    return buf_printf(out, v > 2147483647 || v < -2147483647 ? "%lldL" : "%lld", (long long)v);
}

/* A real keeps its point, so that it is read as one. */
static int real(struct buf *out, double v)
{
    char text[40];
    snprintf(text, sizeof text, "%.17g", v);
    for (int digits = 6; digits < 17; digits++) {
        char shorter[40];
        snprintf(shorter, sizeof shorter, "%.*g", digits, v);
        if (strtod(shorter, NULL) == v) {
            strcpy(text, shorter);
            break;
        }
    }
    return buf_printf(out, "%s%s", text, strpbrk(text, ".en") ? "" : ".0");
}

static int list_text(const struct cfg_field *f, const void *p, struct buf *out)
{
    const struct cfg_ints *ints = p; /* the three lists look alike */
    int rc = buf_puts(out, "[");
    for (int64_t k = 0; k < ints->n && !rc; k++) {
        rc = k ? buf_puts(out, ", ") : ERR_OK;
        if (rc)
            break;
        if (f->type == CFG_T_INTS)
            rc = integer(out, ((const struct cfg_ints *)p)->v[k]);
        else if (f->type == CFG_T_REALS)
            rc = real(out, ((const struct cfg_reals *)p)->v[k]);
        else
            rc = quote(out, ((const struct cfg_strs *)p)->v[k]);
    }
    return rc ? rc : buf_puts(out, "]");
}

int cfg_value_text(const struct cfg_field *f, const void *opts, struct buf *out)
{
    const void *p = (const char *)opts + f->at;
    const char *s;
    switch (f->type) {
    case CFG_T_INT: return integer(out, *(const int64_t *)p);
    case CFG_T_REAL: return real(out, *(const double *)p);
    case CFG_T_BOOL: return buf_puts(out, *(const bool *)p ? "true" : "false");
    case CFG_T_STR: return quote(out, *(const char *const *)p);
    case CFG_T_ENUM:
        s = f->choices;
        for (int k = *(const int *)p; k > 0 && *s; k--)
            s += strcspn(s, "|") + 1;
        return buf_printf(out, "\"%.*s\"", (int)strcspn(s, "|"), s);
    default: return list_text(f, p, out);
    }
}

static void *take_memory(void *owner, size_t bytes)
{
    void **slot = owner; /* one list at most, then its strings: a chain */
    void **m = malloc(bytes + sizeof(void *));
    if (!m)
        return NULL;
    *m = *slot;
    *slot = m;
    return m + 1;
}

int cfg_value_default(const struct cfg_field *f, struct buf *out)
{
    union {
        int64_t i;
        double d;
        const char *s;
        struct cfg_ints list;
    } space;
    struct cfg_field g = *f;
    void *chain = NULL;
    memset(&space, 0, sizeof space);
    g.at = 0;
    int rc = cfg_value_set_default(&g, &space, take_memory, &chain);
    rc = rc ? rc : cfg_value_text(&g, &space, out);
    while (chain) {
        void *next = *(void **)chain;
        free(chain);
        chain = next;
    }
    return rc;
}
