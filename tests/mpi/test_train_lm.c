/* End-to-end training on several ranks: each takes its sequences of a step, gradients are summed beside the backward pass, and
 * equal those of one rank that takes all to 1e-5 of the largest entry; the density's share included. */
#include <unistd.h>

#include "attn/sparse.h"
#include "base/arena.h"
#include "base/err.h"
#include "comm/comm.h"
#include "io/file.h"
#include "io/random_ckpt.h"
#include "io/safetensors.h"
#include "kernels/linear.h"
#include "tests/t.h"
#include "train/objective.h"
#include "train/reduce.h"

enum { SEQS = 4, LEN = 130, N = SEQS * LEN, HIDDEN = 48, LAYERS = 2 };
static struct comm_group *world;
static struct kern_table kern;
static struct arena step;
static char folder[FILE_PATH];
static const char *model = folder; /* of the nets to be opened */
static int32_t token[N], target[N];
static unsigned char options[1024];
static const struct comm_group *pair;   /* ranks that share the nets to be opened */
static const struct attn_method *other; /* than ast, which they are trained through; NULL: ast */
static unsigned char other_opts[256];

/* Counts the sums of a layer's rows over a group; MPI's own profiling interface. */
static int layer_sums;
int MPI_Allreduce(const void *from, void *to, int n, MPI_Datatype type, MPI_Op op, MPI_Comm comm)
{
    layer_sums += n == N * HIDDEN && type == MPI_FLOAT;
    return PMPI_Allreduce(from, to, n, type, op, comm);
}

static const struct train_objective *lm(void)
{
    return objective_find("lm");
}

/* Rank 0 writes the model, all know where. */
static void make_model(void)
{
    struct random_shape s = {
        .hidden = HIDDEN, .layers = LAYERS, .heads = 4, .kv_heads = 2, .head_dim = 16, .mlp = 80, .vocab = 300};
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

static void move(void *self, double by)
{
    for (int64_t i = 0; self && i < lm()->params(self)->n; i++) {
        struct train_param *p = &lm()->params(self)->at[i];
        for (int64_t j = 0; j < p->n; j++)
            p->w[j] += (float)(by * sin((double)(5 * j + 3 * i)));
    }
    T_EQ(lm()->update(self, &(struct train_at){0}, NULL), ERR_OK);
}

/* Trained tensors are moved away from a start that would hide mistakes by `moved`. */
static void *open_lm(const char *what, const struct sparse_opts *opts, double dense, double moved)
{
    struct cfg *cfg = NULL;
    char text[64], share[64];
    void *self = NULL;
    snprintf(text, sizeof text, "objective.what=%s", what);
    snprintf(share, sizeof share, "objective.dense=%g", dense);
    const char *const over[] = {text, share, "objective.rank=3", other ? "objective.lambda=0" : "objective.lambda=0.5",
                                "objective.kl=0.25"};
    T_EQ(cfg_open(&cfg, NULL, over, 5), ERR_OK);
    T_EQ(cfg_load(cfg, "objective", lm()->fields, options), ERR_OK);
    cfg_close(cfg);
    struct train_env env = {.model = model, .gate = "", .method = &attn_ast, .method_opts = opts, .kern = &kern, .max_tokens = N};
    if (other)
        env.method = other, env.method_opts = other_opts;
    env.group = pair, env.max_len = LEN, env.steps = 10, env.repeat = 1, env.seed = 1;
    T_EQ(lm()->open(&self, options, &env), ERR_OK);
    move(self, moved);
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

/* ---- nets over pairs of ranks ---- */

/* Where element j of a rank's part lies in the whole tensor: rows or columns, the first ones or the last ones. */
static int64_t index_of(const struct train_param *all, const struct train_param *own, int rank, int64_t j)
{
    if (all->n == own->n)
        return j;
    if (all->dim[0] != own->dim[0])
        return (rank ? all->n - own->n : 0) + j;
    return j / own->dim[1] * all->dim[1] + (rank ? all->dim[1] - own->dim[1] : 0) + j % own->dim[1];
}

/* tol: of a tensor's largest, and of `least` where that is larger */
static void compare_parts(const struct train_params *all, const struct train_params *own, double tol, double least)
{
    int cut = 0;
    T_EQ(own->n, all->n);
    for (int64_t i = 0; i < own->n; i++) {
        const struct train_param *a = &all->at[i], *p = &own->at[i];
        double most = least, worst = 0;
        T_STR(p->name, a->name);
        T_CHECK(p->shared ? p->n == a->n : p->n < a->n);
        cut += !p->shared;
        for (int64_t j = 0; j < a->n; j++)
            most = fmax(most, fabs((double)a->g[j]));
        for (int64_t j = 0; j < p->n; j++) {
            double off = fabs((double)p->g[j] - (double)a->g[index_of(a, p, pair->rank, j)]);
            worst = off <= worst ? worst : off;
        }
        if (!(worst <= tol * most) || !(most > 0))
            T_FAIL("%s: off by %g of %g", p->name, worst, most);
    }
    T_CHECK(cut > 0);
}

static void compare_files(const char *x_folder, const char *y_folder, const char *file, double tol)
{
    struct safetensors *x = NULL, *y = NULL;
    char path[FILE_PATH], folders[FILE_PATH];
    T_EQ(file_join(folders, folder, x_folder) || file_join(path, folders, file) || st_open(&x, path), ERR_OK);
    T_EQ(file_join(folders, folder, y_folder) || file_join(path, folders, file) || st_open(&y, path), ERR_OK);
    T_EQ(x ? st_count(x) : 0, y ? st_count(y) : -1);
    for (int64_t i = 0; x && y && i < st_count(x); i++) {
        const struct st_tensor *t = st_at(x, i), *u = st_find(y, t->name);
        double worst = 0;
        float a, b;
        for (size_t j = 0; u && u->bytes == t->bytes && t->dtype == ST_F32 && j < t->bytes; j += sizeof a) {
            memcpy(&a, (const char *)t->data + j, sizeof a);
            memcpy(&b, (const char *)u->data + j, sizeof b);
            worst = fabs((double)a - (double)b) <= worst ? worst : fabs((double)a - (double)b);
        }
        if (!u || t->bytes != u->bytes || !(worst <= tol))
            T_FAIL("%s: %s differs by %g", file, t->name, worst);
    }
    st_close(x);
    st_close(y);
}

static void save(void *self, const char *name)
{
    char path[FILE_PATH];
    T_EQ(file_join(path, folder, name) || file_make_folders(path), ERR_OK);
    if (lm()->save(self, path))
        T_FAIL("%s", err_text());
}

/* Gradients of a net over two ranks are the parts of those of one rank; sums are the same, and what is saved. */
static void check_pair(const char *what, const struct comm_group *two, double tol, double least)
{
    struct sparse_opts o = learned();
    char one[32], both[32];
    o.unit = SPARSE_HEAD;
    pair = NULL;
    void *whole = open_lm(what, &o, 0, 0);
    pair = two;
    void *self = open_lm(what, &o, 0, 0);
    struct train_params *all = lm()->params(whole), *own = lm()->params(self);
    for (int round = 0; round < 2; round++) { /* they start alike, and are moved alike */
        for (int64_t i = 0; i < own->n; i++)
            for (int64_t j = 0; j < own->at[i].n; j++) {
                float *w = &own->at[i].w[j], is = all->at[i].w[index_of(&all->at[i], &own->at[i], pair->rank, j)];
                if (!round && *w != is)
                    T_FAIL("%s: starts with %g, not %g", own->at[i].name, (double)*w, (double)is);
                *w = is;
            }
        move(whole, round ? 0 : 0.1);
    }
    T_EQ(lm()->update(self, &(struct train_at){0}, NULL), ERR_OK);
    struct train_sums want = {0}, got = {0};
    run(whole, 0, SEQS, &want, (struct train_at){0});
    run(self, 0, SEQS, &got, (struct train_at){0});
    T_NEAR(got.loss, want.loss, 1e-6);
    T_EQ(got.count, want.count);
    for (int i = 0; lm()->parts[i]; i++) {
        T_NEAR(got.part[i].sum, want.part[i].sum, 1e-5);
        T_NEAR(got.part[i].n, want.part[i].n, 1e-9);
    }
    compare_parts(all, own, tol, least);
    snprintf(one, sizeof one, "one-%d", world->rank);
    snprintf(both, sizeof both, "both-%d", world->rank / 2);
    save(whole, one);
    save(self, both);
    if (pair->rank == 0) {
        if (!other)
            compare_files(one, both, "gates.safetensors", 0);
        if (strcmp(what, "gates") != 0)
            compare_files(one, both, "model/model.safetensors", strstr(what, "adapters") ? 1e-6 : 0); /* merged: a product */
    }
    lm()->close(whole);
    lm()->close(self);
    pair = NULL;
}

static void nets_over_two_ranks_have_the_gradients_of_one(void)
{
    struct comm_group *two = NULL;
    if (world->size < 2)
        return;
    T_EQ(comm_split(world, world->rank / 2, world->rank, &two), ERR_OK);
    check_pair("gates", two, 1e-5, 0);
    check_pair("gates+norms", two, 1e-5, 0);
    check_pair("gates+adapters", two, 1e-5, 0);
    check_pair("all", two, 1e-5, 0);
    comm_free(two);
}

/* Hashes and random directions are drawn by heads and layers of the whole model. */
static void methods_without_a_mask_over_two_ranks_have_the_gradients_of_one(void)
{
    static const char *const set[2][2] = {{"method.chunk=8", "method.rounds=3"}, {"method.features=48", "method.seed=3"}};
    struct comm_group *two = NULL;
    if (world->size < 2)
        return;
    T_EQ(comm_split(world, world->rank / 2, world->rank, &two), ERR_OK);
    for (int i = 0; i < 2; i++) {
        struct cfg *cfg = NULL;
        other = attn_find(i ? "performer" : "reformer");
        T_EQ(cfg_open(&cfg, NULL, set[i], 2), ERR_OK);
        T_EQ(cfg_load(cfg, "method", other->fields, other_opts), ERR_OK);
        check_pair("adapters", two, 1e-5, 0);
        cfg_close(cfg);
    }
    other = NULL;
    comm_free(two);
}

/* Of all rows at once: the net's layers forward and back; the teacher's embeddings, whose layers sum fewer rows at a time. */
static void a_layer_sums_twice_each_way(void)
{
    struct comm_group *two = NULL;
    struct sparse_opts o = learned();
    struct train_sums sums = {0};
    if (world->size < 2)
        return;
    T_EQ(comm_split(world, world->rank / 2, world->rank, &two), ERR_OK);
    pair = two;
    void *self = open_lm("norms", &o, 0, 0);
    layer_sums = 0;
    run(self, 0, SEQS, &sums, (struct train_at){0});
    T_EQ(layer_sums, LAYERS * (2 + 2) + 1);
    lm()->close(self);
    pair = NULL;
    comm_free(two);
}

/* Biases, norms of heads, fused and transposed tensors, layers that are parallel, embeddings that are not tied. Gradients are
 * sums over 520 tokens; one for a bias of keys that are not rotated is 0 but for rounding: hence the least. */
static void other_architectures_over_two_ranks_have_the_gradients_of_one(void)
{
    static const char *const which[] = {"gpt2", "gpt-neox", "qwen2", "qwen3"};
    struct comm_group *two = NULL;
    char path[FILE_PATH];
    if (world->size < 2)
        return;
    T_EQ(comm_split(world, world->rank / 2, world->rank, &two), ERR_OK);
    for (int i = 0; i < 4; i++) {
        T_EQ(file_join(path, "../shared/golden/models", which[i]), ERR_OK);
        model = path;
        if (file_exists(path))
            check_pair("all", two, 2e-5, 1);
    }
    model = folder;
    comm_free(two);
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
    T_RUN(nets_over_two_ranks_have_the_gradients_of_one);
    T_RUN(methods_without_a_mask_over_two_ranks_have_the_gradients_of_one);
    T_RUN(a_layer_sums_twice_each_way);
    T_RUN(other_architectures_over_two_ranks_have_the_gradients_of_one);
    T_RUN(dense_sequences_of_untouched_weights_do_not_diverge);
    T_RUN(the_share_of_dense_sequences_is_the_one_asked_for);
    arena_close(&step);
    comm_barrier(world);
    char command[FILE_PATH + 16];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    int rc = t_rank == 0 ? system(command) : 0;
    return rc != 0 || t_done();
}
