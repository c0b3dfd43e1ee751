/* What adapters were trained into is a checkpoint like the one it came from, for any reader: the same tensors with the same
 * shapes, in float, config.json that says so and is else the same, the tokenizer's files; adapters are merged, and what they do
 * not touch has the original's values. Every architecture; one file or shards, F32, F16 or BF16. */
#include <dirent.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "cfg/cfg.h"
#include "io/file.h"
#include "io/random_ckpt.h"
#include "io/safetensors.h"
#include "kernels/linear.h"
#include "tests/t.h"
#include "train/objective.h"

enum { N = 60, SMALL_VOCAB = 200 };
static struct kern_table kern;
static struct arena step;
static char folder[FILE_PATH], out_folder[FILE_PATH], made[FILE_PATH];
static const int64_t at[2] = {0, N};
static int32_t token[N], target[N];
static const struct model_batch batch = {.n_seq = 1, .at = at, .token = token, .target = target};

static const struct train_objective *lm(void)
{
    return objective_find("lm");
}

/* ---- training and saving ---- */

/* Adapters far from zero, saved in out_folder/model; returns the loss that training has with them. */
static double save_trained(const char *model)
{
    static unsigned char o[1024];
    const char *const over[] = {"objective.what=adapters", "objective.rank=3"};
    struct cfg *cfg = NULL;
    struct train_sums sums = {0};
    void *self = NULL;
    T_EQ(cfg_open(&cfg, NULL, over, 2), ERR_OK);
    T_EQ(cfg_load(cfg, "objective", lm()->fields, o), ERR_OK);
    struct train_env env = {.model = model, .gate = "", .method = attn_find("dense"), .kern = &kern};
    env.max_tokens = env.max_len = N, env.steps = env.repeat = 1, env.seed = 1;
    if (lm()->open(&self, o, &env))
        T_FAIL("%s: %s", model, err_text());
    struct train_params *p = self ? lm()->params(self) : NULL;
    for (int64_t i = 0; p && i < p->n; i++)
        for (int64_t j = 0; j < p->at[i].n; j++)
            p->at[i].w[j] += (float)(0.1 * sin((double)(5 * j + 3 * i)));
    T_CHECK(p && p->n > 0);
    if (self) {
        T_EQ(lm()->update(self, &(struct train_at){0}, NULL), ERR_OK);
        T_EQ(lm()->step(self, &batch, &(struct train_at){.temperature = 1}, &sums, &step), ERR_OK);
        T_EQ(lm()->save(self, out_folder), ERR_OK);
    }
    lm()->close(self);
    cfg_close(cfg);
    return sums.loss / sums.count;
}

static double engine_loss(const char *path)
{
    struct model *m = NULL;
    float nll[N];
    double sum = 0;
    struct model_out out = {.nll = nll};
    T_EQ(model_open(&m, &(struct model_open){.path = path, .kern = &kern, .check_finite = true}), ERR_OK);
    if (!m)
        return NAN;
    T_EQ(model_set_attention(m, attn_find("dense"), NULL, NULL), ERR_OK);
    T_EQ(model_score(m, &batch, &out, &step), ERR_OK);
    for (int i = 0; i < N - 1; i++)
        sum += (double)nll[i];
    model_close(m);
    return sum / (N - 1);
}

/* ---- comparing ---- */

static float value(const struct st_tensor *t, int64_t i)
{
    float f = 0;
    const unsigned char *p = t->data;
    if (t->dtype == ST_F32)
        memcpy(&f, p + 4 * i, sizeof f);
    else if (t->dtype == ST_BF16)
        kern.f32_from_bf16(&f, p + 2 * i, 1);
    else
        kern.f32_from_f16(&f, p + 2 * i, 1);
    return f;
}

static bool is_float(const struct st_tensor *t)
{
    return t->dtype == ST_F32 || t->dtype == ST_F16 || t->dtype == ST_BF16;
}

/* Projections have adapters: matrices of layers, not those of the top. */
static bool is_adapted(const struct st_tensor *t)
{
    static const char *const top[] = {"embed", "wte", "wpe", "lm_head", "masked_bias", "attn.bias", "rotary"};
    for (size_t i = 0; i < sizeof top / sizeof top[0]; i++)
        if (strstr(t->name, top[i]))
            return false;
    return t->rank == 2;
}

static void compare_tensors(const struct safetensors *want, const struct safetensors *got)
{
    int64_t adapted = 0;
    T_EQ(st_count(got), st_count(want));
    T_STR(st_metadata(got, "format"), "pt"); /* transformers asks for it */
    for (int64_t i = 0; i < st_count(want); i++) {
        const struct st_tensor *w = st_at(want, i), *g = st_find(got, w->name);
        int64_t n = 1, moved = 0;
        if (!g || g->rank != w->rank || memcmp(g->dim, w->dim, (size_t)w->rank * sizeof w->dim[0]) != 0) {
            T_FAIL("%s is not there, or has another shape", w->name);
            continue;
        }
        if (!is_float(w)) {
            T_CHECK(g->dtype == w->dtype && !memcmp(g->data, w->data, w->bytes));
            continue;
        }
        for (int d = 0; d < w->rank; d++)
            n *= w->dim[d];
        T_CHECK(g->dtype == ST_F32 || (g->dtype == w->dtype && !is_adapted(w))); /* tables that nothing computes with stay */
        for (int64_t x = 0; x < n; x++)
            moved += value(g, x) != value(w, x);
        if (is_adapted(w) ? moved < n / 2 : moved > 0)
            T_FAIL("%s: %lld of %lld values have changed", w->name, (long long)moved, (long long)n);
        adapted += is_adapted(w);
    }
    T_CHECK(adapted > 0);
}

/* The text without the value of its dtype keys, of which *n is counted; says every one float32? */
static void without_dtype(struct buf *out, const char *s, int *n, bool *f32)
{
    *n = 0, *f32 = true;
    for (const char *key = strstr(s, "dtype\": \""); key; key = strstr(s, "dtype\": \""), ++*n) {
        const char *v = key + strlen("dtype\": \"");
        *f32 = *f32 && !strncmp(v, "float32\"", 8);
        buf_add(out, s, (size_t)(v - s));
        s = strchr(v, '"');
    }
    buf_printf(out, "%s", s);
}

static void compare_config(const char *model, int dtypes)
{
    struct buf text[2] = {{0}, {0}}, rest[2] = {{0}, {0}};
    char path[FILE_PATH];
    bool f32[2];
    int n[2];
    for (int i = 0; i < 2; i++) {
        T_EQ(file_join(path, i ? made : model, "config.json"), ERR_OK);
        T_EQ(file_read_text(&text[i], path, 1 << 20), ERR_OK);
        without_dtype(&rest[i], buf_text(&text[i]), &n[i], &f32[i]);
    }
    T_STR(buf_text(&rest[1]), buf_text(&rest[0]));
    T_EQ(n[1], n[0]);
    T_CHECK(f32[1]);
    T_CHECK(dtypes < 0 || n[0] == dtypes);
    for (int i = 0; i < 2; i++)
        buf_free(&text[i]), buf_free(&rest[i]);
}

/* One file of weights and none of shards, whose index would name others; the tokenizer beside it. */
static void compare_files(const char *model)
{
    char path[FILE_PATH];
    DIR *d = opendir(made);
    int files = 0, known = 2;
    for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d))
        files += e->d_name[0] != '.';
    if (d)
        closedir(d);
    T_EQ(file_join(path, model, "tokenizer.json"), ERR_OK);
    if (file_exists(path)) {
        T_EQ(file_join(path, made, "tokenizer.json"), ERR_OK);
        T_CHECK(file_exists(path));
    }
    T_EQ(file_join(path, made, "model.safetensors"), ERR_OK);
    T_CHECK(file_exists(path));
    for (int i = 0; i < 6; i++) {
        static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json",
                                            "merges.txt",     "generation_config.json"};
        T_EQ(file_join(path, model, names[i]), ERR_OK);
        known += file_exists(path);
    }
    T_EQ(files, known);
}

static void empty(const char *path)
{
    char command[2 * FILE_PATH];
    snprintf(command, sizeof command, "rm -rf %s", path);
    T_CHECK(system(command) == 0);
    T_EQ(file_make_folders(path), ERR_OK);
}

/* dtypes: keys that config.json must have, -1: any number */
static void check(const char *model, int dtypes)
{
    struct safetensors *want = NULL, *got = NULL;
    empty(out_folder);
    for (int i = 0; i < N; i++) {
        token[i] = (i * 37 + i * i % 11) % SMALL_VOCAB;
        target[i] = i == N - 1 ? -1 : (i * 53 + 5) % SMALL_VOCAB;
    }
    double loss = save_trained(model);
    T_EQ(st_open(&want, model), ERR_OK);
    T_EQ(st_open(&got, made), ERR_OK);
    if (want && got) {
        compare_tensors(want, got);
        compare_config(model, dtypes);
        compare_files(model);
        T_NEAR(engine_loss(made), loss, 2e-6);
        T_CHECK(fabs(engine_loss(model) - loss) > 1e-4);
    }
    st_close(want);
    st_close(got);
}

/* ---- models ---- */

static void make_model(enum st_dtype dtype, int shards)
{
    struct random_shape s = {.hidden = 64, .layers = 2, .heads = 4, .kv_heads = 2, .head_dim = 16, .mlp = 96, .vocab = 300};
    int64_t n;
    size_t bytes;
    empty(folder);
    s.positions = 512, s.rope_theta = 10000, s.tied = true;
    struct random_ckpt r = {.folder = folder, .shape = s, .dtype = dtype, .seed = 3, .shards = shards};
    T_EQ(random_write(&r, &n, &bytes), ERR_OK);
}

static void shards_of_bf16_become_one_file_of_floats(void)
{
    make_model(ST_BF16, 3);
    check(folder, 1);
}

/* The type's newer name beside the older one, and neither. */
static void set_dtype(const char *line)
{
    struct buf text = {0}, out = {0};
    char path[FILE_PATH];
    T_EQ(file_join(path, folder, "config.json"), ERR_OK);
    T_EQ(file_read_text(&text, path, 1 << 20), ERR_OK);
    const char *s = buf_text(&text), *key = strstr(s, "  \"torch_dtype\"");
    T_CHECK(key != NULL);
    if (key) {
        buf_add(&out, s, (size_t)(key - s));
        buf_printf(&out, "%s\n}\n", line);
        T_EQ(file_write_durable(path, buf_text(&out), out.len), ERR_OK);
    }
    buf_free(&text);
    buf_free(&out);
}

static void config_says_float_whatever_it_said(void)
{
    make_model(ST_F16, 1);
    set_dtype("  \"torch_dtype\": \"float16\",\n  \"dtype\": \"float16\"");
    check(folder, 2);
    make_model(ST_F32, 1);
    set_dtype("  \"torch_dtype\": null,\n  \"use_cache\": \"yes\"");
    check(folder, 0);
    make_model(ST_F32, 1);
    set_dtype("  \"use_cache\": \"torch_dtype\"");
    check(folder, 0);
}

static void every_architecture_is_saved_as_it_was_read(void)
{
    static const char *const which[] = {"llama-gqa", "llama-sharded-f16", "llama-tied-bf16", "gpt2", "gpt-neox", "qwen2", "qwen3"};
    char path[FILE_PATH];
    for (size_t i = 0; i < sizeof which / sizeof which[0]; i++) {
        T_EQ(file_join(path, "../shared/golden/models", which[i]), ERR_OK);
        if (file_exists(path))
            check(path, -1);
    }
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    kern_select(&kern, NULL);
    kern_threads(2);
    if (arena_open(&step, "step", (size_t)1 << 28))
        return 1;
    snprintf(folder, sizeof folder, "/tmp/ast-test-export-%d", (int)getpid());
    T_EQ(file_join(out_folder, folder, "out"), ERR_OK);
    T_EQ(file_join(made, out_folder, "model"), ERR_OK);
    T_RUN(shards_of_bf16_become_one_file_of_floats);
    T_RUN(config_says_float_whatever_it_said);
    if (file_exists("../shared/golden/models"))
        T_RUN(every_architecture_is_saved_as_it_was_read);
    else
        t_skip("every_architecture_is_saved_as_it_was_read", "skipped: no ../shared/golden/models");
    arena_close(&step);
    char command[FILE_PATH + 16];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command) != 0 || t_done();
}
