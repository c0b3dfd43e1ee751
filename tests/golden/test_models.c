/* The golden checkpoints: logits, negative log-likelihoods and greedy continuations equal to transformers', on every
 * instruction set of this CPU. Tolerances: 2e-4 of the largest logit (f32 rounding through three layers stays near
 * 1e-6; the rest is the goldens' own float64), 1e-5 relative on sums. */
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "io/file.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "kernels/kern.h"
#include "model/model.h"
#include "tests/t.h"

#define GOLDEN "../shared/golden/models"
enum { GREEDY = 24 };

static const char *const cases[] = {"llama-gqa",
                                    "llama-tied-bf16",
                                    "llama-sharded-f16",
                                    "llama3-rope",
                                    "llama-linear-rope",
                                    "llama-yarn-rope",
                                    "mistral-swa",
                                    "qwen2",
                                    "qwen3",
                                    "gpt2",
                                    "gpt-neox"};
enum { N_CASES = sizeof cases / sizeof cases[0] };
static const int lengths[] = {1, 7, 64, 129, 300};

static struct kern_table kern;
static struct arena step;
static const char *path;
static struct safetensors *expected;
static struct json_doc *sums;

static const struct st_tensor *tensor(const char *what, int n)
{
    char name[64];
    snprintf(name, sizeof name, "%s_%d", what, n);
    return st_find(expected, name);
}

static void ids_of(const struct st_tensor *t, int32_t *out)
{
    for (int64_t i = 0; i < t->dim[0]; i++) {
        int64_t v;
        memcpy(&v, (const char *)t->data + i * 8, sizeof v);
        out[i] = (int32_t)v;
    }
}

static float f32_at(const struct st_tensor *t, int64_t i)
{
    float v;
    memcpy(&v, (const char *)t->data + i * 4, sizeof v);
    return v;
}

/* Logits, nll and most probable tokens of one length. */
static void compare(struct model *m, int n)
{
    const struct st_tensor *want = tensor("logits", n);
    int64_t vocab = model_info(m)->vocab, at[2] = {0, n}, *row = ARENA_NEW(&step, n, int64_t);
    int32_t *ids = ARENA_NEW(&step, n, int32_t), *target = ARENA_NEW(&step, n, int32_t);
    float *logits = ARENA_NEW(&step, n * vocab, float), *nll = ARENA_NEW(&step, n, float);
    ids_of(tensor("ids", n), ids);
    for (int i = 0; i < n; i++) {
        row[i] = i;
        target[i] = i + 1 < n ? ids[i + 1] : -1;
    }
    struct model_batch b = {.n_seq = 1, .at = at, .token = ids, .target = target};
    struct model_out out = {.nll = nll, .logit_row = row, .n_logit_rows = n, .logits = logits};
    T_EQ(model_score(m, &b, &out, &step), ERR_OK);
    double most = 0, worst = 0, sum = 0;
    for (int64_t i = 0; i < n * vocab; i++) {
        most = fmax(most, fabs((double)f32_at(want, i)));
        double diff = fabs((double)logits[i] - (double)f32_at(want, i));
        worst = diff <= worst ? worst : diff; /* a NaN sticks */
    }
    for (int i = 0; i < n; i++)
        sum += (double)nll[i];
    if (!(worst <= 2e-4 * most))
        T_FAIL("%s, %d tokens: logits are off by %g of %g", path, n, worst, most);
    char key[32];
    double golden;
    snprintf(key, sizeof key, "nll_sum_%d", n);
    if (n > 1) {
        T_EQ(json_real(sums, json_root(sums), key, NAN, -1e9, 1e9, &golden), ERR_OK);
        T_NEAR(sum / golden, 1, 1e-5);
    }
}

/* Token by token through the cache. */
static void continue_greedily(struct model *m, int n)
{
    const struct st_tensor *want = tensor("greedy", n);
    if (!want)
        return;
    int64_t vocab = model_info(m)->vocab, at[2] = {0, n};
    int32_t *ids = ARENA_NEW(&step, n, int32_t), golden[GREEDY], next = -1;
    float *logits = ARENA_NEW(&step, vocab, float);
    struct model_cache *cache = NULL;
    T_EQ(want->dim[0], GREEDY);
    ids_of(tensor("ids", n), ids);
    ids_of(want, golden);
    T_EQ(model_cache_open(&cache, m, n + GREEDY), ERR_OK);
    for (int i = 0; cache && i < GREEDY; i++) {
        struct model_batch b = {.n_seq = 1, .at = at, .token = i ? &next : ids};
        T_EQ(model_feed(m, &cache, &b, logits, NULL, &step), ERR_OK);
        next = (int32_t)kern.argmax(logits, vocab);
        T_EQ(next, golden[i]);
        at[1] = 1;
    }
    model_cache_close(cache);
}

static void equals_transformers(void)
{
    char file[FILE_PATH];
    struct model *m = NULL;
    snprintf(file, sizeof file, "%s/expected.safetensors", path);
    T_EQ(st_open(&expected, file), ERR_OK);
    snprintf(file, sizeof file, "%s/expected.json", path);
    T_EQ(json_read(&sums, file), ERR_OK);
    /* The goldens' modules were cast to the checkpoint's type as a whole before they were run in float64. */
    int rc = model_open(&m, &(struct model_open){.path = path, .kern = &kern, .check_finite = true, .rope_in_dtype = true});
    if (rc)
        T_FAIL("%s", err_text());
    for (size_t i = 0; m && expected && sums && i < sizeof lengths / sizeof lengths[0]; i++) {
        size_t mark = arena_mark(&step);
        compare(m, lengths[i]);
        continue_greedily(m, lengths[i]);
        arena_release(&step, mark);
    }
    err_clear();
    model_close(m);
    st_close(expected);
    json_close(sums);
    expected = NULL;
    sums = NULL;
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    if (arena_open(&step, "step", (size_t)1 << 30))
        return 1;
    for (int isa = 0; isa < kern_isa_count(); isa++)
        for (int i = 0; i < N_CASES; i++) {
            char name[256], folder[256];
            snprintf(name, sizeof name, "%s (%s) equals transformers", cases[i], kern_isa_name(isa));
            snprintf(folder, sizeof folder, GOLDEN "/%s", cases[i]);
            path = folder;
            if (!file_is_folder(folder))
                t_skip(name, "skipped: " GOLDEN " is not here");
            else if (kern_select(&kern, kern_isa_name(isa)))
                t_skip(name, "skipped: this CPU cannot run it");
            else
                t_run(name, equals_transformers);
        }
    arena_close(&step);
    return t_done();
}
