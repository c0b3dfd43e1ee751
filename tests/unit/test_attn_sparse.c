/* Selection against plain loops: every block size, f32 and bf16, and the sampled statistics. */
#include <stdint.h>

#include "attn/costs.h"
#include "attn/sparse.h"
#include "attn/sparsity.h"
#include "base/arena.h"
#include "base/err.h"
#include "base/rng.h"
#include "tests/t.h"

enum { N = 420, H = 4, G = 2, D = 16, KEEP = 192, LOCAL = 24 };

static float q[N * H * D], k[N * G * D], v[N * G * D], out[N * H * D], lse[N * H];

static void inputs(void)
{
    for (int i = 0; i < N * H * D; i++)
        q[i] = (float)rng_normal(5, 1, (uint64_t)i);
    for (int i = 0; i < N * G * D; i++) {
        /* eighths: exact in bf16, so that both kinds of cache hold the same numbers */
        k[i] = (float)(rng_below(5, 2, (uint64_t)i, 33) - 16) / 8;
        v[i] = (float)(rng_below(5, 3, (uint64_t)i, 33) - 16) / 8;
    }
}

static const struct attn_params *gates; /* what run() gives its method; NULL: untrained */

static void run(const struct attn_method *m, struct sparse_opts *o, enum kern_dtype t, struct attn_stats *stats)
{
    struct kern_table kern;
    struct arena a, step;
    struct attn_shape s = {.heads = H, .kv_heads = G, .dim = D, .hidden = 8, .n_layers = 1, .scale = 0.25F};
    T_CHECK(kern_select(&kern, NULL) == 0 && arena_open(&a, "test", 1 << 24) == ERR_OK);
    T_CHECK(m->check(o, &s) == ERR_OK);
    T_CHECK(arena_open(&step, "step", m->scratch(o, &s, N, N)) == ERR_OK);
    struct kern_kv kv[G];
    for (int g = 0; g < G; g++) {
        kv[g] = (struct kern_kv){.dim = D, .dtype = t};
        kv[g].k = arena_alloc0(&a, (int64_t)kern_kv_bytes(t, D, N), 1);
        kv[g].v = arena_alloc0(&a, (int64_t)kern_kv_bytes(t, D, N), 1);
        kern.kv_append(&kv[g], k + g * D, v + g * D, G * D, N);
    }
    struct attn_call c = {
        .method = m, .opts = o, .shape = &s, .kv = kv, .n = N, .q = q, .q0 = q, .k = k, .k0 = k, .v = v, .out = out};
    c.lse = lse, c.kern = &kern, c.step = &step, c.stats = stats, c.params = gates;
    c.state = arena_alloc0(&a, (int64_t)m->state_bytes(o, &s, N), 1);
    if (m->run(&c))
        T_FAIL("%s", err_text());
    T_CHECK(step.peak <= m->scratch(o, &s, N, N));
    arena_close(&step);
    arena_close(&a);
}

/* Keys that token t of KV head g keeps by the mean-key score, by plain loops. */
static void plain_choice(int64_t t, int64_t g, int64_t B, bool kept[N])
{
    int64_t own = t / B, forced = 0;
    bool block[N] = {false};
    double score[N];
    for (int64_t J = 0; J <= own; J++) {
        block[J] = J == 0 || J == own || J * B + B > t - LOCAL;
        forced += block[J];
        score[J] = 0;
        for (int64_t j = J * B; j < J * B + B && J < own; j++)
            for (int64_t h = g * (H / G); h < (g + 1) * (H / G); h++)
                for (int64_t i = 0; i < D; i++)
                    score[J] += (double)q[(t * H + h) * D + i] * (double)k[(j * G + g) * D + i];
    }
    for (int64_t room = KEEP / B - forced; room > 0; room--) {
        int64_t best = -1;
        for (int64_t J = 0; J <= own; J++)
            if (!block[J] && (best < 0 || score[J] > score[best]))
                best = J;
        if (best >= 0)
            block[best] = true;
    }
    for (int64_t j = 0; j <= t; j++)
        kept[j] = block[j / B];
}

static void check_row(int64_t t, int64_t h, const bool kept[N], double tol)
{
    double sum = 0, o[D] = {0};
    int64_t g = h / (H / G);
    for (int64_t j = 0; j <= t; j++) {
        double s = 0;
        for (int64_t i = 0; i < D; i++)
            s += 0.25 * (double)q[(t * H + h) * D + i] * (double)k[(j * G + g) * D + i];
        double p = kept[j] ? exp(s) : 0;
        sum += p;
        for (int64_t i = 0; i < D; i++)
            o[i] += p * (double)v[(j * G + g) * D + i];
    }
    T_NEAR(lse[t * H + h], log(sum), tol);
    for (int64_t i = 0; i < D; i++)
        T_NEAR(out[(t * H + h) * D + i], o[i] / sum, tol);
}

static void every_block_size_keeps_what_plain_loops_keep(void)
{
    static const int64_t sizes[] = {8, 16, 32, 64, 128};
    for (int i = 0; i < 5; i++)
        for (int type = KERN_F32; type <= KERN_BF16; type++) {
            struct sparse_opts o = {.keep = KEEP, .local = LOCAL, .block = sizes[i], .cost_blocks = 1, .cost_gather = 1};
            int before = t_here;
            bool kept[N];
            run(&attn_mean_key, &o, (enum kern_dtype)type, NULL);
            for (int64_t t = 0; t < N && t_here < before + 5; t++)
                for (int64_t g = 0; g < G; g++) {
                    plain_choice(t, g, sizes[i], kept);
                    for (int64_t h = g * (H / G); h < (g + 1) * (H / G); h++)
                        check_row(t, h, kept, type == KERN_F32 ? 1e-5 : 3e-2);
                }
            if (t_here > before)
                printf("# block %lld, %s\n", (long long)sizes[i], type == KERN_F32 ? "f32" : "bf16");
        }
}

static void every_strategy_gives_the_same_bits_for_every_block_size(void)
{
    static float first[N * H * D], first_lse[N * H];
    for (int64_t block = 8; block <= 128; block *= 2)
        for (int unit = SPARSE_KV; unit <= SPARSE_HEAD; unit++)
            for (int type = KERN_F32; type <= KERN_BF16; type++)
                for (int how = SPARSE_DENSE; how <= SPARSE_GATHER; how++) {
                    struct sparse_opts o = {.keep = KEEP, .local = LOCAL, .block = block, .unit = unit, .strategy = how};
                    run(&attn_mean_key, &o, (enum kern_dtype)type, NULL);
                    if (how == SPARSE_DENSE) {
                        memcpy(first, out, sizeof out);
                        memcpy(first_lse, lse, sizeof lse);
                    }
                    T_CHECK(!memcmp(first, out, sizeof out) && !memcmp(first_lse, lse, sizeof lse));
                }
}

static void statistics_equal_plain_sums(void)
{
    struct arena a;
    struct sparsity s, sizes = {.heads = H, .every = 7, .span = N};
    struct sparse_opts o = {.keep = KEEP, .local = LOCAL, .block = 16, .cost_blocks = 1, .cost_gather = 1};
    struct attn_stats stats = {.more = &s};
    double rows = 0, recall[H] = {0}, entropy[H] = {0}, seen[H] = {0}, distance[H] = {0}, map = 0, all = 0, causal = 0;
    T_CHECK(arena_open(&a, "test", sparsity_bytes(&sizes)) == ERR_OK && sparsity_make(&s, &sizes, &a) == ERR_OK);
    run(&attn_mean_key, &o, KERN_F32, &stats);
    for (int64_t t = 6; t < N; t += 7, rows++)
        for (int64_t h = 0; h < H; h++) {
            bool kept[N];
            double p[N], sum = 0;
            plain_choice(t, h / (H / G), 16, kept);
            for (int64_t j = 0; j <= t; j++) {
                p[j] = 0;
                for (int64_t i = 0; i < D; i++)
                    p[j] += 0.25 * (double)q[(t * H + h) * D + i] * (double)k[(j * G + h / (H / G)) * D + i];
                sum += p[j] = exp(p[j]);
            }
            for (int64_t j = 0; j <= t; j++) {
                p[j] /= sum;
                recall[h] += kept[j] ? p[j] : 0;
                entropy[h] -= p[j] * log(p[j]);
                seen[h] += kept[j];
                distance[h] += t - j >= 4 && t - j < 8 ? p[j] : 0;
            }
        }
    for (int64_t h = 0; h < H; h++) {
        struct sparsity_cell sum = s.cell[h * SPARSITY_BUCKETS]; /* over the classes of length */
        for (int b = 1; b < SPARSITY_BUCKETS; b++)
            for (int i = 0; i < SPARSITY_SUMS; i++)
                (&sum.rows)[i] += (&s.cell[h * SPARSITY_BUCKETS + b].rows)[i];
        T_NEAR(s.cell[h * SPARSITY_BUCKETS].rows, 18, 0); /* tokens 6, 13, ... 125 see at most 128 keys */
        T_NEAR(sum.rows, rows, 0);
        T_NEAR(sum.blocks + sum.gather + sum.dense, rows, 0);
        causal = sum.causal;
        T_NEAR(sum.recall, recall[h], 1e-5);
        T_NEAR(sum.entropy, entropy[h], 1e-5);
        T_NEAR(sum.distance[3], distance[h], 1e-5);
        T_NEAR(sum.seen, seen[h], 0);
        map = 0;
        for (int i = 0; i < SPARSITY_MAP * SPARSITY_MAP; i++)
            map += s.map[h * SPARSITY_MAP * SPARSITY_MAP + i];
        T_NEAR(map, seen[h], 0);
    }
    for (int i = 0; i < SPARSITY_MAP * SPARSITY_MAP; i++)
        all += s.map_causal[i];
    T_NEAR(all, causal, 0);
    T_CHECK(s.seconds > 0);
    struct sparsity twice = s;
    sparsity_add(&twice, &s); /* the same memory: doubles */
    T_NEAR(s.cell[SPARSITY_BUCKETS].rows, 36, 0);
    arena_close(&a);
}

/* A summary weighs exp(logit + ln r + beta): the gates' beta of each head, and only where they have none the option's. */
static void trained_beta_replaces_the_option(void)
{
    static float by_option[H][N * H * D], wq[H * D * D], wk[G * 3 * D * D], beta[H] = {-3, 0, 1.5F, -1e30F};
    int64_t r[] = {16};
    struct sparse_opts o = {.keep = KEEP, .local = LOCAL, .block = 16, .summary = {1, r}};
    for (int h = 0; h < H; h++) {
        o.summary_beta = (double)beta[h];
        run(&attn_ast, &o, KERN_F32, NULL);
        memcpy(by_option[h], out, sizeof out);
    }
    /* the untrained score as weights: the mean over a unit's heads, the mean key */
    for (int i = 0; i < H * D; i++)
        wq[i * D + i % D] = 1.0F / (H / G);
    for (int g = 0; g < G; g++)
        for (int i = 0; i < D; i++)
            wk[(g * 3 * D + i) * D + i] = 1;
    struct gate_layer layer = {.wq = wq, .wk = wk, .beta = beta};
    struct attn_params p = {.layers = 1, .heads = H, .kv_heads = G, .dim = D, .hidden = 8, .units = G, .width = D, .layer = &layer};
    p.block = 16;
    o.summary_beta = 7; /* not looked at */
    gates = &p;
    run(&attn_ast, &o, KERN_F32, NULL);
    gates = NULL;
    for (int i = 0; i < N * H * D; i++)
        T_NEAR(out[i], by_option[i / D % H][i], 1e-6);
    double moved = 0; /* and it matters */
    for (int i = 0; i < N * H * D; i++)
        moved = fmax(moved, fabs((double)by_option[0][i] - (double)by_option[3][i]));
    T_CHECK(moved > 1e-3);
}

static void bad_options_are_refused(void)
{
    struct attn_shape s = {.heads = H, .kv_heads = G, .dim = D, .n_layers = 1};
    int64_t odd = 24;
    struct sparse_opts o = {.block = 24, .keep = 100};
    T_EQ(attn_quest.check(&o, &s), ERR_ARG);
    err_clear();
    o.block = 16, o.summary = (struct cfg_ints){1, &odd};
    T_EQ(attn_ast.check(&o, &s), ERR_ARG);
    T_CHECK(strstr(err_text(), "24") != NULL);
    err_clear();
}

static void costs_are_times(void)
{
    static const int64_t shape[][2] = {{1, 16}, {3, 64}, {65, 8}}; /* heads, width */
    struct kern_table kern;
    T_CHECK(kern_select(&kern, NULL) == 0);
    for (int i = 0; i < 3; i++) {
        struct attn_costs c = {-1, -1};
        T_EQ(attn_costs_measure(&c, &kern, shape[i][0], shape[i][1]), ERR_OK);
        T_CHECK(c.cost_blocks >= 0.01 && c.cost_blocks < 1e6 && c.cost_gather >= 0.01 && c.cost_gather < 1e6);
    }
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    inputs();
    T_RUN(every_block_size_keeps_what_plain_loops_keep);
    T_RUN(every_strategy_gives_the_same_bits_for_every_block_size);
    T_RUN(statistics_equal_plain_sums);
    T_RUN(trained_beta_replaces_the_option);
    T_RUN(bad_options_are_refused);
    T_RUN(costs_are_times);
    return t_done();
}
