/* libFuzzer target: a config.json, through the JSON door and the reader of architectures and rotary frequencies. What is
 * accepted must be a shape that can be computed with. tests/unit/test_config_seeds.c replays the seeds and mutations. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "io/json.h"
#include "model/arch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Every typed getter on every key, whatever stands there. */
static void fuzz_getters(const struct json_doc *d)
{
    const struct json *o = json_root(d);
    for (void *it = json_first(o); it; it = json_next(o, it)) {
        const char *key = json_key(it), *s = NULL;
        int64_t i = 0;
        double x = 0;
        bool b = false;
        (void)json_int(d, o, key, 1, 0, 1000, &i);
        (void)json_int_req(d, o, key, INT64_MIN, INT64_MAX, &i);
        (void)json_real(d, o, key, 1, -1e300, 1e300, &x);
        (void)json_bool(d, o, key, true, &b);
        (void)json_string(d, o, key, "", &s);
        err_clear();
        AST_ASSERT(isfinite(x));
    }
}

static void fuzz_rope(const struct rope *r)
{
    static const int64_t lengths[] = {1, 17, 100000};
    float *f = malloc(((size_t)r->rot / 2 + 1) * sizeof *f);
    AST_ASSERT(f);
    for (int k = 0; k < 3; k++) {
        rope_freq(r, lengths[k], f);
        for (int64_t i = 0; i < r->rot / 2; i++)
            AST_ASSERT(isfinite(f[i]));
    }
    free(f);
}

static void fuzz_shape(const struct model_shape *s)
{
    AST_ASSERT(s->hidden > 0 && s->layers > 0 && s->layers <= MODEL_MAX_LAYERS && s->heads > 0 && s->kv_heads > 0);
    AST_ASSERT(s->heads % s->kv_heads == 0 && s->dim > 0 && s->mlp > 0 && s->vocab > 0 && s->context > 0 && s->window >= 0);
    AST_ASSERT(s->n_eos >= 0 && s->n_eos <= MODEL_MAX_EOS && s->bos >= -1 && s->bos < s->vocab && isfinite(s->eps));
    if (s->pos == MODEL_POS_ROPE) {
        AST_ASSERT(s->rope.rot > 0 && s->rope.rot % 2 == 0 && s->rope.rot <= s->dim);
        fuzz_rope(&s->rope);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct json_doc *d = NULL;
    const struct model_arch *arch = NULL;
    struct model_shape *shape = calloc(1, sizeof *shape);
    AST_ASSERT(shape);
    if (json_parse(&d, (const char *)data, size, "config.json") == ERR_OK) {
        fuzz_getters(d);
        if (config_shape(d, &arch, shape) == ERR_OK)
            fuzz_shape(shape);
        else
            AST_ASSERT(err_text()[0] != '\0');
    } else {
        AST_ASSERT(err_text()[0] != '\0'); /* never a failure without a sentence */
    }
    err_clear();
    json_close(d);
    free(shape);
    return 0;
}
