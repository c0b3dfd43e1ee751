/* JSON through jansson. A struct json is a json_t under another name, so a lookup costs what jansson's costs.
 * Five enumerators and two functions of jansson.h are called as ours are: they are renamed while it is read. */
#define JSON_OBJECT JANSSON_OBJECT
#define JSON_ARRAY JANSSON_ARRAY
#define JSON_STRING JANSSON_STRING
#define JSON_REAL JANSSON_REAL
#define JSON_NULL JANSSON_NULL
#define json_real jansson_real
#define json_string jansson_string
#include <jansson.h>
#undef JSON_OBJECT
#undef JSON_ARRAY
#undef JSON_STRING
#undef JSON_REAL
#undef JSON_NULL
#undef json_real
#undef json_string

#include "io/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/utf8.h"

struct json_doc {
    json_t *root;
    char *name;
};

static json_t *raw(const struct json *v)
{
    return (json_t *)v;
}

static const struct json *wrap(const json_t *v)
{
    return (const struct json *)v;
}

/* Whether c can stand inside a JSON number. */
static bool numeric(char c)
{
    return (c >= '0' && c <= '9') || c == '-' || c == '+' || c == '.' || c == 'e' || c == 'E';
}

/* Appends text to out; integers of 19 digits and more, which may be beyond int64, get "e0", and are reals then. */
static int soften(struct buf *out, const char *text, size_t n)
{
    bool quoted = false;
    size_t from = 0, i = 0;
    int rc = ERR_OK;
    while (rc == ERR_OK && i < n) {
        size_t start = i;
        bool whole = true;
        if (quoted || !numeric(text[i])) {
            if (quoted && text[i] == '\\')
                i++;
            else if (text[i] == '"')
                quoted = !quoted;
            i++;
            continue;
        }
        for (; i < n && numeric(text[i]); i++)
            whole = whole && text[i] != '.' && text[i] != 'e' && text[i] != 'E';
        if (!whole || i - start < 19)
            continue;
        rc = buf_add(out, text + from, i - from);
        if (rc == ERR_OK)
            rc = buf_puts(out, "e0");
        from = i;
    }
    return rc ? rc : buf_add(out, text + from, n - from);
}

/* jansson's message quotes what it read: control characters have no place in a sentence. */
static int parse_error(const json_error_t *e, const char *name)
{
    char why[JSON_ERROR_TEXT_LENGTH];
    snprintf(why, sizeof why, "%s", e->text);
    for (char *p = why; *p; p++)
        if ((unsigned char)*p < 32 || *p == 127)
            *p = ' ';
    if (json_error_code(e) == json_error_out_of_memory)
        return err_set(ERR_NOMEM, "%s: out of memory reading JSON", name);
    if (e->line < 1)
        return err_set(ERR_FORMAT, "%s: not JSON: %s", name, why);
    return err_set(ERR_FORMAT, "%s:%d:%d: not JSON: %s", name, e->line, e->column, why);
}

int json_parse(struct json_doc **out, const char *text, size_t n, const char *name)
{
    const size_t flags = JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL;
    struct buf soft = {0};
    json_error_t e;
    int rc = ERR_OK;
    struct json_doc *d = calloc(1, sizeof *d);
    *out = NULL;
    if (d)
        d->name = strdup(name);
    if (!d || !d->name) {
        rc = err_set(ERR_NOMEM, "%s: out of memory", name);
        goto out;
    }
    d->root = json_loadb(text, n, flags, &e);
    if (!d->root && json_error_code(&e) == json_error_numeric_overflow) {
        rc = soften(&soft, text, n);
        if (rc)
            goto out;
        d->root = json_loadb(soft.data, soft.len, flags, &e);
    }
    if (!d->root) {
        rc = parse_error(&e, name);
        goto out;
    }
    *out = d;
    d = NULL;
out:
    json_close(d);
    buf_free(&soft);
    return rc;
}

int json_read(struct json_doc **out, const char *path)
{
    struct buf text = {0};
    *out = NULL;
    int rc = buf_read_file(&text, path, 0);
    /* A byte-order mark may be ignored (RFC 8259, section 8.1): some Windows programs write one. */
    size_t mark = text.len >= 3 && !memcmp(buf_text(&text), "\xef\xbb\xbf", 3) ? 3 : 0;
    if (rc == ERR_OK)
        rc = json_parse(out, buf_text(&text) + mark, text.len - mark, path);
    buf_free(&text);
    return rc;
}

void json_close(struct json_doc *d)
{
    if (!d)
        return;
    json_decref(d->root);
    free(d->name);
    free(d);
}

const char *json_name(const struct json_doc *d)
{
    return d->name;
}

const struct json *json_root(const struct json_doc *d)
{
    return wrap(d->root);
}

enum json_kind json_kind(const struct json *v)
{
    if (!v)
        return JSON_NULL;
    switch (json_typeof(raw(v))) {
    case JANSSON_OBJECT: return JSON_OBJECT;
    case JANSSON_ARRAY: return JSON_ARRAY;
    case JANSSON_STRING: return JSON_STRING;
    case JSON_INTEGER: return JSON_INT;
    case JANSSON_REAL: return JSON_REAL;
    case JSON_TRUE:
    case JSON_FALSE: return JSON_BOOL;
    default: return JSON_NULL;
    }
}

const struct json *json_get(const struct json *object, const char *key)
{
    const struct json *v = wrap(json_object_get(raw(object), key));
    return json_kind(v) == JSON_NULL ? NULL : v;
}

const struct json *json_path(const struct json *object, const char *dotted)
{
    const struct json *v = json_get(object, dotted);
    const char *dot = v ? NULL : strchr(dotted, '.');
    if (!dot)
        return v;
    const json_t *inner = json_object_getn(raw(object), dotted, (size_t)(dot - dotted));
    return inner ? json_path(wrap(inner), dot + 1) : NULL;
}

int64_t json_len(const struct json *v)
{
    switch (json_kind(v)) {
    case JSON_ARRAY: return (int64_t)json_array_size(raw(v));
    case JSON_OBJECT: return (int64_t)json_object_size(raw(v));
    case JSON_STRING: return (int64_t)json_string_length(raw(v));
    default: return 0;
    }
}

const struct json *json_at(const struct json *array, int64_t i)
{
    return i < 0 ? NULL : wrap(json_array_get(raw(array), (size_t)i));
}

const char *json_str(const struct json *v)
{
    return json_string_value(raw(v));
}

bool json_as_int(const struct json *v, int64_t *out)
{
    if (json_kind(v) == JSON_INT) {
        *out = json_integer_value(raw(v));
        return true;
    }
    if (json_kind(v) != JSON_REAL)
        return false;
    double x = json_real_value(raw(v));
    if (!(x >= -0x1p63 && x < 0x1p63) || x != floor(x))
        return false;
    *out = (int64_t)x;
    return true;
}

bool json_as_real(const struct json *v, double *out)
{
    if (json_kind(v) != JSON_INT && json_kind(v) != JSON_REAL)
        return false;
    *out = json_number_value(raw(v));
    return true;
}

bool json_as_bool(const struct json *v, bool *out)
{
    if (json_kind(v) != JSON_BOOL)
        return false;
    *out = json_typeof(raw(v)) == JSON_TRUE;
    return true;
}

void *json_first(const struct json *object)
{
    return json_object_iter(raw(object));
}

void *json_next(const struct json *object, void *it)
{
    return json_object_iter_next(raw(object), it);
}

const char *json_key(void *it)
{
    return json_object_iter_key(it);
}

const struct json *json_value(void *it)
{
    return wrap(json_object_iter_value(it));
}

/* "\"abc\" is a string", "12 is an integer", for the sentences below. */
static void describe(const struct json *v, char *out, size_t cap)
{
    bool yes = false;
    switch (json_kind(v)) {
    case JSON_NULL: snprintf(out, cap, "null"); break;
    case JSON_BOOL:
        json_as_bool(v, &yes);
        snprintf(out, cap, "%s is true or false", yes ? "true" : "false");
        break;
    case JSON_INT: snprintf(out, cap, "%lld", (long long)json_integer_value(raw(v))); break;
    case JSON_REAL: snprintf(out, cap, "%.17g", json_real_value(raw(v))); break;
    case JSON_STRING: snprintf(out, cap, "\"%.40s\" is a string", json_str(v)); break;
    case JSON_ARRAY: snprintf(out, cap, "an array of %lld", (long long)json_len(v)); break;
    case JSON_OBJECT: snprintf(out, cap, "an object of %lld keys", (long long)json_len(v)); break;
    }
}

static int wrong(const struct json_doc *d, const char *key, const struct json *v, const char *need)
{
    char is[128];
    describe(v, is, sizeof is);
    return err_set(ERR_FORMAT, "%s: %s = %s, %s is needed", d->name, key, is, need);
}

int json_int_req(const struct json_doc *d, const struct json *o, const char *key, int64_t min, int64_t max, int64_t *out)
{
    char need[96];
    int64_t x;
    const struct json *v = json_path(o, key);
    snprintf(need, sizeof need, "an integer from %lld to %lld", (long long)min, (long long)max);
    if (!v)
        return err_set(ERR_FORMAT, "%s: %s is missing, %s is needed", d->name, key, need);
    if (!json_as_int(v, &x) || x < min || x > max)
        return wrong(d, key, v, need);
    *out = x;
    return ERR_OK;
}

int json_int(const struct json_doc *d, const struct json *o, const char *key, int64_t def, int64_t min, int64_t max, int64_t *out)
{
    if (json_path(o, key))
        return json_int_req(d, o, key, min, max, out);
    *out = def;
    return ERR_OK;
}

int json_real(const struct json_doc *d, const struct json *o, const char *key, double def, double min, double max, double *out)
{
    char need[96];
    double x;
    const struct json *v = json_path(o, key);
    if (!v) {
        *out = def;
        return ERR_OK;
    }
    snprintf(need, sizeof need, "a number from %g to %g", min, max);
    if (!json_as_real(v, &x) || !(x >= min && x <= max))
        return wrong(d, key, v, need);
    *out = x;
    return ERR_OK;
}

int json_bool(const struct json_doc *d, const struct json *o, const char *key, bool def, bool *out)
{
    const struct json *v = json_path(o, key);
    *out = def;
    if (v && !json_as_bool(v, out))
        return wrong(d, key, v, "true or false");
    return ERR_OK;
}

int json_string(const struct json_doc *d, const struct json *o, const char *key, const char *def, const char **out)
{
    const struct json *v = json_path(o, key);
    *out = def;
    if (!v)
        return ERR_OK;
    if (!json_str(v))
        return wrong(d, key, v, "a string");
    *out = json_str(v);
    return ERR_OK;
}

int json_quote(struct buf *out, const char *s, size_t n)
{
    int rc = buf_puts(out, "\"");
    for (size_t i = 0; rc == ERR_OK && i < n;) {
        uint32_t cp = 0;
        int len = utf8_decode(s + i, n - i, &cp);
        if (len == 0)
            rc = buf_puts(out, "\\ufffd"); /* not UTF-8: JSON has no way to say it */
        else if (cp == '"' || cp == '\\')
            rc = buf_printf(out, "\\%c", (char)cp);
        else if (cp < 32)
            rc = cp == '\n' ? buf_puts(out, "\\n") : buf_printf(out, "\\u%04x", (unsigned)cp);
        else
            rc = buf_add(out, s + i, (size_t)len);
        i += len ? (size_t)len : 1;
    }
    return rc ? rc : buf_puts(out, "\"");
}
