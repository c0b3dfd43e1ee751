/* Traced attention: methods written here attend to keys that are known; real ones keep their promises. */
#include "base/arena.h"
#include "base/err.h"
#include "cfg/cfg.h"
#include "model/model.h"
#include "model/trace.h"
#include "tests/t.h"

enum { N = 150, LAST = 6 };

static struct kern_table kern;
static struct arena step;
static struct model *model;
static int32_t token[N];
static float mass[LAST][N];

/* A third of its attention goes to key pos / 2, the rest in equal parts to all. The same for every head. */
static int known(struct attn_call *c)
{
    const struct attn_shape *s = c->shape;
    float v[KERN_MAX_DIM];
    for (int64_t i = 0; i < c->n; i++)
        for (int64_t h = 0; h < s->heads; h++) {
            float *o = c->out + (i * s->heads + h) * s->dim;
            memset(o, 0, (size_t)s->dim * sizeof *o);
            for (int64_t j = 0; j <= c->pos + i; j++) {
                c->kern->kv_values(&c->kv[h * s->kv_heads / s->heads], j, 1, v);
                c->kern->axpy(o, (j == (c->pos + i) / 2 ? 1 / 3.f : 0) + 2 / 3.f / (float)(c->pos + i + 1), v, s->dim);
            }
        }
    return ERR_OK;
}
static const struct attn_method known_method = {.name = "known", .caps = ATTN_CAUSAL, .run = known};

static void trace(const struct attn_method *method, const char *const *options, int n)
{
    static max_align_t opts[64];
    static struct cfg *c;
    struct model_cache *cache = NULL;
    struct trace t = {.token = token + N - LAST, .n = LAST, .ld = N, .mass = &mass[0][0]};
    int64_t at[2] = {0, N - LAST};
    size_t mark = arena_mark(&step);
    cfg_close(c);
    c = NULL;
    memset(opts, 0, sizeof opts);
    T_EQ(cfg_open(&c, NULL, options, n), ERR_OK);
    if (method->fields)
        T_EQ(cfg_load(c, "", method->fields, opts), ERR_OK);
    T_EQ(model_set_attention(model, method, opts, NULL), ERR_OK);
    T_EQ(model_cache_open(&cache, model, N), ERR_OK);
    float *logits = ARENA_NEW(&step, model_info(model)->vocab, float);
    T_EQ(model_feed(model, &cache, &(struct model_batch){.n_seq = 1, .at = at, .token = token}, logits, NULL, &step), ERR_OK);
    T_EQ(trace_run(model, cache, &t, &step), ERR_OK);
    T_EQ(model_cache_len(cache), N);
    model_cache_close(cache);
    arena_release(&step, mark);
    for (int i = 0; i < LAST; i++) {
        double sum = 0;
        for (int j = 0; j < N; j++) {
            T_CHECK(mass[i][j] >= 0 && (j <= N - LAST + i || mass[i][j] == 0));
            sum += (double)mass[i][j];
        }
        T_NEAR(sum, 1, 1e-4);
    }
}

static void known_attention_is_found(void)
{
    trace(&known_method, NULL, 0);
    for (int i = 0; i < LAST; i++)
        for (int j = 0, pos = N - LAST + i; j <= pos; j++)
            T_NEAR(mass[i][j], (j == pos / 2 ? 1 / 3. : 0) + 2 / 3. / (pos + 1), 1e-5);
}

static void a_window_sees_nothing_else(void)
{
    trace(attn_find("window"), (const char *const[]){"keep=20"}, 1);
    int seen = 0;
    for (int j = 0; j < N - LAST; j++)
        seen += mass[0][j] > 0;
    T_CHECK(seen >= 15 && seen <= 36); /* the window, and the first block */
}

/* Keeping everything, AST attends as dense does; keeping little, to fewer keys. */
static void what_is_selected_shows(void)
{
    float dense[LAST][N];
    int few = 0;
    trace(attn_find("dense"), NULL, 0);
    memcpy(dense, mass, sizeof dense);
    trace(attn_find("ast"), (const char *const[]){"keep=4096"}, 1);
    for (int i = 0; i < LAST; i++)
        for (int j = 0; j < N; j++)
            T_NEAR(mass[i][j], dense[i][j], 1e-5);
    trace(attn_find("ast"), (const char *const[]){"keep=32", "block=8", "local=8"}, 3);
    for (int j = 0; j < N; j++)
        few += mass[0][j] > 0;
    T_CHECK(few < N - LAST); /* of 6 layers x 2 key/value heads, not one looks at some key */
}

static void tracing_changes_nothing(void)
{
    struct model_cache *a = NULL, *b = NULL;
    struct trace t = {.token = token, .n = LAST, .ld = N, .mass = &mass[0][0]};
    const int64_t at[2] = {0, LAST}, one[2] = {0, 1};
    size_t mark = arena_mark(&step);
    int64_t vocab = model_info(model)->vocab;
    float *x = ARENA_NEW(&step, vocab, float), *y = ARENA_NEW(&step, vocab, float);
    T_EQ(model_cache_open(&a, model, N), ERR_OK);
    T_EQ(model_cache_open(&b, model, N), ERR_OK);
    T_EQ(trace_run(model, a, &t, &step), ERR_OK);
    T_EQ(model_feed(model, &b, &(struct model_batch){.n_seq = 1, .at = at, .token = token}, y, NULL, &step), ERR_OK);
    T_EQ(model_feed(model, &a, &(struct model_batch){.n_seq = 1, .at = one, .token = token + LAST}, x, NULL, &step), ERR_OK);
    T_EQ(model_feed(model, &b, &(struct model_batch){.n_seq = 1, .at = one, .token = token + LAST}, y, NULL, &step), ERR_OK);
    for (int64_t v = 0; v < vocab; v++)
        T_NEAR(x[v], y[v], 1e-4);
    t.ld = 3;
    T_EQ(trace_run(model, a, &t, &step), ERR_ARG);
    err_clear();
    model_cache_close(a);
    model_cache_close(b);
    arena_release(&step, mark);
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    if (arena_open(&step, "step", (size_t)1 << 28) || kern_select(&kern, NULL))
        return 1;
    for (int k = 0; k < 2; k++) {
        enum kern_dtype kv = k ? KERN_BF16 : KERN_F32;
        if (model_open(&model, &(struct model_open){.path = "data/asterism-S", .kern = &kern, .kv_dtype = kv}))
            return 1;
        for (int i = 0; i < N; i++)
            token[i] = (int32_t)((i * 7919 + 13) % 16000);
        T_RUN(known_attention_is_found);
        T_RUN(a_window_sees_nothing_else);
        T_RUN(what_is_selected_shows);
        T_RUN(tracing_changes_nothing);
        model_close(model);
    }
    arena_close(&step);
    return t_done();
}
