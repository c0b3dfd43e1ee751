/* AST's attention in training against a plain double build of ../shared/reference/ast_reference.py and its central differences:
 * output, and gradients of all that it reads, k and T included, to 1e-5 of the largest entry. Loss: sum of c out, c random,
 * plus the weight of the mean density where the budget is learned. */
#include "attn/gate.h"
#include "base/arena.h"
#include "base/err.h"
#include "kernels/linear.h"
#include "tests/t.h"
#include "train/back_gate.h"

enum { N = 117, H = 4, G = 2, DIM = 8, HID = 12, BUCKETS = 16, NB = N / 8 + 1, MOST = N * H * DIM };

static struct kern_table kern;
static struct arena step;
static uint64_t seed;

/* the case */
static int64_t units, summary, candidates, local = 16;
static int B; /* tokens a block, 8 at least */
static bool learned, hard;
static double temperature;

static struct input { /* in double; gate tensors as in attn/gate.h */
    double q[N * H * DIM], k[N * G * DIM], v[N * G * DIM], x[N * HID];
    double wq[H * 2 * DIM * DIM], wk[H * 3 * DIM * DIM], wc[H * HID * DIM], dist[H * BUCKETS], wr[H * DIM], br[H], beta[H], temp;
} in, zero;
static double c_out[N * H * DIM];
enum { DENSITY = 3 };

static double uniform(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (double)(int64_t)(seed >> 11) / 4503599627370496.0 - 1;
}

static void fill(double *x, int64_t n, double size)
{
    for (int64_t i = 0; i < n; i++) /* floats, so that both sides start from the same numbers */
        x[i] = (double)(float)(size * uniform());
}

/* ---- the plain double build ---- */

static void turn(double *x, double pos) /* half-split pairs of DIM, theta 10000 */
{
    for (int i = 0; i < DIM / 2; i++) {
        double a = pos * (double)(float)pow(10000, -2.0 * i / DIM), p = x[i], r = x[i + DIM / 2];
        x[i] = p * cos(a) - r * sin(a);
        x[i + DIM / 2] = r * cos(a) + p * sin(a);
    }
}

static double sigmoid(double z)
{
    return z >= 0 ? 1 / (1 + exp(-z)) : exp(z) / (1 + exp(z));
}

static double u_vec[H][N][DIM], v_vec[H][NB][DIM], rho[H][N], ctx[N][HID], qr[H][N][DIM], kr[G][N][DIM], weight[H][N][NB];

static void vectors(const struct input *p)
{
    double sum[HID] = {0};
    int g = H / (int)units;
    for (int t = 0; t < N; t++) {
        double sq = 0;
        for (int i = 0; i < HID; i++) {
            sum[i] += p->x[t * HID + i];
            ctx[t][i] = sum[i] / (t + 1);
            sq += ctx[t][i] * ctx[t][i] / HID;
        }
        for (int i = 0; i < HID; i++)
            ctx[t][i] /= sqrt(sq + 1e-6);
        for (int h = 0; h < H; h++) {
            memcpy(qr[h][t], p->q + (t * H + h) * DIM, sizeof qr[h][t]);
            turn(qr[h][t], t);
        }
        for (int h = 0; h < G; h++) {
            memcpy(kr[h][t], p->k + (t * G + h) * DIM, sizeof kr[h][t]);
            turn(kr[h][t], t);
        }
        for (int u = 0; u < units; u++) {
            double z = p->br[u];
            for (int e = 0; e < DIM; e++) {
                double s = 0;
                for (int i = 0; i < g * DIM; i++)
                    s += p->q[t * H * DIM + u * g * DIM + i] * p->wq[(u * g * DIM + i) * DIM + e];
                for (int i = 0; i < HID; i++)
                    s += ctx[t][i] * p->wc[(u * HID + i) * DIM + e];
                u_vec[u][t][e] = s;
                z += s * p->wr[u * DIM + e];
            }
            rho[u][t] = sigmoid(z);
            turn(u_vec[u][t], t);
        }
    }
    for (int u = 0; u < units; u++)
        for (int J = 0; J < N / B; J++) {
            double f[3 * DIM], *to = v_vec[u][J];
            for (int i = 0; i < DIM; i++) {
                f[i] = 0, f[DIM + i] = -INFINITY, f[2 * DIM + i] = INFINITY;
                for (int t = J * B; t < J * B + B; t++) {
                    double k = p->k[(t * G + u / ((int)units / G)) * DIM + i];
                    f[i] += k / B;
                    f[DIM + i] = fmax(f[DIM + i], k), f[2 * DIM + i] = fmin(f[2 * DIM + i], k);
                }
            }
            for (int e = 0; e < DIM; e++) {
                to[e] = 0;
                for (int i = 0; i < 3 * DIM; i++)
                    to[e] += f[i] * p->wk[(u * 3 * DIM + i) * DIM + e];
            }
            turn(to, J * B + B / 2.0);
        }
}

static void soft(double *m, const double *s, int n, double k, double T)
{
    double lo = 1e300, hi = -1e300;
    for (int i = 0; i < n; i++)
        lo = fmin(lo, s[i] - 60 * T), hi = fmax(hi, s[i] + 60 * T);
    for (int step_i = 0; step_i < 200; step_i++) {
        double mid = (lo + hi) / 2, sum = 0;
        for (int i = 0; i < n; i++)
            sum += sigmoid((s[i] - mid) / T);
        *(sum > k ? &lo : &hi) = mid;
    }
    for (int i = 0; i < n; i++)
        m[i] = k >= n ? 1 : sigmoid((s[i] - (lo + hi) / 2) / T);
}

static void take_best(double *m, const double *s, int n, int k)
{
    for (int i = 0; i < n; i++) {
        int better = 0;
        for (int j = 0; j < n; j++)
            better += s[j] > s[i] || (s[j] == s[i] && j < i);
        m[i] = better < k;
    }
}

/* candidates lo .. hi-1 of token t: complete, past, not the sink, not local */
static int candidates_of(int t, int *lo)
{
    int hi = t >= local ? (t - (int)local) / B : 0;
    hi = hi < t / B ? hi : t / B;
    *lo = 1;
    return hi > 1 ? hi : 1;
}

/* Weights of blocks; returns the mean density over tokens and units, in blocks. */
static double choose(const struct input *p)
{
    double density = 0;
    for (int u = 0; u < units; u++)
        for (int t = 0; t < N; t++) {
            int lo, hi = candidates_of(t, &lo), n = hi - lo;
            double s[NB], kept = t / B + 1 - n, *m = weight[u][t];
            for (int J = 0; J < NB; J++)
                m[J] = 1;
            for (int J = lo; J < hi; J++) {
                s[J] = p->dist[u * BUCKETS + gate_bucket(t / B - J, BUCKETS)];
                for (int e = 0; e < DIM; e++)
                    s[J] += u_vec[u][t][e] * v_vec[u][J][e] / sqrt(DIM);
            }
            double k = learned ? rho[u][t] * n : fmin((double)candidates, n);
            if (n && hard)
                take_best(m + lo, s + lo, n, (int)floor(k + 0.5));
            else if (n)
                soft(m + lo, s + lo, n, k, p->temp);
            density += (kept + k) / (t / B + 1);
        }
    return density;
}

/* One summary's logit and mean value, false if token t does not see it. */
static bool summary_of(const struct input *p, const int at[3], double *logit, double value[DIM])
{
    int h = at[0], t = at[1], c = at[2], lo, hi = candidates_of(t, &lo), r = (int)summary, g = h / (H / G),
        u = h / (H / (int)units);
    int J0 = c * r / B, J1 = r > B ? (c + 1) * r / B : J0 + 1;
    double m = 0;
    for (int J = J0; J < J1; J++)
        m = fmax(m, weight[u][t][J]);
    if (J0 < lo || J1 > hi || m >= 1)
        return false;
    *logit = log((double)r) + p->beta[h] + log1p(-m);
    for (int e = 0; e < DIM; e++) {
        value[e] = 0;
        for (int i = c * r; i < (c + 1) * r; i++) {
            *logit += qr[h][t][e] * kr[g][i][e] / r / sqrt(DIM);
            value[e] += p->v[(i * G + g) * DIM + e] / r;
        }
    }
    return true;
}

static double plain(const struct input *p, double *out)
{
    vectors(p);
    double loss = learned && !hard ? DENSITY * choose(p) : 0 * choose(p);
    for (int h = 0; h < H; h++)
        for (int t = 0; t < N; t++) {
            double o[DIM] = {0}, sum = 0, value[DIM], a;
            for (int j = 0; j <= t; j++) {
                double m = weight[h / (H / units)][t][j / B], s = 0;
                for (int e = 0; e < DIM; e++)
                    s += qr[h][t][e] * kr[h / (H / G)][j][e] / sqrt(DIM);
                double w = m * exp(s);
                sum += w;
                for (int e = 0; e < DIM; e++)
                    o[e] += w * p->v[(j * G + h / (H / G)) * DIM + e];
            }
            for (int c = 0; summary && c < N / summary; c++)
                if (summary_of(p, (const int[3]){h, t, c}, &a, value)) {
                    sum += exp(a);
                    for (int e = 0; e < DIM; e++)
                        o[e] += exp(a) * value[e];
                }
            for (int e = 0; e < DIM; e++) {
                loss += c_out[(t * H + h) * DIM + e] * o[e] / sum;
                if (out)
                    out[(t * H + h) * DIM + e] = o[e] / sum;
            }
        }
    return loss;
}

/* ---- ours ---- */

static float *floats(const double *x, int64_t n)
{
    float *to = ARENA_NEW(&step, n, float);
    for (int64_t i = 0; i < n; i++)
        to[i] = x ? (float)x[i] : 0;
    return to;
}

static void rotate_rows(float *x, int64_t heads, double sign)
{
    for (int t = 0; t < N; t++)
        for (int64_t h = 0; h < heads; h++) {
            double y[DIM];
            float *row = x + (t * heads + h) * DIM;
            for (int e = 0; e < DIM; e++)
                y[e] = (double)row[e];
            turn(y, sign * t);
            for (int e = 0; e < DIM; e++)
                row[e] = (float)y[e];
        }
}

static struct gate_layer layer_of(const struct input *p)
{
    struct gate_layer g = {.wq = floats(p->wq, H * 2 * DIM * DIM), .wk = floats(p->wk, H * 3 * DIM * DIM)};
    g.wc = floats(p->wc, H * HID * DIM), g.dist = floats(p->dist, H * BUCKETS), g.wr = floats(p->wr, H * DIM);
    g.br = floats(p->br, H), g.beta = floats(p->beta, H);
    return g;
}

enum { CASES = 15, SLOPES = 400 };
static double slope[CASES][SLOPES]; /* central differences: the same for every instruction set */
static int case_at, n_slopes;
static bool known;

static double slope_in(double *x)
{
    if (n_slopes >= SLOPES) {
        T_FAIL("more than %d differences", SLOPES);
        return NAN;
    }
    double was = *x, h = 1e-5, *to = &slope[case_at][n_slopes++];
    if (known)
        return *to;
    *x = was + h;
    double up = plain(&in, NULL);
    *x = was - h;
    *to = (up - plain(&in, NULL)) / (2 * h);
    *x = was;
    return *to;
}

/* The largest difference of n gradients from central differences of the loss in x (inside `in`). */
static void compare(const char *what, double *x, const float *got, int64_t n)
{
    double most = 1e-3, worst = 0;
    int64_t stride = n > 40 ? n / 13 | 1 : 1;
    for (int64_t i = 0; i < n; i += stride) {
        double want = slope_in(&x[i]), off = fabs((double)got[i] - want);
        most = fmax(most, fabs(want));
        worst = off <= worst ? worst : off;
    }
    if (!(worst <= 1e-5 * most))
        T_FAIL("%s: off by %g of %g (block %d, units %d, summary %d, learned %d, hard %d)", what, worst, most, B, (int)units,
               (int)summary, learned, hard);
}

struct grads {
    float *q, *k, *v, *x, *dtemp;
    struct gate_layer g;
};

static int ours(struct grads *d, float *out)
{
    float freq[DIM / 2];
    for (int i = 0; i < DIM / 2; i++)
        freq[i] = (float)pow(10000, -2.0 * i / DIM);
    struct attn_shape s = {
        .heads = H, .kv_heads = G, .dim = DIM, .hidden = HID, .n_layers = 1, .scale = 1 / sqrtf(DIM), .rot = DIM};
    s.rope_theta = 10000, s.rope_freq = freq;
    struct back_rule rule = {
        .mask = hard ? BACK_HARD : BACK_SOFT, .temperature = in.temp, .summary = summary, .density_grad = DENSITY};
    rule.select = (struct select_rule){.block = B, .local = local, .budget = learned ? SELECT_LEARNED : SELECT_CANDIDATES};
    rule.select.candidates = candidates;
    struct back_angles angles;
    struct gate_layer w = layer_of(&in);
    float *q0 = floats(in.q, N * H * DIM), *k0 = floats(in.k, N * G * DIM), *q = floats(in.q, N * H * DIM),
          *k = floats(in.k, N * G * DIM);
    rotate_rows(q, H, 1), rotate_rows(k, G, 1);
    float *lse = floats(NULL, N * H), *dout = floats(c_out, N * H * DIM), *dq0 = floats(NULL, N * H * DIM);
    float *dk0 = floats(NULL, N * G * DIM);
    *d = (struct grads){floats(NULL, N * H * DIM), floats(NULL, N * G * DIM), floats(NULL, N * G * DIM),
                        floats(NULL, N * HID),     floats(NULL, 1),           layer_of(&zero)};
    struct back_gate g = {.kern = &kern,
                          .shape = &s,
                          .rule = &rule,
                          .angles = &angles,
                          .w = &w,
                          .context = true,
                          .n = N,
                          .units = units,
                          .width = DIM};
    g.buckets = BUCKETS, g.q0 = q0, g.k0 = k0, g.x = floats(in.x, N * HID), g.k = k, g.v = floats(in.v, N * G * DIM);
    g.tau = floats(NULL, units * N), g.step = &step;
    int rc = back_angles_make(&angles, &s, (const int64_t[3]){N, DIM, B}, &step);
    struct attn_params p = {.units = units, .width = DIM, .buckets = BUCKETS};
    struct back_attn a = {
        .kern = &kern, .shape = &s, .rule = &rule, .gate = &g, .n = N, .q = q, .k = k, .v = g.v, .out = out, .lse = lse};
    a.step = &step;
    size_t before = step.peak = step.used;
    rc = rc ? rc : back_gate_open(&g, false);
    rc = rc ? rc : back_attn_forward(&a);
    arena_release(&step, before);
    a.dout = dout, a.dq = d->q, a.dk = d->k, a.dv = d->v;
    g.g = &d->g, g.dq0 = dq0, g.dk0 = dk0, g.dx = d->x;
    rc = rc ? rc : back_gate_open(&g, true);
    rc = rc ? rc : back_attn_backward(&a);
    rc = rc || hard ? rc : back_gate_close(&g);
    T_CHECK(step.peak - before <= back_gate_bytes(&s, &rule, N, &p) + back_attn_bytes(&s, &rule, N, &p));
    rotate_rows(d->q, H, -1), rotate_rows(d->k, G, -1);
    kern.add(d->q, dq0, N * H * DIM), kern.add(d->k, dk0, N * G * DIM);
    *d->dtemp = (float)g.dtemp;
    return rc;
}

static void gradients_equal_finite_differences(void)
{
    static double want[MOST];
    struct grads d;
    seed = 88172645463325252u, n_slopes = 0;
    fill(in.q, N * H * DIM, 2), fill(in.k, N * G * DIM, 2), fill(in.v, N * G * DIM, 1.7), fill(in.x, N * HID, 1.7);
    fill(in.wq, H * 2 * DIM * DIM, 0.4), fill(in.wk, H * 3 * DIM * DIM, 0.3), fill(in.wc, H * HID * DIM, 0.2);
    fill(in.dist, H * BUCKETS, 0.8), fill(in.wr, H * DIM, 0.5), fill(in.br, H, 1), fill(in.beta, H, 1);
    fill(c_out, N * H * DIM, 1);
    in.temp = temperature;
    float *out = floats(NULL, N * H * DIM);
    T_EQ(ours(&d, out), ERR_OK);
    plain(&in, want);
    for (int i = 0; i < N * H * DIM; i++)
        T_NEAR(out[i], want[i], 3e-6);
    compare("v", in.v, d.v, N * G * DIM);
    compare("q", in.q, d.q, N * H * DIM);
    compare("k", in.k, d.k, N * G * DIM);
    if (summary)
        compare("beta", in.beta, d.g.beta, H);
    if (!hard) {
        compare("x", in.x, d.x, N * HID);
        compare("wq", in.wq, d.g.wq, H * DIM * DIM);
        compare("wk", in.wk, d.g.wk, units * 3 * DIM * DIM);
        compare("wc", in.wc, d.g.wc, units * HID * DIM);
        compare("dist", in.dist, d.g.dist, units * BUCKETS);
        compare("temperature", &in.temp, d.dtemp, 1);
    }
    if (learned && !hard) { /* k: the budget's own weights */
        compare("wr", in.wr, d.g.wr, units * DIM);
        compare("br", in.br, d.g.br, units);
    }
    arena_release(&step, 0);
}

int main(int argc, char **argv)
{
    static const struct {
        int block, units, summary, candidates;
        bool learned, hard;
        double T;
    } cases[CASES] = {{16, 2, 0, 2, false, false, 1},   {16, 2, 0, 2, true, false, 0.7}, {16, 2, 16, 1, true, false, 0.5},
                      {16, 2, 8, 2, false, false, 0.5}, {16, 4, 32, 1, true, false, 1},  {16, 4, 0, 2, true, false, 0.3},
                      {16, 2, 0, 2, false, true, 1},    {16, 2, 16, 1, false, true, 1},  {16, 4, 32, 1, false, true, 1},
                      {8, 2, 0, 3, false, false, 0.6},  {8, 4, 16, 2, true, false, 0.5}, {8, 2, 4, 3, true, false, 0.4},
                      {8, 2, 0, 3, false, true, 1},     {8, 4, 16, 2, false, true, 1},   {32, 2, 16, 1, true, false, 0.7}};
    t_start(&argc, &argv);
    if (arena_open(&step, "step", (size_t)1 << 28))
        return 1;
    for (int isa = 0; isa < kern_isa_count(); isa++) {
        if (!kern_isa_runs(isa)) {
            t_skip(kern_isa_name(isa), "skipped: this CPU cannot run it");
            continue;
        }
        kern_select(&kern, kern_isa_name(isa));
        for (int i = 0; i < CASES; i++) {
            char label[128];
            case_at = i;
            B = cases[i].block, units = cases[i].units, summary = cases[i].summary, candidates = cases[i].candidates;
            learned = cases[i].learned, hard = cases[i].hard, temperature = cases[i].T;
            snprintf(label, sizeof label, "gradients_equal_finite_differences: %s, blocks of %d, %d units, summaries of %d, %s, %s",
                     kern_isa_name(isa), B, (int)units, (int)summary, learned ? "learned budget" : "fixed budget",
                     hard ? "hard" : "soft");
            t_run(label, gradients_equal_finite_differences);
        }
        known = true;
    }
    arena_close(&step);
    return t_done();
}
