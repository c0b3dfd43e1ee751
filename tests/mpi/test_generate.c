/* Decoding over real engines: transformers' greedy continuations in every batch and on every number of ranks; drawn tokens
 * and beams that neither changes; the worth of a beam is what scoring its text from scratch says. */
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "cfg/cfg.h"
#include "comm/comm.h"
#include "io/file.h"
#include "io/safetensors.h"
#include "model/model.h"
#include "task/decode.h"
#include "task/generate.h"
#include "tests/t.h"

#define GOLDEN "../shared/golden/models"
enum { GREEDY = 24, MOST = 7, LONG = 64 };

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

static struct comm_group *world;
static struct kern_table kern;
static struct arena step;
static const char *path;

static void ids_of(const struct safetensors *st, const char *name, int32_t *out, int64_t n)
{
    const struct st_tensor *t = st_find(st, name);
    T_CHECK(t && t->dim[0] == n);
    for (int64_t i = 0; t && i < n; i++) {
        int64_t v;
        memcpy(&v, (const char *)t->data + i * 8, sizeof v);
        out[i] = (int32_t)v;
    }
}

struct golden {
    int32_t prompt[2][LONG], next[2][GREEDY];
};
static const int64_t length[2] = {7, LONG};

static void read_golden(struct golden *g)
{
    char file[FILE_PATH], name[32];
    struct safetensors *st = NULL;
    snprintf(file, sizeof file, "%s/expected.safetensors", path);
    T_EQ(st_open(&st, file), ERR_OK);
    for (int k = 0; st && k < 2; k++) {
        snprintf(name, sizeof name, "ids_%d", (int)length[k]);
        ids_of(st, name, g->prompt[k], length[k]);
        snprintf(name, sizeof name, "greedy_%d", (int)length[k]);
        ids_of(st, name, g->next[k], GREEDY);
    }
    st_close(st);
}

static struct model *open_model(const struct comm_group *group)
{
    struct model *m = NULL;
    if (model_open(&m, &(struct model_open){.path = path, .kern = &kern, .group = group, .rope_in_dtype = true}))
        T_FAIL("%s", err_text());
    return m;
}

/* `batch` sequences at a time, MOST in all, prompts of both lengths by turns. */
static void generate(struct model *m, const struct golden *g, const struct decode_opts *how, int batch, struct tok_ids ids[MOST])
{
    struct generate_seq q[MOST];
    for (int i = 0; i < MOST; i++) {
        q[i] = (struct generate_seq){.prompt = g->prompt[i % 2], .n = length[i % 2], .max_new = GREEDY, .id = i, .ids = &ids[i]};
        ids[i].n = 0;
    }
    for (int i = 0; i < MOST; i += batch) {
        int n = MOST - i < batch ? MOST - i : batch;
        struct generate_call c = {.model = m, .seq = q + i, .n_seq = n, .how = how, .seed = 3, .step = &step};
        if (generate_run(&c))
            T_FAIL("%s", err_text());
    }
}

static bool same(const struct tok_ids *a, const struct tok_ids *b)
{
    return a->n == GREEDY && b->n == GREEDY && !memcmp(a->v, b->v, GREEDY * sizeof *a->v);
}

static void continuations_do_not_depend_on_batch_or_ranks(void)
{
    static const int batches[] = {1, 2, 3, 7};
    static const struct decode_opts draw = {.temperature = 1, .top_k = 40, .top_p = 0.9, .beam = 1},
                                    beams = {.beam = 3, .length_penalty = 1, .top_p = 1};
    const struct decode_opts *const how[] = {NULL, &draw, &beams};
    struct golden g = {0};
    struct model *cut = open_model(world), *whole = open_model(NULL);
    struct tok_ids got[MOST] = {{0}}, want[MOST] = {{0}};
    read_golden(&g);
    for (int h = 0; cut && whole && h < 3; h++) {
        generate(whole, &g, how[h], MOST, want);
        for (int b = h ? 2 : 0; b < (h ? 3 : 4); b++) {
            generate(cut, &g, how[h], batches[b], got);
            for (int i = 0; i < MOST; i++) {
                T_CHECK(same(&got[i], &want[i]));
                T_CHECK(h > 0 || !memcmp(got[i].v, g.next[i % 2], sizeof g.next[0]));
            }
        }
        if (h == 1) /* one prompt, several numbers: not all alike */
            T_CHECK(!same(&want[0], &want[2]) || !same(&want[0], &want[4]));
    }
    for (int i = 0; i < MOST; i++) {
        tok_ids_free(&got[i]);
        tok_ids_free(&want[i]);
    }
    model_close(cut);
    model_close(whole);
}

/* -ln p of the continuation, scored from scratch. */
static double nll_of(struct model *m, const int32_t *prompt, int64_t n, const struct tok_ids *ids)
{
    int32_t token[LONG + GREEDY], target[LONG + GREEDY];
    float nll[LONG + GREEDY];
    int64_t at[2] = {0, n + ids->n};
    double sum = 0;
    memcpy(token, prompt, (size_t)n * sizeof *token);
    memcpy(token + n, ids->v, (size_t)ids->n * sizeof *token);
    for (int64_t i = 0; i < at[1]; i++)
        target[i] = i >= n - 1 && i + 1 < at[1] ? token[i + 1] : -1;
    struct model_out out = {.nll = nll};
    T_EQ(model_score(m, &(struct model_batch){.n_seq = 1, .at = at, .token = token, .target = target}, &out, &step), ERR_OK);
    for (int64_t i = 0; i < at[1]; i++)
        sum += (double)nll[i];
    return sum;
}

/* Also with a method that keeps a state: copies of caches carry it. 1e-4: f32 logits through another cut into tiles. */
static void beams_are_worth_what_their_text_is(void)
{
    static const char *const method[] = {"dense", "ast", "window"};
    static max_align_t opts[64];
    struct golden g = {0};
    struct model *m = open_model(world);
    read_golden(&g);
    for (int i = 0; m && i < 3; i++) {
        const struct attn_method *a = attn_find(method[i]);
        T_CHECK(a && a->opts_size <= sizeof opts);
        memset(opts, 0, sizeof opts);
        struct cfg *c = NULL;
        static const char *const sparse[] = {"keep=32", "block=8", "local=8"}, *const window[] = {"keep=32"};
        T_EQ(cfg_open(&c, NULL, i == 1 ? sparse : window, i == 1 ? 3 : i == 2), ERR_OK);
        if (a->fields)
            T_EQ(cfg_load(c, "", a->fields, opts), ERR_OK);
        T_EQ(model_set_attention(m, a, opts, NULL), ERR_OK);
        for (int k = 0; k < 2; k++) {
            double worth[2];
            for (int width = 0; width < 2; width++) {
                struct decode_opts how = {.beam = 1 + 4 * width, .length_penalty = 0.5, .top_p = 1};
                struct tok_ids ids = {0};
                struct generate_seq q = {.prompt = g.prompt[k], .n = length[k], .max_new = GREEDY, .ids = &ids};
                struct generate_call call = {.model = m, .seq = &q, .n_seq = 1, .how = &how, .step = &step};
                T_EQ(generate_beam(&call), ERR_OK);
                T_EQ(ids.n, GREEDY);
                T_NEAR(q.score, -nll_of(m, g.prompt[k], length[k], &ids) / sqrt(GREEDY), 1e-4);
                worth[width] = q.score;
                tok_ids_free(&ids);
            }
            T_CHECK(worth[1] >= worth[0] - 1e-9);
        }
        cfg_close(c);
    }
    model_close(m);
}

/* What is promised beforehand is enough, caches apart, and not far from what is taken. */
static void memory_is_known_beforehand(void)
{
    struct golden g = {0};
    struct model *m = open_model(world);
    read_golden(&g);
    for (int width = 1; m && width <= 5; width += 4) {
        struct decode_opts how = {.beam = width, .length_penalty = 1, .top_p = 1};
        struct generate_seq q[2];
        struct arena small = {0};
        size_t need = generate_bytes(m, &how, 2, length[0] + length[1], LONG + GREEDY),
               caches = 2 * (size_t)width * model_cache_bytes(m, LONG + GREEDY);
        for (int i = 0; i < 2; i++)
            q[i] = (struct generate_seq){.prompt = g.prompt[i], .n = length[i], .max_new = GREEDY};
        struct generate_call c = {.model = m, .seq = q, .n_seq = 2, .how = &how, .step = &small};
        T_EQ(arena_open(&small, "small", need - caches), ERR_OK);
        if (generate_run(&c))
            T_FAIL("%s", err_text());
        T_CHECK(small.peak > (need - caches) / 2);
        arena_close(&small);
    }
    err_clear();
    model_close(m);
}

/* Options that make a method leave something out of 64 tokens, where it has such. */
static int small_budget(const struct attn_method *a, const char **option)
{
    static const char *const small[][2] = {{"keep", "keep=32"}, {"block", "block=8"}, {"local", "local=8"}};
    static const double value[] = {32, 8, 8};
    int n = 0;
    for (const struct cfg_field *f = a->fields; f && f->name; f++)
        for (int k = 0; k < 3; k++)
            if (!strcmp(f->name, small[k][0]) && f->min <= value[k])
                option[n++] = small[k][1];
    return n;
}

/* Every method of the list: chunks of prompts and single tokens, alone and side by side, on any number of ranks. */
static void every_method_decodes_alike_in_every_batch(void)
{
    static max_align_t opts[64];
    struct golden g = {0};
    struct model *m = open_model(world);
    struct tok_ids got[MOST] = {{0}}, want[MOST] = {{0}};
    int tried = 0;
    read_golden(&g);
    for (int i = 0; m && attn_at(i); i++) {
        const struct attn_method *a = attn_at(i);
        const char *option[4];
        struct cfg *c = NULL;
        int n = small_budget(a, option);
        memset(opts, 0, sizeof opts); /* a method reads more than its own table sets */
        T_CHECK(a->opts_size <= sizeof opts);
        T_EQ(cfg_open(&c, NULL, option, n), ERR_OK);
        if (a->fields && cfg_load(c, "", a->fields, opts))
            T_FAIL("%s: %s", a->name, err_text());
        else if (comm_agree(world, model_set_attention(m, a, opts, NULL)) == ERR_OK) {
            generate(m, &g, NULL, MOST, want);
            generate(m, &g, NULL, 1, got);
            for (int k = 0; k < MOST; k++)
                if (!same(&got[k], &want[k]))
                    T_FAIL("%s: sequence %d depends on its batch", a->name, k);
            tried++;
        }
        err_clear();
        cfg_close(c);
    }
    T_CHECK(tried >= 5);
    for (int i = 0; i < MOST; i++) {
        tok_ids_free(&got[i]);
        tok_ids_free(&want[i]);
    }
    model_close(m);
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    if (comm_start(&argc, &argv, &world) || arena_open(&step, "step", (size_t)1 << 30) || kern_select(&kern, NULL))
        return 1;
    for (int i = 0; i < N_CASES; i++) {
        char name[128], folder[256];
        snprintf(folder, sizeof folder, GOLDEN "/%s", cases[i]);
        path = folder;
        snprintf(name, sizeof name, "%s: continuations do not depend on batch or ranks", cases[i]);
        if (!file_is_folder(folder))
            t_skip(name, "skipped: " GOLDEN " is not here");
        else
            t_run(name, continuations_do_not_depend_on_batch_or_ranks);
    }
    path = GOLDEN "/llama-gqa";
    if (file_is_folder(path)) {
        T_RUN(beams_are_worth_what_their_text_is);
        T_RUN(memory_is_known_beforehand);
        T_RUN(every_method_decodes_alike_in_every_batch);
    } else {
        t_skip("memory_is_known_beforehand", "skipped: " GOLDEN " is not here");
        t_skip("beams_are_worth_what_their_text_is", "skipped: " GOLDEN " is not here");
        t_skip("every_method_decodes_alike_in_every_batch", "skipped: " GOLDEN " is not here");
    }
    arena_close(&step);
    comm_free(world);
    return t_done();
}
