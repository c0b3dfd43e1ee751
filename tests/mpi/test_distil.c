/* Distillation by ranks that share a model: each teaches the units of its own heads; their gradients and what is saved equal
 * those of one rank to 1e-5 of the largest entry (the model's sums over ranks are taken in another order). */
#include <unistd.h>

#include "base/arena.h"
#include "base/err.h"
#include "cfg/cfg.h"
#include "comm/comm.h"
#include "io/file.h"
#include "io/random_ckpt.h"
#include "io/safetensors.h"
#include "kernels/linear.h"
#include "tests/t.h"
#include "train/objective.h"

enum { SEQS = 2, LEN = 150, N = SEQS * LEN, HEADS = 8, KV_HEADS = 4, STEPS = 3 };
static struct comm_group *world;
static struct kern_table kern;
static struct arena step;
static char folder[FILE_PATH], start[FILE_PATH];
static int32_t token[N], target[N];
static unsigned char options[1024];

static const struct train_objective *distil(void)
{
    return objective_find("distil");
}

static void make_model(void)
{
    struct random_shape s = {.hidden = 64, .layers = 2, .heads = HEADS, .kv_heads = KV_HEADS, .head_dim = 16, .mlp = 96};
    int64_t n;
    size_t bytes;
    s.vocab = 300, s.positions = 512, s.rope_theta = 10000, s.tied = true;
    if (t_rank == 0) {
        snprintf(folder, sizeof folder, "/tmp/ast-test-distil-%d", (int)getpid());
        struct random_ckpt r = {.folder = folder, .shape = s, .dtype = ST_F32, .seed = 3, .shards = 1};
        T_EQ(file_make_folders(folder), ERR_OK);
        T_EQ(random_write(&r, &n, &bytes), ERR_OK);
    }
    comm_bcast(world, folder, sizeof folder, 0);
    for (int i = 0; i < N; i++)
        token[i] = (i * 37 + i * i % 11) % 300;
}

/* group NULL: one rank. */
static void *open_distil(const struct comm_group *group, const char *unit, const char *gate)
{
    struct cfg *cfg = NULL;
    char text[64];
    void *self = NULL;
    snprintf(text, sizeof text, "objective.unit=\"%s\"", unit);
    const char *const over[] = {text,
                                "objective.rows=40",
                                "objective.local=16",
                                "objective.keep=64",
                                "objective.budget=0.9",
                                "objective.recall=0.5",
                                "objective.context=true",
                                "objective.noise=0.2"};
    T_EQ(cfg_open(&cfg, NULL, over, 8), ERR_OK);
    T_EQ(cfg_load(cfg, "objective", distil()->fields, options), ERR_OK);
    cfg_close(cfg);
    struct train_env env = {.model = folder, .gate = gate, .group = group, .kern = &kern, .max_tokens = N, .max_len = LEN};
    env.steps = STEPS, env.repeat = 1, env.seed = 5, env.max_seqs = SEQS;
    if (distil()->open(&self, options, &env)) {
        T_FAIL("%s", err_text());
        err_clear();
    }
    return self;
}

static struct train_sums run(void *self, int64_t micro)
{
    static const int64_t at[SEQS + 1] = {0, LEN, N};
    struct model_batch b = {.n_seq = SEQS, .at = at, .token = token, .target = target};
    struct train_sums sums = {0};
    size_t before = step.peak = step.used;
    train_params_zero_grad(distil()->params(self));
    T_EQ(distil()->step(self, &b, &(struct train_at){.temperature = 0.7, .micro = micro}, &sums, &step), ERR_OK);
    T_CHECK(step.peak - before <= distil()->step_bytes(self, N, SEQS));
    return sums;
}

static void same_sums(const struct train_sums *a, const struct train_sums *b)
{
    T_NEAR(a->count, b->count, 1e-9);
    T_NEAR(a->loss, b->loss, 1e-5);
    T_EQ(a->tokens, b->tokens);
    T_NEAR(a->flops, b->flops, 1e-9);
    for (int i = 0; i < 5; i++) {
        T_NEAR(a->part[i].sum, b->part[i].sum, 1e-5);
        T_EQ(a->part[i].n, b->part[i].n);
    }
}

/* This rank's part of each tensor against the whole one. */
static void same_gradients(void *part, void *whole, const struct comm_group *g)
{
    const struct train_params *p = distil()->params(part), *w = distil()->params(whole);
    T_EQ(p->n, w->n);
    T_EQ(p->n, 2 * 6); /* layers x (wq, wk, wc, dist, wr, br) */
    for (int64_t i = 0; i < p->n && i < w->n; i++) {
        const float *want = w->at[i].g + p->at[i].n * g->rank;
        double most = 0, worst = 0;
        T_CHECK(!strcmp(p->at[i].name, w->at[i].name) && p->at[i].n * g->size == w->at[i].n && !p->at[i].shared);
        for (int64_t j = 0; j < w->at[i].n; j++)
            most = fmax(most, fabs((double)w->at[i].g[j]));
        for (int64_t j = 0; j < p->at[i].n; j++) {
            double off = fabs((double)p->at[i].g[j] - (double)want[j]);
            worst = off <= worst ? worst : off;
        }
        T_CHECK(most > 0);
        if (!(worst <= 1e-5 * most))
            T_FAIL("%s: off by %g of %g", p->at[i].name, worst, most);
    }
}

static void descend(void *self, double count)
{
    struct train_params *p = distil()->params(self);
    for (int64_t i = 0; i < p->n; i++)
        for (int64_t j = 0; j < p->at[i].n; j++)
            p->at[i].w[j] -= (float)(0.5 / count) * p->at[i].g[j];
}

/* Rank 0 compares gates.safetensors of two folders; is what was saved as large as the whole? */
static void same_files(const char *a, const char *b)
{
    char path[FILE_PATH];
    struct safetensors *x = NULL, *y = NULL;
    T_EQ(file_join(path, a, "gates.safetensors"), ERR_OK);
    T_EQ(st_open(&x, path), ERR_OK);
    T_EQ(file_join(path, b, "gates.safetensors"), ERR_OK);
    T_EQ(st_open(&y, path), ERR_OK);
    T_EQ(x ? st_count(x) : -1, y ? st_count(y) : -2);
    for (int64_t i = 0; x && y && i < st_count(x); i++) {
        const struct st_tensor *p = st_at(x, i), *q = st_find(y, p->name);
        const float *u = p->data, *v = q ? q->data : NULL;
        double most = 0, worst = 0;
        T_CHECK(q && p->bytes == q->bytes);
        for (size_t j = 0; q && p->bytes == q->bytes && j < p->bytes / sizeof *u; j++) {
            double off = fabs((double)u[j] - (double)v[j]);
            most = fmax(most, fabs((double)v[j])), worst = off <= worst ? worst : off;
        }
        if (!(worst <= 1e-5 * most))
            T_FAIL("%s: off by %g of %g", p->name, worst, most);
    }
    st_close(x);
    st_close(y);
}

static void compare(const char *unit, const char *gate)
{
    char mine[FILE_PATH + 16], theirs[FILE_PATH + 16];
    void *part = open_distil(world, unit, gate), *whole = open_distil(NULL, unit, gate);
    snprintf(mine, sizeof mine, "%s/parts", folder), snprintf(theirs, sizeof theirs, "%s/whole", folder);
    for (int i = 0; part && whole && i < STEPS; i++) {
        struct train_sums a = run(part, i * SEQS), b = run(whole, i * SEQS);
        same_sums(&a, &b);
        same_gradients(part, whole, world);
        descend(part, a.count), descend(whole, b.count);
    }
    if (t_rank == 0)
        T_EQ(file_make_folders(mine) || file_make_folders(theirs), 0);
    comm_barrier(world);
    if (part && whole) {
        T_EQ(distil()->save(part, mine), ERR_OK);
        if (t_rank == 0) {
            T_EQ(distil()->save(whole, theirs), ERR_OK);
            same_files(mine, theirs);
        }
    }
    comm_barrier(world);
    distil()->close(part);
    distil()->close(whole);
}

static void gates_of_key_value_heads_are_those_of_one_rank(void)
{
    compare("kv-head", "");
}

static void gates_of_heads_are_those_of_one_rank(void)
{
    compare("head", "");
}

/* From the gates that the last test saved. */
static void a_start_from_a_file_is_cut_too(void)
{
    if (t_rank == 0) {
        char command[3 * FILE_PATH];
        snprintf(command, sizeof command, "mv %s/parts/gates.safetensors %s", folder, start);
        T_EQ(system(command), 0);
    }
    comm_barrier(world);
    compare("head", start);
}

/* Three ranks cannot share four key/value heads, nor eight. */
static void heads_that_do_not_divide_are_refused(void)
{
    struct comm_group *three = NULL;
    void *self = NULL;
    if (world->size < 4)
        return;
    T_EQ(comm_split(world, t_rank < 3, t_rank, &three), ERR_OK);
    if (t_rank < 3) {
        struct train_env env = {.model = folder, .gate = "", .group = three, .kern = &kern, .max_tokens = N, .max_len = LEN};
        env.steps = 1, env.repeat = 1, env.max_seqs = 1;
        T_CHECK(distil()->open(&self, options, &env) < 0 && !self);
        T_CHECK(strstr(err_text(), "train.tensor") != NULL);
        err_clear();
    }
    comm_free(three);
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    comm_start(&argc, &argv, &world);
    kern_select(&kern, NULL);
    kern_threads(1);
    if (arena_open(&step, "step", (size_t)1 << 28))
        return 1;
    make_model();
    snprintf(start, sizeof start, "%.200s/start.safetensors", folder);
    T_RUN(gates_of_key_value_heads_are_those_of_one_rank);
    T_RUN(gates_of_heads_are_those_of_one_rank);
    T_RUN(a_start_from_a_file_is_cut_too);
    T_RUN(heads_that_do_not_divide_are_refused);
    arena_close(&step);
    comm_barrier(world);
    char command[FILE_PATH + 16];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    int rc = t_rank == 0 ? system(command) : 0;
    return rc != 0 || t_done();
}
