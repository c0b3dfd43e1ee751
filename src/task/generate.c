/* Batched greedy decoding. */
#include "task/generate.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "model/model.h"

struct run { /* one sequence on its way */
    struct model_cache *cache;
    int64_t fed;         /* prompt tokens that the cache holds */
    int32_t last;        /* the token to feed next, once the prompt is through */
    struct tok_ids made; /* without EOS */
    bool done;
};

struct step { /* one feed */
    struct model_cache **cache;
    int64_t *at, *who; /* (n + 1,), (n,) sequence of each part */
    int32_t *token;
    float *logits; /* (n, vocab) */
    int64_t n;
};

static int64_t total_prompt(const struct generate_call *c)
{
    int64_t n = 0;
    for (int64_t i = 0; i < c->n_seq; i++)
        n += c->seq[i].n;
    return n;
}

static int64_t feed_tokens(int64_t n_seq, int64_t prompt_tokens)
{
    return n_seq + (prompt_tokens < GENERATE_CHUNK ? prompt_tokens : GENERATE_CHUNK);
}

static int open_step(struct step *s, const struct generate_call *c)
{
    int64_t vocab = model_info(c->model)->vocab;
    s->cache = arena_alloc(c->step, c->n_seq, sizeof(struct model_cache *));
    s->at = ARENA_NEW(c->step, c->n_seq + 1, int64_t);
    s->who = ARENA_NEW(c->step, c->n_seq, int64_t);
    s->token = ARENA_NEW(c->step, feed_tokens(c->n_seq, total_prompt(c)), int32_t);
    s->logits = ARENA_NEW(c->step, c->n_seq * vocab, float);
    return s->cache && s->at && s->who && s->token && s->logits ? ERR_OK : ERR_NOMEM;
}

size_t generate_bytes(const struct model *m, int64_t n_seq, int64_t tokens, int64_t longest)
{
    int64_t feed = feed_tokens(n_seq, tokens);
    size_t caches = (size_t)n_seq * model_cache_bytes(m, longest);
    return caches + arena_bytes(n_seq, sizeof(struct run)) + arena_bytes(n_seq, sizeof(struct model_cache *)) +
           2 * arena_bytes(n_seq + 1, sizeof(int64_t)) + arena_bytes(feed, sizeof(int32_t)) +
           arena_bytes(n_seq * model_info(m)->vocab, sizeof(float)) + model_feed_bytes(m, feed, longest, n_seq);
}

/* What every sequence has ready, prompts within the budget. */
static void fill(struct step *s, const struct generate_call *c, struct run *r)
{
    int64_t budget = GENERATE_CHUNK, n = 0;
    s->n = 0;
    s->at[0] = 0;
    for (int64_t i = 0; i < c->n_seq; i++) {
        const struct generate_seq *q = &c->seq[i];
        int64_t take = q->n - r[i].fed;
        if (r[i].done)
            continue;
        if (take > 0) {
            take = take < budget ? take : budget;
            if (take == 0)
                continue;
            memcpy(s->token + n, q->prompt + r[i].fed, (size_t)take * sizeof *s->token);
            r[i].fed += take;
            budget -= take;
            n += take;
        } else {
            s->token[n++] = r[i].last;
        }
        s->cache[s->n] = r[i].cache;
        s->who[s->n] = i;
        s->at[++s->n] = n;
    }
}

static int32_t best(const float *logits, int64_t vocab)
{
    int64_t k = 0;
    for (int64_t v = 1; v < vocab; v++)
        if (logits[v] > logits[k] || logits[k] != logits[k])
            k = v;
    return (int32_t)k;
}

static bool is_eos(const struct generate_call *c, int32_t id)
{
    for (int64_t i = 0; i < c->n_eos; i++)
        if (c->eos[i] == id)
            return true;
    return false;
}

/* Where the earliest stop string begins; -1: nowhere. */
static int64_t find_stop(const struct generate_call *c, const char *text)
{
    int64_t at = -1;
    for (int i = 0; i < c->n_stop; i++) {
        const char *hit = c->stop[i][0] ? strstr(text, c->stop[i]) : NULL;
        if (hit && (at < 0 || hit - text < at))
            at = hit - text;
    }
    return at;
}

/* Takes the next token; ends the sequence where it is due and then writes its text. */
static int take(const struct generate_call *c, int64_t i, struct run *r, int32_t id)
{
    struct generate_seq *q = &c->seq[i];
    struct buf text = {0};
    int rc = ERR_OK;
    q->made++;
    r->last = id;
    r->done = is_eos(c, id) || q->made >= q->max_new;
    if (!is_eos(c, id)) {
        if (r->made.n == r->made.cap) {
            int64_t cap = r->made.cap ? 2 * r->made.cap : 64;
            int32_t *v = realloc(r->made.v, (size_t)cap * sizeof *v);
            if (!v)
                return err_set(ERR_NOMEM, "out of memory for generated tokens");
            r->made.v = v;
            r->made.cap = cap;
        }
        r->made.v[r->made.n++] = id;
    }
    if (!r->done && c->n_stop == 0)
        return ERR_OK;
    rc = tok_decode(c->tok, r->made.v, r->made.n, true, &text);
    int64_t stop = rc ? -1 : find_stop(c, buf_text(&text));
    r->done = r->done || stop >= 0;
    if (rc == ERR_OK && r->done && q->text)
        rc = buf_add(q->text, buf_text(&text), stop >= 0 ? (size_t)stop : text.len);
    if (r->done) {
        model_cache_close(r->cache);
        r->cache = NULL;
    }
    buf_free(&text);
    return rc;
}

static int loop(const struct generate_call *c, struct step *s, struct run *r)
{
    int64_t vocab = model_info(c->model)->vocab;
    for (fill(s, c, r); s->n > 0; fill(s, c, r)) {
        struct model_batch b = {.n_seq = s->n, .at = s->at, .token = s->token};
        struct model_out out = {.logits = s->logits, .timer = c->timer, .stats = c->stats};
        int rc = model_advance(c->model, s->cache, &b, &out, c->step);
        for (int64_t k = 0; k < s->n && rc == ERR_OK; k++) {
            int64_t i = s->who[k];
            if (r[i].fed == c->seq[i].n)
                rc = take(c, i, &r[i], best(s->logits + k * vocab, vocab));
        }
        if (rc)
            return rc;
    }
    return ERR_OK;
}

int generate_greedy(struct generate_call *c)
{
    struct step s = {0};
    size_t mark = arena_mark(c->step);
    struct run *r = ARENA_NEW0(c->step, c->n_seq, struct run);
    int rc = r ? open_step(&s, c) : ERR_NOMEM;
    for (int64_t i = 0; i < c->n_seq && rc == ERR_OK; i++) {
        struct generate_seq *q = &c->seq[i];
        q->made = 0;
        r[i].done = q->max_new < 1;
        if (q->n < 1)
            rc = err_set(ERR_ARG, "prompt %lld is empty", (long long)i);
        else if (!r[i].done)
            rc = model_cache_open(&r[i].cache, c->model, q->n + q->max_new);
    }
    if (rc == ERR_OK)
        rc = loop(c, &s, r);
    for (int64_t i = 0; r && i < c->n_seq; i++) {
        model_cache_close(r[i].cache);
        tok_ids_free(&r[i].made);
    }
    arena_release(c->step, mark);
    return rc;
}
