/* Gradients of methods that are no mask, Reformer and Performer, against central differences of their plain definitions in
 * double precision: to 1e-5 of the largest entry. Loss: sum of c out, c random. What chooses (buckets, directions) stands still. */
#include <omp.h>

#include "tests/unit/test_favor.h"
#include "tests/unit/test_lsh.h"
#include "train/back_attn.h"

enum { GROUP = B_H / B_G, Q = B_N * B_H * B_D, KV = B_N * B_G * B_D, FEATURES = 40, SAMPLES = 11, CASES = 10 };

static struct base b;
static double q[Q], k[KV], v[KV], c_out[Q]; /* as b has them, and the loss */
static float dout[Q], out[Q], lse[B_N * B_H], dq[Q], dk[KV], dv[KV];

/* ---- plain definitions: output of a token's head ---- */

static bool in[B_H][B_N][B_N]; /* Reformer: is key j seen by token t */
static bool shared;
static struct {
    double w[B_D * FEATURES], k[B_N][2 * FEATURES];
    int64_t m, M;
} favor;

static void reformer_row(int64_t t, int64_t h, double *o)
{
    double sum = 0, key[B_D];
    memset(o, 0, B_D * sizeof *o);
    for (int64_t j = 0; j <= t; j++) {
        double s = 0, norm = 0;
        if (!in[h][t][j])
            continue;
        for (int i = 0; i < B_D; i++) {
            key[i] = shared ? q[(j * B_H + h) * B_D + i] : k[(j * B_G + h / GROUP) * B_D + i];
            norm += key[i] * key[i];
        }
        for (int i = 0; i < B_D; i++)
            s += q[(t * B_H + h) * B_D + i] * key[i] / (shared ? sqrt(norm) : 1) * (double)b.scale;
        sum += exp(s);
        for (int i = 0; i < B_D; i++)
            o[i] += exp(s) * v[(j * B_G + h / GROUP) * B_D + i];
    }
    for (int i = 0; i < B_D; i++)
        o[i] /= sum;
}

/* e^(w.x' - |x'|^2/2 + shift) */
static void phi(const double *x, double shift, double *to)
{
    double half = 0;
    for (int i = 0; i < B_D; i++)
        half += x[i] * x[i] * (double)b.scale / 2;
    for (int64_t r = 0; r < favor.M; r++) {
        double a = 0;
        for (int i = 0; i < B_D; i++)
            a += favor.w[i * favor.m + r % favor.m] * x[i] * sqrt((double)b.scale);
        to[r] = exp((r < favor.m ? a : -a) - half + shift);
    }
}

static void performer_row(int64_t t, int64_t h, double *o)
{
    double sum = 0, f[2 * FEATURES];
    phi(q + (t * B_H + h) * B_D, 0, f);
    memset(o, 0, B_D * sizeof *o);
    for (int64_t j = 0; j <= t; j++) {
        double p = 0;
        for (int64_t r = 0; r < favor.M; r++)
            p += f[r] * favor.k[j][r];
        sum += p;
        for (int i = 0; i < B_D; i++)
            o[i] += p * v[(j * B_G + h / GROUP) * B_D + i];
    }
    for (int i = 0; i < B_D; i++)
        o[i] /= sum;
}

static void row(int64_t t, int64_t h, double *o)
{
    (favor.M ? performer_row : reformer_row)(t, h, o);
}

/* The loss of KV head g's query heads from token t0 on. */
static double loss(int64_t g, int64_t t0)
{
    double sum = 0, o[B_D];
    for (int64_t j = 0; favor.M && j < B_N; j++)
        phi(k + (j * B_G + g) * B_D, 0, favor.k[j]);
    for (int64_t h = g * GROUP; h < (g + 1) * GROUP; h++)
        for (int64_t t = t0; t < B_N; t++) {
            row(t, h, o);
            for (int i = 0; i < B_D; i++)
                sum += c_out[(t * B_H + h) * B_D + i] * o[i];
        }
    return sum;
}

/* ---- ours ---- */

static void run(const char *isa)
{
    static _Alignas(64) unsigned char opts[256];
    struct kern_table kern;
    struct arena step;
    struct cfg *cfg = NULL;
    struct attn_shape s = {.heads = B_H, .kv_heads = B_G, .dim = B_D, .layer = b.layer, .n_layers = B_LAYERS};
    struct back_rule rule = {.mask = BACK_METHOD, .method = attn_find(b.method), .opts = opts};
    struct back_attn a = {.kern = &kern, .shape = &s, .rule = &rule, .n = B_N, .q = b.q, .k = b.k, .v = b.v, .step = &step};
    int n_set = 0;
    while (b.set[n_set])
        n_set++;
    s.scale = b.scale, s.window = b.window;
    a.out = out, a.lse = lse, a.dout = dout, a.dq = dq, a.dk = dk, a.dv = dv;
    T_EQ(kern_select(&kern, isa), 0);
    T_EQ(cfg_open(&cfg, NULL, b.set, n_set), ERR_OK);
    T_EQ(cfg_load(cfg, "m", rule.method->fields, opts), ERR_OK);
    T_EQ(arena_open(&step, "step", back_attn_bytes(&s, &rule, B_N, NULL)), ERR_OK); /* the promise is all there is */
    T_EQ(back_attn_forward(&a), ERR_OK);
    T_EQ(back_attn_backward(&a), ERR_OK);
    T_EQ(step.used, 0);
    arena_close(&step);
    cfg_close(cfg);
}

/* ---- comparing ---- */

static double slope[CASES][3 * SAMPLES]; /* the same for every instruction set */
static int case_at;
static bool known;

static void compare(const char *what, double *x, const float *got, int64_t heads, double *slopes)
{
    double most = 1e-3, worst = 0, h = 1e-5;
    int64_t n = B_N * heads * B_D;
    for (int i = 0; i < SAMPLES; i++) {
        int64_t at = (i * (n / SAMPLES) + 13 * i + 5) % n, g = at / B_D % heads / (heads / B_G), t = at / (heads * B_D);
        double was = x[at], up;
        if (!known) {
            x[at] = was + h;
            up = loss(g, t);
            x[at] = was - h;
            slopes[i] = (up - loss(g, t)) / (2 * h);
            x[at] = was;
        }
        most = fmax(most, fabs(slopes[i]));
        double off = fabs((double)got[at] - slopes[i]);
        worst = off <= worst ? worst : off;
    }
    if (!(worst <= 1e-5 * most))
        T_FAIL("%s of %s: off by %g of %g", what, b.method, worst, most);
}

static void inputs(void)
{
    for (int64_t i = 0; i < Q; i++) {
        q[i] = (double)b.q[i];
        dout[i] = (float)rng_normal(11, 4, (uint64_t)i);
        c_out[i] = (double)dout[i];
    }
    for (int64_t i = 0; i < KV; i++)
        k[i] = (double)b.k[i], v[i] = (double)b.v[i];
}

/* Of a case that is loaded, on one instruction set. */
static void check(const char *isa)
{
    double o[B_D], worst = 0;
    run(isa);
    b.isa = isa;
    T_EQ(base_run(&b), ERR_OK);
    T_CHECK(!memcmp(out, b.out, sizeof out)); /* training's forward pass is inference's */
    for (int64_t h = 0; h < B_H; h++) {
        loss(h / GROUP, B_N); /* features of its keys */
        for (int64_t t = h; t < B_N; t += 31) {
            row(t, h, o);
            for (int i = 0; i < B_D; i++)
                worst = fmax(worst, fabs(o[i] - (double)out[(t * B_H + h) * B_D + i]));
        }
    }
    T_NEAR(worst, 0, 1e-5);
    compare("q", q, dq, B_H, slope[case_at]);
    compare("k", k, dk, B_G, slope[case_at] + SAMPLES);
    compare("v", v, dv, B_G, slope[case_at] + 2 * SAMPLES);
}

static void on_every_isa(void)
{
    known = false;
    for (int isa = 0; isa < kern_isa_count(); isa++)
        if (kern_isa_runs(isa)) {
            check(kern_isa_name(isa));
            known = true;
        }
}

/* ---- cases ---- */

static void load_reformer(const struct lsh_setting *s)
{
    static struct lsh_case c;
    static bool rounds[LSH_MOST][B_N];
    favor.M = 0, shared = s->shared, c.set = *s;
    memset(in, 0, sizeof in);
    for (int64_t h = 0; h < B_H; h++) {
        T_CHECK(lsh_load(&c, &b, h) > 1e-6);
        for (int64_t t = 0; t < B_N; t++) {
            int64_t seen = 0;
            lsh_rounds_of(&c, t, b.window, rounds);
            for (int64_t j = 0; j <= t; j++) {
                for (int r = 0; r < s->rounds; r++)
                    in[h][t][j] = in[h][t][j] || (rounds[r][j] && !(s->shared && j == t));
                seen += in[h][t][j];
            }
            in[h][t][t] = in[h][t][t] || !s->shared || seen == 0;
        }
    }
}

static void reformer_case(struct lsh_setting s, int64_t window)
{
    lsh_make(&b, &s, base_isa());
    b.window = window;
    inputs();
    load_reformer(&s);
    on_every_isa();
    case_at++;
}

static void reformers_gradients_equal_finite_differences(void)
{
    reformer_case((struct lsh_setting){4, 8, 6, false}, 0);
    reformer_case((struct lsh_setting){4, 0, 6, false}, 0);
    reformer_case((struct lsh_setting){16, 0, 2, false}, 50); /* several blocks of slots */
}

static void shared_keys_are_credited_through_their_norm(void)
{
    reformer_case((struct lsh_setting){4, 8, 6, true}, 0);
    reformer_case((struct lsh_setting){3, 0, 5, true}, 40);
}

static void performer_case(bool hyperbolic, bool sqrt_norm, bool large)
{
    base_make(&b, "performer", base_isa());
    b.set[0] = "m.features=40", b.set[1] = "m.seed=9", b.set[2] = hyperbolic ? "m.hyperbolic=true" : "m.hyperbolic=false";
    b.set[3] = sqrt_norm ? "m.norm=\"sqrt-dim\"" : NULL;
    for (int64_t i = 0; large && i < KV; i++) /* the running maximum moves, up to some e^30 */
        b.k[i] *= i < KV / 3 ? 2 : i < KV / 2 ? 0.1F : 3;
    inputs();
    favor.m = FEATURES, favor.M = hyperbolic ? 2 * FEATURES : FEATURES;
    favor_directions(favor.w, favor.m, 9, (uint64_t)b.layer, sqrt_norm);
    on_every_isa();
    case_at++;
}

static void performers_gradients_equal_finite_differences(void)
{
    performer_case(false, false, false);
    performer_case(true, false, false);
    performer_case(true, true, false);
}

static void large_keys_keep_performers_gradients(void)
{
    performer_case(false, false, true);
}

/* Features of queries and keys so far apart that products underflow, in some rows all of them. */
static void what_underflows_leaves_finite_gradients(void)
{
    for (int size = 2; size <= 64; size *= 2) {
        base_make(&b, "performer", base_isa());
        for (int64_t i = 0; i < Q; i++)
            b.q[i] *= (float)size;
        for (int64_t i = 0; i < KV; i++)
            b.k[i] *= (float)size;
        inputs();
        run(base_isa());
        for (int64_t i = 0; i < Q; i++)
            T_CHECK(isfinite(out[i]) && isfinite(dq[i]));
        for (int64_t i = 0; i < KV; i++)
            T_CHECK(isfinite(dk[i]) && isfinite(dv[i]));
    }
}

/* ---- causality and threads ---- */

static void first_case(int i)
{
    static const struct lsh_setting s = {4, 0, 6, false};
    if (i == 0)
        lsh_make(&b, &s, base_isa());
    else
        base_make(&b, "performer", base_isa());
    inputs();
}

static void training_is_causal(void)
{
    enum { CUT = 150 };
    static float once[Q];
    for (int i = 0; i < 2; i++) {
        first_case(i);
        memset(dout + CUT * B_H * B_D, 0, sizeof dout - CUT * B_H * B_D * sizeof *dout);
        run(base_isa());
        memcpy(once, out, sizeof once);
        double after = 0, before = 0;
        for (int64_t x = 0; x < KV; x++)
            *(x < CUT * B_G * B_D ? &before : &after) += fabs((double)dk[x]) + fabs((double)dv[x]);
        T_CHECK(after == 0 && before > 0);
        for (int64_t x = CUT * B_H * B_D; x < Q; x++)
            b.q[x] = -b.q[x];
        for (int64_t x = CUT * B_G * B_D; x < KV; x++)
            b.k[x] *= 3, b.v[x] += 1;
        run(base_isa());
        T_CHECK(!memcmp(once, out, CUT * B_H * B_D * sizeof *out));
        T_CHECK(memcmp(once, out, sizeof out) != 0);
    }
}

static void threads_only_change_the_order_of_sums(void)
{
    static float once_q[Q], once_k[KV];
    for (int i = 0; i < 2; i++) {
        first_case(i);
        for (int threads = 1; threads <= 7; threads += 2) { /* of three heads that share a key head, too */
            double worst = 0, most = 0;
            omp_set_num_threads(threads);
            run(base_isa());
            for (int64_t x = 0; x < KV; x++) {
                most = fmax(most, fabs((double)dk[x]));
                worst = fmax(worst, threads > 1 ? fabs((double)dk[x] - (double)once_k[x]) : 0);
            }
            T_CHECK(worst <= 1e-5 * most);
            T_CHECK(threads == 1 || !memcmp(dq, once_q, sizeof dq));
            memcpy(once_q, dq, sizeof dq), memcpy(once_k, dk, sizeof dk);
            run(base_isa());
            T_CHECK(!memcmp(dq, once_q, sizeof dq) && !memcmp(dk, once_k, sizeof dk)); /* the same threads: the same bits */
        }
        omp_set_num_threads(2);
    }
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    omp_set_num_threads(2);
    T_RUN(reformers_gradients_equal_finite_differences);
    T_RUN(shared_keys_are_credited_through_their_norm);
    T_RUN(performers_gradients_equal_finite_differences);
    T_RUN(large_keys_keep_performers_gradients);
    T_RUN(what_underflows_leaves_finite_gradients);
    T_RUN(training_is_causal);
    T_RUN(threads_only_change_the_order_of_sums);
    return t_done();
}
