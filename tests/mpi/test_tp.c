/* Tensor parallelism: a model cut over the ranks gives what one rank gives, whole; a rank that cannot open its part
 * takes nobody down. Tolerance 1e-5 of the largest value: sums over ranks are taken in another order. */
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "comm/comm.h"
#include "io/file.h"
#include "model/layer.h"
#include "tests/t.h"

enum { N = 150, SEQS = 3, LOGITS = 4 };

static struct comm_group *world;
static struct kern_table kern;
static struct arena step;
static const char *path;

struct result {
    float nll[N], *logits; /* (LOGITS, vocab) */
    int32_t top1[N];
    float *fed; /* (SEQS, vocab) after a prefill and a step */
};

static void feed(struct model *m, const int32_t *ids, const int64_t *at, float *logits)
{
    struct model_cache *cache[SEQS];
    const int64_t one[SEQS + 1] = {0, 1, 2, 3};
    for (int s = 0; s < SEQS; s++)
        T_EQ(model_cache_open(&cache[s], m, N), ERR_OK);
    T_EQ(model_feed(m, cache, &(struct model_batch){.n_seq = SEQS, .at = at, .token = ids}, logits, NULL, &step), ERR_OK);
    T_EQ(model_feed(m, cache, &(struct model_batch){.n_seq = SEQS, .at = one, .token = ids}, logits, NULL, &step), ERR_OK);
    for (int s = 0; s < SEQS; s++)
        model_cache_close(cache[s]);
}

static void compute(struct result *r, const struct comm_group *g, enum kern_dtype dtype)
{
    static const int64_t at[SEQS + 1] = {0, 1, 60, N - 10}, row[LOGITS] = {0, 7, 61, N - 11};
    struct model *m = NULL;
    int rc = model_open(&m, &(struct model_open){.path = path, .kern = &kern, .group = g, .dtype = dtype});
    if (rc) {
        T_FAIL("%s", err_text());
        return;
    }
    int64_t vocab = model_info(m)->vocab;
    int32_t ids[N], target[N];
    for (int i = 0; i < N; i++) {
        ids[i] = (int32_t)((i * 7919 + 13) % vocab);
        target[i] = i % 5 ? (int32_t)((i * 104729 + 1) % vocab) : -1;
    }
    r->logits = ARENA_NEW(&step, LOGITS * vocab, float);
    r->fed = ARENA_NEW(&step, SEQS * vocab, float);
    struct model_out out = {.nll = r->nll, .top1 = r->top1, .logits = r->logits, .logit_row = row, .n_logit_rows = LOGITS};
    T_EQ(model_score(m, &(struct model_batch){.n_seq = SEQS, .at = at, .token = ids, .target = target}, &out, &step), ERR_OK);
    feed(m, ids, at, r->fed);
    model_close(m);
}

static void close_to(const float *got, const float *want, int64_t n, double tol)
{
    double most = 0, worst = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - (double)want[i]);
        most = fmax(most, fabs((double)want[i]));
        worst = d <= worst ? worst : d;
    }
    if (!(worst <= tol * most))
        T_FAIL("%s: off by %g of %g", path, worst, most);
}

static void both(enum kern_dtype dtype, double tol)
{
    struct result cut = {0}, whole = {0};
    struct model_info info;
    size_t mark = arena_mark(&step);
    compute(&cut, world, dtype);
    compute(&whole, NULL, dtype);
    T_EQ(model_peek(&info, path), ERR_OK);
    if (cut.logits && whole.logits) {
        close_to(cut.nll, whole.nll, N - 10, tol);
        close_to(cut.logits, whole.logits, LOGITS * info.vocab, tol);
        close_to(cut.fed, whole.fed, SEQS * info.vocab, tol);
        for (int i = 0; i < N - 10; i++)
            if (i % 5 && dtype == KERN_F32) /* near ties may fall either way in bf16 */
                T_EQ(cut.top1[i], whole.top1[i]);
    }
    arena_release(&step, mark);
}

static void a_cut_model_equals_a_whole_one(void)
{
    both(KERN_F32, 1e-5);
}

static void a_cut_model_in_bf16_equals_a_whole_one(void)
{
    both(KERN_BF16, 3e-2); /* inputs of the products are rounded to 8 bits; the sums' last bits decide which way */
}

/* Heads, key/value heads, MLP and vocabulary of all ranks are the whole model, none twice (but replicated keys). */
static void the_cuts_cover_the_model_once(void)
{
    static const struct model_shape s = {
        .hidden = 96, .heads = 12, .kv_heads = 4, .dim = 8, .mlp = 100, .vocab = 1000, .layers = 1};
    static const int sizes[] = {1, 2, 3, 4, 8, 12};
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        int64_t heads = 0, mlp = 0, vocab = 0;
        for (int r = 0; r < sizes[k]; r++) {
            struct model_cut c;
            T_EQ(model_cut_for(&c, &s, r, sizes[k], "here"), ERR_OK);
            T_EQ(c.heads.first, heads);
            T_EQ(c.mlp.first, mlp);
            T_EQ(c.vocab.first, vocab);
            T_EQ(c.kv.first, c.heads.first / 3);
            T_EQ(c.heads.first + c.heads.n <= (c.kv.first + c.kv.n) * 3, 1);
            heads += c.heads.n;
            mlp += c.mlp.n;
            vocab += c.vocab.n;
        }
        T_EQ(heads, s.heads);
        T_EQ(mlp, s.mlp);
        T_EQ(vocab, s.vocab);
    }
    struct model_cut c;
    T_EQ(model_cut_for(&c, &s, 0, 5, "here"), ERR_ARG);
    T_EQ(model_cut_for(&c, &s, 0, 16, "here"), ERR_ARG);
    T_CHECK(strstr(err_text(), "cannot be cut over") != NULL);
    err_clear();
}

static void a_folder_that_one_rank_cannot_see_fails_on_all(void)
{
    struct model *m = NULL;
    const char *where = world->rank == world->size - 1 ? "/nowhere/at/all" : "data/asterism-S";
    int rc = model_open(&m, &(struct model_open){.path = where, .kern = &kern, .group = world});
    T_EQ(rc, world->rank == world->size - 1 ? ERR_IO : ERR_PEER);
    T_CHECK(m == NULL);
    T_CHECK(strstr(err_text(), "/nowhere/at/all") != NULL);
    err_clear();
}

int main(int argc, char **argv)
{
    static const char *const folders[] = {"data/asterism-S", "../shared/golden/models/llama-gqa", "../shared/golden/models/gpt2",
                                          "../shared/golden/models/gpt-neox", "../shared/golden/models/qwen3"};
    char name[256];
    t_start(&argc, &argv);
    if (comm_start(&argc, &argv, &world) || kern_select(&kern, NULL) || arena_open(&step, "step", (size_t)1 << 30))
        return 1;
    T_RUN(the_cuts_cover_the_model_once);
    T_RUN(a_folder_that_one_rank_cannot_see_fails_on_all);
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        path = folders[i];
        snprintf(name, sizeof name, "%s cut over %d ranks equals the whole", path, world->size);
        if (!file_is_folder(path)) {
            t_skip(name, "skipped: the folder is not here");
            continue;
        }
        t_run(name, a_cut_model_equals_a_whole_one);
    }
    path = folders[0];
    T_RUN(a_cut_model_in_bf16_equals_a_whole_one);
    arena_close(&step);
    comm_free(world);
    return t_done();
}
