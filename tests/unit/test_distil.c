/* Distillation: losses and gradients of a gate against finite differences in double; what is captured against brute force. */
#include <stdint.h>

#include "attn/gate.h"
#include "base/arena.h"
#include "base/err.h"
#include "base/rng.h"
#include "tests/t.h"
#include "train/capture.h"
#include "train/distil_gate.h"

enum { N = 7, TOKENS = 210, B = 16, NB = 14, HEADS = 3, D = 16, E = 16, HID = 12, HALF = 8, BUCKETS = 16, LOCAL = 32 };

/* Everything in double; floats are made from it. */
struct problem {
    double wq[HEADS * D * E], wk[3 * D * E], wc[HID * E], dist[BUCKETS], wr[E], br[1];
    double q0[N * HEADS * D], pool[NB * 3 * D], ctx[N * HID], mass[N * HEADS * NB], peak[N * HEADS * NB];
    struct select_set set[N];
    struct distil_loss loss;
    int use_peak;
};

static void fill(double *x, int64_t n, double scale, uint64_t stream)
{
    for (int64_t i = 0; i < n; i++) /* what a float can hold, so that both sides see the same numbers */
        x[i] = (double)(float)(scale * rng_normal(7, stream, (uint64_t)i));
}

static void make(struct problem *p)
{
    static const int64_t token[N] = {3, 40, 63, 100, 150, 207, 209};
    struct select_rule rule = {.block = B, .local = LOCAL, .keep = 96, .budget = SELECT_TOKENS};
    memset(p, 0, sizeof *p);
    fill(p->wq, HEADS * D * E, 0.2, 1);
    fill(p->wk, 3 * D * E, 0.2, 2);
    fill(p->wc, HID * E, 0.2, 3);
    fill(p->dist, BUCKETS, 0.5, 4);
    fill(p->wr, E, 0.3, 5);
    fill(p->br, 1, 0.3, 6);
    fill(p->q0, N * HEADS * D, 1, 7);
    fill(p->pool, NB * 3 * D, 1, 8);
    fill(p->ctx, N * HID, 1, 9);
    for (int i = 0; i < N; i++) {
        select_sets(&p->set[i], &rule, token[i]);
        for (int h = 0; h < HEADS; h++) {
            double sum = 0, *m = p->mass + (i * HEADS + h) * NB;
            for (int J = 0; J <= token[i] / B; J++)
                sum += m[J] = exp(2 * rng_normal(7, 10, (uint64_t)((i * HEADS + h) * NB + J)));
            for (int J = 0; J < NB; J++) {
                m[J] = (double)(float)(m[J] / sum);
                p->peak[(i * HEADS + h) * NB + J] =
                    (double)(float)(m[J] * rng_uniform(7, 11, (uint64_t)((i * HEADS + h) * NB + J)));
            }
        }
    }
    p->loss = (struct distil_loss){.kl = 1, .temperature = 0.7};
}

/* Half-split rotary embedding at a position, theta 10000. */
static void turn(double *x, double pos)
{
    for (int i = 0; i < HALF; i++) {
        double a = pos * pow(10000, -2.0 * i / E), c = cos(a), s = sin(a), u = x[i], v = x[i + HALF];
        x[i] = u * c - v * s;
        x[i + HALF] = v * c + u * s;
    }
}

static void project(double *y, const double *x, const double *w, int in)
{
    for (int k = 0; k < in; k++)
        for (int e = 0; e < E; e++)
            y[e] += x[k] * w[k * E + e];
}

/* Scores of row i's candidates, as attn/gate.h has them; raw: u before rotation. */
static void ref_scores(const struct problem *p, int i, double *s, double *raw)
{
    double u[E] = {0};
    project(u, p->q0 + i * HEADS * D, p->wq, HEADS * D);
    project(u, p->ctx + i * HID, p->wc, HID);
    memcpy(raw, u, sizeof u);
    turn(u, (double)p->set[i].token);
    for (int64_t J = p->set[i].lo; J < p->set[i].hi; J++) {
        double v[E] = {0}, dot = 0;
        project(v, p->pool + J * 3 * D, p->wk, 3 * D);
        turn(v, (double)(J * B) + B / 2.0);
        for (int e = 0; e < E; e++)
            dot += u[e] * v[e];
        s[J - p->set[i].lo] = dot / sqrt(D) + p->dist[gate_bucket(p->set[i].own - J, BUCKETS)];
    }
}

/* tau by bisection: sum of sigmoid((s - tau) / T) = k */
static void ref_soft(double *m, const double *s, int64_t n, double k, double T)
{
    double lo = -1e3, hi = 1e3;
    for (int x = 0; x < 200; x++) {
        double tau = (lo + hi) / 2, sum = 0;
        for (int64_t j = 0; j < n; j++)
            sum += m[j] = k >= (double)n ? 1 : 1 / (1 + exp((tau - s[j]) / T));
        *(sum > k ? &lo : &hi) = tau;
    }
}

static double ref_recall(const struct problem *p, int i, const double *s)
{
    int64_t n = p->set[i].hi - p->set[i].lo;
    double m[NB], loss = 0;
    ref_soft(m, s, n, (double)p->set[i].most, p->loss.temperature);
    for (int h = 0; h < HEADS; h++) {
        double got = 0;
        for (int J = 0; J < NB; J++) {
            double w = J >= p->set[i].lo && J < p->set[i].hi ? m[J - p->set[i].lo] : 1;
            got += w * p->mass[(i * HEADS + h) * NB + J];
        }
        loss -= log(got) / HEADS;
    }
    return loss;
}

/* Sum of weighted losses; *weight their weights, *budget the budget's cross entropy against fixed wishes. */
static double ref_loss(const struct problem *p, const double *want, double *weight, double *budget)
{
    double total = 0;
    *weight = *budget = 0;
    for (int i = 0; i < N; i++) {
        int64_t n = p->set[i].hi - p->set[i].lo;
        double s[NB], raw[E], t[NB] = {0}, sum = 0, share = 0, lse = 0, kl = 0, entropy = 0, z = p->br[0];
        if (n < 1)
            continue;
        ref_scores(p, i, s, raw);
        for (int64_t j = 0; j < n; j++) {
            for (int h = 0; h < HEADS; h++) {
                int64_t at = (i * HEADS + h) * NB + p->set[i].lo + j;
                t[j] += p->use_peak ? p->peak[at] : p->mass[at];
                share += p->mass[at] / HEADS;
            }
            sum += t[j];
            lse += exp(s[j]);
        }
        for (int64_t j = 0; j < n; j++) {
            double q = t[j] / sum;
            kl += q * (log(q) - s[j] + log(lse));
            entropy -= q * log(q);
        }
        double w = p->loss.weight == DISTIL_EQUAL  ? 1
                   : p->loss.weight == DISTIL_MASS ? share
                   : n > 1                         ? 1 - entropy / log((double)n)
                                                   : 0;
        total += w * (p->loss.kl * kl + (p->loss.recall > 0 ? p->loss.recall * ref_recall(p, i, s) : 0));
        *weight += w;
        for (int e = 0; e < E; e++)
            z += raw[e] * p->wr[e];
        *budget += want ? log1p(exp(z)) - want[i] * z : 0;
    }
    return total;
}

struct floats {
    float wq[HEADS * D * E], wk[3 * D * E], wc[HID * E], dist[BUCKETS], wr[E], br[1];
};

static void to_float(float *y, const double *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = (float)x[i];
}

static void copy_weights(struct floats *f, const struct problem *p)
{
    to_float(f->wq, p->wq, HEADS * D * E);
    to_float(f->wk, p->wk, 3 * D * E);
    to_float(f->wc, p->wc, HID * E);
    to_float(f->dist, p->dist, BUCKETS);
    to_float(f->wr, p->wr, E);
    to_float(f->br, p->br, 1);
}

static struct distil_gate gate_of(struct floats *f)
{
    return (struct distil_gate){f->wq, f->wk, f->wc, f->dist, f->wr, f->br};
}

/* Runs the program's step on p; gradients into g. */
static struct distil_sums run(const struct problem *p, struct floats *g)
{
    static float q0[N * HEADS * D], pool[NB * 3 * D], ctx[N * HID], mass[N * HEADS * NB], peak[N * HEADS * NB];
    static float rc[N * HALF], rs[N * HALF], bc[NB * HALF], bs[NB * HALF];
    static struct floats w;
    struct kern_table kern;
    struct distil_sums sums = {0};
    T_CHECK(kern_select(&kern, NULL) == 0);
    to_float(q0, p->q0, N * HEADS * D);
    to_float(pool, p->pool, NB * 3 * D);
    to_float(ctx, p->ctx, N * HID);
    to_float(mass, p->mass, N * HEADS * NB);
    to_float(peak, p->peak, N * HEADS * NB);
    copy_weights(&w, p);
    for (int k = 0; k < HALF; k++) {
        double f = pow(10000, -2.0 * k / E);
        for (int i = 0; i < N; i++)
            rc[i * HALF + k] = (float)cos((double)p->set[i].token * f), rs[i * HALF + k] = (float)sin((double)p->set[i].token * f);
        for (int J = 0; J < NB; J++)
            bc[J * HALF + k] = (float)cos((J * B + B / 2.0) * f), bs[J * HALF + k] = (float)sin((J * B + B / 2.0) * f);
    }
    struct distil_rows r = {.n = N, .blocks = NB, .half = HALF, .set = p->set, .row_cos = rc, .row_sin = rs};
    r.block_cos = bc;
    r.block_sin = bs;
    struct distil_unit u = {.heads = HEADS, .dim = D, .hidden = HID, .width = E, .buckets = BUCKETS, .scale = (float)(1 / sqrt(D))};
    u.q0 = q0, u.ldq = HEADS * D, u.pool = pool, u.ctx = ctx, u.ldc = HID, u.mass = mass, u.ldm = HEADS * NB;
    u.peak = p->use_peak ? peak : NULL;
    u.w = gate_of(&w);
    memset(g, 0, sizeof *g);
    u.g = gate_of(g);
    u.kern = &kern;
    void *room = aligned_alloc(64, distil_gate_scratch(&r, &u));
    distil_gate_step(&r, &u, &p->loss, &sums, room);
    free(room);
    return sums;
}

/* Central differences of every element of one tensor against its gradient: 1e-5 of the tensor's largest. */
static void compare(struct problem *p, double *x, const float *g, int64_t n, const double *want)
{
    const double h = 1e-5;
    double worst = 0, most = 0;
    for (int64_t i = 0; i < n; i++) {
        double at = x[i], weight, up_budget, down_budget;
        x[i] = at + h;
        double up = ref_loss(p, want, &weight, &up_budget);
        x[i] = at - h;
        double down = ref_loss(p, want, &weight, &down_budget);
        x[i] = at;
        double fd = want ? (up_budget - down_budget) / (2 * h) : (up - down) / (2 * h);
        double off = fabs(fd - (double)g[i]);
        worst = off >= 0 ? fmax(worst, off) : HUGE_VAL;
        most = fmax(most, fabs(fd));
    }
    T_CHECK(most > 0);
    T_NEAR(worst / most, 0, 1e-5);
}

static void check_case(struct problem *p)
{
    static struct floats g;
    struct distil_sums sums = run(p, &g);
    double weight, budget, loss = ref_loss(p, NULL, &weight, &budget);
    T_NEAR(sums.loss, loss, 1e-5);
    T_NEAR(sums.weight, weight, 1e-5);
    T_NEAR(sums.rows, N - 3, 0); /* tokens 3, 40 and 63 have no candidates */
    compare(p, p->wq, g.wq, HEADS * D * E, NULL);
    compare(p, p->wk, g.wk, 3 * D * E, NULL);
    compare(p, p->wc, g.wc, HID * E, NULL);
    compare(p, p->dist, g.dist, BUCKETS, NULL);
}

static void the_gradient_of_the_kl_is_that_of_finite_differences(void)
{
    static struct problem p;
    for (int w = DISTIL_EQUAL; w <= DISTIL_SHARP; w++) {
        make(&p);
        p.loss.weight = w;
        p.use_peak = w == DISTIL_MASS;
        check_case(&p);
    }
}

static void the_gradient_of_the_recall_is_that_of_finite_differences(void)
{
    static struct problem p;
    make(&p);
    p.loss.kl = 0;
    p.loss.recall = 1;
    check_case(&p);
    p.loss.kl = 0.3;
    p.loss.weight = DISTIL_MASS;
    check_case(&p);
}

/* The least fraction of candidates, best scores first, that covers the mass: by trying all. */
static double ref_fraction(const struct problem *p, int i)
{
    int64_t n = p->set[i].hi - p->set[i].lo;
    double s[NB], raw[E];
    ref_scores(p, i, s, raw);
    for (int64_t k = 0; k <= n; k++) {
        double got = 0;
        for (int h = 0; h < HEADS; h++)
            for (int J = 0; J < NB; J++) {
                int64_t j = J - p->set[i].lo, better = 0;
                for (int64_t x = 0; x < n; x++)
                    better += j >= 0 && j < n && s[x] > s[j];
                if (j < 0 || J >= p->set[i].hi || better < k)
                    got += p->mass[(i * HEADS + h) * NB + J] / HEADS;
            }
        if (got >= p->loss.budget)
            return (double)k / (double)n;
    }
    return 1;
}

static void the_learned_budget_follows_the_mass_and_moves_nothing_else(void)
{
    static struct problem p;
    static struct floats g, without;
    double want[N] = {0}, weight, budget;
    make(&p);
    run(&p, &without);
    p.loss.budget = 0.8;
    struct distil_sums sums = run(&p, &g);
    for (int i = 0; i < N; i++)
        want[i] = p.set[i].hi > p.set[i].lo ? ref_fraction(&p, i) : 0;
    ref_loss(&p, want, &weight, &budget);
    T_NEAR(sums.budget_loss, budget, 1e-5);
    compare(&p, p.wr, g.wr, E, want);
    compare(&p, p.br, g.br, 1, want);
    T_CHECK(!memcmp(g.wq, without.wq, sizeof g.wq) && !memcmp(g.wk, without.wk, sizeof g.wk));
    T_CHECK(without.wr[0] == 0 && without.br[0] == 0);
}

/* ---- capture ---- */

enum { CT = 150, CH = 4, CG = 2, CR = 5 };

struct sequence {
    float q[CT * CH * D], q0[CT * CH * D], k[CT * CG * D], k0[CT * CG * D], v[CT * CG * D], x[CT * HID], out[CT * CH * D];
};

static void random_floats(float *x, int64_t n, uint64_t stream)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)rng_normal(9, stream, (uint64_t)i);
}

static void feed(struct sequence *s, const struct attn_method *m, const void *opts, const struct attn_shape *shape, int64_t chunk)
{
    struct kern_table kern;
    struct arena step, mem;
    struct kern_kv kv[CG];
    T_CHECK(kern_select(&kern, NULL) == 0);
    T_CHECK(arena_open(&step, "step", m->scratch(opts, shape, chunk, CT)) == ERR_OK);
    T_CHECK(arena_open(&mem, "mem", 1 << 20) == ERR_OK);
    for (int g = 0; g < CG; g++) {
        kv[g] = (struct kern_kv){.dim = D, .dtype = KERN_F32};
        kv[g].k = arena_alloc0(&mem, (int64_t)kern_kv_bytes(KERN_F32, D, CT), 1);
        kv[g].v = arena_alloc0(&mem, (int64_t)kern_kv_bytes(KERN_F32, D, CT), 1);
    }
    struct attn_call c = {.method = m, .opts = opts, .shape = shape, .kv = kv, .kern = &kern, .step = &step};
    for (c.pos = 0; c.pos < CT; c.pos += c.n) {
        c.n = chunk < CT - c.pos ? chunk : CT - c.pos;
        c.q = s->q + c.pos * CH * D, c.q0 = s->q0 + c.pos * CH * D, c.k = s->k + c.pos * CG * D, c.k0 = s->k0 + c.pos * CG * D;
        c.v = s->v + c.pos * CG * D, c.x = s->x + c.pos * HID, c.out = s->out + c.pos * CH * D;
        for (int g = 0; g < CG; g++)
            kern.kv_append(&kv[g], c.k + g * D, c.v + g * D, CG * D, c.n);
        T_CHECK(m->run(&c) == ERR_OK);
    }
    arena_close(&step);
    arena_close(&mem);
}

static void check_masses(const struct sequence *s, const struct capture *c, int64_t window)
{
    for (int r = 0; r < CR; r++)
        for (int h = 0; h < CH; h++) {
            double p[CT], sum = 0, top[NB] = {0}, mass[NB] = {0}, worst = 0;
            int64_t t = c->row[r], from = window && t + 1 > window ? t + 1 - window : 0;
            for (int64_t j = from; j <= t; j++) {
                double dot = 0;
                for (int i = 0; i < D; i++)
                    dot += (double)s->q[(t * CH + h) * D + i] * (double)s->k[(j * CG + h / (CH / CG)) * D + i];
                sum += p[j] = exp(dot / sqrt(D));
            }
            for (int64_t j = from; j <= t; j++) {
                mass[j / B] += p[j] / sum;
                top[j / B] = fmax(top[j / B], p[j] / sum);
            }
            for (int64_t J = 0; J < c->blocks; J++) {
                worst = fmax(worst, fabs(mass[J] - (double)c->layer[1].mass[(r * CH + h) * c->blocks + J]));
                worst = fmax(worst, fabs(top[J] - (double)c->layer[1].peak[(r * CH + h) * c->blocks + J]));
            }
            T_NEAR(worst, 0, 2e-6);
        }
}

static void check_pools(const struct sequence *s, const struct capture *c)
{
    for (int g = 0; g < CG; g++)
        for (int64_t J = 0; J < c->blocks; J++)
            for (int i = 0; i < D; i++) {
                double mean = 0, hi = -1e9, lo = 1e9;
                for (int64_t j = J * B; j < J * B + B && j < CT; j++) {
                    double k = (double)s->k0[(j * CG + g) * D + i];
                    mean += k / B, hi = fmax(hi, k), lo = fmin(lo, k);
                }
                bool whole = J * B + B <= CT;
                const float *p = c->layer[1].pool + (g * c->blocks + J) * 3 * D + i;
                T_NEAR(p[0], whole ? mean : 0, 1e-6);
                T_NEAR(p[D], whole ? hi : 0, 0);
                T_NEAR(p[2 * D], whole ? lo : 0, 0);
            }
}

static void check_rows(const struct sequence *s, const struct capture *c)
{
    for (int r = 0; r < CR; r++) {
        double mean[HID] = {0}, sq = 0;
        int64_t t = c->row[r];
        T_CHECK(!memcmp(c->layer[1].q0 + r * CH * D, s->q0 + t * CH * D, sizeof(float[CH * D])));
        for (int i = 0; i < HID; i++) {
            for (int64_t j = 0; j <= t; j++)
                mean[i] += (double)s->x[j * HID + i] / (double)(t + 1);
            sq += mean[i] * mean[i] / HID;
        }
        for (int i = 0; i < HID; i++)
            T_NEAR(c->layer[1].ctx[r * HID + i], mean[i] / sqrt(sq + 1e-6), 1e-5);
    }
}

static void what_is_captured_is_what_brute_force_gives_in_any_chunks(void)
{
    static struct sequence s, dense;
    static const int64_t row[CR] = {0, 15, 77, 128, 149}, chunk[] = {CT, 64, 37, 1};
    struct capture_dims d = {.heads = CH, .kv_heads = CG, .dim = D, .hidden = HID, .layers = 2, .block = B, .max_tokens = CT + 20};
    struct capture both[2]; /* two sequences side by side, in turn */
    struct arena run;
    d.max_rows = CR + 2;
    d.context = d.peak = true;
    T_CHECK(arena_open(&run, "run", capture_bytes(&d, 2)) == ERR_OK);
    T_CHECK(capture_alloc(both, 2, &d, &run) == ERR_OK);
    struct capture_opts o;
    random_floats(s.q, CT * CH * D, 1);
    random_floats(s.q0, CT * CH * D, 2);
    random_floats(s.k, CT * CG * D, 3);
    random_floats(s.k0, CT * CG * D, 4);
    random_floats(s.v, CT * CG * D, 5);
    random_floats(s.x, CT * HID, 6);
    dense = s;
    for (int i = 0; i < 4; i++) {
        struct attn_shape shape = {.heads = CH, .kv_heads = CG, .dim = D, .hidden = HID, .layer = 1, .n_layers = 2};
        shape.scale = (float)(1 / sqrt(D));
        shape.window = i == 1 ? 50 : 0;
        o.to = &both[i % 2];
        memcpy(o.to->row, row, sizeof row);
        capture_begin(o.to, CT, CR);
        feed(&s, &capture_method, &o, &shape, chunk[i]);
        feed(&dense, attn_find("dense"), NULL, &shape, chunk[i]);
        T_CHECK(!memcmp(s.out, dense.out, sizeof s.out));
        check_masses(&s, o.to, shape.window);
        check_pools(&s, o.to);
        check_rows(&s, o.to);
    }
    check_masses(&s, &both[0], 0); /* reading the other has left it as it was */
    check_pools(&s, &both[0]);
    check_rows(&s, &both[0]);
    arena_close(&run);
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    T_RUN(the_gradient_of_the_kl_is_that_of_finite_differences);
    T_RUN(the_gradient_of_the_recall_is_that_of_finite_differences);
    T_RUN(the_learned_budget_follows_the_mass_and_moves_nothing_else);
    T_RUN(what_is_captured_is_what_brute_force_gives_in_any_chunks);
    return t_done();
}
