/* Reformer against its definition in double precision: hashes, bucket lists and their union written down once more, token by
 * token; and the paper's average over rounds with its - ln N terms, which has to come to the same. */
#include "tests/unit/test_lsh.h"

struct sum { /* of e^l v, kept with its largest l */
    double o[B_D], top, den;
    int64_t n;
};

static void add(struct sum *s, double l, const double *v)
{
    double top = fmax(s->top, l), by = s->n ? exp(s->top - top) : 0, p = exp(l - top);
    for (int i = 0; i < B_D; i++)
        s->o[i] = s->o[i] * by + p * v[i];
    s->den = s->den * by + p;
    s->top = top;
    s->n++;
}

/* softmax over the union and the token itself */
static void by_union(const struct lsh_case *c, int64_t t, bool in[LSH_MOST][B_N], struct sum *s)
{
    *s = (struct sum){.top = -HUGE_VAL};
    for (int64_t j = 0; j <= t; j++) {
        bool any = j == t;
        for (int r = 0; r < c->set.rounds; r++)
            any = any || in[r][j];
        if (any)
            add(s, lsh_logit(c, t, j), c->v[j]);
    }
}

/* the paper: o = sum_r e^(L_r - L) o_r, each round a softmax of logit - ln N_tj. The token itself belongs to every round. */
static void by_rounds(const struct lsh_case *c, int64_t t, bool in[LSH_MOST][B_N], struct sum *s)
{
    *s = (struct sum){.top = -HUGE_VAL};
    for (int r = 0; r < c->set.rounds; r++) {
        struct sum one = {.top = -HUGE_VAL};
        double o[B_D];
        for (int64_t j = 0; j <= t; j++) {
            int times = 0;
            for (int x = 0; x < c->set.rounds; x++)
                times += in[x][j] || j == t;
            if (in[r][j] || j == t)
                add(&one, lsh_logit(c, t, j) - log(times), c->v[j]);
        }
        for (int i = 0; i < B_D; i++)
            o[i] = one.o[i] / one.den;
        add(s, one.top + log(one.den), o);
    }
}

static void ran(struct base *b)
{
    if (base_run(b)) {
        T_FAIL("%s on %s: %s", b->method, b->isa, err_text());
        err_clear();
    }
    T_CHECK(b->peak <= b->scratch);
}

static void compare(const struct base *b, const struct lsh_setting *s)
{
    static struct lsh_case c;
    static bool in[LSH_MOST][B_N];
    double worst = 0, rounds = 0, pairs = 0;
    for (int64_t h = 0; h < B_H; h++) {
        c.set = *s;
        T_CHECK(lsh_load(&c, b, h) > 1e-6); /* no hash is a tie that float might see otherwise */
        for (int64_t t = 0; t < B_N; t++) {
            struct sum u, p;
            lsh_rounds_of(&c, t, b->window, in);
            by_union(&c, t, in, &u);
            by_rounds(&c, t, in, &p);
            double lse = u.top + log(u.den);
            bool alone = s->shared && u.n == 1; /* the program gives the own key its plain logit there */
            worst = fmax(worst, alone ? 0 : fabs(lse - (double)b->lse[t * B_H + h]));
            rounds = fmax(rounds, alone ? 0 : fabs(lse - p.top - log(p.den)));
            pairs += (double)(u.n - (s->shared && u.n > 1));
            for (int i = 0; i < B_D; i++) {
                worst = fmax(worst, fabs(u.o[i] / u.den - (double)b->out[(t * B_H + h) * B_D + i]));
                rounds = fmax(rounds, fabs(u.o[i] / u.den - p.o[i] / p.den));
            }
        }
    }
    T_NEAR(worst, 0, 5e-6);
    T_NEAR(rounds, 0, 1e-12);
    T_CHECK(b->stats.pairs_seen == pairs);
}

/* Fixed and growing; with 16 rounds and up to 256 buckets rows lie in several blocks of slots. */
static const struct lsh_setting settings[] = {
    {4, 8, 6, false}, {4, 8, 6, true}, {4, 0, 6, false}, {4, 0, 6, true}, {16, 0, 2, false}};
enum { SETTINGS = sizeof settings / sizeof settings[0] };

static void the_same_buckets_give_the_same_result(void)
{
    struct base *b = malloc(sizeof *b);
    for (int isa = 0; b && isa < kern_isa_count(); isa++)
        for (int i = 0; i < SETTINGS; i++) {
            if (!kern_isa_runs(isa))
                continue;
            lsh_make(b, &settings[i], kern_isa_name(isa));
            b->chunk = settings[i].shared ? 41 : B_N; /* longer and shorter than what is entered at once */
            ran(b);
            compare(b, &settings[i]);
        }
    free(b);
}

static void the_architectures_window_cuts_lists(void)
{
    struct base *b = malloc(sizeof *b);
    for (int i = 0; b && i < SETTINGS; i += 2) {
        lsh_make(b, &settings[i], base_isa());
        b->window = 50;
        ran(b);
        compare(b, &settings[i]);
    }
    free(b);
}

/* Room for more tokens, and other chunks, move nothing: neither in stages nor in blocks of slots. */
static void prefill_and_decoding_agree_to_the_bit(void)
{
    struct base *a = malloc(sizeof *a), *b = malloc(sizeof *b);
    for (int i = 0; a && b && i < SETTINGS; i++) {
        lsh_make(a, &settings[i], base_isa());
        ran(a);
        for (int chunk = 1; chunk < 200; chunk += 97) {
            lsh_make(b, &settings[i], base_isa());
            b->chunk = chunk;
            ran(b);
            T_CHECK(base_same(a, b));
            T_CHECK(a->stats.pairs_seen == b->stats.pairs_seen);
        }
    }
    free(a);
    free(b);
}

static double product(const float *a, const float *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

/* Output is linear in values, and scores are a product of queries and keys: sum dv v = sum dout out, sum dk k = sum dq q. */
static void gradients_agree(struct attn_call c, int64_t n, struct arena *mem)
{
    float *dout = ARENA_NEW0(mem, n, float), *dq = ARENA_NEW0(mem, n, float);
    float *dk = ARENA_NEW0(mem, n, float), *dv = ARENA_NEW0(mem, n, float);
    int64_t tokens = c.n;
    struct arena step;
    T_CHECK(!arena_open(&step, "step", c.method->backward_bytes(c.opts, c.shape, tokens)));
    c.step = &step, c.pos = 0;
    c.state = arena_alloc0(mem, (int64_t)c.method->state_bytes(c.opts, c.shape, tokens), 1);
    for (int64_t i = 0; i < n; i++)
        dout[i] = (float)rng_normal(5, 4, (uint64_t)i);
    T_EQ(c.method->backward(&(struct attn_grad){&c, dout, dq, dk, dv}), ERR_OK);
    double out = product(dout, c.out, n), scores = product(dq, c.q, n);
    T_CHECK(fabs(out) > 1 && fabs(scores) > 1);
    T_NEAR(product(dv, c.v, n), out, 1e-5);
    T_NEAR(product(dk, c.k, n), scores, 1e-5);
    arena_close(&step);
}

/* One head of LONG tokens, in chunks: more than are entered at once, in several blocks of slots. */
enum { LONG = 9000, LONG_D = 8 };
static void run_long(int64_t chunk, const char *buckets, float *out)
{
    static float q[LONG * LONG_D], k[LONG * LONG_D], v[LONG * LONG_D];
    const char *set[] = {buckets, "m.chunk=16", "m.rounds=3"};
    _Alignas(64) unsigned char opts[256];
    struct attn_shape s = {.heads = 1, .kv_heads = 1, .dim = LONG_D, .scale = 0.3F};
    struct kern_kv kv = {.dim = LONG_D};
    struct kern_table kern;
    struct arena mem, step;
    struct cfg *cfg = NULL;
    struct attn_call c = {.method = attn_find("reformer"), .opts = opts, .shape = &s, .kv = &kv, .kern = &kern, .step = &step};
    for (int64_t i = 0; i < LONG * LONG_D; i++) {
        q[i] = (float)rng_normal(5, 1, (uint64_t)i);
        k[i] = (float)rng_normal(5, 2, (uint64_t)i);
        v[i] = (float)rng_normal(5, 3, (uint64_t)i);
    }
    T_CHECK(!kern_select(&kern, base_isa()) && !arena_open(&mem, "mem", (size_t)64 << 20));
    T_CHECK(!cfg_open(&cfg, NULL, set, 3) && !cfg_load(cfg, "m", c.method->fields, opts));
    T_CHECK(!arena_open(&step, "step", c.method->scratch(opts, &s, chunk, LONG)));
    kv.k = arena_alloc0(&mem, (int64_t)kern_kv_bytes(KERN_F32, LONG_D, LONG), 1);
    kv.v = arena_alloc0(&mem, (int64_t)kern_kv_bytes(KERN_F32, LONG_D, LONG), 1);
    c.state = arena_alloc0(&mem, (int64_t)c.method->state_bytes(opts, &s, LONG), 1);
    for (; c.pos < LONG; c.pos += c.n) {
        c.n = chunk < LONG - c.pos ? chunk : LONG - c.pos;
        c.q = q + c.pos * LONG_D, c.k = k + c.pos * LONG_D, c.v = v + c.pos * LONG_D, c.out = out + c.pos * LONG_D;
        kern.kv_append(&kv, c.k, c.v, LONG_D, c.n);
        T_EQ(c.method->run(&c), ERR_OK);
    }
    if (chunk == LONG)
        gradients_agree(c, LONG * LONG_D, &mem);
    arena_close(&step);
    arena_close(&mem);
    cfg_close(cfg);
}

static void a_long_sequence_is_cut_anywhere(void)
{
    static float a[LONG * LONG_D], b[LONG * LONG_D];
    for (int i = 0; i < 2; i++) {
        run_long(LONG, i ? "m.buckets=16" : "m.buckets=0", a);
        run_long(i ? 1 : 1531, i ? "m.buckets=16" : "m.buckets=0", b);
        T_CHECK(!memcmp(a, b, sizeof a));
    }
}

/* What "by the paper" is for: the keys of a token no longer grow once buckets do. */
static void growing_buckets_hold_as_many_keys_at_any_length(void)
{
    struct attn_cost at[2];
    struct attn_shape s = {.heads = 6, .kv_heads = 2, .dim = 64, .scale = 1};
    struct cfg *cfg = NULL;
    _Alignas(64) unsigned char opts[256];
    const struct attn_method *m = attn_find("reformer");
    T_CHECK(!cfg_open(&cfg, NULL, NULL, 0) && !cfg_load(cfg, "m", m->fields, opts));
    for (int i = 0; i < 2; i++)
        m->cost(opts, &s, i ? 65536 : 8192, 1024, &at[i]);
    T_CHECK(at[1].pairs < 1.1 * at[0].pairs && at[1].pairs > 0.9 * at[0].pairs);
    size_t one = m->state_bytes(opts, &s, 32768), two = m->state_bytes(opts, &s, 65536);
    T_CHECK(two > one && two < one * 21 / 10);
    cfg_close(cfg);
}

static void one_bucket_list_that_holds_all_is_dense(void)
{
    struct base *a = malloc(sizeof *a), *b = malloc(sizeof *b);
    double worst = 0;
    base_make(a, "reformer", base_isa());
    a->set[0] = "m.rounds=40", a->set[1] = "m.buckets=2", a->set[2] = "m.chunk=300"; /* 40 coins: every key in some round */
    ran(a);
    base_make(b, "dense", base_isa());
    ran(b);
    for (int64_t i = 0; i < B_N * B_H * B_D; i++)
        worst = fmax(worst, fabs((double)a->out[i] - (double)b->out[i]));
    T_CHECK(a->stats.pairs_seen >= 0.999 * b->stats.pairs_seen);
    T_NEAR(worst, 0, 2e-2); /* a key may be missed by chance: 2^-40 of random pairs, more of opposite ones, which weigh little */
    free(a);
    free(b);
}

static void ranks_that_share_the_heads_get_the_same_bits(void)
{
    struct base *a = malloc(sizeof *a), *b = malloc(sizeof *b);
    for (int i = 0; a && b && i < SETTINGS; i++) {
        lsh_make(a, &settings[i], base_isa());
        ran(a);
        lsh_make(b, &settings[i], base_isa());
        b->heads = B_H / B_G;
        for (b->head_from = 0; b->head_from < B_H; b->head_from += B_H / B_G)
            ran(b);
        T_CHECK(base_same(a, b));
    }
    base_make(a, "reformer", base_isa());
    a->set[0] = "m.buckets=7";
    T_EQ(base_run(a), ERR_ARG);
    err_clear();
    free(a);
    free(b);
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    T_RUN(the_same_buckets_give_the_same_result);
    T_RUN(the_architectures_window_cuts_lists);
    T_RUN(prefill_and_decoding_agree_to_the_bit);
    T_RUN(a_long_sequence_is_cut_anywhere);
    T_RUN(growing_buckets_hold_as_many_keys_at_any_length);
    T_RUN(one_bucket_list_that_holds_all_is_dense);
    T_RUN(ranks_that_share_the_heads_get_the_same_bits);
    return t_done();
}
