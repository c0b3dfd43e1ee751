/* What the tokenizer tests share: tokenizers written as JSON in the test, results as text. */
#ifndef AST_TESTS_UNIT_TEST_TOK_H
#define AST_TESTS_UNIT_TEST_TOK_H

#include "tests/t.h"

#include "base/buf.h"
#include "base/err.h"
#include "text/tok_impl.h"

/* A tokenizer.json of parts; each is JSON text. */
struct parts {
    const char *normal, *pretok, *post, *decode, *added, *model; /* NULL: null, for added [] */
};

/* NULL with the sentence in err_text(). */
static inline struct tok *tok_of(const char *json)
{
    struct tok *t = calloc(1, sizeof *t);
    if (t && tok_read_json(t, json, strlen(json), "t.json")) {
        tok_close(t);
        t = NULL;
    }
    return t;
}

static inline struct tok *tok_of_parts(const struct parts *p)
{
    struct buf b = {0};
    buf_printf(
        &b,
        "{\"normalizer\": %s, \"pre_tokenizer\": %s, \"post_processor\": %s, \"decoder\": %s, \"added_tokens\": %s, \"model\": %s}",
        p->normal ? p->normal : "null", p->pretok ? p->pretok : "null", p->post ? p->post : "null", p->decode ? p->decode : "null",
        p->added ? p->added : "[]", p->model);
    struct tok *t = tok_of(buf_text(&b));
    if (!t) {
        T_FAIL("%s", err_text());
        err_clear();
    }
    buf_free(&b);
    return t;
}

/* The tokens of a text, as written in the vocabulary, with | between them; borrowed until the next call. */
static inline const char *tokens(const struct tok *t, const char *text, bool special)
{
    static char out[4096];
    struct tok_ids ids = {0};
    size_t at = 0;
    out[0] = '\0';
    if (!t || tok_encode(t, text, strlen(text), special, &ids)) {
        snprintf(out, sizeof out, "error: %s", err_text());
        err_clear();
    }
    for (int64_t i = 0; i < ids.n && at < sizeof out - 80; i++)
        at += (size_t)snprintf(out + at, sizeof out - at, "%s%.60s", i ? "|" : "", tok_token(t, ids.v[i]));
    tok_ids_free(&ids);
    return out;
}

/* The text of tokens given by name, -1 ended; borrowed until the next call. */
static inline const char *text_of(const struct tok *t, const char *const *names, bool skip)
{
    static char out[1024];
    int32_t ids[64];
    int64_t n = 0;
    struct buf b = {0};
    for (; names[n]; n++)
        ids[n] = tok_id(t, names[n]);
    int rc = tok_decode(t, ids, n, skip, &b);
    snprintf(out, sizeof out, "%s", rc ? err_text() : buf_text(&b));
    err_clear();
    buf_free(&b);
    return out;
}
#define TEXT_OF(t, skip, ...) text_of(t, (const char *const[]){__VA_ARGS__, NULL}, skip)

#endif
