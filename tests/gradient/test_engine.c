/* What is trained is what runs: losses of training's forward pass under the hard choice equal the engine's with the gates and
 * weights that training has saved, and soft choices come near hard ones as the temperature falls. A random model, no data. */
#include <unistd.h>

#include "attn/sparse.h"
#include "attn/window.h"
#include "base/arena.h"
#include "base/err.h"
#include "io/file.h"
#include "io/random_ckpt.h"
#include "kernels/linear.h"
#include "model/gates.h"
#include "tests/t.h"
#include "train/net.h"
#include "train/objective.h"

enum { N = 333, LAYERS = 3 };
static struct kern_table kern;
static struct arena step;
static char folder[FILE_PATH], out_folder[FILE_PATH];
static int32_t token[N], target[N];
static const int64_t at[4] = {0, 250, 251, N};
static const struct model_batch batch = {.n_seq = 3, .at = at, .token = token, .target = target};

static void make_model(void)
{
    struct random_shape s = {.hidden = 64, .layers = LAYERS, .heads = 4, .kv_heads = 2, .head_dim = 16, .mlp = 96, .vocab = 300};
    int64_t n;
    size_t bytes;
    s.positions = 512, s.rope_theta = 10000, s.tied = true;
    struct random_ckpt r = {.folder = folder, .shape = s, .dtype = ST_F32, .seed = 3, .shards = 1};
    snprintf(folder, sizeof folder, "/tmp/ast-test-engine-%d", (int)getpid());
    T_EQ(file_join(out_folder, folder, "out"), ERR_OK);
    T_EQ(file_make_folders(out_folder), ERR_OK);
    T_EQ(random_write(&r, &n, &bytes), ERR_OK);
    for (int i = 0; i < N; i++) {
        token[i] = (i * 37 + i * i % 11) % 300;
        target[i] = i == 249 || i == 250 || i == N - 1 ? -1 : (i * 53 + 5) % 300;
    }
}

static const struct train_objective *lm(void)
{
    return objective_find("lm");
}

/* Opens the objective, and moves what it trains away from a start that would hide mistakes. */
static void *open_lm(const char *what, const struct attn_method *m, const void *opts)
{
    static unsigned char o[1024];
    static struct cfg *cfg;
    char text[64];
    void *self = NULL;
    snprintf(text, sizeof text, "objective.what=%s", what);
    const char *const over[] = {text, "objective.rank=3"};
    cfg_close(cfg);
    T_EQ(cfg_open(&cfg, NULL, over, 2), ERR_OK);
    T_EQ(cfg_load(cfg, "objective", lm()->fields, o), ERR_OK);
    struct train_env env = {
        .model = folder, .gate = "", .method = m, .method_opts = opts, .kern = &kern, .max_tokens = N, .max_len = 250};
    env.steps = 10, env.repeat = 1, env.seed = 1;
    if (lm()->open(&self, o, &env)) {
        T_FAIL("%s", err_text());
        err_clear();
        return NULL;
    }
    struct train_params *p = lm()->params(self);
    for (int64_t i = 0; i < p->n; i++)
        for (int64_t j = 0; j < p->at[i].n; j++)
            p->at[i].w[j] += (float)(0.2 * sin((double)(5 * j + 3 * i)));
    T_EQ(lm()->update(self, &(struct train_at){0}, NULL), ERR_OK);
    return self;
}

static double train_nll(void *self, int phase, double temperature)
{
    struct train_sums sums = {0};
    struct train_at when = {.temperature = temperature, .phase = phase};
    size_t bound = lm()->step_bytes(self, N, 3), before = step.peak = step.used;
    T_EQ(lm()->step(self, &batch, &when, &sums, &step), ERR_OK);
    T_CHECK(step.peak - before <= bound);
    T_EQ(sums.count, N - 3);
    return sums.loss / sums.count;
}

static double engine_nll(const struct attn_method *m, const void *opts, bool gates, bool weights)
{
    char path[FILE_PATH];
    struct model *model = NULL;
    struct gates *g = NULL;
    float *nll = ARENA_NEW(&step, N, float);
    double sum = 0;
    file_join(path, out_folder, "model");
    T_EQ(model_open(&model, &(struct model_open){.path = weights ? path : folder, .kern = &kern, .check_finite = true}), ERR_OK);
    file_join(path, out_folder, "gates.safetensors");
    if (model && gates && gates_open(&g, path, model_info(model)))
        T_FAIL("%s", err_text());
    T_EQ(model_set_attention(model, m, opts, gates_params(g)), ERR_OK);
    struct model_out out = {.nll = nll};
    T_EQ(model_score(model, &batch, &out, &step), ERR_OK);
    for (int i = 0; i < N; i++)
        sum += (double)nll[i];
    gates_close(g);
    model_close(model);
    return sum / (N - 3);
}

static struct sparse_opts ast_opts(void)
{
    struct sparse_opts o;
    T_EQ(cfg_defaults(attn_ast.fields, &o), ERR_OK);
    o.keep = 80, o.local = 20, o.block = 16;
    return o;
}

static void check_ast(const char *what, struct sparse_opts o)
{
    void *self = open_lm(what, &attn_ast, &o);
    if (!self)
        return;
    double hard = train_nll(self, 1, 1), cold = train_nll(self, 0, 1e-4), warm = train_nll(self, 0, 1);
    T_EQ(lm()->save(self, out_folder), ERR_OK);
    double engine = engine_nll(&attn_ast, &o, true, strcmp(what, "gates") != 0);
    T_NEAR(hard, engine, 2e-6);
    if (o.budget != SELECT_LEARNED) /* a learned budget is rounded to blocks when it is hard */
        T_NEAR(cold, hard, 1e-3);
    T_CHECK(fabs(warm - hard) > 1e-6);
    lm()->close(self);
}

static void saved_gates_give_the_trained_loss(void)
{
    check_ast("gates", ast_opts());
}

static void learned_budgets_and_summaries_give_the_trained_loss(void)
{
    static const int64_t sizes[] = {8, 16, 32};
    struct sparse_opts o = ast_opts();
    o.budget = SELECT_LEARNED, o.keep = 0, o.summary = (struct cfg_ints){3, sizes};
    check_ast("gates", o);
    o.unit = SPARSE_HEAD, o.block = 32;
    check_ast("gates", o);
}

static void halves_of_kernel_blocks_give_the_trained_loss(void)
{
    static const int64_t sizes[] = {8, 16};
    struct sparse_opts o = ast_opts();
    o.block = 8;
    check_ast("gates", o);
    o.budget = SELECT_LEARNED, o.keep = 0, o.summary = (struct cfg_ints){2, sizes};
    check_ast("all", o);
}

static void merged_adapters_give_the_trained_loss(void)
{
    check_ast("gates+adapters", ast_opts());
}

static void saved_weights_give_the_trained_loss(void)
{
    check_ast("all", ast_opts());
}

static void a_window_is_trained_as_it_runs(void)
{
    struct window_opts o = {.keep = 37, .sink = 4};
    void *self = open_lm("norms", &attn_window, &o);
    if (!self)
        return;
    double loss = train_nll(self, 0, 1);
    T_EQ(lm()->save(self, out_folder), ERR_OK);
    T_NEAR(loss, engine_nll(&attn_window, &o, false, true), 2e-6);
    T_CHECK(fabs(loss - engine_nll(&attn_dense, NULL, false, true)) > 1e-6);
    lm()->close(self);
}

static void the_same_threads_give_the_same_bits(void)
{
    struct sparse_opts o = ast_opts();
    o.budget = SELECT_LEARNED, o.keep = 0;
    void *self = open_lm("all", &attn_ast, &o);
    struct train_params *p = self ? lm()->params(self) : NULL;
    int64_t total = p ? train_params_total(p) : 0;
    float *once = ARENA_NEW(&step, total, float), *to = once;
    size_t mark = arena_mark(&step);
    for (int round = 0; p && round < 3; round++) {
        train_params_zero_grad(p);
        struct train_sums sums = {0};
        T_EQ(lm()->step(self, &batch, &(struct train_at){.temperature = 0.5}, &sums, &step), ERR_OK);
        to = once;
        for (int64_t i = 0; i < p->n; to += p->at[i++].n) {
            if (round)
                T_CHECK(memcmp(to, p->at[i].g, (size_t)p->at[i].n * sizeof *to) == 0);
            memcpy(to, p->at[i].g, (size_t)p->at[i].n * sizeof *to);
        }
        arena_release(&step, mark);
    }
    lm()->close(self);
}

/* Options as a job gives them, beside the defaults. */
static void check_method(const char *name, const char *const *over, int n)
{
    const struct attn_method *m = attn_find(name);
    struct cfg *cfg = NULL;
    double opts[64];
    T_CHECK(m && m->opts_size <= sizeof opts);
    T_EQ(cfg_open(&cfg, NULL, over, n), ERR_OK);
    T_EQ(cfg_load(cfg, "method", m->fields, opts), ERR_OK);
    void *self = open_lm("norms", m, opts);
    if (self) {
        double loss = train_nll(self, 0, 1);
        T_EQ(lm()->save(self, out_folder), ERR_OK);
        T_NEAR(loss, engine_nll(m, opts, false, true), 2e-6);
        T_CHECK(fabs(loss - engine_nll(&attn_dense, NULL, false, true)) > 1e-6);
        lm()->close(self);
    }
    cfg_close(cfg);
}

static void fixed_patterns_are_trained_as_they_run(void)
{
    check_method("streaming-llm", (const char *const[]){"method.window=40", "method.sink=3", "method.pos=\"orig\""}, 3);
    check_method("longformer", (const char *const[]){"method.window=40", "method.global=[0, 17, 100]"}, 2);
    check_method("longformer", (const char *const[]){"method.window=20", "method.dilation=3", "method.global=[5]"}, 3);
    check_method("bigbird", (const char *const[]){"method.block=16", "method.window=2", "method.random=2", "method.global=1"}, 4);
    check_method("sparse-transformer", (const char *const[]){"method.l=24", "method.heads=\"split\""}, 2);
    check_method("sparse-transformer", (const char *const[]){"method.l=24", "method.c=3", "method.kind=\"fixed\""}, 3);
}

static void methods_without_a_mask_are_trained_as_they_run(void)
{
    check_method("reformer", (const char *const[]){"method.chunk=8", "method.rounds=3"}, 2);
    check_method("reformer", (const char *const[]){"method.chunk=8", "method.buckets=8", "method.shared_qk=true"}, 3);
    check_method("performer", (const char *const[]){"method.features=48"}, 1);
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    kern_select(&kern, NULL);
    kern_threads(2);
    if (arena_open(&step, "step", (size_t)1 << 28))
        return 1;
    make_model();
    T_RUN(saved_gates_give_the_trained_loss);
    T_RUN(learned_budgets_and_summaries_give_the_trained_loss);
    T_RUN(halves_of_kernel_blocks_give_the_trained_loss);
    T_RUN(merged_adapters_give_the_trained_loss);
    T_RUN(saved_weights_give_the_trained_loss);
    T_RUN(a_window_is_trained_as_it_runs);
    T_RUN(fixed_patterns_are_trained_as_they_run);
    T_RUN(methods_without_a_mask_are_trained_as_they_run);
    T_RUN(the_same_threads_give_the_same_bits);
    arena_close(&step);
    char command[FILE_PATH + 16];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command) != 0 || t_done();
}
