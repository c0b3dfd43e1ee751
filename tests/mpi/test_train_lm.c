/* End-to-end training on several ranks: each takes its sequences of a step, gradients are summed beside the backward pass, and
 * equal those of one rank that takes all to 1e-5 of the largest entry; the density's share included. */
#include <unistd.h>

#include "attn/sparse.h"
#include "base/arena.h"
#include "base/err.h"
#include "comm/comm.h"
#include "io/file.h"
#include "io/random_ckpt.h"
#include "kernels/linear.h"
#include "tests/t.h"
#include "train/objective.h"
#include "train/reduce.h"

enum { SEQS = 4, LEN = 130, N = SEQS * LEN };
static struct comm_group *world;
static struct kern_table kern;
static struct arena step;
static char folder[FILE_PATH];
static int32_t token[N], target[N];
static unsigned char options[1024];

static const struct train_objective *lm(void)
{
    return objective_find("lm");
}

/* Rank 0 writes the model, all know where. */
static void make_model(void)
{
    struct random_shape s = {.hidden = 48, .layers = 2, .heads = 4, .kv_heads = 2, .head_dim = 16, .mlp = 96, .vocab = 300};
    int64_t n;
    size_t bytes;
    s.positions = 512, s.rope_theta = 10000, s.tied = true;
    if (t_rank == 0) {
        snprintf(folder, sizeof folder, "/tmp/ast-test-lm-%d", (int)getpid());
        struct random_ckpt r = {.folder = folder, .shape = s, .dtype = ST_F32, .seed = 3, .shards = 1};
        T_EQ(file_make_folders(folder), ERR_OK);
        T_EQ(random_write(&r, &n, &bytes), ERR_OK);
    }
    comm_bcast(world, folder, sizeof folder, 0);
    for (int i = 0; i < N; i++) {
        token[i] = (i * 37 + i * i % 11) % 300;
        target[i] = i % LEN == LEN - 1 ? -1 : (i * 53 + 5) % 300;
    }
}

/* Trained tensors are moved away from a start that would hide mistakes by `moved`. */
static void *open_lm(const char *what, const struct sparse_opts *opts, double dense, double moved)
{
    struct cfg *cfg = NULL;
    char text[64], share[64];
    void *self = NULL;
    snprintf(text, sizeof text, "objective.what=%s", what);
    snprintf(share, sizeof share, "objective.dense=%g", dense);
    const char *const over[] = {text, share, "objective.rank=3", "objective.lambda=0.5", "objective.kl=0.25"};
    T_EQ(cfg_open(&cfg, NULL, over, 5), ERR_OK);
    T_EQ(cfg_load(cfg, "objective", lm()->fields, options), ERR_OK);
    cfg_close(cfg);
    struct train_env env = {.model = folder, .gate = "", .method = &attn_ast, .method_opts = opts, .kern = &kern, .max_tokens = N};
    env.max_len = LEN, env.steps = 10, env.repeat = 1, env.seed = 1;
    T_EQ(lm()->open(&self, options, &env), ERR_OK);
    for (int64_t i = 0; self && i < lm()->params(self)->n; i++) {
        struct train_param *p = &lm()->params(self)->at[i];
        for (int64_t j = 0; j < p->n; j++)
            p->w[j] += (float)(moved * sin((double)(5 * j + 3 * i)));
    }
    T_EQ(lm()->update(self, &(struct train_at){0}, NULL), ERR_OK);
    return self;
}

static void run(void *self, int64_t first, int64_t n, struct train_sums *sums, struct train_at when)
{
    int64_t at[SEQS + 1];
    for (int64_t i = 0; i <= n; i++)
        at[i] = i * LEN;
    struct model_batch b = {.n_seq = n, .at = at, .token = token + first * LEN, .target = target + first * LEN};
    when.temperature = 0.5;
    when.micro += first;
    T_EQ(lm()->step(self, &b, &when, sums, &step), ERR_OK);
}

static struct sparse_opts learned(void)
{
    struct sparse_opts o;
    T_EQ(cfg_defaults(attn_ast.fields, &o), ERR_OK);
    o.keep = 0, o.local = 20, o.budget = SELECT_LEARNED;
    return o;
}

static void check(const char *what, double dense)
{
    struct sparse_opts o = learned();
    void *self = open_lm(what, &o, dense, 0.1);
    struct train_params *p = lm()->params(self);
    int64_t total = train_params_total(p), size = world->size, first = SEQS * world->rank / size,
            end = SEQS * (world->rank + 1) / size;
    struct train_sums all = {0}, mine = {0};
    float *want = calloc((size_t)total, sizeof *want), *to = want;
    run(self, 0, SEQS, &all, (struct train_at){0});
    for (int64_t i = 0; i < p->n; to += p->at[i++].n)
        memcpy(to, p->at[i].g, (size_t)p->at[i].n * sizeof *to);
    train_params_zero_grad(p);
    struct reduce r = {.p = p, .replicas = size > 1 ? world : NULL};
    T_EQ(reduce_open(&r), ERR_OK);
    run(self, first, end - first, &mine, (struct train_at){.ready = reduce_ready, .context = &r});
    reduce_finish(&r);
    comm_sum_f64(size > 1 ? world : NULL, (double *)(void *)&mine, (int64_t)(sizeof mine / sizeof(double)));
    T_NEAR(mine.loss, all.loss, 1e-6);
    T_EQ(mine.count, all.count);
    to = want;
    for (int64_t i = 0; i < p->n; to += p->at[i++].n) {
        double most = 0, worst = 0;
        for (int64_t j = 0; j < p->at[i].n; j++) {
            most = fmax(most, fabs((double)to[j]));
            worst = fmax(worst, fabs((double)p->at[i].g[j] - (double)to[j]));
        }
        if (!(worst <= 1e-5 * most) || !(most > 0))
            T_FAIL("%s: off by %g of %g", p->at[i].name, worst, most);
    }
    reduce_close(&r);
    free(want);
    lm()->close(self);
}

static void gradients_of_gates_are_those_of_one_rank(void)
{
    check("gates", 0);
}

static void gradients_of_adapters_are_those_of_one_rank(void)
{
    check("gates+adapters", 0);
}

static void gradients_of_all_weights_are_those_of_one_rank(void)
{
    check("all", 0);
}

/* Ranks that have nothing but dense sequences among them. */
static void gradients_with_dense_sequences_are_those_of_one_rank(void)
{
    check("gates+adapters", 0.5);
}

static int part(const char *name)
{
    int i = 0;
    while (lm()->parts[i] && strcmp(lm()->parts[i], name) != 0)
        i++;
    T_CHECK(lm()->parts[i] != NULL);
    return i;
}

/* KL from the dense model a token, with weights as they were read; was anything chosen? */
static double divergence(double dense, bool *chose)
{
    struct sparse_opts o = learned();
    struct train_sums sums = {0};
    void *self = open_lm("gates+adapters", &o, dense, 0);
    run(self, 0, SEQS, &sums, (struct train_at){0});
    lm()->close(self);
    *chose = sums.part[part("density")].n > 0;
    return sums.part[part("kl")].sum / sums.part[part("kl")].n;
}

static void dense_sequences_of_untouched_weights_do_not_diverge(void)
{
    bool chose;
    T_NEAR(divergence(1, &chose), 0, 1e-7);
    T_CHECK(!chose);
    T_CHECK(divergence(0, &chose) > 1e-5);
    T_CHECK(chose);
}

/* Sequences are read one by one; which are dense can be seen from what they tell of the density. */
static void the_share_of_dense_sequences_is_the_one_asked_for(void)
{
    static const double share[] = {0.25, 0.3, 0.125, 0.9};
    enum { MANY = 40 };
    struct sparse_opts o = learned();
    for (int s = 0; s < 4; s++) {
        void *self = open_lm("gates", &o, share[s], 0);
        int count = 0, gap = 0;
        for (int i = 0; i < MANY; i++) {
            struct train_sums sums = {0};
            run(self, 0, 1, &sums, (struct train_at){.micro = i});
            bool dense = sums.part[part("density")].n <= 0;
            count += dense, gap = dense ? 0 : gap + 1;
            T_CHECK(gap < 1 / share[s]); /* spread evenly */
        }
        T_EQ(count, lround(MANY * share[s]));
        lm()->close(self);
    }
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
    T_RUN(gradients_of_gates_are_those_of_one_rank);
    T_RUN(gradients_of_adapters_are_those_of_one_rank);
    T_RUN(gradients_of_all_weights_are_those_of_one_rank);
    T_RUN(gradients_with_dense_sequences_are_those_of_one_rank);
    T_RUN(dense_sequences_of_untouched_weights_do_not_diverge);
    T_RUN(the_share_of_dense_sequences_is_the_one_asked_for);
    arena_close(&step);
    comm_barrier(world);
    char command[FILE_PATH + 16];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    int rc = t_rank == 0 ? system(command) : 0;
    return rc != 0 || t_done();
}
