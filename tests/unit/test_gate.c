/* Gate weights: files, start values, and what an untrained gate is worth. */
#include <omp.h>
#include <stdint.h>
#include <unistd.h>

#include "attn/sparse.h"
#include "base/arena.h"
#include "base/err.h"
#include "base/rng.h"
#include "io/safetensors.h"
#include "model/gates.h"
#include "model/model.h"
#include "tests/t.h"

static const char *file_name(void)
{
    static char path[64];
    snprintf(path, sizeof path, "/tmp/test_gate.%d.safetensors", (int)getpid());
    return path;
}

static struct model_info base(void)
{
    struct model_info i = {.path = "MODEL", .layers = 2, .heads = 6, .kv_heads = 2, .dim = 8, .hidden = 20};
    snprintf(i.sha256, sizeof i.sha256, "%s", "0123456789abcdef0123");
    return i;
}

static struct attn_params params(struct arena *a, int64_t units)
{
    struct attn_params p = {
        .layers = 2, .heads = 6, .kv_heads = 2, .dim = 8, .hidden = 20, .units = units, .width = 8, .block = 16};
    p.buckets = GATE_BUCKETS;
    snprintf(p.base, sizeof p.base, "%s", base().sha256);
    T_CHECK(gate_alloc(&p, a) == ERR_OK);
    T_CHECK(gate_init(&p, 0.02, 3) == ERR_OK);
    return p;
}

static void gates_come_back_from_a_file(void)
{
    struct arena a;
    struct model_info info = base();
    T_CHECK(arena_open(&a, "test", 1 << 22) == ERR_OK);
    for (int64_t units = 2; units <= 6; units += 4) {
        struct attn_params p = params(&a, units);
        struct gates *g = NULL;
        p.layer[1].dist[3] = 0.5F;
        T_CHECK(gates_save(file_name(), &p) == ERR_OK);
        T_CHECK(gates_open(&g, file_name(), &info) == ERR_OK);
        const struct attn_params *q = gates_params(g);
        if (!g) {
            T_FAIL("%s", err_text());
            break;
        }
        T_EQ(q->units, units);
        T_EQ(q->width, 8);
        T_EQ(q->block, 16);
        T_STR(q->base, info.sha256);
        T_CHECK(!q->layer[0].wc && !q->layer[0].dist); /* all zero: cost nothing */
        T_CHECK(q->layer[1].dist && q->layer[1].dist[3] == 0.5F);
        T_CHECK(!memcmp(q->layer[1].wq, p.layer[1].wq, (size_t)(units * (6 / units) * 64) * sizeof(float)));
        T_CHECK(!memcmp(q->layer[0].wk, p.layer[0].wk, (size_t)(units * 3 * 64) * sizeof(float)));
        T_NEAR(q->layer[0].beta[5], -6, 0);
        gates_close(g);
    }
    unlink(file_name());
    arena_close(&a);
}

/* Opens what was saved for another model, or damaged: the code, and a word of the sentence. */
static void refused(struct attn_params *p, const struct model_info *info, int code, const char *word)
{
    struct gates *g = NULL;
    T_CHECK(gates_save(file_name(), p) == ERR_OK);
    T_EQ(gates_open(&g, file_name(), info), code);
    T_CHECK(!g);
    if (!strstr(err_text(), word))
        T_FAIL("'%s' does not say '%s'", err_text(), word);
    err_clear();
    unlink(file_name());
}

static void gates_of_another_model_are_refused(void)
{
    struct arena a;
    struct model_info info = base();
    T_CHECK(arena_open(&a, "test", 1 << 22) == ERR_OK);
    struct attn_params p = params(&a, 2);
    snprintf(info.sha256, sizeof info.sha256, "fedc");
    refused(&p, &info, ERR_ARG, "fingerprint");
    info = base();
    info.dim = 16;
    refused(&p, &info, ERR_FORMAT, "layers.0.wq");
    info = base();
    info.layers = 3;
    refused(&p, &info, ERR_FORMAT, "layers.2.wq is missing");
    info = base();
    p.layer[1].wk[7] = (float)NAN;
    refused(&p, &info, ERR_FORMAT, "not finite at element 7");
    p.layer[1].wk[7] = 0;
    p.layer[1].br = NULL;
    refused(&p, &info, ERR_FORMAT, "needs both");
    struct gates *g;
    T_EQ(gates_open(&g, "/nonexistent/gates.safetensors", &info), ERR_IO);
    err_clear();
    arena_close(&a);
}

static void buckets_double(void)
{
    static const int64_t want[] = {0, 1, 2, 2, 3, 3, 3, 3, 4};
    for (int64_t d = 0; d < 9; d++)
        T_EQ(gate_bucket(d, 16), want[d]);
    T_EQ(gate_bucket(1 << 13, 16), 14);
    T_EQ(gate_bucket((int64_t)1 << 40, 16), 15);
}

enum { N = 400, H = 6, G = 2, D = 8 };

/* Output of the AST method on fixed random inputs, `chunk` tokens at a time. */
static void run(const struct attn_params *p, int unit, int budget, int64_t chunk, float *out)
{
    static float q[N * H * D], k[N * G * D], v[N * G * D], x[N * 20];
    struct kern_table kern;
    struct arena a, step;
    struct sparse_opts o = {0};
    struct attn_shape s = {.heads = H, .kv_heads = G, .dim = D, .hidden = 20, .layer = 1, .n_layers = 2, .scale = 0.35F, .rot = D};
    s.rope_theta = 10000;
    T_CHECK(cfg_defaults(attn_ast.fields, &o) == ERR_OK);
    o.keep = 128, o.local = 16, o.unit = unit, o.budget = budget;
    for (int i = 0; i < N * H * D; i++)
        q[i] = (float)rng_normal(1, 1, (uint64_t)i);
    for (int i = 0; i < N * 20; i++)
        x[i] = (float)rng_normal(1, 4, (uint64_t)i);
    for (int i = 0; i < N * G * D; i++)
        k[i] = (float)rng_normal(1, 2, (uint64_t)i), v[i] = (float)rng_normal(1, 3, (uint64_t)i);
    T_CHECK(kern_select(&kern, NULL) == 0 && arena_open(&a, "test", 1 << 24) == ERR_OK);
    T_CHECK(arena_open(&step, "step", attn_ast.scratch(&o, &s, chunk, N)) == ERR_OK);
    struct kern_kv kv[G];
    for (int g = 0; g < G; g++) {
        kv[g] = (struct kern_kv){.dim = D, .dtype = KERN_F32};
        kv[g].k = arena_alloc0(&a, (int64_t)kern_kv_bytes(KERN_F32, D, N), 1);
        kv[g].v = arena_alloc0(&a, (int64_t)kern_kv_bytes(KERN_F32, D, N), 1);
        kern.kv_append(&kv[g], k + g * D, v + g * D, G * D, N);
    }
    struct attn_call c = {.method = &attn_ast, .opts = &o, .shape = &s, .params = p, .kv = kv, .kern = &kern, .step = &step};
    c.state = arena_alloc0(&a, (int64_t)attn_ast.state_bytes(&o, &s, N), 1);
    for (c.pos = 0; c.pos < N; c.pos += chunk) {
        c.n = N - c.pos < chunk ? N - c.pos : chunk;
        c.q = c.q0 = q + c.pos * H * D;
        c.k = c.k0 = k + c.pos * G * D;
        c.v = v + c.pos * G * D, c.x = x + c.pos * 20, c.out = out + c.pos * H * D;
        if (attn_ast.run(&c))
            T_FAIL("%s", err_text());
    }
    arena_close(&step);
    arena_close(&a);
}

static void untrained_weights_score_mean_keys(void)
{
    struct arena a;
    T_CHECK(arena_open(&a, "test", 1 << 24) == ERR_OK);
    float *none = ARENA_NEW0(&a, N * H * D, float), *start = ARENA_NEW0(&a, N * H * D, float),
          *noisy = ARENA_NEW0(&a, N * H * D, float);
    for (int unit = SPARSE_KV; unit <= SPARSE_HEAD; unit++) {
        struct attn_params p = params(&a, unit == SPARSE_HEAD ? H : G);
        double differs = 0;
        run(&p, unit, SELECT_TOKENS, N, noisy);
        T_CHECK(gate_init(&p, 0, 3) == ERR_OK);
        gate_seal(&p);
        run(&p, unit, SELECT_TOKENS, N, start);
        run(NULL, unit, SELECT_TOKENS, N, none);
        for (int i = 0; i < N * H * D; i++) {
            T_NEAR(start[i], none[i], 1e-5);
            differs = fmax(differs, fabs((double)(noisy[i] - none[i])));
        }
        T_CHECK(differs > 1e-3); /* the weights are used at all */
    }
    arena_close(&a);
}

/* Contexts, distances and learned budgets are worked out for many tokens at once. */
static void a_trained_gate_gives_the_same_bits_for_any_cut_and_threads(void)
{
    static const int64_t cut[] = {N, 1, 37, 96, 97, 200};
    struct arena a;
    int most = omp_get_max_threads();
    T_CHECK(arena_open(&a, "test", 1 << 24) == ERR_OK);
    float *whole = ARENA_NEW0(&a, N * H * D, float), *cuts = ARENA_NEW0(&a, N * H * D, float);
    for (int unit = SPARSE_KV; unit <= SPARSE_HEAD; unit++)
        for (int budget = SELECT_TOKENS; budget <= SELECT_LEARNED; budget++) {
            struct attn_params p = params(&a, unit == SPARSE_HEAD ? H : G);
            struct gate_layer *g = &p.layer[1];
            omp_set_num_threads(1);
            run(&p, unit, budget, N, cuts);
            for (int64_t i = 0; i < p.units * p.hidden * p.width; i++)
                g->wc[i] = (float)(0.3 * rng_normal(2, 1, (uint64_t)i));
            for (int64_t i = 0; i < p.units * p.width; i++)
                g->wr[i] = (float)rng_normal(2, 2, (uint64_t)i);
            for (int64_t i = 0; i < p.units * p.buckets; i++)
                g->dist[i] = (float)rng_normal(2, 3, (uint64_t)i);
            run(&p, unit, budget, N, whole);
            T_CHECK(memcmp(cuts, whole, (size_t)(N * H * D) * sizeof *cuts) != 0);
            omp_set_num_threads(3);
            for (size_t i = 0; i < sizeof cut / sizeof *cut; i++) {
                memset(cuts, 0, (size_t)(N * H * D) * sizeof *cuts);
                run(&p, unit, budget, cut[i], cuts);
                T_CHECK(memcmp(cuts, whole, (size_t)(N * H * D) * sizeof *cuts) == 0);
            }
        }
    omp_set_num_threads(most);
    arena_close(&a);
}

static void rotations_are_those_of_the_position_in_any_chunk(void)
{
    static float memory[1 << 14], base[3 * 2 * 24], other[20 * 2 * 24];
    struct attn_shape s = {.dim = 48, .rot = 48, .rope_theta = 10000};
    struct feat f;
    const struct feat_dims d = {.units = 1, .kv_heads = 1, .dim = 48, .width = 48, .block = 16, .half = feat_half(&s, 48)};
    T_EQ(d.half, 24);
    T_CHECK(feat_bytes(&d, 16) <= sizeof memory);
    feat_view(&f, &d, memory);
    feat_bases(&s, &f, 0, 1, base);
    for (int64_t t = 0; t < 200000; t += 1 + t / 7) {
        float cs[24], sn[24], cs2[24], sn2[24];
        int64_t pos = t > 250 ? t - 250 : t; /* another beginning */
        feat_bases(&s, &f, t, 1, base);
        feat_rotation(&f, base, t, t, cs, sn);
        T_CHECK(feat_base_rows(t - pos + 1) <= 20);
        feat_bases(&s, &f, pos, t - pos + 1, other);
        feat_rotation(&f, other, pos, t, cs2, sn2);
        T_CHECK(memcmp(cs, cs2, sizeof cs) == 0 && memcmp(sn, sn2, sizeof sn) == 0);
        for (int64_t i = 0; i < 24; i++) {
            T_NEAR(cs[i], cos((double)t * feat_freq(&s, 48, i)), 4e-7);
            T_NEAR(sn[i], sin((double)t * feat_freq(&s, 48, i)), 4e-7);
        }
    }
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    T_RUN(buckets_double);
    T_RUN(gates_come_back_from_a_file);
    T_RUN(gates_of_another_model_are_refused);
    T_RUN(untrained_weights_score_mean_keys);
    T_RUN(rotations_are_those_of_the_position_in_any_chunk);
    T_RUN(a_trained_gate_gives_the_same_bits_for_any_cut_and_threads);
    return t_done();
}
