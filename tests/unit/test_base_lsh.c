/* Reformer against its definition in double precision: hashes, bucket lists and their union written down once more, token by
 * token; and the paper's average over rounds with its - ln N terms, which has to come to the same. */
#include "tests/unit/test_base.h"

enum { R = 4, BUCKETS = 8, CHUNK = 6, SEED = 4 };

/* Bucket of x in round r under KV head g's matrix; *margin: how clear it is. */
static int bucket_of(const double *x, int64_t layer, int64_t g, int r, double *margin)
{
    double best = -HUGE_VAL, second = -HUGE_VAL;
    int at = 0;
    for (int col = 0; col < BUCKETS; col++) {
        int c = col % (BUCKETS / 2);
        double p = 0;
        for (int i = 0; i < B_D; i++) {
            float m = (float)rng_normal(SEED, (uint64_t)(layer << 32 | g), (uint64_t)(i * R * BUCKETS / 2 + r * BUCKETS / 2 + c));
            p += x[i] * (double)m;
        }
        p = col < BUCKETS / 2 ? p : -p;
        if (p > best)
            second = best, best = p, at = col;
        else if (p > second)
            second = p;
    }
    *margin = fmin(*margin, best - second);
    return at;
}

struct lsh_case { /* one query head */
    bool shared;
    int64_t layer, g;
    double q[B_N][B_D], k[B_N][B_D], v[B_N][B_D], scale;
    int hq[B_N][R], hk[B_N][R];
};

static double load(struct lsh_case *c, const struct base *b, int64_t h)
{
    double margin = HUGE_VAL;
    c->layer = b->layer;
    c->g = h / (B_H / B_G);
    c->scale = (double)b->scale;
    for (int64_t t = 0; t < B_N; t++) {
        double norm = 0;
        for (int64_t i = 0; i < B_D; i++) {
            c->q[t][i] = (double)b->q[(t * B_H + h) * B_D + i];
            c->k[t][i] = (double)b->k[(t * B_G + c->g) * B_D + i];
            c->v[t][i] = (double)b->v[(t * B_G + c->g) * B_D + i];
            norm += c->q[t][i] * c->q[t][i];
        }
        for (int64_t i = 0; c->shared && i < B_D; i++)
            c->k[t][i] = c->q[t][i] / sqrt(norm);
        for (int r = 0; r < R; r++) {
            c->hq[t][r] = bucket_of(c->q[t], b->layer, c->g, r, &margin);
            c->hk[t][r] = bucket_of(c->k[t], b->layer, c->g, r, &margin);
        }
    }
    return margin;
}

/* in[r][j]: is key j among the last 2 c of t's bucket in round r, itself counted where it belongs there */
static void rounds_of(const struct lsh_case *c, int64_t t, int64_t window, bool in[R][B_N])
{
    memset(in, 0, sizeof(bool) * R * B_N);
    for (int r = 0; r < R; r++)
        for (int64_t j = t, n = 0; j >= 0 && n < 2 * CHUNK; j--)
            if (c->hk[j][r] == c->hq[t][r]) {
                in[r][j] = window == 0 || j > t - window;
                n++;
            }
}

static double logit(const struct lsh_case *c, int64_t t, int64_t j)
{
    double s = 0;
    for (int i = 0; i < B_D; i++)
        s += c->q[t][i] * c->k[j][i];
    return c->shared && j == t ? -1e5 : s * c->scale;
}

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
static void by_union(const struct lsh_case *c, int64_t t, bool in[R][B_N], struct sum *s)
{
    *s = (struct sum){.top = -HUGE_VAL};
    for (int64_t j = 0; j <= t; j++) {
        bool any = j == t;
        for (int r = 0; r < R; r++)
            any = any || in[r][j];
        if (any)
            add(s, logit(c, t, j), c->v[j]);
    }
}

/* the paper: o = sum_r e^(L_r - L) o_r, each round a softmax of logit - ln N_tj. The token itself belongs to every round. */
static void by_rounds(const struct lsh_case *c, int64_t t, bool in[R][B_N], struct sum *s)
{
    *s = (struct sum){.top = -HUGE_VAL};
    for (int r = 0; r < R; r++) {
        struct sum one = {.top = -HUGE_VAL};
        double o[B_D];
        for (int64_t j = 0; j <= t; j++) {
            int times = 0;
            for (int x = 0; x < R; x++)
                times += in[x][j] || j == t;
            if (in[r][j] || j == t)
                add(&one, logit(c, t, j) - log(times), c->v[j]);
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

static void make(struct base *b, bool shared, const char *isa)
{
    base_make(b, "reformer", isa);
    b->set[0] = "m.rounds=4", b->set[1] = "m.buckets=8", b->set[2] = "m.chunk=6", b->set[3] = "m.seed=4";
    b->set[4] = shared ? "m.shared_qk=true" : NULL;
}

static void compare(const struct base *b, bool shared)
{
    static struct lsh_case c;
    static bool in[R][B_N];
    double worst = 0, rounds = 0, pairs = 0;
    for (int64_t h = 0; h < B_H; h++) {
        c.shared = shared;
        T_CHECK(load(&c, b, h) > 1e-6); /* no hash is a tie that float might see otherwise */
        for (int64_t t = 0; t < B_N; t++) {
            struct sum u, p;
            rounds_of(&c, t, b->window, in);
            by_union(&c, t, in, &u);
            by_rounds(&c, t, in, &p);
            double lse = u.top + log(u.den);
            bool alone = shared && u.n == 1; /* the program gives the own key its plain logit there */
            worst = fmax(worst, alone ? 0 : fabs(lse - (double)b->lse[t * B_H + h]));
            rounds = fmax(rounds, alone ? 0 : fabs(lse - p.top - log(p.den)));
            pairs += (double)(u.n - (shared && u.n > 1));
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

static void the_same_buckets_give_the_same_result(void)
{
    struct base *b = malloc(sizeof *b);
    for (int isa = 0; b && isa < kern_isa_count(); isa++)
        for (int shared = 0; shared < 2; shared++) {
            if (!kern_isa_runs(isa))
                continue;
            make(b, shared, kern_isa_name(isa));
            b->chunk = shared ? 41 : B_N; /* longer and shorter than what is entered at once */
            ran(b);
            compare(b, shared);
        }
    free(b);
}

static void the_architectures_window_cuts_lists(void)
{
    struct base *b = malloc(sizeof *b);
    make(b, false, base_isa());
    b->window = 50;
    ran(b);
    compare(b, false);
    free(b);
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
    for (int shared = 0; a && b && shared < 2; shared++) {
        make(a, shared, base_isa());
        ran(a);
        make(b, shared, base_isa());
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
    T_RUN(one_bucket_list_that_holds_all_is_dense);
    T_RUN(ranks_that_share_the_heads_get_the_same_bits);
    return t_done();
}
