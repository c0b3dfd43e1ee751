/* The AST engine equals its executable definition: every case of ../shared/golden/ast, in every kernel set and strategy,
 * whole, in chunks and token by token. */
#include <stdint.h>
#include <unistd.h>

#include "attn/softtopk.h"
#include "attn/sparse.h"
#include "base/arena.h"
#include "base/err.h"
#include "io/safetensors.h"
#include "tests/t.h"

static const char *const dir = "../shared/golden/ast";

struct golden {
    struct safetensors *st;
    int64_t n, H, G, d, D, B, e, local, k, r;
    double T, theta;
    struct arena mem;
};

static int64_t meta_int(const struct golden *g, const char *key)
{
    return strtoll(st_metadata(g->st, key), NULL, 10);
}

static const double *tensor(const struct golden *g, const char *name, struct arena *a, int64_t *n)
{
    const struct st_tensor *t = st_find(g->st, name);
    double *x = arena_alloc(a, (int64_t)(t->bytes / sizeof(double)), sizeof(double));
    memcpy(x, t->data, t->bytes);
    *n = (int64_t)(t->bytes / sizeof(double));
    return x;
}

static float *floats(struct golden *g, const char *name)
{
    int64_t n;
    const double *x = tensor(g, name, &g->mem, &n);
    float *y = ARENA_NEW(&g->mem, n, float);
    for (int64_t i = 0; i < n; i++)
        y[i] = (float)x[i];
    return y;
}

/* (heads, n, d) in double -> (n, heads, d), rotated if asked */
static float *tokens_first(struct golden *g, const char *name, int64_t heads, bool rotate)
{
    int64_t count, d = g->d;
    const double *x = tensor(g, name, &g->mem, &count);
    float *y = ARENA_NEW(&g->mem, count, float);
    for (int64_t h = 0; h < heads; h++)
        for (int64_t t = 0; t < g->n; t++)
            for (int64_t i = 0; i < d; i++) {
                const double *row = x + (h * g->n + t) * d;
                double a = (double)t * pow(g->theta, -2.0 * (double)(i % (d / 2)) / (double)d);
                double turned = i < d / 2 ? -row[i + d / 2] : row[i - d / 2];
                y[(t * heads + h) * d + i] = (float)(rotate ? row[i] * cos(a) + turned * sin(a) : row[i]);
            }
    return y;
}

static bool golden_open(struct golden *g, const char *name)
{
    char path[256];
    *g = (struct golden){0};
    snprintf(path, sizeof path, "%s/%s.safetensors", dir, name);
    T_CHECK(arena_open(&g->mem, "golden", (size_t)256 << 20) == ERR_OK);
    if (st_open(&g->st, path)) {
        T_FAIL("%s", err_text());
        return false;
    }
    g->n = meta_int(g, "n"), g->H = meta_int(g, "H"), g->G = meta_int(g, "G"), g->d = meta_int(g, "d"), g->D = meta_int(g, "D");
    g->B = meta_int(g, "B"), g->e = meta_int(g, "e"), g->local = meta_int(g, "local"), g->k = meta_int(g, "k");
    g->r = meta_int(g, "r");
    g->T = atof(st_metadata(g->st, "T")), g->theta = atof(st_metadata(g->st, "theta"));
    return true;
}

static void golden_close(struct golden *g)
{
    st_close(g->st);
    arena_close(&g->mem);
}

static struct attn_params *gates(struct golden *g)
{
    struct attn_params *p = ARENA_NEW0(&g->mem, 1, struct attn_params);
    *p = (struct attn_params){.layers = 1, .heads = g->H, .kv_heads = g->G, .dim = g->d, .hidden = g->D, .units = g->G};
    p->width = g->e;
    p->buckets = GATE_BUCKETS;
    p->block = g->B;
    T_CHECK(gate_alloc(p, &g->mem) == ERR_OK);
    for (int i = 0; i < GATE_TENSORS; i++) {
        struct gate_tensor t;
        gate_tensor_at(p, 0, i, &t);
        memcpy(*t.data, floats(g, t.name), (size_t)gate_tensor_size(&t) * sizeof(float));
    }
    gate_seal(p);
    return p;
}

/* Runs the case in chunks of `chunk` tokens and compares outputs. */
static void run_case(struct golden *g, const struct kern_table *kern, int strategy, int64_t chunk)
{
    size_t mark = arena_mark(&g->mem);
    struct sparse_opts o = {.block = g->B, .local = g->local, .candidates = g->k, .width = g->e, .strategy = strategy};
    o.budget = g->k < 0 ? SELECT_LEARNED : SELECT_CANDIDATES;
    o.cost_blocks = o.cost_gather = 1;
    o.summary = (struct cfg_ints){1, &g->r};
    struct attn_shape s = {.heads = g->H, .kv_heads = g->G, .dim = g->d, .hidden = g->D, .n_layers = 1, .rot = g->d};
    s.scale = (float)(1 / sqrt((double)g->d));
    s.rope_theta = g->theta;
    struct arena step;
    T_CHECK(attn_ast.check(&o, &s) == ERR_OK);
    T_CHECK(arena_open(&step, "step", attn_ast.scratch(&o, &s, chunk, g->n)) == ERR_OK);
    float *q = tokens_first(g, "q", g->H, true), *q0 = tokens_first(g, "q", g->H, false), *k = tokens_first(g, "k", g->G, true);
    float *k0 = tokens_first(g, "k", g->G, false), *v = tokens_first(g, "v", g->G, false), *x = floats(g, "x");
    float *out = ARENA_NEW(&g->mem, g->n * g->H * g->d, float), *lse = ARENA_NEW(&g->mem, g->n * g->H, float);
    struct kern_kv kv[8];
    for (int64_t h = 0; h < g->G; h++) {
        kv[h] = (struct kern_kv){.dim = g->d, .dtype = KERN_F32};
        kv[h].k = arena_alloc0(&g->mem, (int64_t)kern_kv_bytes(KERN_F32, g->d, g->n), 1);
        kv[h].v = arena_alloc0(&g->mem, (int64_t)kern_kv_bytes(KERN_F32, g->d, g->n), 1);
    }
    struct attn_call c = {.method = &attn_ast, .opts = &o, .shape = &s, .params = gates(g), .kv = kv, .kern = kern, .step = &step};
    c.state = arena_alloc0(&g->mem, (int64_t)attn_ast.state_bytes(&o, &s, g->n), 1);
    for (c.pos = 0; c.pos < g->n; c.pos += c.n) {
        c.n = chunk < g->n - c.pos ? chunk : g->n - c.pos;
        c.q = q + c.pos * g->H * g->d, c.q0 = q0 + c.pos * g->H * g->d;
        c.k = k + c.pos * g->G * g->d, c.k0 = k0 + c.pos * g->G * g->d, c.v = v + c.pos * g->G * g->d;
        c.x = x + c.pos * g->D, c.out = out + c.pos * g->H * g->d, c.lse = lse + c.pos * g->H;
        for (int64_t h = 0; h < g->G; h++)
            kern->kv_append(&kv[h], c.k + h * g->d, c.v + h * g->d, g->G * g->d, c.n);
        if (attn_ast.run(&c)) {
            T_FAIL("%s", err_text());
            err_clear();
            break;
        }
    }
    int64_t count;
    const double *want = tensor(g, "out", &g->mem, &count), *want_lse = tensor(g, "lse", &g->mem, &count);
    double worst = 0;
    for (int64_t h = 0; h < g->H; h++)
        for (int64_t t = 0; t < g->n; t++) {
            worst = fmax(worst, fabs((double)lse[t * g->H + h] - want_lse[h * g->n + t]));
            for (int64_t i = 0; i < g->d; i++) {
                double off = fabs((double)out[(t * g->H + h) * g->d + i] - want[(h * g->n + t) * g->d + i]);
                worst = off >= 0 ? fmax(worst, off) : HUGE_VAL;
            }
        }
    if (!(worst <= 1e-5))
        T_FAIL("%s, strategy %d, chunks of %lld: off by %g", kern->isa, strategy, (long long)chunk, worst);
    arena_close(&step);
    arena_release(&g->mem, mark);
}

static void hard_cases_equal_the_definition(void)
{
    static const char *const names[] = {"hard-b16",           "hard-b64", "hard-learned-k", "hard-multiscale-8",
                                        "hard-multiscale-32", "short",    "one-token",      "all-selected"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct golden g;
        if (golden_open(&g, names[i])) {
            int before = t_here;
            for (int isa = 0; isa < kern_isa_count(); isa++) {
                struct kern_table kern;
                if (!kern_isa_runs(isa) || kern_select(&kern, kern_isa_name(isa)))
                    continue;
                for (int how = SPARSE_AUTO; how <= SPARSE_GATHER; how++)
                    run_case(&g, &kern, how, g.n);
                run_case(&g, &kern, SPARSE_AUTO, 1);
                run_case(&g, &kern, SPARSE_AUTO, 37);
            }
            if (t_here > before)
                printf("# case %s\n", names[i]);
        }
        golden_close(&g);
    }
}

static void soft_masks_equal_the_definition(void)
{
    static const char *const names[] = {"soft-T1", "soft-T0.1-multiscale-16"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct golden g;
        int64_t n;
        if (!golden_open(&g, names[i]))
            continue;
        const double *scores = tensor(&g, "scores", &g.mem, &n), *mask = tensor(&g, "mask", &g.mem, &n);
        int64_t nb = (g.n + g.B - 1) / g.B;
        double m[64], worst = 0;
        struct select_rule rule = {.block = g.B, .local = g.local, .budget = SELECT_CANDIDATES, .candidates = g.k};
        for (int64_t unit = 0; unit < g.G; unit++)
            for (int64_t t = 0; t < g.n; t++) {
                struct select_set set;
                const double *row = scores + (unit * g.n + t) * nb, *want = mask + (unit * g.n + t) * nb;
                select_sets(&set, &rule, t);
                if (set.hi > set.lo)
                    soft_topk(m, row + set.lo, set.hi - set.lo, (double)g.k, g.T);
                for (int64_t J = 0; J < nb; J++) {
                    bool candidate = J >= set.lo && J < set.hi;
                    double got = J > set.own ? 0 : candidate ? m[J - set.lo] : 1;
                    worst = fmax(worst, fabs(got - want[J]));
                }
            }
        T_NEAR(worst, 0, 1e-10);
        golden_close(&g);
    }
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    if (access(dir, R_OK)) {
        t_skip("hard_cases_equal_the_definition", "../shared is absent");
        t_skip("soft_masks_equal_the_definition", "../shared is absent");
    } else {
        T_RUN(hard_cases_equal_the_definition);
        T_RUN(soft_masks_equal_the_definition);
    }
    return t_done();
}
