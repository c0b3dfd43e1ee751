/* Batched decoding, one token a sequence and step; what beam search shares with it. */
#include "task/generate.h"

#include <string.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/rng.h"
#include "base/timer.h"
#include "model/model.h"
#include "task/decode.h"
#include "task/prompt.h"

/* ---- the end of a sequence ---- */

bool generate_is_eos(const struct generate_call *c, int32_t id)
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

int generate_stops(const struct generate_call *c, const int32_t *ids, int64_t n, bool *out)
{
    int64_t window = 0;
    struct buf text = {0};
    *out = false;
    for (int i = 0; i < c->n_stop; i++)
        window = (int64_t)strlen(c->stop[i]) > window ? (int64_t)strlen(c->stop[i]) : window;
    if (window == 0)
        return ERR_OK;
    /* A token has a byte at least; a few more, so that what a decoder does at its first token is out of the way. */
    window += 8;
    window = window < n ? window : n;
    int rc = tok_decode(c->tok, ids + n - window, window, true, &text);
    *out = rc == ERR_OK && find_stop(c, buf_text(&text)) >= 0;
    buf_free(&text);
    return rc;
}

int generate_hand_over(const struct generate_call *c, struct generate_seq *q, const int32_t *ids, int64_t n)
{
    struct buf text = {0};
    int rc = q->ids ? prompt_append(q->ids, ids, n) : ERR_OK;
    if (rc || !q->text)
        return rc;
    rc = tok_decode(c->tok, ids, n, true, &text);
    int64_t stop = rc ? -1 : find_stop(c, buf_text(&text));
    if (rc == ERR_OK)
        rc = buf_add(q->text, buf_text(&text), stop >= 0 ? (size_t)stop : text.len);
    buf_free(&text);
    return rc;
}

/* ---- a feed ---- */

static int64_t total_prompt(const struct generate_call *c)
{
    int64_t n = 0;
    for (int64_t i = 0; i < c->n_seq; i++)
        n += c->seq[i].n;
    return n;
}

static int64_t feed_tokens(int64_t parts, int64_t prompt_tokens)
{
    return parts + (prompt_tokens < GENERATE_CHUNK ? prompt_tokens : GENERATE_CHUNK);
}

int generate_step_open(struct generate_step *s, const struct generate_call *c, int64_t width)
{
    int64_t vocab = model_info(c->model)->vocab, parts = c->n_seq * width;
    s->cache = arena_alloc(c->step, parts, sizeof(struct model_cache *));
    s->at = ARENA_NEW(c->step, parts + 1, int64_t);
    s->who = ARENA_NEW(c->step, parts, int64_t);
    s->token = ARENA_NEW(c->step, feed_tokens(parts, total_prompt(c)), int32_t);
    s->logits = ARENA_NEW(c->step, parts * vocab, float);
    s->work = ARENA_NEW(c->step, vocab, struct decode_token);
    return s->cache && s->at && s->who && s->token && s->logits && s->work ? ERR_OK : ERR_NOMEM;
}

static size_t step_bytes(const struct model *m, int64_t parts, int64_t feed)
{
    int64_t vocab = model_info(m)->vocab;
    return arena_bytes(parts, sizeof(struct model_cache *)) + 2 * arena_bytes(parts + 1, sizeof(int64_t)) +
           arena_bytes(feed, sizeof(int32_t)) + arena_bytes(parts * vocab, sizeof(float)) +
           arena_bytes(vocab, sizeof(struct decode_token));
}

size_t generate_bytes(const struct model *m, const struct decode_opts *how, int64_t n_seq, int64_t tokens, int64_t longest)
{
    int64_t width = how && how->beam > 1 ? how->beam : 1, parts = n_seq * width, feed = feed_tokens(parts, tokens);
    size_t beams = width > 1 ? (size_t)parts * (arena_bytes(longest, sizeof(int32_t)) * 3 + 512) : 0;
    return (size_t)parts * model_cache_bytes(m, longest) + arena_bytes(n_seq, 256) + beams + step_bytes(m, parts, feed) +
           model_feed_bytes(m, feed, longest, parts);
}

void generate_step_begin(struct generate_step *s)
{
    s->n = 0;
    s->at[0] = 0;
    s->budget = GENERATE_CHUNK;
}

static void add_part(struct generate_step *s, int64_t tokens, struct model_cache *cache, int64_t who)
{
    s->cache[s->n] = cache;
    s->who[s->n] = who;
    s->at[s->n + 1] = s->at[s->n] + tokens;
    s->n++;
}

void generate_step_prompt(struct generate_step *s, const struct generate_seq *q, int64_t *fed, struct model_cache *cache,
                          int64_t who)
{
    int64_t take = q->n - *fed < s->budget ? q->n - *fed : s->budget;
    if (take == 0)
        return;
    memcpy(s->token + s->at[s->n], q->prompt + *fed, (size_t)take * sizeof *s->token);
    *fed += take;
    s->budget -= take;
    add_part(s, take, cache, who);
}

void generate_step_token(struct generate_step *s, int32_t token, struct model_cache *cache, int64_t who)
{
    s->token[s->at[s->n]] = token;
    add_part(s, 1, cache, who);
}

int generate_step_feed(struct generate_step *s, const struct generate_call *c)
{
    struct model_batch b = {.n_seq = s->n, .at = s->at, .token = s->token};
    struct model_out out = {.logits = s->logits, .timer = c->timer, .stats = c->stats};
    return model_advance(c->model, s->cache, &b, &out, c->step);
}

/* ---- one token a sequence and step ---- */

struct run { /* one sequence on its way */
    struct model_cache *cache;
    int64_t fed;         /* prompt tokens that the cache holds */
    int32_t last;        /* the token to feed next, once the prompt is through */
    struct tok_ids made; /* without EOS */
    bool done;
};

static int32_t choose(const struct generate_call *c, const struct generate_seq *q, struct generate_step *s, int64_t part)
{
    int64_t vocab = model_info(c->model)->vocab;
    const float *logits = s->logits + part * vocab;
    if (!c->how || !(c->how->temperature > 0))
        return decode_best(logits, vocab);
    return decode_draw(c->how, logits, vocab, rng_uniform(c->seed, (uint64_t)q->id, (uint64_t)q->made), s->work);
}

/* Takes the next token; ends the sequence where it is due. */
static int take(const struct generate_call *c, struct generate_seq *q, struct run *r, int32_t id)
{
    bool eos = generate_is_eos(c, id), stop = false;
    if (q->made++ == 0)
        q->first_s = timer_now() - c->begin_s;
    r->last = id;
    int rc = eos ? ERR_OK : prompt_append(&r->made, &id, 1);
    if (rc == ERR_OK && !eos)
        rc = generate_stops(c, r->made.v, r->made.n, &stop);
    r->done = eos || stop || q->made >= q->max_new;
    if (rc || !r->done)
        return rc;
    model_cache_close(r->cache);
    r->cache = NULL;
    return generate_hand_over(c, q, r->made.v, r->made.n);
}

static int loop(const struct generate_call *c, struct generate_step *s, struct run *r)
{
    for (int rc = ERR_OK;;) {
        generate_step_begin(s);
        for (int64_t i = 0; i < c->n_seq; i++) {
            if (r[i].done)
                continue;
            if (r[i].fed < c->seq[i].n)
                generate_step_prompt(s, &c->seq[i], &r[i].fed, r[i].cache, i);
            else
                generate_step_token(s, r[i].last, r[i].cache, i);
        }
        if (s->n == 0)
            return ERR_OK;
        rc = generate_step_feed(s, c);
        for (int64_t k = 0; k < s->n && rc == ERR_OK; k++) {
            int64_t i = s->who[k];
            if (r[i].fed == c->seq[i].n)
                rc = take(c, &c->seq[i], &r[i], choose(c, &c->seq[i], s, k));
        }
        if (rc)
            return rc;
    }
}

int generate_run(struct generate_call *c)
{
    struct generate_step s = {0};
    if (c->how && c->how->beam > 1)
        return generate_beam(c);
    c->begin_s = timer_now();
    size_t mark = arena_mark(c->step);
    struct run *r = ARENA_NEW0(c->step, c->n_seq, struct run);
    int rc = r ? generate_step_open(&s, c, 1) : ERR_NOMEM;
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
