/* Beam search: each sequence keeps up to K live beams, a cache each, and the K best finished hypotheses.
 *
 *     prompt ──chunks──► cache 0 ──first step──► K caches, copies        live:      ids, sum
 *                                                  │ each step            finished:  ids, worth = sum / length ^ penalty
 *     children of a beam: the first keeps its cache, the others take copies in caches whose beam had none */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/timer.h"
#include "model/model.h"
#include "task/decode.h"
#include "task/generate.h"

struct beam {
    double sum;
    struct model_cache *cache;
    int32_t *ids; /* (max_new,) */
};

struct hypothesis {
    double worth;
    int64_t n;    /* without EOS */
    int32_t *ids; /* (max_new,) */
};

struct candidate {
    double sum;
    int64_t beam;
    int32_t id;
};

struct search { /* one sequence */
    int64_t fed, made, n_live, n_done;
    struct beam *live;             /* (K,) */
    struct hypothesis *done;       /* (K,) best first */
    struct candidate *best, *next; /* (2K,); (K,) */
    int32_t *old;                  /* (K, max_new) ids of the beams before a step */
    bool over;
};

static int open_search(struct search *s, const struct generate_call *c, const struct generate_seq *q, int64_t width)
{
    *s = (struct search){.over = q->max_new < 1, .n_live = 1};
    if (q->n < 1)
        return err_set(ERR_ARG, "a prompt is empty");
    if (s->over)
        return ERR_OK;
    s->live = ARENA_NEW0(c->step, width, struct beam);
    s->done = ARENA_NEW0(c->step, width, struct hypothesis);
    s->best = ARENA_NEW(c->step, 2 * width, struct candidate);
    s->next = ARENA_NEW(c->step, width, struct candidate);
    int32_t *ids = ARENA_NEW(c->step, 3 * width * q->max_new, int32_t);
    if (!s->live || !s->done || !s->best || !s->next || !ids)
        return ERR_NOMEM;
    for (int64_t k = 0; k < width; k++) {
        s->live[k].ids = ids + k * q->max_new;
        s->done[k].ids = ids + (width + k) * q->max_new;
    }
    s->old = ids + 2 * width * q->max_new;
    return model_cache_open(&s->live[0].cache, c->model, q->n + q->max_new);
}

static void close_caches(struct search *s, int64_t width)
{
    for (int64_t k = 0; s->live && k < width; k++) {
        model_cache_close(s->live[k].cache);
        s->live[k].cache = NULL;
    }
}

/* ---- candidates ---- */

static double log_sum(const float *logits, int64_t vocab)
{
    double most = (double)logits[decode_best(logits, vocab)], sum = 0;
    for (int64_t v = 0; v < vocab; v++)
        if (logits[v] > -INFINITY)
            sum += exp((double)logits[v] - most);
    return sum > 0 ? most + log(sum) : (double)-INFINITY;
}

/* Keeps the cap best in order. Beams come in their order and ids ascend, so that an equal never overtakes. Returns how
 * many there are. */
static int64_t insert(struct candidate *list, int64_t n, int64_t cap, struct candidate x)
{
    int64_t at = n < cap ? n : cap;
    while (at > 0 && list[at - 1].sum < x.sum)
        at--;
    if (at == cap)
        return n;
    int64_t last = n < cap ? n : cap - 1;
    memmove(list + at + 1, list + at, (size_t)(last - at) * sizeof *list);
    list[at] = x;
    return last + 1;
}

/* The 2K best continuations of the live beams; logits of beam k: row part + k. */
static int64_t best_of(struct search *s, const struct generate_step *step, int64_t part, int64_t vocab, int64_t width)
{
    int64_t n = 0;
    for (int64_t k = 0; k < s->n_live; k++) {
        const float *logits = step->logits + (part + k) * vocab;
        double lse = log_sum(logits, vocab);
        int64_t top = decode_top(logits, vocab, 2 * width < vocab ? 2 * width : vocab, step->work);
        for (int64_t i = 0; i < top; i++)
            n = insert(s->best, n, 2 * width,
                       (struct candidate){s->live[k].sum + ((double)step->work[i].logit - lse), k, step->work[i].id});
    }
    return n;
}

/* ---- hypotheses ---- */

static double worth_of(const struct generate_call *c, double sum, int64_t length)
{
    return sum / pow((double)length, c->how->length_penalty);
}

/* A beam of s->made tokens, the last one EOS or not. */
static void finish(const struct generate_call *c, struct search *s, double sum, const int32_t *ids, bool eos)
{
    int64_t width = c->how->beam, at = s->n_done, n = s->made - eos;
    double worth = worth_of(c, sum, s->made);
    while (at > 0 && s->done[at - 1].worth < worth)
        at--;
    if (at == width)
        return;
    int64_t last = s->n_done < width ? s->n_done : width - 1;
    struct hypothesis room = s->done[last];
    memmove(s->done + at + 1, s->done + at, (size_t)(last - at) * sizeof *s->done);
    memcpy(room.ids, ids, (size_t)n * sizeof *ids);
    s->done[at] = (struct hypothesis){worth, n, room.ids};
    s->n_done = last + 1;
}

/* Can no live beam become worth more than the worst finished one? */
static bool settled(const struct generate_call *c, const struct search *s, int64_t max_new)
{
    if (s->n_done < c->how->beam)
        return false;
    if (c->how->beam_end == DECODE_FIRST)
        return true;
    bool far = c->how->beam_end == DECODE_NEVER && c->how->length_penalty > 0;
    double most = (double)-INFINITY;
    for (int64_t k = 0; k < s->n_live; k++)
        most = s->live[k].sum > most ? s->live[k].sum : most;
    return s->done[s->n_done - 1].worth >= worth_of(c, most, far ? max_new : s->made);
}

/* ---- a step ---- */

/* Sorts the candidates into finished hypotheses and the beams to come (s->next). Returns how many of these, or an error. */
static int64_t select_beams(const struct generate_call *c, struct search *s, const struct generate_seq *q, int64_t n)
{
    int64_t width = c->how->beam, live = 0;
    for (int64_t r = 0; r < n && live < width; r++) {
        const struct candidate *x = &s->best[r];
        int32_t *ids = s->old + x->beam * q->max_new; /* has room for one more */
        bool eos = generate_is_eos(c, x->id), stop = false;
        ids[s->made - 1] = x->id;
        int rc = eos ? ERR_OK : generate_stops(c, ids, s->made, &stop);
        if (rc)
            return rc;
        if (!eos && !stop)
            s->next[live++] = *x;
        else if (r < width)
            finish(c, s, x->sum, ids, eos);
    }
    return live;
}

/* A cache that no beam keeps: one at hand (out of pool), else a new one. *same: tokens it is known to share. */
static int spare_cache(const struct generate_call *c, const struct generate_seq *q, struct model_cache **pool,
                       struct model_cache **out, int64_t *same)
{
    for (int64_t j = 0; j < c->how->beam; j++)
        if (pool[j]) {
            *out = pool[j];
            pool[j] = NULL;
            *same = q->n;
            return ERR_OK;
        }
    *same = 0;
    return model_cache_open(out, c->model, q->n + q->max_new);
}

/* Beams become their children: caches are kept by first children and copied for the others. */
static int fork_beams(const struct generate_call *c, struct search *s, const struct generate_seq *q, int64_t live)
{
    struct model_cache *pool[DECODE_BEAMS] = {NULL}, *mine[DECODE_BEAMS] = {NULL}, *parent[DECODE_BEAMS];
    int64_t width = c->how->beam, same = 0, at_hand = live;
    int rc = ERR_OK;
    for (int64_t k = 0; k < width; k++)
        pool[k] = s->live[k].cache;
    for (int64_t k = 0; k < live; k++) {
        int64_t beam = s->next[k].beam;
        parent[k] = s->live[beam].cache;
        mine[k] = pool[beam]; /* NULL: an earlier child has it */
        pool[beam] = NULL;
    }
    for (int64_t k = 0; k < live && rc == ERR_OK; k++)
        if (!mine[k]) {
            rc = spare_cache(c, q, pool, &mine[k], &same);
            rc = rc ? rc : model_cache_copy(mine[k], parent[k], same);
        }
    for (int64_t j = 0; j < width; j++) /* those without a beam stay at hand */
        if (pool[j] && at_hand < width)
            mine[at_hand++] = pool[j];
    for (int64_t k = 0; k < width; k++)
        s->live[k].cache = mine[k];
    return rc;
}

static void take_ids(struct search *s, const struct generate_seq *q, int64_t live)
{
    for (int64_t k = 0; k < live; k++) {
        memcpy(s->live[k].ids, s->old + s->next[k].beam * q->max_new, (size_t)(s->made - 1) * sizeof(int32_t));
        s->live[k].ids[s->made - 1] = s->next[k].id;
        s->live[k].sum = s->next[k].sum;
    }
}

static int end_search(const struct generate_call *c, struct search *s, struct generate_seq *q)
{
    for (int64_t k = 0; k < s->n_live && s->made == q->max_new; k++)
        finish(c, s, s->live[k].sum, s->live[k].ids, false);
    close_caches(s, c->how->beam);
    s->over = true;
    q->score = s->n_done ? s->done[0].worth : (double)-INFINITY;
    return s->n_done ? generate_hand_over(c, q, s->done[0].ids, s->done[0].n) : ERR_OK;
}

/* The logits of the sequence's beams are rows part .. part + n_live - 1. */
static int advance(const struct generate_call *c, struct search *s, struct generate_seq *q, const struct generate_step *step,
                   int64_t part)
{
    int64_t width = c->how->beam, n = best_of(s, step, part, model_info(c->model)->vocab, width);
    for (int64_t k = 0; k < s->n_live; k++)
        memcpy(s->old + k * q->max_new, s->live[k].ids, (size_t)s->made * sizeof(int32_t));
    if (s->made++ == 0)
        q->first_s = timer_now() - c->begin_s;
    q->made = s->made;
    int64_t live = select_beams(c, s, q, n);
    if (live < 0)
        return (int)live;
    int rc = live > 0 && s->made < q->max_new ? fork_beams(c, s, q, live) : ERR_OK;
    if (rc)
        return rc;
    take_ids(s, q, live);
    s->n_live = live;
    return live == 0 || s->made == q->max_new || settled(c, s, q->max_new) ? end_search(c, s, q) : ERR_OK;
}

static int loop(const struct generate_call *c, struct generate_step *step, struct search *s)
{
    for (;;) {
        generate_step_begin(step);
        for (int64_t i = 0; i < c->n_seq; i++) {
            if (!s[i].over && s[i].fed < c->seq[i].n)
                generate_step_prompt(step, &c->seq[i], &s[i].fed, s[i].live[0].cache, i);
            else if (!s[i].over)
                for (int64_t k = 0; k < s[i].n_live; k++)
                    generate_step_token(step, s[i].live[k].ids[s[i].made - 1], s[i].live[k].cache, i);
        }
        if (step->n == 0)
            return ERR_OK;
        int rc = generate_step_feed(step, c);
        for (int64_t part = 0, i; part < step->n && rc == ERR_OK;) {
            int64_t parts = 0;
            i = step->who[part];
            while (part + parts < step->n && step->who[part + parts] == i)
                parts++;
            if (s[i].fed == c->seq[i].n)
                rc = advance(c, &s[i], &c->seq[i], step, part);
            part += parts;
        }
        if (rc)
            return rc;
    }
}

int generate_beam(struct generate_call *c)
{
    struct generate_step step = {0};
    size_t mark = arena_mark(c->step);
    c->begin_s = timer_now();
    struct search *s = ARENA_NEW0(c->step, c->n_seq, struct search);
    int rc = s ? decode_check(c->how) : ERR_NOMEM;
    if (rc == ERR_OK)
        rc = generate_step_open(&step, c, c->how->beam);
    for (int64_t i = 0; i < c->n_seq && rc == ERR_OK; i++) {
        c->seq[i].made = 0;
        c->seq[i].score = 0;
        rc = open_search(&s[i], c, &c->seq[i], c->how->beam);
    }
    if (rc == ERR_OK)
        rc = loop(c, &step, s);
    for (int64_t i = 0; s && i < c->n_seq; i++)
        close_caches(&s[i], c->how->beam);
    arena_release(c->step, mark);
    return rc;
}
