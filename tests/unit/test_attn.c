/* Contract of attention methods, over every line of methods.def and every instruction set of this CPU: promises about
 * memory, causality, chunks and threads. A new method is tested by being listed. */
#include <omp.h>
#include <stdint.h>

#include "attn/attn.h"
#include "base/arena.h"
#include "base/err.h"
#include "base/rng.h"
#include "cfg/cfg.h"
#include "tests/t.h"

enum { N = 230, H = 6, G = 2, DIM = 24, HIDDEN = 40 };

struct world { /* inputs of one sequence, and its outputs */
    float q[N * H * DIM], q0[N * H * DIM], k[N * G * DIM], k0[N * G * DIM], v[N * G * DIM], x[N * HIDDEN];
    float out[N * H * DIM], lse[N * H], freq[DIM / 2];
    struct attn_stats stats;
    size_t peak, promised;
};

static void fill(float *x, int64_t n, uint64_t stream)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)rng_normal(7, stream, (uint64_t)i);
}

static void world_make(struct world *w)
{
    memset(w, 0, sizeof *w);
    fill(w->q, N * H * DIM, 1);
    fill(w->q0, N * H * DIM, 2);
    fill(w->k, N * G * DIM, 3);
    fill(w->k0, N * G * DIM, 4);
    fill(w->v, N * G * DIM, 5);
    fill(w->x, N * HIDDEN, 6);
    for (int i = 0; i < DIM / 2; i++)
        w->freq[i] = (float)pow(10000, -2.0 * i / DIM);
}

/* Options that make a method leave keys out within N tokens; a method may have several, and none gets the first line's. */
struct setting {
    const char *method, *set[5];
};
static const struct setting settings[] = {
    {NULL, {"m.keep=80", "m.local=20"}},
    {"streaming-llm", {"m.window=60", "m.sink=3"}},
    {"streaming-llm", {"m.window=50", "m.sink=20", "m.pos=\"orig\""}},
    {"longformer", {"m.window=[30, 40, 50]"}},
    {"longformer", {"m.window=[30]", "m.dilation=3", "m.global=[0, 7, 100]"}},
    {"bigbird", {"m.block=16", "m.window=2", "m.global=1", "m.random=2"}},
    {"reformer", {"m.rounds=3", "m.chunk=5"}},
    {"reformer", {"m.rounds=3", "m.buckets=8", "m.chunk=5"}},
    {"reformer", {"m.rounds=2", "m.buckets=6", "m.chunk=9", "m.shared_qk=true"}},
    {"hybrid", {"m.keep=64", "m.local=16", "m.segment=32", "m.every=8", "m.mass=0.6"}},
    {"hybrid", {"m.keep=64", "m.local=16", "m.segment=24", "m.every=12", "m.rule=\"best\""}},
    {"performer", {"m.features=50"}},
    {"performer", {"m.features=20", "m.hyperbolic=true", "m.norm=\"sqrt-dim\""}},
    {"sparse-transformer", {"m.l=16"}},
    {"sparse-transformer", {"m.l=16", "m.kind=\"fixed\"", "m.c=3", "m.verts=2"}},
    {"sparse-transformer", {"m.l=20", "m.heads=\"split\""}},
};
enum { N_SETTINGS = sizeof settings / sizeof settings[0] };

static const struct setting *setting_at(const struct attn_method *m, int i)
{
    for (int s = 0; s < N_SETTINGS; s++)
        if (settings[s].method && !strcmp(settings[s].method, m->name) && i-- == 0)
            return &settings[s];
    for (int s = 0; s < N_SETTINGS; s++)
        if (settings[s].method && !strcmp(settings[s].method, m->name))
            return NULL;
    return i == 0 ? &settings[0] : NULL;
}

struct how { /* of one run */
    const struct attn_method *m;
    const struct setting *with;
    const char *isa;
    int64_t chunk, window;
    enum kern_dtype dtype;
    const char *extra; /* one more override, NULL: none */
    long fail_in;
};

static int run(struct world *w, const struct how *h)
{
    struct kern_table kern;
    struct arena mem, step = {0};
    struct cfg *cfg = NULL;
    static _Alignas(64) unsigned char opts[1024];
    const char *set[6];
    int n_set = 0;
    struct attn_shape s = {.heads = H, .kv_heads = G, .dim = DIM, .hidden = HIDDEN, .layer = 1, .n_layers = 3, .scale = 0.2F};
    s.window = h->window, s.rot = DIM, s.rope_theta = 10000, s.rope_freq = w->freq;
    while (n_set < 5 && h->with->set[n_set])
        set[n_set] = h->with->set[n_set], n_set++;
    if (h->extra)
        set[n_set++] = h->extra;
    memset(opts, 0, sizeof opts);
    T_CHECK(kern_select(&kern, h->isa) == 0);
    T_CHECK(h->m->opts_size <= sizeof opts);
    int rc = cfg_open(&cfg, NULL, set, n_set);
    rc = rc || !h->m->fields ? rc : cfg_load(cfg, "m", h->m->fields, opts);
    rc = rc || !h->m->check ? rc : h->m->check(opts, &s);
    T_CHECK(arena_open(&mem, "mem", (size_t)64 << 20) == ERR_OK);
    w->promised = h->m->scratch ? h->m->scratch(opts, &s, h->chunk, N) : 0;
    rc = rc ? rc : arena_open(&step, "step", w->promised);
    step.fail_in = h->fail_in;
    struct kern_kv kv[G];
    for (int g = 0; g < G; g++) {
        kv[g] = (struct kern_kv){.dim = DIM, .dtype = h->dtype};
        kv[g].k = arena_alloc0(&mem, (int64_t)kern_kv_bytes(h->dtype, DIM, N), 1);
        kv[g].v = arena_alloc0(&mem, (int64_t)kern_kv_bytes(h->dtype, DIM, N), 1);
    }
    struct attn_call c = {.method = h->m, .opts = opts, .shape = &s, .kv = kv, .kern = &kern, .step = &step, .stats = &w->stats};
    size_t state = h->m->state_bytes ? h->m->state_bytes(opts, &s, N) : 0;
    c.state = state ? arena_alloc0(&mem, (int64_t)state, 1) : NULL;
    memset(&w->stats, 0, sizeof w->stats);
    for (; !rc && c.pos < N; c.pos += c.n) {
        c.n = h->chunk < N - c.pos ? h->chunk : N - c.pos;
        c.q = w->q + c.pos * H * DIM, c.k = w->k + c.pos * G * DIM, c.v = w->v + c.pos * G * DIM;
        if (h->m->caps & ATTN_NEEDS_RAW)
            c.q0 = w->q0 + c.pos * H * DIM, c.k0 = w->k0 + c.pos * G * DIM, c.x = w->x + c.pos * HIDDEN;
        c.out = w->out + c.pos * H * DIM, c.lse = w->lse + c.pos * H;
        for (int g = 0; g < G; g++)
            kern.kv_append(&kv[g], c.k + g * DIM, c.v + g * DIM, G * DIM, c.n);
        rc = h->m->run(&c);
    }
    w->peak = step.peak;
    T_CHECK(step.used == 0);
    arena_close(&step);
    arena_close(&mem);
    cfg_close(cfg);
    return rc;
}

static void must_run(struct world *w, const struct how *h)
{
    if (run(w, h)) {
        T_FAIL("%s on %s: %s", h->m->name, h->isa, err_text());
        err_clear();
    }
}

/* Calls fn for every method on every instruction set from the given one on (0: the plain kernels, slow). */
static void for_all(int first_isa, void (*fn)(struct world *a, struct world *b, struct how *h))
{
    struct world *a = malloc(sizeof *a), *b = malloc(sizeof *b);
    for (int i = 0; a && b && attn_at(i); i++)
        for (int isa = first_isa; isa < kern_isa_count(); isa++)
            for (int w = 0; setting_at(attn_at(i), w); w++) {
                struct how h = {.m = attn_at(i), .isa = kern_isa_name(isa), .chunk = N, .with = setting_at(attn_at(i), w)};
                int before = t_here;
                if (!kern_isa_runs(isa))
                    continue;
                world_make(a);
                world_make(b);
                fn(a, b, &h);
                if (t_here > before)
                    printf("# method %s, setting %d (%s ...), %s\n", h.m->name, w, h.with->set[0], h.isa);
            }
    free(a);
    free(b);
}

/* The plain kernels only where there are no others. */
static int fast(void)
{
    return kern_isa_count() > 1 && kern_isa_runs(1) ? 1 : 0;
}

static bool same(const struct world *a, const struct world *b, int64_t from, int64_t tokens)
{
    return !memcmp(a->out + from * H * DIM, b->out + from * H * DIM, (size_t)((tokens - from) * H * DIM) * sizeof(float)) &&
           !memcmp(a->lse + from * H, b->lse + from * H, (size_t)((tokens - from) * H) * sizeof(float));
}

static void promises(struct world *a, struct world *b, struct how *h)
{
    (void)b;
    must_run(a, h);
    T_CHECK(a->peak <= a->promised);
    T_CHECK(a->stats.pairs_causal == (double)H * N * (N + 1) / 2);
    T_CHECK(a->stats.pairs_seen > 0 && a->stats.pairs_seen <= a->stats.pairs_causal);
    T_CHECK((a->stats.pairs_seen == a->stats.pairs_causal) == ((h->m->caps & (ATTN_EXACT | ATTN_ALL_PAIRS)) != 0));
    T_CHECK(a->stats.tile_dense + a->stats.tile_blocks + a->stats.tile_gather > 0);
    for (int64_t i = 0; i < N * H * DIM; i++)
        if (!isfinite(a->out[i])) {
            T_FAIL("output %lld is %g", (long long)i, (double)a->out[i]);
            break;
        }
}

static void the_scratch_promise_is_kept_and_pairs_are_counted(void)
{
    for_all(0, promises);
}

static void memory(struct world *a, struct world *b, struct how *h)
{
    (void)b;
    h->fail_in = 1;
    int rc = run(a, h);
    T_CHECK(rc == ERR_NOMEM);
    for (; rc == ERR_NOMEM && h->fail_in < 100; h->fail_in++) {
        err_clear();
        rc = run(a, h);
    }
    T_CHECK(rc == ERR_OK);
    err_clear();
}

static void out_of_memory_is_an_error(void)
{
    for_all(fast(), memory);
}

static void causal(struct world *a, struct world *b, struct how *h)
{
    if (!(h->m->caps & ATTN_CAUSAL))
        return;
    must_run(a, h);
    static const int64_t cuts[] = {1, 63, 64, 111, 160, N - 1};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        int64_t cut = cuts[i];
        world_make(b);
        for (int64_t x = cut * H * DIM; x < N * H * DIM; x++)
            b->q[x] += 3, b->q0[x] -= 3;
        for (int64_t x = cut * G * DIM; x < N * G * DIM; x++)
            b->k[x] = 5 - b->k[x], b->k0[x] += 3, b->v[x] -= 2;
        for (int64_t x = cut * HIDDEN; x < N * HIDDEN; x++)
            b->x[x] -= 2;
        must_run(b, h);
        T_CHECK(same(a, b, 0, cut));
        T_CHECK(!same(a, b, cut, N));
    }
}

static void a_later_token_changes_not_one_bit_before_it(void)
{
    for_all(fast(), causal);
}

static void chunks(struct world *a, struct world *b, struct how *h)
{
    must_run(a, h);
    static const int64_t sizes[] = {1, 7, 64, 100};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        h->chunk = sizes[i];
        must_run(b, h);
        T_CHECK(same(a, b, 0, N));
        T_CHECK(a->stats.pairs_seen == b->stats.pairs_seen);
    }
}

static void any_cut_into_chunks_gives_the_same_bits(void)
{
    for_all(fast(), chunks);
}

static void threads(struct world *a, struct world *b, struct how *h)
{
    int most = omp_get_max_threads();
    omp_set_num_threads(1);
    must_run(a, h);
    omp_set_num_threads(3);
    must_run(b, h);
    omp_set_num_threads(most);
    T_CHECK(same(a, b, 0, N));
}

static void any_number_of_threads_gives_the_same_bits(void)
{
    for_all(fast(), threads);
}

static bool has_option(const struct attn_method *m, const char *name)
{
    for (const struct cfg_field *f = m->fields; f && f->name; f++)
        if (!strcmp(f->name, name))
            return true;
    return false;
}

static void everything(struct world *a, struct world *b, struct how *h)
{
    if (h->with != &settings[0]) /* the baselines have tests of their own */
        return;
    h->extra = "m.keep=1000000";
    must_run(a, h);
    h->m = attn_find("dense");
    must_run(b, h);
    T_CHECK(same(a, b, 0, N));
}

static void a_budget_for_all_equals_dense_bit_for_bit(void)
{
    for_all(fast(), everything);
}

static void window(struct world *a, struct world *b, struct how *h)
{
    h->window = 60;
    if (h->m->caps & ATTN_ALL_PAIRS) { /* it cannot forget, and must say so */
        T_CHECK(run(a, h) == ERR_ARG && strstr(err_text(), "sliding window of 60"));
        err_clear();
        return;
    }
    must_run(a, h);
    for (int64_t x = 0; x < 10 * G * DIM; x++)
        b->k[x] += 1, b->k0[x] += 1, b->v[x] -= 2;
    must_run(b, h);
    T_CHECK(!same(a, b, 0, 30));
    T_CHECK(same(a, b, 80, N));
}

static void the_architectures_window_is_respected(void)
{
    for_all(0, window);
}

static void strategies(struct world *a, struct world *b, struct how *h)
{
    static const char *const names[] = {"m.strategy=\"dense\"", "m.strategy=\"blocks\"", "m.strategy=\"gather\""};
    if (!has_option(h->m, "strategy"))
        return;
    for (int dtype = KERN_F32; dtype <= KERN_BF16; dtype++) {
        h->dtype = (enum kern_dtype)dtype;
        h->extra = NULL;
        must_run(a, h);
        for (int i = 0; i < 3; i++) {
            h->extra = names[i];
            must_run(b, h);
            T_CHECK(same(a, b, 0, N));
            T_CHECK(i != 1 || b->stats.tile_blocks > 0);
            T_CHECK(i != 2 || b->stats.tile_gather > 0);
        }
    }
}

static void every_strategy_gives_the_same_bits(void)
{
    for_all(fast(), strategies);
}

static void names_are_found_and_unknown_ones_explained(void)
{
    for (int i = 0; attn_at(i); i++) {
        T_CHECK(attn_find(attn_at(i)->name) == attn_at(i));
        T_CHECK(attn_at(i)->cite && attn_at(i)->summary && attn_at(i)->run && attn_at(i)->cost);
    }
    T_CHECK(!attn_find("nonesuch"));
    T_CHECK(attn_unknown("qest") == ERR_ARG);
    T_CHECK(strstr(err_text(), "quest") != NULL);
    err_clear();
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    T_RUN(names_are_found_and_unknown_ones_explained);
    T_RUN(the_scratch_promise_is_kept_and_pairs_are_counted);
    T_RUN(out_of_memory_is_an_error);
    T_RUN(a_later_token_changes_not_one_bit_before_it);
    T_RUN(any_cut_into_chunks_gives_the_same_bits);
    T_RUN(any_number_of_threads_gives_the_same_bits);
    T_RUN(a_budget_for_all_equals_dense_bit_for_bit);
    T_RUN(the_architectures_window_is_respected);
    T_RUN(every_strategy_gives_the_same_bits);
    return t_done();
}
