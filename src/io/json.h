/* Our door to the JSON library (jansson): strict parsing (no duplicate keys, UTF-8 checked), typed getters whose errors
 * name the file, the key, what stands there and what was expected. Values are borrowed from the document. */
#ifndef AST_IO_JSON_H
#define AST_IO_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json;     /* a value inside a document; opaque */
struct json_doc; /* owns its values */

enum json_kind { JSON_NULL, JSON_BOOL, JSON_INT, JSON_REAL, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

/* name: what errors call it (a path). ERR_IO, ERR_FORMAT with line and column. A file may
 * begin with a byte-order mark. */
int json_read(struct json_doc **out, const char *path);
int json_parse(struct json_doc **out, const char *text, size_t n, const char *name);
void json_close(struct json_doc *d); /* NULL is fine */
const char *json_name(const struct json_doc *d);
const struct json *json_root(const struct json_doc *d);

/* Plain access; NULL / false where absent. A JSON null counts as absent in json_get and the typed getters. */
enum json_kind json_kind(const struct json *v);
const struct json *json_get(const struct json *object, const char *key);
const struct json *json_path(const struct json *object, const char *dotted); /* "rope_parameters.rope_theta" */
int64_t json_len(const struct json *v);                          /* elements of an array or object, bytes of a string, else 0 */
const struct json *json_at(const struct json *array, int64_t i); /* O(1) */
const char *json_str(const struct json *v);                      /* NULL unless a string; may hold NUL bytes: json_len */
bool json_as_int(const struct json *v, int64_t *out);            /* whole reals count */
bool json_as_real(const struct json *v, double *out);
bool json_as_bool(const struct json *v, bool *out);

/* for (void *it = json_first(o); it; it = json_next(o, it)) { json_key(it), json_value(it) } */
void *json_first(const struct json *object);
void *json_next(const struct json *object, void *it);
const char *json_key(void *it);
const struct json *json_value(void *it);

/* Typed getters with a default: absent or null gives def; a wrong type or a value outside [min, max] is ERR_FORMAT:
 * "config.json: hidden_size = "abc" is a string, an integer from 1 to 1e9 is needed". key may be dotted. */
int json_int(const struct json_doc *d, const struct json *o, const char *key, int64_t def, int64_t min, int64_t max, int64_t *out);
int json_real(const struct json_doc *d, const struct json *o, const char *key, double def, double min, double max,
              double *out) __asm__("ast_json_real"); /* jansson exports a json_real and calls it: ours must not get in its way */
int json_bool(const struct json_doc *d, const struct json *o, const char *key, bool def, bool *out);
int json_string(const struct json_doc *d, const struct json *o, const char *key, const char *def,
                const char **out) __asm__("ast_json_string");
/* As json_int, but absent is an error. */
int json_int_req(const struct json_doc *d, const struct json *o, const char *key, int64_t min, int64_t max, int64_t *out);

/* "text" with quotes and escapes, appended. */
struct buf;
int json_quote(struct buf *out, const char *s, size_t n);

#endif
