/* The pipeline and the public calls. */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/utf8.h"
#include "text/tok_impl.h"

int tok_open(struct tok **out, const char *dir)
{
    struct tok *t = calloc(1, sizeof *t);
    int rc = t ? tok_read(t, dir) : err_set(ERR_NOMEM, "out of memory for a tokenizer");
    if (rc == ERR_OK)
        *out = t;
    else
        tok_close(t);
    return rc;
}

void tok_close(struct tok *t)
{
    if (!t)
        return;
    bpe_close(t->bpe);
    words_free(&t->vocab);
    added_free(&t->added);
    steps_free(&t->normal);
    steps_free(&t->pretok);
    steps_free(&t->decode);
    post_free(&t->post);
    free(t->describe);
    free(t);
}

void tok_ids_free(struct tok_ids *ids)
{
    free(ids->v);
    *ids = (struct tok_ids){0};
}

int64_t tok_vocab(const struct tok *t)
{
    return t->size;
}

int32_t tok_id(const struct tok *t, const char *token)
{
    int32_t id = words_find(&t->added.words, token, strlen(token));
    return id >= 0 ? id : words_find(&t->vocab, token, strlen(token));
}

static const char *token_text(const struct tok *t, int32_t id, size_t *n)
{
    const char *s = words_text(&t->added.words, id, n);
    return s ? s : words_text(&t->vocab, id, n);
}

const char *tok_token(const struct tok *t, int32_t id)
{
    size_t n;
    return token_text(t, id, &n);
}

int32_t tok_bos(const struct tok *t)
{
    return t->post.before.n ? t->post.before.v[0] : -1;
}

const char *tok_describe(const struct tok *t)
{
    return t->describe;
}

const char *tok_sha256(const struct tok *t)
{
    return t->sha256;
}

/* ---- encode -------------------------------------------------------------------------------------------------------------- */

struct work { /* all that one call changes */
    struct regex_run *regex;
    struct normal_work normal;
    struct split split;
    struct bpe_work *bpe;
    struct segments raw, normalized;
    bool first; /* the segment at hand starts the text */
};

static void work_free(struct work *w)
{
    regex_run_free(w->regex);
    buf_free(&w->normal.buf[0]);
    buf_free(&w->normal.buf[1]);
    split_free(&w->split);
    bpe_work_free(w->bpe);
    free(w->raw.v);
    free(w->normalized.v);
}

/* Text without added tokens in it. */
static int encode_plain(const struct tok *t, struct work *w, const char *s, size_t n, struct tok_ids *out)
{
    const struct pieces *p = NULL;
    int got = 1, rc = pretok_run(&t->pretok, t->bytes, &w->split, s, n);
    while (rc == ERR_OK && (got = split_batch(&w->split, &p)) > 0)
        for (int64_t i = 0; i < p->n && rc == ERR_OK; i++)
            rc = bpe_encode(t->bpe, &w->bpe, w->split.text + p->v[i].at, p->v[i].n, out);
    return got < 0 ? got : rc;
}

/* Text between the tokens that are looked for in the raw text. */
static int encode_segment(const struct tok *t, struct work *w, const char *s, size_t n, struct tok_ids *out)
{
    int rc = normal_run(&t->normal, &w->regex, &w->normal, &s, &n);
    w->normalized.n = 0;
    if (rc == ERR_OK)
        rc = added_split(&t->added, t->added.normalized, s, n, &w->normalized);
    for (int64_t i = 0; i < w->normalized.n && rc == ERR_OK; i++) {
        const struct segment *g = &w->normalized.v[i];
        w->split.at_start = w->first && g->at == 0;
        rc = g->id >= 0 ? tok_ids_push(out, g->id) : encode_plain(t, w, s + g->at, g->n, out);
    }
    return rc;
}

static int append(struct tok_ids *out, const struct tok_ids *ids)
{
    int rc = ERR_OK;
    for (int64_t i = 0; i < ids->n && rc == ERR_OK; i++)
        rc = tok_ids_push(out, ids->v[i]);
    return rc;
}

int tok_encode(const struct tok *t, const char *s, size_t n, bool special, struct tok_ids *out)
{
    struct work w = {0};
    int64_t from = out->n;
    size_t bad = utf8_check(s, n);
    if (bad < n)
        return err_set(ERR_FORMAT, "the text is not UTF-8 at byte %zu (0x%02X) of %zu", bad, (unsigned char)s[bad], n);
    w.split.run = &w.regex;
    int rc = special ? append(out, &t->post.before) : ERR_OK;
    if (rc == ERR_OK)
        rc = added_split(&t->added, t->added.raw, s, n, &w.raw);
    for (int64_t i = 0; i < w.raw.n && rc == ERR_OK; i++) {
        const struct segment *g = &w.raw.v[i];
        w.first = g->at == 0;
        rc = g->id >= 0 ? tok_ids_push(out, g->id) : encode_segment(t, &w, s + g->at, g->n, out);
    }
    if (rc == ERR_OK && special)
        rc = append(out, &t->post.after);
    if (rc)
        out->n = from;
    work_free(&w);
    return rc;
}

/* ---- decode -------------------------------------------------------------------------------------------------------------- */

int tok_decode(const struct tok *t, const int32_t *ids, int64_t n, bool skip_special, struct buf *out)
{
    struct strings x = {0};
    int rc = ERR_OK;
    for (int64_t i = 0; i < n && rc == ERR_OK; i++) {
        size_t len;
        const char *s = words_text(&t->added.decoded, ids[i], &len);
        const struct added_token *k = added_by_id(&t->added, ids[i]);
        s = s ? s : token_text(t, ids[i], &len);
        if (!s)
            rc = err_set(ERR_ARG, "id %d (number %lld) is no token; ids go from 0 to %lld", ids[i], (long long)i,
                         (long long)t->size - 1);
        else if (!(k && k->special && skip_special)) {
            if (t->spaced && x.n)
                rc = buf_puts(&x.text, " ");
            if (rc == ERR_OK)
                rc = strings_push(&x, s, len);
        }
    }
    if (rc == ERR_OK)
        rc = decode_run(&t->decode, &x, out);
    strings_free(&x);
    return rc;
}
