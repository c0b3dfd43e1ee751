/* Performer against its feature-map formula in double precision, against dense attention as features grow, and under keys
 * that overflow a naive sum. */
#include "attn/favor.h"
#include "tests/unit/test_favor.h"

enum { MOST = 512 };

struct formula {
    double *w, *k; /* (d, m); (N, M) of one KV head */
    int64_t m, M;
};

/* o and its log-sum-exp of token t: sum_j phi(q).phi(k_j) v_j / sum_j phi(q).phi(k_j), quadratic, every product from logs */
static double favor_row(const struct base *b, const struct formula *f, int64_t t, int64_t h, double *o)
{
    static double q[2 * MOST];
    double top = -HUGE_VAL, sum = 0;
    int64_t g = h / (B_H / B_G);
    favor_log_phi(b->q + (t * B_H + h) * B_D, f->w, f->m, f->M, (double)b->scale, q);
    for (int64_t j = 0; j <= t; j++)
        for (int64_t r = 0; r < f->M; r++)
            top = fmax(top, q[r] + f->k[j * f->M + r]);
    memset(o, 0, B_D * sizeof *o);
    for (int64_t j = 0; j <= t; j++) {
        double p = 0;
        for (int64_t r = 0; r < f->M; r++)
            p += exp(q[r] + f->k[j * f->M + r] - top);
        sum += p;
        for (int i = 0; i < B_D; i++)
            o[i] += p * (double)b->v[(j * B_G + g) * B_D + i];
    }
    for (int i = 0; i < B_D; i++)
        o[i] /= sum;
    return top + log(sum) - log((double)f->M);
}

static void ran(struct base *b)
{
    if (base_run(b)) {
        T_FAIL("%s on %s: %s", b->method, b->isa, err_text());
        err_clear();
    }
    T_CHECK(b->peak <= b->scratch);
}

/* Largest difference between b's outputs and the formula, some rows of each head. */
static double off(const struct base *b, int64_t m, bool hyperbolic, bool sqrt_norm)
{
    struct formula f = {.m = m, .M = hyperbolic ? 2 * m : m};
    double worst = 0, o[B_D];
    f.w = malloc((size_t)(B_D * m) * sizeof(double));
    f.k = malloc((size_t)(B_N * f.M) * sizeof(double));
    if (f.w)
        favor_directions(f.w, m, 9, (uint64_t)b->layer, sqrt_norm);
    for (int64_t h = 0; f.w && f.k && h < B_H; h++) {
        for (int64_t j = 0; j < B_N && h % (B_H / B_G) == 0; j++)
            favor_log_phi(b->k + (j * B_G + h / (B_H / B_G)) * B_D, f.w, m, f.M, (double)b->scale, f.k + j * f.M);
        for (int64_t t = h; t < B_N; t += 23) {
            worst = fmax(worst, fabs(favor_row(b, &f, t, h, o) - (double)b->lse[t * B_H + h]));
            for (int i = 0; i < B_D; i++)
                worst = fmax(worst, fabs(o[i] - (double)b->out[(t * B_H + h) * B_D + i]));
        }
    }
    free(f.w);
    free(f.k);
    return worst;
}

static void features_equal_their_formula(void)
{
    struct base *b = malloc(sizeof *b);
    for (int isa = 0; b && isa < kern_isa_count(); isa++)
        for (int how = 0; how < 3; how++) {
            if (!kern_isa_runs(isa))
                continue;
            base_make(b, "performer", kern_isa_name(isa));
            b->chunk = how == 1 ? 45 : B_N;
            b->set[0] = "m.features=60", b->set[1] = "m.seed=9";
            b->set[2] = how >= 1 ? "m.hyperbolic=true" : NULL;
            b->set[3] = how == 2 ? "m.norm=\"sqrt-dim\"" : NULL;
            ran(b);
            T_NEAR(off(b, 60, how >= 1, how == 2), 0, 1e-5);
        }
    free(b);
}

/* Exponents beyond what float can hold: the running maximum has to carry them, and to move while it does. */
static void large_keys_neither_overflow_nor_vanish(void)
{
    struct base *b = malloc(sizeof *b);
    base_make(b, "performer", base_isa());
    b->set[0] = "m.features=60", b->set[1] = "m.seed=9";
    for (int64_t j = 0; j < B_N; j++)
        for (int64_t i = 0; i < B_G * B_D; i++)
            b->k[j * B_G * B_D + i] *= j < 100 ? 9 : j < 200 ? 0.1F : 4; /* |k'|^2 / 2 up to 300 */
    ran(b);
    T_NEAR(off(b, 60, false, false), 0, 1e-4); /* exponents of 300 carry 2e-5 in float */
    free(b);
}

static double against_dense(struct base *b, struct base *dense, int features)
{
    char set[40];
    double num = 0, den = 0;
    for (int seed = 1; seed <= 3; seed++) {
        char of[20];
        base_make(b, "performer", base_isa());
        snprintf(set, sizeof set, "m.features=%d", features);
        snprintf(of, sizeof of, "m.seed=%d", seed);
        b->set[0] = set, b->set[1] = of;
        b->scale = dense->scale;
        ran(b);
        for (int64_t i = 0; i < B_N * B_H * B_D; i++) {
            double x = (double)b->out[i] - (double)dense->out[i];
            num += x * x;
            den += (double)dense->out[i] * (double)dense->out[i];
        }
    }
    return sqrt(num / den);
}

/* The error of an average over features falls as 1 / sqrt(m). */
static void it_converges_to_dense_as_features_grow(void)
{
    static const int m[] = {32, 128, 512, 2048};
    struct base *b = malloc(sizeof *b), *dense = malloc(sizeof *dense);
    double before = HUGE_VAL;
    base_make(dense, "dense", base_isa());
    dense->scale = 0.03F; /* the variance of a feature grows with e^(scale |q + k|^2): here about e^1.5 */
    ran(dense);
    for (int i = 0; i < 4; i++) {
        double e = against_dense(b, dense, m[i]);
        printf("# %4d features: output error %.4f of dense\n", m[i], e);
        T_CHECK(e < 0.65 * before);
        before = e;
    }
    T_CHECK(before < 0.1);
    free(b);
    free(dense);
}

static void directions_are_orthogonal_and_of_the_right_length(void)
{
    static float w[B_D * 50];
    static double work[B_D * B_D];
    favor_draw(&(struct favor_draw){.features = 50, .dim = B_D, .seed = 3, .layer = 2, .sqrt_norm = true}, w, work);
    for (int a = 0; a < 50; a++)
        for (int c = 0; c <= a; c++) {
            double dot = 0;
            for (int j = 0; j < B_D; j++)
                dot += (double)w[j * 50 + a] * (double)w[j * 50 + c];
            if (a == c)
                T_NEAR(dot, B_D, 1e-5);
            else if (a / B_D == c / B_D)
                T_NEAR(dot, 0, 1e-5);
        }
}

static void a_sliding_window_is_refused_and_ranks_agree(void)
{
    struct base *a = malloc(sizeof *a), *b = malloc(sizeof *b);
    base_make(a, "performer", base_isa());
    a->window = 50;
    T_EQ(base_run(a), ERR_ARG);
    T_CHECK(strstr(err_text(), "sliding window of 50") != NULL);
    err_clear();
    a->window = 0;
    ran(a);
    base_make(b, "performer", base_isa());
    b->heads = B_H / B_G;
    for (b->head_from = 0; b->head_from < B_H; b->head_from += B_H / B_G)
        ran(b);
    T_CHECK(base_same(a, b));
    free(a);
    free(b);
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    T_RUN(directions_are_orthogonal_and_of_the_right_length);
    T_RUN(features_equal_their_formula);
    T_RUN(large_keys_neither_overflow_nor_vanish);
    T_RUN(it_converges_to_dense_as_features_grow);
    T_RUN(a_sliding_window_is_refused_and_ranks_agree);
    return t_done();
}
