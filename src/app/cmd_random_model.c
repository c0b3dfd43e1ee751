/* asterism random-model: checkpoints of any shape with random weights, for speed and memory at sizes nobody gave us. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/app.h"
#include "base/err.h"
#include "base/log.h"
#include "base/timer.h"
#include "io/random_ckpt.h"

static int run(int argc, char **argv);

const struct app_command app_random_model = {
    .name = "random-model",
    .brief = "write a checkpoint of any shape with random weights, to measure speed and memory",
    .usage = "usage: asterism random-model [--preset 125m | 1.1b | tiny] [SHAPE] [OPTIONS] -o DIR\n"
             "       asterism random-model --like MODEL [OPTIONS] -o DIR\n\n"
             "Writes config.json and safetensors as Hugging Face does. Norms are 1, biases 0, other weights near-normal with\n"
             "deviation 0.02; the same seed gives the same file. Scores of such a model mean nothing, its speed does.\n\n"
             "  -o DIR            the new folder; one that holds a model already is refused\n"
             "  --preset NAME     125m: 12 layers, 768 wide, 12 heads, MLP 2048; 1.1b: 22 layers, 2048 wide, 32 heads,\n"
             "                    4 key-value heads, MLP 5632; both with 32000 tokens. SHAPE after it changes single sizes\n"
             "  --like MODEL      names, shapes, config.json and tokenizer of another checkpoint\n"
             "SHAPE (llama; default: the 125m preset)\n"
             "  --arch llama      the only architecture that can be given by sizes; --like takes any\n"
             "  --hidden N  --layers N  --heads N  --kv-heads N (default: heads)  --head-dim N (default: hidden/heads)\n"
             "  --mlp N  --vocab N  --positions N (default 131072)  --tied (input and output embedding are one)\n"
             "OPTIONS\n"
             "  --dtype T         bf16 (default; --like: as there), f16 or f32\n"
             "  --seed N          default 1\n"
             "  --shards N        files to cut the weights into, default 1\n"
             "  --tokenizer DIR   copy the tokenizer's files from there\n",
    .run = run,
};

static int set_dtype(struct random_ckpt *r, const char *name)
{
    static const struct {
        const char *name;
        enum st_dtype type;
    } known[] = {{"bf16", ST_BF16}, {"f16", ST_F16}, {"f32", ST_F32}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].name, name) == 0) {
            r->dtype = known[i].type;
            return ERR_OK;
        }
    return err_set(ERR_ARG, "--dtype %s: there are bf16, f16 and f32", name);
}

static int set_number(const char *option, const char *text, int64_t min, int64_t max, int64_t *out)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (errno || end == text || *end || v < min || v > max)
        return err_set(ERR_ARG, "%s %s: a whole number from %lld to %lld is needed", option, text, (long long)min, (long long)max);
    *out = v;
    return ERR_OK;
}

/* An option with a value. */
static int set(struct random_ckpt *r, const char *option, const char *value)
{
    int64_t seed = 0;
    int rc;
    const struct {
        const char *option;
        int64_t *to, max;
    } numbers[] = {{"--hidden", &r->shape.hidden, 1 << 20},
                   {"--layers", &r->shape.layers, 10000},
                   {"--heads", &r->shape.heads, 1 << 16},
                   {"--kv-heads", &r->shape.kv_heads, 1 << 16},
                   {"--head-dim", &r->shape.head_dim, 65536},
                   {"--mlp", &r->shape.mlp, 1 << 22},
                   {"--vocab", &r->shape.vocab, 1 << 24},
                   {"--positions", &r->shape.positions, (int64_t)1 << 31},
                   {"--shards", &r->shards, 99999}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (strcmp(option, numbers[i].option) == 0)
            return set_number(option, value, 1, numbers[i].max, numbers[i].to);
    if (strcmp(option, "--seed") == 0) {
        rc = set_number(option, value, 0, INT64_MAX, &seed);
        r->seed = (uint64_t)seed;
        return rc;
    }
    if (strcmp(option, "--preset") == 0)
        return random_preset(&r->shape, value);
    if (strcmp(option, "--dtype") == 0)
        return set_dtype(r, value);
    if (strcmp(option, "--arch") == 0)
        return strcmp(value, "llama") == 0 ? ERR_OK : err_set(ERR_ARG, "--arch %s: only llama; use --like for others", value);
    if (strcmp(option, "-o") == 0)
        r->folder = value;
    else if (strcmp(option, "--like") == 0)
        r->like = value;
    else if (strcmp(option, "--tokenizer") == 0)
        r->tokenizer = value;
    else
        return err_set(ERR_ARG, "unknown option '%s'", option);
    return ERR_OK;
}

static int finish_shape(struct random_shape *s)
{
    if (!s->kv_heads)
        s->kv_heads = s->heads;
    if (!s->head_dim && s->hidden % s->heads)
        return err_set(ERR_ARG, "--hidden %lld is not a multiple of --heads %lld; give --head-dim", (long long)s->hidden,
                       (long long)s->heads);
    if (!s->head_dim)
        s->head_dim = s->hidden / s->heads;
    return random_check(s);
}

static int run(int argc, char **argv)
{
    struct random_ckpt r = {.dtype = ST_OTHER, .seed = 1, .shards = 1};
    double start = timer_now();
    int64_t params = 0;
    size_t bytes = 0;
    char size[32], time[32];
    AST_ASSERT(random_preset(&r.shape, "125m") == ERR_OK);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--tied") == 0) {
            r.shape.tied = true;
            continue;
        }
        if (i + 1 == argc)
            return app_usage(&app_random_model, "'%s' is unknown, or its value is missing", argv[i]);
        if (set(&r, argv[i], argv[i + 1]))
            return app_usage(&app_random_model, "%s", err_text());
        i++;
    }
    if (!r.folder)
        return app_usage(&app_random_model, "-o DIR is missing: the new folder");
    if (!r.like && r.dtype == ST_OTHER)
        r.dtype = ST_BF16;
    if (!r.like && finish_shape(&r.shape))
        return app_usage(&app_random_model, "%s", err_text());
    int rc = random_write(&r, &params, &bytes);
    if (rc)
        return app_fail(rc);
    log_bytes((double)bytes, size, sizeof size);
    log_duration(timer_now() - start, time, sizeof time);
    printf("%s: %.1f million parameters, %s, in %s\n", r.folder, (double)params / 1e6, size, time);
    return APP_OK;
}
