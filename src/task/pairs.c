/* Pairs of words by attention. */
#include "task/pairs.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/err.h"
#include "model/model.h"
#include "model/trace.h"
#include "task/generate.h"
#include "text/tok.h"

void pairs_free(struct pairs *p)
{
    for (int64_t i = 0; p->generated && i < p->n_generated; i++)
        buf_free(&p->generated[i].text);
    for (int64_t i = 0; p->prompt && i < p->n_prompt; i++)
        buf_free(&p->prompt[i].text);
    free(p->generated);
    free(p->prompt);
    free(p->best);
    *p = (struct pairs){0};
}

/* ---- words ---- */

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/* Bytes of other scripts count as letters. */
static bool is_letter(char c)
{
    return (unsigned char)c >= 0x80 || (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');
}

static bool has_letter(const char *s)
{
    for (; *s; s++)
        if (is_letter(*s))
            return true;
    return false;
}

/* Does the token with this text begin a new word after one that ended with `last`? */
static bool begins(const char *text, char last)
{
    return !is_letter(text[0]) || !is_letter(last);
}

static int decode_word(const struct tok *tok, const struct tok_ids *ids, struct pair_word *w)
{
    struct buf b = {0};
    int rc = tok_decode(tok, ids->v + w->first, w->n, false, &b);
    const char *s = buf_text(&b);
    size_t n = b.len;
    while (n > 0 && is_space(*s))
        s++, n--;
    while (n > 0 && is_space(s[n - 1]))
        n--;
    rc = rc ? rc : buf_add(&w->text, s, n);
    w->named = has_letter(buf_text(&w->text));
    buf_free(&b);
    return rc;
}

static int split(const struct tok *tok, const struct tok_ids *ids, struct pair_word **out, int64_t *n_out)
{
    struct buf b = {0};
    char last = ' ';
    int rc = ERR_OK;
    *n_out = 0;
    *out = calloc((size_t)ids->n + 1, sizeof **out);
    if (!*out)
        return err_set(ERR_NOMEM, "out of memory for the words of %lld tokens", (long long)ids->n);
    for (int64_t i = 0; i < ids->n && rc == ERR_OK; i++) {
        buf_clear(&b);
        rc = tok_decode(tok, ids->v + i, 1, false, &b);
        if (*n_out == 0 || begins(buf_text(&b), last))
            (*out)[(*n_out)++].first = i;
        (*out)[*n_out - 1].n++;
        last = b.len > 0 ? b.data[b.len - 1] : ' ';
    }
    for (int64_t i = 0; i < *n_out && rc == ERR_OK; i++)
        rc = decode_word(tok, ids, &(*out)[i]);
    buf_free(&b);
    return rc;
}

/* ---- attention ---- */

size_t pairs_bytes(const struct model *m, int64_t prompt, int64_t made)
{
    int64_t keys = prompt + made, chunk = prompt < GENERATE_CHUNK ? prompt : GENERATE_CHUNK;
    size_t feed = model_feed_bytes(m, chunk, keys, 1) + arena_bytes(model_info(m)->vocab, sizeof(float)),
           trace = trace_bytes(m, keys);
    return arena_bytes(made * keys, sizeof(float)) + arena_bytes(made, sizeof(int32_t)) + (feed > trace ? feed : trace);
}

/* The prompt but for its last token. */
static int feed_prompt(const struct pairs_call *c, struct model_cache *cache)
{
    size_t mark = arena_mark(c->step);
    float *logits = ARENA_NEW(c->step, model_info(c->model)->vocab, float);
    int rc = logits ? ERR_OK : ERR_NOMEM;
    for (int64_t at = 0, n; at < c->prompt->n - 1 && rc == ERR_OK; at += n) {
        n = c->prompt->n - 1 - at < GENERATE_CHUNK ? c->prompt->n - 1 - at : GENERATE_CHUNK;
        const int64_t cut[2] = {0, n};
        struct model_batch b = {.n_seq = 1, .at = cut, .token = c->prompt->v + at};
        rc = model_feed(c->model, &cache, &b, logits, NULL, c->step);
    }
    arena_release(c->step, mark);
    return rc;
}

/* mass (made, keys): row i is the one that produced generated token i. */
static int attention(const struct pairs_call *c, float *mass, int64_t keys)
{
    struct model_cache *cache = NULL;
    int32_t *row = ARENA_NEW(c->step, c->made->n, int32_t);
    int rc = row ? model_cache_open(&cache, c->model, keys) : ERR_NOMEM;
    if (rc == ERR_OK)
        rc = feed_prompt(c, cache);
    if (rc == ERR_OK) {
        row[0] = c->prompt->v[c->prompt->n - 1];
        memcpy(row + 1, c->made->v, (size_t)(c->made->n - 1) * sizeof *row);
        rc = trace_run(c->model, cache, &(struct trace){.token = row, .n = c->made->n, .ld = keys, .mass = mass}, c->step);
    }
    model_cache_close(cache);
    return rc;
}

static double share(const struct pairs_call *c, const struct pair_word *g, const struct pair_word *p, const float *mass,
                    int64_t keys)
{
    double sum = 0;
    for (int64_t i = g->first; i < g->first + g->n; i++)
        for (int64_t j = p->first; j < p->first + p->n; j++)
            if (j > 0 && j != c->prompt->n - 1 + i)
                sum += (double)mass[i * keys + j];
    return sum / (double)g->n;
}

static int descending(const void *a, const void *b)
{
    const struct pair *x = a, *y = b;
    if (x->share != y->share)
        return x->share < y->share ? 1 : -1;
    return x->generated < y->generated ? -1 : x->generated > y->generated;
}

static void rank_pairs(struct pairs *out, const struct pairs_call *c, const float *mass, int64_t keys)
{
    for (int64_t g = 0; g < out->n_generated; g++) {
        struct pair best = {.share = -1};
        for (int64_t p = 0; p < out->n_prompt && out->generated[g].named; p++) {
            double s = out->prompt[p].named ? share(c, &out->generated[g], &out->prompt[p], mass, keys) : -1;
            if (s > best.share)
                best = (struct pair){g, p, s};
        }
        if (best.share > 0)
            out->best[out->n++] = best;
    }
    qsort(out->best, (size_t)out->n, sizeof *out->best, descending);
    out->n = out->n < c->most ? out->n : c->most;
}

int pairs_find(struct pairs *out, const struct pairs_call *c)
{
    int64_t keys = c->prompt->n + c->made->n;
    size_t mark = arena_mark(c->step);
    *out = (struct pairs){0};
    if (c->made->n == 0 || c->prompt->n == 0)
        return ERR_OK;
    float *mass = ARENA_NEW(c->step, c->made->n * keys, float);
    int rc = mass ? attention(c, mass, keys) : ERR_NOMEM;
    rc = rc ? rc : split(c->tok, c->made, &out->generated, &out->n_generated);
    rc = rc ? rc : split(c->tok, c->prompt, &out->prompt, &out->n_prompt);
    if (rc == ERR_OK) {
        out->best = calloc((size_t)out->n_generated + 1, sizeof *out->best);
        rc = out->best ? ERR_OK : err_set(ERR_NOMEM, "out of memory for pairs of words");
    }
    if (rc == ERR_OK)
        rank_pairs(out, c, mass, keys);
    else
        pairs_free(out);
    arena_release(c->step, mark);
    return rc;
}
