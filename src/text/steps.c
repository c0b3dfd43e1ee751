/* Lists of components: each table says what it is called and which there are; Sequences are flattened. */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "text/tok_impl.h"

int step_list(struct buf *out, const struct step_table *t)
{
    int rc = ERR_OK;
    for (int i = 0; i < t->n && rc == ERR_OK; i++)
        rc = buf_printf(out, "%s%s", i ? ", " : "", t->kind[i].name);
    return rc;
}

int step_text(const struct json_doc *d, const struct json *o, const char *key, struct step *s)
{
    const struct json *v = json_get(o, key);
    const char *text = v ? json_str(v) : NULL;
    if (!text)
        return err_set(ERR_FORMAT, "%s: %s needs the string \"%s\"", json_name(d), s->kind->name, key);
    s->text_n = (size_t)json_len(v);
    s->text = malloc(s->text_n + 1);
    if (!s->text)
        return err_set(ERR_NOMEM, "out of memory for a component of a tokenizer");
    memcpy(s->text, text, s->text_n);
    s->text[s->text_n] = '\0';
    return ERR_OK;
}

int step_char(const struct json_doc *d, const struct json *o, const char *key, struct step *s)
{
    int rc = step_text(d, o, key, s);
    if (rc == ERR_OK && (s->text_n == 0 || (size_t)char_next(s->text, &s->cp) != s->text_n))
        rc =
            err_set(ERR_FORMAT, "%s: %s's \"%s\" is \"%.40s\", one character is needed", json_name(d), s->kind->name, key, s->text);
    return rc;
}

static int unknown(const struct step_table *t, const struct json_doc *d, const char *name)
{
    struct buf have = {0};
    step_list(&have, t);
    int rc = err_set(ERR_FORMAT, "%s: the %s '%.60s' is not supported; there are %s, Sequence", json_name(d), t->what, name,
                     buf_text(&have));
    buf_free(&have);
    return rc;
}

static int parse_one(struct steps *out, const struct step_table *t, const struct json_doc *d, const struct json *o,
                     const char *type)
{
    const struct step_kind *kind = NULL;
    for (int i = 0; i < t->n; i++)
        if (strcmp(t->kind[i].name, type) == 0)
            kind = &t->kind[i];
    if (!kind)
        return unknown(t, d, type);
    int rc = tok_grow(&out->v, &out->cap, out->n + 1, sizeof *out->v);
    if (rc)
        return rc;
    struct step *s = &out->v[out->n++];
    *s = (struct step){.kind = kind};
    return kind->parse ? kind->parse(d, o, s) : ERR_OK;
}

static int parse(struct steps *out, const struct step_table *t, const struct json_doc *d, const struct json *o, int depth)
{
    const char *type = NULL;
    if (!o || json_kind(o) == JSON_NULL)
        return ERR_OK;
    int rc = json_kind(o) == JSON_OBJECT ? json_string(d, o, "type", NULL, &type) : ERR_OK;
    if (rc)
        return rc;
    if (!type)
        return err_set(ERR_FORMAT, "%s: a %s must be an object with a \"type\"", json_name(d), t->what);
    if (strcmp(type, "Sequence") != 0)
        return parse_one(out, t, d, o, type);
    const struct json *list = json_get(o, t->children);
    if (!list || json_kind(list) != JSON_ARRAY)
        return err_set(ERR_FORMAT, "%s: a Sequence needs the list \"%s\"", json_name(d), t->children);
    if (depth >= TOK_DEPTH)
        return err_set(ERR_FORMAT, "%s: %s: more than %d Sequences in each other", json_name(d), t->what, TOK_DEPTH);
    for (int64_t i = 0; i < json_len(list) && rc == ERR_OK; i++) {
        const struct json *child = json_at(list, i);
        rc = !child || json_kind(child) != JSON_OBJECT
                 ? err_set(ERR_FORMAT, "%s: element %lld of \"%s\" is not an object", json_name(d), (long long)i, t->children)
                 : parse(out, t, d, child, depth + 1);
    }
    return rc;
}

int steps_parse(struct steps *out, const struct step_table *t, const struct json_doc *d, const struct json *o)
{
    return parse(out, t, d, o, 0);
}

void steps_free(struct steps *s)
{
    for (int64_t i = 0; i < s->n; i++) {
        pattern_free(&s->v[i].find);
        free(s->v[i].text);
    }
    free(s->v);
    *s = (struct steps){0};
}

int steps_names(const struct steps *s, struct buf *out)
{
    int rc = s->n ? ERR_OK : buf_puts(out, "none");
    for (int64_t i = 0; i < s->n && rc == ERR_OK; i++)
        rc = buf_printf(out, "%s%s", i ? " + " : "", s->v[i].kind->name);
    return rc;
}
