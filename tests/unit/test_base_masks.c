/* Baselines that are masks, against dense attention in double precision under the mask of the paper, written down here
 * once more, key by key. */
#include "tests/unit/test_base.h"

struct mask {
    const char *name, *method, *set[7];
    int64_t layer;
    /* Does head h's token t see key j <= t? */
    bool (*sees)(const struct mask *m, int64_t h, int64_t t, int64_t j);
};

/* ---- definitions ---- */

static bool streaming(const struct mask *m, int64_t h, int64_t t, int64_t j)
{
    (void)m;
    (void)h;
    return j < 5 || j > t - 40;
}

static bool child_strided(const struct mask *m, int64_t h, int64_t t, int64_t j)
{
    (void)m;
    (void)h;
    return t - j < 16 || (t - j) % 16 == 0;
}

/* interleaved: layer 0 has A1, layer 1 A2 */
static bool child_in_turn(const struct mask *m, int64_t h, int64_t t, int64_t j)
{
    (void)h;
    return m->layer % 2 == 0 ? t - j < 10 : (t - j) % 10 == 0;
}

static bool child_split(const struct mask *m, int64_t h, int64_t t, int64_t j)
{
    (void)m;
    return h % 2 == 0 ? t - j < 12 : (t - j) % 12 == 0;
}

static bool child_fixed(const struct mask *m, int64_t h, int64_t t, int64_t j)
{
    (void)m;
    (void)h;
    return j / 20 == t / 20 || j % 20 >= 20 - 3;
}

static bool child_verts(const struct mask *m, int64_t h, int64_t t, int64_t j)
{
    int64_t v = h % 3;
    (void)m;
    return j / 24 == t / 24 || (j % 24 >= 24 - (v + 1) * 4 && j % 24 < 24 - v * 4);
}

static bool child_fixed_split(const struct mask *m, int64_t h, int64_t t, int64_t j)
{
    (void)m;
    return h % 2 == 0 ? j / 20 == t / 20 : j % 20 >= 17 || j == t;
}

static bool longformer(const struct mask *m, int64_t h, int64_t t, int64_t j)
{
    static const int64_t w[] = {10, 20, 30, 40}; /* four layers */
    (void)h;
    return t - j <= w[m->layer];
}

static bool longformer_global(const struct mask *m, int64_t h, int64_t t, int64_t j)
{
    static const int64_t global[] = {0, 3, 17, 100, 250};
    (void)m;
    for (int i = 0; i < 5; i++)
        if (j == global[i] || t == global[i])
            return true;
    return h < 2 && m->layer >= 1 ? (t - j) % 3 == 0 && (t - j) / 3 <= 20 : t - j <= 20;
}

/* random blocks: any three distinct ones of those that may be drawn are right; the drawn ones are found by drawing_of */
static int64_t drawn[B_H][B_N / 16 + 1][3];

static bool bigbird(const struct mask *m, int64_t h, int64_t t, int64_t j)
{
    int64_t I = t / 16, J = j / 16;
    (void)m;
    if (J > I - 2 || J < 1)
        return true;
    if (I - 2 <= 3)
        return true;
    for (int r = 0; r < 3; r++)
        if (drawn[h][I][r] == J)
            return true;
    return false;
}

/* Floyd's sampling from counters (seed, layer and head, block): the definition that ranks agree on */
static void drawing_of(int64_t seed, int64_t layer)
{
    for (int64_t h = 0; h < B_H; h++)
        for (int64_t I = 6; I <= (B_N - 1) / 16; I++) {
            int64_t n = I - 2; /* blocks 1 .. I - 2 */
            for (int64_t i = 0; i < 3; i++) {
                int64_t top = n - 3 + i, x = rng_below((uint64_t)seed, (uint64_t)(layer << 32 | h), (uint64_t)(3 * I + i), top + 1);
                for (int64_t y = 0; y < i; y++)
                    if (drawn[h][I][y] == 1 + x) {
                        x = top;
                        break;
                    }
                drawn[h][I][i] = 1 + x;
            }
        }
}

static const struct mask masks[] = {
    {"streaming, original positions", "streaming-llm", {"m.sink=5", "m.window=40", "m.pos=\"orig\""}, 1, streaming},
    {"strided", "sparse-transformer", {"m.l=16"}, 1, child_strided},
    {"strided in turn, local", "sparse-transformer", {"m.l=10", "m.heads=\"interleaved\""}, 0, child_in_turn},
    {"strided in turn, far", "sparse-transformer", {"m.l=10", "m.heads=\"interleaved\""}, 1, child_in_turn},
    {"strided, split", "sparse-transformer", {"m.l=12", "m.heads=\"split\""}, 1, child_split},
    {"fixed", "sparse-transformer", {"m.l=20", "m.c=3", "m.kind=\"fixed\""}, 1, child_fixed},
    {"fixed, verticals", "sparse-transformer", {"m.l=24", "m.c=4", "m.verts=3", "m.kind=\"fixed\""}, 1, child_verts},
    {"fixed, split", "sparse-transformer", {"m.l=20", "m.c=3", "m.kind=\"fixed\"", "m.heads=\"split\""}, 1, child_fixed_split},
    {"longformer by layer", "longformer", {"m.window=[10, 20, 30, 40]"}, 2, longformer},
    {"longformer, global",
     "longformer",
     {"m.window=[20]", "m.global=[0, 3, 17, 100, 250]", "m.dilated_from=1"},
     0,
     longformer_global},
    {"longformer, dilated and global",
     "longformer",
     {"m.window=[20]", "m.global=[0, 3, 17, 100, 250]", "m.dilation=3", "m.dilated_from=1"},
     1,
     longformer_global},
    {"bigbird", "bigbird", {"m.block=16", "m.window=2", "m.global=1", "m.random=3", "m.seed=5"}, 1, bigbird},
};
enum { N_MASKS = sizeof masks / sizeof masks[0] };

/* ---- comparison ---- */

struct row {
    double o[B_D], lse, keys;
};

/* One row in double. bf16: keys and values are rounded, queries where the kernels have to. */
static void dense_row(const struct base *b, const struct mask *m, int64_t h, int64_t t, struct row *out)
{
    static double s[B_N];
    double top = -HUGE_VAL, sum = 0;
    bool bf16 = b->dtype == KERN_BF16;
    int64_t g = h / (B_H / B_G);
    *out = (struct row){0};
    for (int64_t j = 0; j <= t; j++) {
        s[j] = -HUGE_VAL;
        if ((b->window > 0 && j <= t - b->window) || !m->sees(m, h, t, j))
            continue;
        s[j] = 0;
        for (int64_t i = 0; i < B_D; i++) {
            float q = b->q[(t * B_H + h) * B_D + i] * b->scale, k = b->k[(j * B_G + g) * B_D + i];
            s[j] += (double)(bf16 && b->rounds ? base_bf16(q) : q) * (double)(bf16 ? base_bf16(k) : k);
        }
        top = fmax(top, s[j]);
        out->keys++;
    }
    for (int64_t j = 0; j <= t; j++) {
        double p = s[j] == -HUGE_VAL ? 0 : exp(s[j] - top);
        sum += p;
        for (int64_t i = 0; i < B_D; i++) {
            float v = b->v[(j * B_G + g) * B_D + i];
            out->o[i] += p * (double)(bf16 ? base_bf16(v) : v);
        }
    }
    for (int64_t i = 0; i < B_D; i++)
        out->o[i] /= sum;
    out->lse = top + log(sum);
}

/* Sums of 300 products in another order, 300 eps of values up to 4. bf16 dot products: probabilities are rounded, 2^-9 each. */
static void compare(const struct base *b, const struct mask *m, int64_t every)
{
    double tol = b->dtype == KERN_BF16 && b->rounds ? 8e-3 : 5e-6, pairs = 0;
    struct row want;
    for (int64_t t = 0; t < B_N; t++)
        for (int64_t h = 0; h < B_H; h++) {
            if (t % every && t > 64) {
                pairs = -1;
                continue;
            }
            dense_row(b, m, h, t, &want);
            pairs += pairs >= 0 ? want.keys : 0;
            double worst = fabs((double)b->lse[t * B_H + h] - want.lse);
            for (int64_t i = 0; i < B_D; i++)
                worst = fmax(worst, fabs((double)b->out[(t * B_H + h) * B_D + i] - want.o[i]));
            if (!(worst <= tol)) {
                T_FAIL("%s on %s: token %lld, head %lld is %g off", m->name, b->isa, (long long)t, (long long)h, worst);
                return;
            }
        }
    if (pairs >= 0)
        T_CHECK(b->stats.pairs_seen == pairs);
    T_CHECK(b->stats.pairs_causal == (double)B_H * B_N * (B_N + 1) / 2);
    T_CHECK(b->peak <= b->scratch);
}

static void with_mask(struct base *b, const struct mask *m, const char *isa)
{
    base_make(b, m->method, isa);
    memcpy(b->set, m->set, sizeof m->set);
    b->layer = m->layer;
    drawing_of(5, m->layer);
}

static void ran(struct base *b)
{
    if (base_run(b)) {
        T_FAIL("%s on %s: %s", b->method, b->isa, err_text());
        err_clear();
    }
}

static void every_mask_is_the_papers(void)
{
    struct base *b = malloc(sizeof *b);
    for (int i = 0; b && i < N_MASKS; i++)
        for (int isa = 0; isa < kern_isa_count(); isa++) {
            if (!kern_isa_runs(isa))
                continue;
            with_mask(b, &masks[i], kern_isa_name(isa));
            ran(b);
            compare(b, &masks[i], isa ? 1 : 7);
        }
    free(b);
}

static void bf16_keys_and_the_architectures_window_too(void)
{
    struct base *b = malloc(sizeof *b);
    for (int i = 0; b && i < N_MASKS; i++)
        for (int x = 1; x < 4; x++) {
            with_mask(b, &masks[i], base_isa());
            b->dtype = x & 1 ? KERN_BF16 : KERN_F32;
            b->window = x & 2 ? 70 : 0;
            b->chunk = 37;
            ran(b);
            compare(b, &masks[i], 3);
        }
    free(b);
}

static void ranks_that_share_the_heads_get_the_same_bits(void)
{
    struct base *a = malloc(sizeof *a), *b = malloc(sizeof *b);
    for (int i = 0; a && b && i < N_MASKS; i++) {
        with_mask(a, &masks[i], base_isa());
        ran(a);
        with_mask(b, &masks[i], base_isa());
        for (b->head_from = 0; b->head_from < B_H; b->head_from += B_H / B_G) {
            b->heads = B_H / B_G;
            ran(b);
        }
        T_CHECK(base_same(a, b));
    }
    free(a);
    free(b);
}

/* ---- StreamingLLM's positions ---- */

static void rotate(double *x, const float *freq, double by)
{
    for (int i = 0; i < B_D / 2; i++) {
        double c = cos(by * (double)freq[i]), s = sin(by * (double)freq[i]), a = x[i], b = x[i + B_D / 2];
        x[i] = a * c - b * s;
        x[i + B_D / 2] = a * s + b * c;
    }
}

/* The cache as the paper keeps it: unrotated keys, rotated by their index in the cache at every step. */
static double cached_row(const struct base *b, int64_t t, int64_t h, double *o)
{
    enum { S = 5, W = 40 };
    int64_t g = h / (B_H / B_G), n = 0;
    double q[B_D], k[B_D], s[S + W], top = -HUGE_VAL, sum = 0;
    int64_t key[S + W];
    for (int64_t j = 0; j <= t; j++)
        if (j < S || j > t - W)
            key[n++] = j;
    for (int64_t i = 0; i < B_D; i++)
        q[i] = (double)b->q[(t * B_H + h) * B_D + i];
    rotate(q, b->freq, -(double)t); /* as it was before rotation */
    rotate(q, b->freq, (double)(n - 1));
    for (int64_t x = 0; x < n; x++) {
        for (int64_t i = 0; i < B_D; i++)
            k[i] = (double)b->k[(key[x] * B_G + g) * B_D + i];
        rotate(k, b->freq, -(double)key[x]);
        rotate(k, b->freq, (double)x);
        s[x] = 0;
        for (int64_t i = 0; i < B_D; i++)
            s[x] += q[i] * k[i] * (double)b->scale;
        top = fmax(top, s[x]);
    }
    memset(o, 0, B_D * sizeof *o);
    for (int64_t x = 0; x < n; x++) {
        double p = exp(s[x] - top);
        sum += p;
        for (int64_t i = 0; i < B_D; i++)
            o[i] += p * (double)b->v[(key[x] * B_G + g) * B_D + i];
    }
    for (int64_t i = 0; i < B_D; i++)
        o[i] /= sum;
    return top + log(sum);
}

static void streaming_rotates_by_place_in_the_cache(void)
{
    struct base *b = malloc(sizeof *b);
    for (int isa = 0; b && isa < kern_isa_count(); isa++) {
        double worst = 0, o[B_D];
        if (!kern_isa_runs(isa))
            continue;
        base_make(b, "streaming-llm", kern_isa_name(isa));
        b->set[0] = "m.sink=5", b->set[1] = "m.window=40";
        ran(b);
        for (int64_t t = 0; t < B_N; t += t < 60 ? 1 : 11)
            for (int64_t h = 0; h < B_H; h++) {
                worst = fmax(worst, fabs(cached_row(b, t, h, o) - (double)b->lse[t * B_H + h]));
                for (int64_t i = 0; i < B_D; i++)
                    worst = fmax(worst, fabs(o[i] - (double)b->out[(t * B_H + h) * B_D + i]));
            }
        T_NEAR(worst, 0, 2e-5); /* float rotations and angles: 300 positions of 6e-8 each */
    }
    free(b);
}

static void what_cannot_be_is_refused(void)
{
    struct base *b = malloc(sizeof *b);
    static const struct {
        const char *method, *set, *says;
    } bad[] = {{"bigbird", "m.block=40", "multiple of 16"},
               {"longformer", "m.global=[5, 5]", "ascend"},
               {"longformer", "m.window=[]", "empty"},
               {"sparse-transformer", "m.l=0", "l = 0"}};
    for (size_t i = 0; b && i < sizeof bad / sizeof *bad; i++) {
        base_make(b, bad[i].method, base_isa());
        b->set[0] = bad[i].set;
        T_EQ(base_run(b), ERR_ARG);
        if (!strstr(err_text(), bad[i].says))
            T_FAIL("'%s' does not say '%s'", err_text(), bad[i].says);
        err_clear();
    }
    free(b);
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    T_RUN(every_mask_is_the_papers);
    T_RUN(bf16_keys_and_the_architectures_window_too);
    T_RUN(ranks_that_share_the_heads_get_the_same_bits);
    T_RUN(streaming_rotates_by_place_in_the_cache);
    T_RUN(what_cannot_be_is_refused);
    return t_done();
}
