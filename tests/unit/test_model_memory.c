/* What a pass is announced to take, and takes: keys and values of one layer, one residual stream, a chunk's activations. Not
 * more with more layers, not with the square of the length. */
#include <stdlib.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/mem.h"
#include "io/random_ckpt.h"
#include "kernels/linear.h"
#include "model/model.h"
#include "tests/t.h"

static struct kern_table kern;
static char folder[] = "/tmp/asterism-memory-XXXXXX";

static struct model *model_of(int64_t layers, enum kern_dtype t)
{
    struct random_ckpt r = {.folder = folder, .dtype = ST_BF16, .seed = 1, .shards = 1};
    struct model *m = NULL;
    int64_t params;
    size_t bytes;
    char file[512];
    r.shape = (struct random_shape){.hidden = 64, .layers = layers, .heads = 2, .kv_heads = 1, .head_dim = 32, .mlp = 128};
    r.shape.vocab = 96;
    r.shape.positions = 65536;
    r.shape.rope_theta = 10000;
    T_EQ(random_write(&r, &params, &bytes), ERR_OK);
    T_EQ(model_open(&m, &(struct model_open){.path = folder, .kern = &kern, .dtype = t, .kv_dtype = t}), ERR_OK);
    snprintf(file, sizeof file, "%s/config.json", folder);
    unlink(file);
    snprintf(file, sizeof file, "%s/model.safetensors", folder);
    unlink(file);
    return m;
}

static void layers_add_nothing(void)
{
    for (int t = 0; t < 2; t++) {
        struct model *few = model_of(1, (enum kern_dtype)t), *many = model_of(9, (enum kern_dtype)t);
        for (int64_t n = 32; n <= 32768; n *= 4)
            T_EQ(model_score_bytes(many, n, n, 1), model_score_bytes(few, n, n, 1));
        model_close(few);
        model_close(many);
    }
}

/* Twice the tokens: twice the part that grows, once the part that does not. */
static void length_adds_in_proportion(void)
{
    struct model *m = model_of(1, KERN_F32);
    kern_threads(2); /* attention keeps a list for each */
    int64_t a = (int64_t)model_score_bytes(m, 8192, 8192, 1), b = (int64_t)model_score_bytes(m, 16384, 16384, 1);
    int64_t c = (int64_t)model_score_bytes(m, 32768, 32768, 1);
    T_EQ(c - b, 2 * (b - a));
    /* residual stream, two angles, keys and values of the one key-value head, in floats */
    int64_t each = (64 + 2 * 16 + 2 * 32) * 4;
    T_CHECK((b - a) / 8192 >= each && (b - a) / 8192 <= each + each / 8); /* and some lists of the attention method's */
    model_close(m);
}

/* The system's own count: with n^2 scores, 8192 tokens alone would take 256 MiB. */
static void a_pass_takes_what_is_announced(void)
{
    enum { N = 8192, SLACK = 16 << 20 }; /* threads' stacks, pages of 2 MiB */
    static int32_t id[N];
    struct model *m = model_of(3, KERN_F32);
    struct arena step = {0};
    int64_t at[2] = {0, N}, row = N - 1;
    float logits[96];
    struct model_out out = {.logit_row = &row, .n_logit_rows = 1, .logits = logits};
    size_t need = model_score_bytes(m, N, N, 1), before = mem_resident();
    for (int i = 0; i < N; i++)
        id[i] = i % 96;
    T_EQ(arena_open(&step, "step", need), ERR_OK);
    T_EQ(model_score(m, &(struct model_batch){.n_seq = 1, .at = at, .token = id}, &out, &step), ERR_OK);
    T_CHECK(step.peak <= need);
    T_CHECK(step.peak >= need / 2); /* an upper bound, but not any */
    T_CHECK(mem_peak() <= before + need + SLACK || mem_peak() == 0);
    arena_close(&step);
    model_close(m);
}

/* Room up to the next huge page is reserved, not given: an account that is too small shows. */
static void a_filled_arena_gives_what_was_asked_for(void)
{
    struct arena a;
    int64_t bytes = (7 << 20) + 8192;
    T_EQ(arena_open_filled(&a, "filled", (size_t)bytes), ERR_OK);
    unsigned char *all = arena_alloc(&a, bytes, 1);
    T_CHECK(all != NULL);
    if (all)
        all[0] = all[bytes - 1] = 1;
    T_CHECK(arena_alloc(&a, 1, 1) == NULL);
    arena_close(&a);
    T_CHECK(a.base == NULL);
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    if (kern_select(&kern, NULL) || !mkdtemp(folder))
        return 1;
    T_RUN(layers_add_nothing);
    T_RUN(length_adds_in_proportion);
    T_RUN(a_pass_takes_what_is_announced);
    T_RUN(a_filled_arena_gives_what_was_asked_for);
    rmdir(folder);
    return t_done();
}
