/* The engine on the embedded model: a number depends on its sequence alone, memory is known beforehand, bad input is a
 * sentence. */
#include <omp.h>
#include <stdint.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/rng.h"
#include "io/file.h"
#include "io/json.h"
#include "io/random_ckpt.h"
#include "kernels/linear.h"
#include "model/arch.h"
#include "tests/t.h"

#define MODEL "data/asterism-S"
enum { N = 400 };

static struct kern_table kern;
static struct arena step;
static struct model *model;
static int64_t vocab;
static int32_t ids[N], target[N];

static struct model *open_model(const char *path, enum kern_dtype t)
{
    struct model *m = NULL;
    if (model_open(&m, &(struct model_open){.path = path, .kern = &kern, .dtype = t, .kv_dtype = t, .check_finite = true}))
        T_FAIL("%s", err_text());
    return m;
}

static void score(struct model *m, int64_t n_seq, const int64_t *at, const int32_t *token, float *nll)
{
    struct model_out out = {.nll = nll};
    T_EQ(model_score(m, &(struct model_batch){.n_seq = n_seq, .at = at, .token = token, .target = target}, &out, &step), ERR_OK);
}

static void a_sequence_does_not_see_its_batch(void)
{
    /* Several chunks of rows, an empty sequence, cuts at odd places. */
    static const int64_t at[] = {0, 3, 3, 290, 291, N};
    float together[N], alone[N];
    score(model, 5, at, ids, together);
    for (int s = 0; s < 5; s++) {
        int64_t own[2] = {0, at[s + 1] - at[s]};
        struct model_out out = {.nll = alone + at[s]};
        struct model_batch b = {.n_seq = 1, .at = own, .token = ids + at[s], .target = target + at[s]};
        T_EQ(model_score(model, &b, &out, &step), ERR_OK);
    }
    for (int i = 0; i < N; i++)
        T_NEAR(together[i], alone[i], 1e-4);
}

static void a_later_token_changes_nothing_before_it(void)
{
    static const int64_t at[] = {0, N};
    float before[N], after[N];
    int32_t keep = ids[300];
    score(model, 1, at, ids, before);
    ids[300] = (keep + 1) % (int32_t)vocab;
    score(model, 1, at, ids, after);
    ids[300] = keep;
    for (int i = 0; i < 300; i++)
        T_NEAR(after[i], before[i], 1e-6);
    T_CHECK(fabs((double)after[300] - (double)before[300]) > 1e-6);
}

static void tokens_without_a_target_are_not_scored(void)
{
    static const int64_t at[] = {0, N};
    float nll[N];
    score(model, 1, at, ids, nll);
    for (int i = 0; i < N; i++)
        T_CHECK(target[i] < 0 ? nll[i] == 0 : nll[i] > 0);
}

/* Logits of the last of n tokens, fed in chunks of the given sizes (the last one repeats). */
static void fed(struct model *m, int64_t n, const int64_t *chunk, float *logits)
{
    struct model_cache *c = NULL;
    T_EQ(model_cache_open(&c, m, n), ERR_OK);
    for (int64_t at = 0; at < n;) {
        int64_t size = *chunk < n - at ? *chunk : n - at, cut[2] = {0, size};
        T_EQ(model_feed(m, &c, &(struct model_batch){.n_seq = 1, .at = cut, .token = ids + at}, logits, NULL, &step), ERR_OK);
        at += size;
        T_EQ(model_cache_len(c), at);
        chunk += chunk[1] != 0;
    }
    model_cache_close(c);
}

static void feeding_in_any_chunks_equals_scoring(void)
{
    static const int64_t all[] = {N, 0}, odd[] = {7, 1, 129, 1, 33, 0}, single[] = {1, 0}, at[] = {0, N}, row[] = {N - 1};
    const int64_t *const cuts[] = {all, odd, single};
    size_t mark = arena_mark(&step);
    float *want = ARENA_NEW(&step, vocab, float), *got = ARENA_NEW(&step, vocab, float);
    struct model_out out = {.logits = want, .logit_row = row, .n_logit_rows = 1};
    T_EQ(model_score(model, &(struct model_batch){.n_seq = 1, .at = at, .token = ids}, &out, &step), ERR_OK);
    for (int i = 0; i < 3; i++) {
        fed(model, N, cuts[i], got);
        double most = 0, worst = 0;
        for (int64_t v = 0; v < vocab; v++) {
            most = fmax(most, fabs((double)want[v]));
            worst = fmax(worst, fabs((double)got[v] - (double)want[v]));
        }
        T_CHECK(worst <= 1e-4 * most);
    }
    arena_release(&step, mark);
}

enum { SEQS = 11 };

/* Caches of sequences of unequal lengths, 3 to 103 tokens from ids on. */
static void fill(struct model_cache *cache[SEQS], float *logits)
{
    for (int s = 0; s < SEQS; s++) {
        int64_t cut[2] = {0, 3 + 10 * s};
        T_EQ(model_cache_open(&cache[s], model, cut[1] + 1), ERR_OK);
        T_EQ(model_feed(model, &cache[s], &(struct model_batch){.n_seq = 1, .at = cut, .token = ids}, logits, NULL, &step), ERR_OK);
    }
}

static void sequences_side_by_side_decode_as_alone_on_any_threads(void)
{
    static const int64_t at[SEQS + 1] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    static const int threads[] = {1, 2, 3, 7, 16};
    int before = omp_get_max_threads();
    struct model_cache *cache[SEQS];
    size_t mark = arena_mark(&step), row = (size_t)vocab * sizeof(float);
    float *alone = ARENA_NEW(&step, SEQS * vocab, float), *beside = ARENA_NEW(&step, SEQS * vocab, float);
    fill(cache, alone);
    for (int s = 0; s < SEQS; s++) {
        struct model_batch one = {.n_seq = 1, .at = at, .token = ids + s};
        T_EQ(model_feed(model, &cache[s], &one, alone + s * vocab, NULL, &step), ERR_OK);
        model_cache_close(cache[s]);
    }
    for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) {
        kern_threads(threads[i]);
        fill(cache, beside);
        T_EQ(model_feed(model, cache, &(struct model_batch){.n_seq = SEQS, .at = at, .token = ids}, beside, NULL, &step), ERR_OK);
        for (int s = 0; s < SEQS; s++) {
            if (memcmp(alone + s * vocab, beside + s * vocab, row))
                T_FAIL("sequence %d of %d, %d threads", s, SEQS, threads[i]);
            model_cache_close(cache[s]);
        }
    }
    kern_threads(before);
    arena_release(&step, mark);
}

static void a_reset_cache_is_a_new_one(void)
{
    int64_t cut[2] = {0, 50};
    size_t mark = arena_mark(&step);
    float *first = ARENA_NEW(&step, vocab, float), *second = ARENA_NEW(&step, vocab, float);
    struct model_cache *c = NULL;
    T_EQ(model_cache_open(&c, model, 60), ERR_OK);
    struct model_batch b = {.n_seq = 1, .at = cut, .token = ids};
    T_EQ(model_feed(model, &c, &b, first, NULL, &step), ERR_OK);
    T_EQ(model_feed(model, &c, &b, second, NULL, &step), ERR_ARG); /* 100 into 60 */
    T_CHECK(strstr(err_text(), "do not fit") != NULL);
    err_clear();
    model_cache_reset(c);
    T_EQ(model_feed(model, &c, &b, second, NULL, &step), ERR_OK);
    T_CHECK(!memcmp(first, second, (size_t)vocab * sizeof *first));
    model_cache_close(c);
    arena_release(&step, mark);
}

/* The promise is kept and not far from the truth; it grows with the tokens, not with their square nor the layers. */
static void memory_is_known_beforehand(void)
{
    static const int64_t cuts[][4] = {{0, 1, 1, 1}, {0, 1, 2, 3}, {0, N, N, N}, {0, 100, 200, N}};
    for (int i = 0; i < 4; i++) {
        int64_t tokens = cuts[i][3], longest = 0;
        float nll[N];
        for (int s = 0; s < 3; s++)
            longest = cuts[i][s + 1] - cuts[i][s] > longest ? cuts[i][s + 1] - cuts[i][s] : longest;
        struct arena own;
        size_t bound = model_score_bytes(model, tokens, longest, 3);
        T_EQ(arena_open(&own, "own", bound), ERR_OK);
        struct model_out out = {.nll = nll};
        struct model_batch b = {.n_seq = 3, .at = cuts[i], .token = ids, .target = target};
        T_EQ(model_score(model, &b, &out, &own), ERR_OK);
        T_CHECK(own.peak <= bound && own.peak > bound / 2);
        T_EQ(own.used, 0);
        arena_close(&own);
    }
    double a = (double)model_score_bytes(model, 4096, 4096, 1), b = (double)model_score_bytes(model, 8192, 8192, 1);
    T_CHECK(b < 2.05 * a);
    struct arena small;
    static const int64_t at[] = {0, N};
    struct model_out out = {0};
    T_EQ(arena_open(&small, "small", 1 << 16), ERR_OK);
    T_EQ(model_score(model, &(struct model_batch){.n_seq = 1, .at = at, .token = ids}, &out, &small), ERR_NOMEM);
    T_CHECK(strstr(err_text(), "a step needs") != NULL);
    err_clear();
    arena_close(&small);
}

static void tokens_outside_the_vocabulary_are_refused(void)
{
    static const int64_t at[] = {0, 2};
    const int32_t bad[] = {0, (int32_t)vocab};
    struct model_out out = {0};
    T_EQ(model_score(model, &(struct model_batch){.n_seq = 1, .at = at, .token = bad}, &out, &step), ERR_ARG);
    T_CHECK(strstr(err_text(), "outside the vocabulary") != NULL);
    err_clear();
}

static void bf16_weights_take_half_the_room_and_score_alike(void)
{
    static const int64_t at[] = {0, N};
    float a[N], b[N];
    double sa = 0, sb = 0;
    struct model *m = open_model(MODEL, KERN_BF16);
    if (!m)
        return;
    T_CHECK((double)model_info(m)->weight_bytes <= 0.55 * (double)model_info(model)->weight_bytes);
    score(model, 1, at, ids, a);
    score(m, 1, at, ids, b);
    for (int i = 0; i < N; i++) {
        sa += (double)a[i];
        sb += (double)b[i];
    }
    T_NEAR(sb / sa, 1, 5e-3);
    model_close(m);
}

/* ---- bad input ---- */

static void config_says(const char *text, const char *why)
{
    struct json_doc *d = NULL;
    const struct model_arch *a;
    struct model_shape s;
    T_EQ(json_parse(&d, text, strlen(text), "config.json"), ERR_OK);
    if (!why) {
        T_EQ(config_shape(d, &a, &s), ERR_OK);
    } else {
        T_EQ(config_shape(d, &a, &s), ERR_FORMAT);
        if (!strstr(err_text(), why))
            T_FAIL("'%s' does not say %s", err_text(), why);
    }
    err_clear();
    json_close(d);
}

#define SIZES                                                                                                                      \
    "\"model_type\": \"llama\", \"hidden_size\": 64, \"intermediate_size\": 176, \"num_hidden_layers\": 3, "                       \
    "\"num_attention_heads\": 4, \"max_position_embeddings\": 512"

static void config_json_is_read_with_suspicion(void)
{
    config_says("{" SIZES ", \"vocab_size\": 512}", NULL);
    config_says("{" SIZES ", \"vocab_size\": 512, \"num_experts\": null, \"quantization_config\": {}}", NULL);
    config_says("[]", "object");
    config_says("{}", "model_type is missing");
    config_says("{\"model_type\": \"bert\"}", "\"bert\" is not an architecture");
    config_says("{" SIZES "}", "vocab_size");
    config_says("{" SIZES ", \"vocab_size\": -1}", "vocab_size");
    config_says("{" SIZES ", \"vocab_size\": \"many\"}", "vocab_size");
    config_says("{" SIZES ", \"vocab_size\": 512, \"num_key_value_heads\": 3}", "share 3 key/value heads");
    config_says("{" SIZES ", \"vocab_size\": 512, \"head_dim\": 15}", "even");
    config_says("{" SIZES ", \"vocab_size\": 512, \"head_dim\": 512}", "512");
    config_says("{" SIZES ", \"vocab_size\": 512, \"hidden_act\": \"mish\"}", "mish");
    config_says("{" SIZES ", \"vocab_size\": 512, \"eos_token_id\": 512}", "eos_token_id");
    config_says("{" SIZES ", \"vocab_size\": 512, \"architectures\": [\"LlamaForSequenceClassification\"]}", "LlamaForCausalLM");
    config_says("{" SIZES ", \"vocab_size\": 512, \"quantization_config\": {\"bits\": 4}}", "quantization_config");
    config_says("{" SIZES ", \"vocab_size\": 512, \"num_local_experts\": 8}", "num_local_experts");
    config_says("{" SIZES ", \"vocab_size\": 512, \"attn_logit_softcapping\": 50.0}", "attn_logit_softcapping");
    config_says("{" SIZES ", \"vocab_size\": 512, \"rms_norm_eps\": \"small\"}", "rms_norm_eps");
    config_says("{\"model_type\": \"gpt2\", \"n_embd\": 65, \"n_layer\": 1, \"n_head\": 4, \"vocab_size\": 9, \"n_positions\": 9}",
                "multiple");
}

static char folder[256];

static void make_folder(const char *name)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/ast-model-%ld-%s", tmp ? tmp : "/tmp", (long)getpid(), name);
    struct random_ckpt r = {.folder = folder,
                            .shape = {.hidden = 32,
                                      .layers = 2,
                                      .heads = 4,
                                      .kv_heads = 2,
                                      .head_dim = 8,
                                      .mlp = 48,
                                      .vocab = 100,
                                      .positions = 64,
                                      .rope_theta = 10000,
                                      .tied = true},
                            .dtype = ST_F32,
                            .seed = 1,
                            .shards = 1};
    int64_t params;
    size_t bytes;
    T_EQ(random_write(&r, &params, &bytes), ERR_OK);
}

static void path_in(char out[512], const char *file)
{
    snprintf(out, 512, "%s/%s", folder, file);
}

static void drop_folder(void)
{
    static const char *const files[] = {"config.json", "model.safetensors", "generation_config.json"};
    char file[512];
    for (int i = 0; i < 3; i++) {
        path_in(file, files[i]);
        unlink(file);
    }
    rmdir(folder);
}

static void refused(const char *why)
{
    struct model *m = NULL;
    int rc = model_open(&m, &(struct model_open){.path = folder, .kern = &kern, .check_finite = true});
    T_EQ(rc, ERR_FORMAT);
    T_CHECK(m == NULL);
    if (!strstr(err_text(), why))
        T_FAIL("'%s' does not say %s", err_text(), why);
    err_clear();
}

static void weights_that_are_not_numbers_are_refused_by_name(void)
{
    char file[512];
    const float nan = NAN;
    make_folder("nan");
    struct model *m = open_model(folder, KERN_F32);
    T_CHECK(m != NULL);
    model_close(m);
    path_in(file, "model.safetensors");
    FILE *f = fopen(file, "r+b");
    T_CHECK(f && !fseek(f, -64, SEEK_END) && fwrite(&nan, 4, 1, f) == 1 && !fclose(f));
    refused("holds a NaN");
    drop_folder();
}

/* The text `from` of config.json becomes `to`, of the same length. */
static void edit(const char *from, const char *to)
{
    char file[512];
    struct buf b = {0};
    path_in(file, "config.json");
    T_EQ(buf_read_file(&b, file, 0), ERR_OK);
    char *at = strstr(b.data, from);
    T_CHECK(at && strlen(from) == strlen(to));
    if (at)
        memcpy(at, to, strlen(to));
    T_EQ(file_write_durable(file, b.data, b.len), ERR_OK);
    buf_free(&b);
}

static void weights_that_contradict_the_config_are_named(void)
{
    make_folder("shape");
    edit("\"intermediate_size\": 48", "\"intermediate_size\": 49");
    refused("config.json asks for [49, 32]");
    drop_folder();
    make_folder("layers");
    edit("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3");
    refused("lack the tensor model.layers.2.");
    edit("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 1");
    refused("that config.json's model does not have");
    drop_folder();
}

static void a_folder_that_is_not_there_is_a_sentence(void)
{
    struct model *m = NULL;
    struct model_info info;
    T_EQ(model_open(&m, &(struct model_open){.path = "/no/such/model", .kern = &kern}), ERR_IO);
    T_CHECK(strstr(err_text(), "/no/such/model") != NULL);
    err_clear();
    T_EQ(model_peek(&info, "/no/such/model"), ERR_IO);
    err_clear();
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    if (kern_select(&kern, NULL) || arena_open(&step, "step", (size_t)1 << 30))
        return 1;
    T_RUN(config_json_is_read_with_suspicion);
    T_RUN(weights_that_are_not_numbers_are_refused_by_name);
    T_RUN(weights_that_contradict_the_config_are_named);
    T_RUN(a_folder_that_is_not_there_is_a_sentence);
    model = open_model(MODEL, KERN_F32);
    if (!model)
        return 1;
    vocab = model_info(model)->vocab;
    for (int i = 0; i < N; i++) {
        ids[i] = (int32_t)rng_below(1, 0, (uint64_t)i, vocab);
        target[i] = i % 3 == 2 ? -1 : (int32_t)rng_below(1, 1, (uint64_t)i, vocab);
    }
    T_RUN(a_sequence_does_not_see_its_batch);
    T_RUN(a_later_token_changes_nothing_before_it);
    T_RUN(tokens_without_a_target_are_not_scored);
    T_RUN(feeding_in_any_chunks_equals_scoring);
    T_RUN(sequences_side_by_side_decode_as_alone_on_any_threads);
    T_RUN(a_reset_cache_is_a_new_one);
    T_RUN(memory_is_known_beforehand);
    T_RUN(tokens_outside_the_vocabulary_are_refused);
    T_RUN(bf16_weights_take_half_the_room_and_score_alike);
    model_close(model);
    arena_close(&step);
    return t_done();
}
