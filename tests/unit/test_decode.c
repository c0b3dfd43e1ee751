/* Choosing tokens, and decoding over a stand-in model whose logits are a function of all tokens before: beam search against
 * every sequence that there is, drawing against the distribution, both in every batch. */
#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/rng.h"
#include "model/model.h"
#include "task/decode.h"
#include "task/generate.h"
#include "tests/t.h"

/* ---- the stand-in: 5 tokens, 0 is EOS; logits are numbers drawn from the tokens so far ---- */

enum { VOCAB = 5, LONGEST = 64 };

struct model_cache {
    int32_t id[LONGEST];
    int64_t n;
};
static struct model_info info = {.vocab = VOCAB, .context = LONGEST};
static int64_t caches, copies;

const struct model_info *model_info(const struct model *m)
{
    (void)m;
    return &info;
}

int model_cache_open(struct model_cache **out, struct model *m, int64_t max_tokens)
{
    (void)m;
    *out = calloc(1, sizeof **out);
    T_CHECK(*out && max_tokens <= LONGEST);
    caches++;
    return ERR_OK;
}

void model_cache_close(struct model_cache *c)
{
    caches -= c != NULL;
    free(c);
}

int model_cache_copy(struct model_cache *to, const struct model_cache *from, int64_t same)
{
    T_CHECK(to != from && memcmp(to->id, from->id, (size_t)same * sizeof *to->id) == 0);
    *to = *from;
    copies++;
    return ERR_OK;
}

size_t model_cache_bytes(const struct model *m, int64_t max_tokens)
{
    (void)m;
    return (size_t)max_tokens;
}

size_t model_feed_bytes(const struct model *m, int64_t tokens, int64_t longest, int64_t n_seq)
{
    (void)m;
    return (size_t)(tokens + longest + n_seq);
}

static void logits_after(const int32_t *id, int64_t n, float out[VOCAB])
{
    uint64_t h = 1;
    for (int64_t i = 0; i < n; i++)
        h = rng_u64(h, (uint64_t)id[i], (uint64_t)i);
    for (int v = 0; v < VOCAB; v++)
        out[v] = (float)(2 * rng_normal(h, 7, (uint64_t)v) + (v == 0 && h % 3 == 0 ? 3 : 0)); /* EOS often comes in crowds */
}

int model_advance(struct model *m, struct model_cache *const *cache, const struct model_batch *b, struct model_out *out,
                  struct arena *step)
{
    (void)m;
    (void)step;
    for (int64_t s = 0; s < b->n_seq; s++) {
        for (int64_t t = b->at[s]; t < b->at[s + 1]; t++)
            cache[s]->id[cache[s]->n++] = b->token[t];
        logits_after(cache[s]->id, cache[s]->n, out->logits + s * VOCAB);
    }
    return ERR_OK;
}

/* ---- choosing ---- */

static void the_best_come_in_order(void)
{
    float x[40];
    struct decode_token got[40];
    for (int round = 0; round < 200; round++) {
        int64_t n = 1 + rng_below(1, (uint64_t)round, 0, 40), k = rng_below(1, (uint64_t)round, 1, 41);
        for (int64_t i = 0; i < n; i++)
            x[i] = (float)rng_below(2, (uint64_t)round, (uint64_t)i, 9);
        x[rng_below(3, (uint64_t)round, 0, n)] = NAN;
        int64_t there = decode_top(x, n, k, got), numbers = 0;
        for (int64_t i = 0; i < n; i++)
            numbers += x[i] > -INFINITY;
        T_EQ(there, k < numbers ? k : numbers);
        for (int64_t r = 0; r < there; r++) {
            int64_t better = 0; /* how many come before it: its place */
            for (int64_t i = 0; i < n; i++)
                better += x[i] > got[r].logit || (!(x[i] < got[r].logit) && x[i] == got[r].logit && i < got[r].id);
            T_EQ(better, r);
        }
    }
    T_EQ(decode_best((const float[]){1, 3, 3, NAN}, 4), 1);
    T_EQ(decode_best((const float[]){NAN, 3}, 2), 1);
}

/* Of what is kept, each token must be drawn for a share of all u that equals its renormalised probability. */
static void tokens_are_drawn_by_their_probability(void)
{
    static const float x[6] = {0.5f, 2, -1, 2, 0, 1.5f}; /* order: 1 3 5 0 4 2 */
    static const int order[6] = {1, 3, 5, 0, 4, 2};
    enum { DRAWS = 60000 };
    struct decode_token work[6];
    for (int k = 0; k <= 6; k += 2)
        for (int p = 1; p <= 10; p += 3) {
            struct decode_opts o = {.temperature = 0.8, .top_k = k, .top_p = p / 10., .beam = 1};
            double w[6], all = 0, upto = 0, kept = 0;
            int n = k ? k : 6, m = 0, drawn[6] = {0};
            for (int i = 0; i < n; i++)
                all += w[i] = exp((double)x[order[i]] / 0.8);
            for (; m < n && upto < o.top_p * all - 1e-12; m++)
                upto += w[m];
            for (int i = 0; i < m; i++)
                kept += w[i];
            for (int i = 0; i < DRAWS; i++)
                drawn[decode_draw(&o, x, 6, (i + 0.5) / DRAWS, work)]++;
            for (int i = 0; i < 6; i++) {
                double want = i < m ? w[i] / kept : 0;
                T_CHECK(fabs((double)drawn[order[i]] / DRAWS - want) <= 2. / DRAWS);
            }
        }
    T_EQ(decode_draw(&(struct decode_opts){.temperature = 1e-3, .top_p = 1}, x, 6, 0.999, work), 3); /* 1 and 3 share the top */
    T_EQ(decode_draw(&(struct decode_opts){.temperature = 1, .top_p = 0}, x, 6, 0.999, work), 1);
    T_EQ(decode_draw(&(struct decode_opts){.temperature = 1, .top_p = 1}, (const float[]){NAN, NAN}, 2, 0.5, work), 0);
}

static void options_that_exclude_each_other_are_refused(void)
{
    struct buf b = {0};
    T_EQ(decode_check(&(struct decode_opts){.beam = 4, .temperature = 1, .top_p = 1}), ERR_ARG);
    T_CHECK(strstr(err_text(), "beam = 4") != NULL);
    T_EQ(decode_check(&(struct decode_opts){.beam = 1, .top_k = 5, .top_p = 1}), ERR_ARG);
    T_EQ(decode_check(&(struct decode_opts){.beam = 1, .top_p = 1}), ERR_OK);
    T_EQ(decode_signature(&(struct decode_opts){.beam = 4, .length_penalty = 0.6, .top_p = 1}, &b), ERR_OK);
    T_STR(buf_text(&b), "beam(4,lp=0.6,estimate)");
    buf_free(&b);
    err_clear();
}

/* ---- decoding ---- */

static struct arena step;
static const int64_t eos[] = {0};

static void run(const struct decode_opts *how, struct generate_seq *q, int64_t n, bool beam)
{
    struct generate_call c = {.seq = q, .n_seq = n, .how = how, .seed = 5, .eos = eos, .n_eos = 1, .step = &step};
    T_EQ(beam ? generate_beam(&c) : generate_run(&c), ERR_OK);
    T_EQ(caches, 0);
    T_EQ(step.used, 0);
}

enum { SEQS = 12, NEW = 4 };
static int32_t prompts[SEQS][3];

static void make(struct generate_seq *q, struct tok_ids *ids, int64_t max_new)
{
    for (int i = 0; i < SEQS; i++) {
        for (int j = 0; j < 3; j++)
            prompts[i][j] = (int32_t)rng_below(11, (uint64_t)i, (uint64_t)j, VOCAB);
        q[i] = (struct generate_seq){.prompt = prompts[i], .n = 1 + i % 3, .max_new = max_new, .id = i, .ids = &ids[i]};
    }
}

static void drop(struct tok_ids *ids)
{
    for (int i = 0; i < SEQS; i++)
        tok_ids_free(&ids[i]);
}

static bool same(const struct tok_ids *a, const struct tok_ids *b)
{
    return a->n == b->n && (a->n == 0 || memcmp(a->v, b->v, (size_t)a->n * sizeof *a->v) == 0);
}

static void the_batch_changes_no_draw(void)
{
    struct decode_opts how = {.temperature = 1.3, .top_k = 4, .top_p = 0.95, .beam = 1};
    struct generate_seq a[SEQS], b[SEQS];
    struct tok_ids ia[SEQS] = {{0}}, ib[SEQS] = {{0}};
    int differ = 0;
    make(a, ia, 20);
    run(&how, a, SEQS, false);
    for (int batch = 1; batch < SEQS; batch += 3) {
        make(b, ib, 20);
        for (int i = 0; i < SEQS; i += batch)
            run(&how, b + i, SEQS - i < batch ? SEQS - i : batch, false);
        for (int i = 0; i < SEQS; i++)
            T_CHECK(same(&ia[i], &ib[i]) && a[i].made == b[i].made);
        drop(ib);
        memset(ib, 0, sizeof ib);
    }
    make(b, ib, 20); /* the same prompt under another number draws others */
    for (int i = 0; i < SEQS; i++)
        b[i].id += 100;
    run(&how, b, SEQS, false);
    for (int i = 0; i < SEQS; i++)
        differ += !same(&ia[i], &ib[i]);
    T_CHECK(differ > SEQS / 2);
    drop(ia);
    drop(ib);
}

static void a_beam_of_one_is_greedy(void)
{
    struct decode_opts how = {.beam = 1, .length_penalty = 0.7, .top_p = 1};
    struct generate_seq a[SEQS], b[SEQS];
    struct tok_ids ia[SEQS] = {{0}}, ib[SEQS] = {{0}};
    make(a, ia, 20);
    make(b, ib, 20);
    run(NULL, a, SEQS, false);
    run(&how, b, SEQS, true);
    for (int i = 0; i < SEQS; i++)
        T_CHECK(same(&ia[i], &ib[i]) && a[i].made == b[i].made);
    drop(ia);
    drop(ib);
}

struct best {
    double worth;
    int32_t id[NEW];
    int64_t n;
};

static double log_p(const int32_t *id, int64_t n, int32_t next)
{
    float x[VOCAB];
    double sum = 0;
    logits_after(id, n, x);
    for (int v = 0; v < VOCAB; v++)
        sum += exp((double)x[v]);
    return (double)x[next] - log(sum);
}

/* All continuations of id[0 .. n-1], of which `made` are new. */
static void exhaust(int32_t *id, int64_t n, int64_t made, double sum, double penalty, struct best *best)
{
    for (int32_t v = 0; v < VOCAB; v++) {
        double s = sum + log_p(id, n, v), worth = s / pow((double)(made + 1), penalty);
        id[n] = v;
        if ((v == 0 || made + 1 == NEW) && worth > best->worth) {
            best->worth = worth;
            best->n = made + (v != 0);
            memcpy(best->id, id + n - made, (size_t)(made + 1) * sizeof *id);
        }
        if (v != 0 && made + 1 < NEW)
            exhaust(id, n + 1, made + 1, s, penalty, best);
    }
}

/* 64 beams hold every prefix of 4 tokens that are not EOS, and with beam_end = never nothing is given up: the best of all. */
static void wide_beams_find_the_best_of_all_sequences(void)
{
    static const double penalty[] = {0, 0.6, 1, 2};
    for (int p = 0; p < 4; p++) {
        struct decode_opts how = {.beam = 64, .length_penalty = penalty[p], .beam_end = DECODE_NEVER, .top_p = 1};
        struct generate_seq q[SEQS];
        struct tok_ids ids[SEQS] = {{0}};
        int beyond_greedy = 0;
        make(q, ids, NEW);
        run(&how, q, SEQS, true);
        for (int i = 0; i < SEQS; i++) {
            struct best best = {.worth = -1e300};
            int32_t id[8];
            memcpy(id, prompts[i], sizeof prompts[i]);
            exhaust(id, q[i].n, 0, 0, penalty[p], &best);
            T_NEAR(q[i].score, best.worth, 1e-12);
            T_CHECK(same(&ids[i], &(struct tok_ids){best.id, best.n, NEW}));
            float x[VOCAB];
            logits_after(prompts[i], q[i].n, x);
            beyond_greedy += best.n == 0 ? decode_best(x, VOCAB) != 0 : decode_best(x, VOCAB) != best.id[0];
        }
        T_CHECK(p > 0 || beyond_greedy > 0);
        drop(ids);
    }
}

/* ---- narrow beams against the definition, written down without caches ---- */

struct row {
    double sum;
    int32_t id[LONGEST];
    int64_t n;
};

static int by_sum(const void *a, const void *b)
{
    const struct row *x = a, *y = b;
    return x->sum < y->sum ? 1 : x->sum > y->sum ? -1 : 0;
}

static struct row plain_beam(const struct generate_seq *q, const struct decode_opts *o, int64_t *steps)
{
    struct row live[8] = {{0}}, all[8 * VOCAB], done[64], best = {.sum = -1e300};
    double worth[64];
    int64_t n_live = 1, n_done = 0;
    for (int64_t made = 1; made <= q->max_new && n_live > 0; made++) {
        *steps = made;
        int64_t n = 0, next = 0;
        for (int64_t k = 0; k < n_live; k++) {
            int32_t id[LONGEST];
            memcpy(id, q->prompt, (size_t)q->n * sizeof *id);
            memcpy(id + q->n, live[k].id, (size_t)live[k].n * sizeof *id);
            for (int32_t v = 0; v < VOCAB; v++) {
                all[n] = live[k];
                all[n].sum += log_p(id, q->n + live[k].n, v);
                all[n].id[all[n].n++] = v;
                n++;
            }
        }
        qsort(all, (size_t)n, sizeof *all, by_sum);
        for (int64_t r = 0; r < n && r < 2 * o->beam && next < o->beam; r++) {
            bool end = all[r].id[all[r].n - 1] == 0;
            if (!end)
                live[next++] = all[r];
            else if (r < o->beam) {
                worth[n_done] = all[r].sum / pow((double)made, o->length_penalty);
                done[n_done] = all[r];
                done[n_done++].n--;
            }
        }
        n_live = next;
        if (made == q->max_new)
            for (int64_t k = 0; k < n_live; k++, n_done++) {
                worth[n_done] = live[k].sum / pow((double)made, o->length_penalty);
                done[n_done] = live[k];
            }
        int64_t better = 0; /* finished ones that the best live beam cannot beat */
        for (int64_t k = 0; k < n_done; k++)
            better += n_live > 0 && worth[k] >= live[0].sum / pow((double)made, o->length_penalty);
        if (better >= o->beam)
            break;
    }
    for (int64_t k = 0, found = -1; k < n_done; k++)
        if (found < 0 || worth[k] > worth[found]) {
            found = k;
            best = done[k];
            best.sum = worth[k];
        }
    return best;
}

static void narrow_beams_follow_the_definition(void)
{
    for (int k = 2; k <= 5; k++)
        for (int p = 0; p < 3; p++) {
            struct decode_opts how = {.beam = k, .length_penalty = p, .top_p = 1};
            struct generate_seq q[SEQS], one[SEQS];
            struct tok_ids ids[SEQS] = {{0}}, alone[SEQS] = {{0}};
            make(q, ids, 12);
            make(one, alone, 12);
            run(&how, q, SEQS, false);
            for (int i = 0; i < SEQS; i++) {
                int64_t steps = 0;
                struct row want = plain_beam(&q[i], &how, &steps);
                T_EQ(q[i].made, steps);
                run(&how, &one[i], 1, false);
                T_NEAR(q[i].score, want.sum, 1e-12);
                T_CHECK(same(&ids[i], &(struct tok_ids){want.id, want.n, LONGEST}));
                T_CHECK(same(&ids[i], &alone[i]));
            }
            drop(ids);
            drop(alone);
        }
    T_CHECK(copies > 0);
}

static void the_first_full_set_ends_sooner(void)
{
    struct decode_opts how = {.beam = 4, .length_penalty = 1, .beam_end = DECODE_FIRST, .top_p = 1};
    struct generate_seq a[SEQS], b[SEQS];
    struct tok_ids ia[SEQS] = {{0}}, ib[SEQS] = {{0}};
    int64_t first = 0, never = 0;
    make(a, ia, 20);
    make(b, ib, 20);
    run(&how, a, SEQS, false);
    how.beam_end = DECODE_NEVER;
    run(&how, b, SEQS, false);
    for (int i = 0; i < SEQS; i++) {
        first += a[i].made;
        never += b[i].made;
        T_CHECK(a[i].score <= b[i].score + 1e-12);
    }
    T_CHECK(first < never);
    drop(ia);
    drop(ib);
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    if (arena_open(&step, "step", (size_t)1 << 26))
        return 1;
    T_RUN(the_best_come_in_order);
    T_RUN(tokens_are_drawn_by_their_probability);
    T_RUN(options_that_exclude_each_other_are_refused);
    T_RUN(the_batch_changes_no_draw);
    T_RUN(a_beam_of_one_is_greedy);
    T_RUN(wide_beams_find_the_best_of_all_sequences);
    T_RUN(narrow_beams_follow_the_definition);
    T_RUN(the_first_full_set_ends_sooner);
    arena_close(&step);
    return t_done();
}
