/* Comparing a method with dense attention: equal to what whole rows of the same ranks' logits say, on any number of ranks, to
 * 2e-6: exponentials in f32, sums in double. Against one rank's logits 1e-5: f32 sums in another order. The mean divergence, 1e-6.
 */
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "cfg/cfg.h"
#include "comm/comm.h"
#include "model/model.h"
#include "tests/t.h"

enum { N = 200, SEQS = 3 };
static const int64_t at[SEQS + 1] = {0, 90, 91, N};

static struct comm_group *world;
static struct kern_table kern;
static struct arena step;
static int32_t token[N], target[N];

static struct model *open_with(const struct comm_group *group, bool sparse)
{
    static max_align_t opts[64];
    static struct cfg *c;
    struct model *m = NULL;
    if (model_open(&m, &(struct model_open){.path = "data/asterism-S", .kern = &kern, .group = group}))
        T_FAIL("%s", err_text());
    const struct attn_method *ast = attn_find("ast");
    cfg_close(c);
    c = NULL;
    T_EQ(cfg_open(&c, NULL, (const char *const[]){"keep=24", "block=8", "local=8"}, 3), ERR_OK);
    T_EQ(cfg_load(c, "", ast->fields, opts), ERR_OK);
    if (m && sparse)
        T_EQ(model_set_attention(m, ast, opts, NULL), ERR_OK);
    return m;
}

struct result {
    float nll[N], dense_nll[N], kl[N];
    int32_t top1[N], dense_top1[N];
};

static void compare(struct model *m, struct result *r)
{
    struct model_batch b = {.n_seq = SEQS, .at = at, .token = token, .target = target};
    struct model_agree out = {.nll = r->nll, .dense_nll = r->dense_nll, .kl = r->kl, .top1 = r->top1, .dense_top1 = r->dense_top1};
    for (int i = 0; i < N; i++)
        r->kl[i] = -7;
    T_EQ(model_compare(m, &b, &out, &step), ERR_OK);
    T_EQ(step.used, 0);
}

/* Logits of all tokens, by the group; NULL: by one rank. */
static float *all_logits(const struct comm_group *group, bool sparse, int64_t *vocab)
{
    struct model *m = open_with(group, sparse);
    int64_t row[N];
    for (int i = 0; i < N; i++)
        row[i] = i;
    *vocab = model_info(m)->vocab;
    float *logits = malloc((size_t)(N * *vocab) * sizeof *logits);
    struct model_out out = {.logit_row = row, .n_logit_rows = N, .logits = logits};
    T_EQ(model_score(m, &(struct model_batch){.n_seq = SEQS, .at = at, .token = token}, &out, &step), ERR_OK);
    model_close(m);
    return logits;
}

static double lse_of(const float *x, int64_t n)
{
    double sum = 0;
    for (int64_t v = 0; v < n; v++)
        sum += exp((double)x[v]);
    return log(sum);
}

static void every_number_is_that_of_whole_rows(void)
{
    struct model *m = open_with(world, true);
    struct result r;
    int64_t vocab, differ = 0;
    float *p = all_logits(world, false, &vocab), *q = all_logits(world, true, &vocab);
    double most = 0;
    compare(m, &r);
    for (int i = 0; i < N; i++) {
        const float *lp = p + i * vocab, *lq = q + i * vocab;
        if (target[i] < 0) {
            T_NEAR(r.kl[i], -7, 0);
            continue;
        }
        double zp = lse_of(lp, vocab), zq = lse_of(lq, vocab), kl = 0;
        for (int64_t v = 0; v < vocab; v++)
            kl += exp((double)lp[v] - zp) * ((double)lp[v] - zp - (double)lq[v] + zq);
        T_NEAR(r.kl[i], kl, 2e-6);
        T_NEAR(r.nll[i], zq - (double)lq[target[i]], 2e-6);
        T_NEAR(r.dense_nll[i], zp - (double)lp[target[i]], 2e-6);
        T_EQ(r.top1[i], kern.argmax(lq, vocab));
        T_EQ(r.dense_top1[i], kern.argmax(lp, vocab));
        differ += r.top1[i] != r.dense_top1[i];
        most = kl > most ? kl : most;
    }
    T_CHECK(most > 0.01 && differ > 0); /* the method does differ */
    free(p);
    free(q);
    model_close(m);
}

static void losses_are_those_of_one_rank(void)
{
    struct model *m = open_with(world, true);
    struct result r;
    int64_t vocab;
    float *p = all_logits(NULL, false, &vocab), *q = all_logits(NULL, true, &vocab);
    double kl = 0, want = 0;
    compare(m, &r);
    for (int i = 0, n = 0; i < N; i++) {
        const float *lp = p + i * vocab, *lq = q + i * vocab;
        if (target[i] < 0)
            continue;
        double zp = lse_of(lp, vocab), zq = lse_of(lq, vocab), row = 0;
        for (int64_t v = 0; v < vocab; v++)
            row += exp((double)lp[v] - zp) * ((double)lp[v] - zp - (double)lq[v] + zq);
        kl += ((double)r.kl[i] - kl) / ++n;
        want += (row - want) / n;
        T_NEAR(r.nll[i], zq - (double)lq[target[i]], 1e-5);
        T_NEAR(r.dense_nll[i], zp - (double)lp[target[i]], 1e-5);
        T_EQ(r.top1[i], kern.argmax(lq, vocab));
        T_EQ(r.dense_top1[i], kern.argmax(lp, vocab));
    }
    T_NEAR(kl, want, 1e-6); /* the mean, which is what is reported */
    free(p);
    free(q);
    model_close(m);
}

static void dense_agrees_with_itself(void)
{
    struct model *m = open_with(world, false);
    struct result r;
    compare(m, &r);
    for (int i = 0; i < N; i++)
        if (target[i] >= 0)
            T_CHECK(r.kl[i] >= 0 && r.kl[i] < 1e-6f && r.top1[i] == r.dense_top1[i] && r.nll[i] == r.dense_nll[i]);
    model_close(m);
}

static void too_little_memory_and_missing_targets_are_errors(void)
{
    struct model *m = open_with(world, true);
    struct result r;
    struct model_batch b = {.n_seq = SEQS, .at = at, .token = token};
    struct model_agree out = {.nll = r.nll, .dense_nll = r.dense_nll, .kl = r.kl, .top1 = r.top1, .dense_top1 = r.dense_top1};
    struct arena small = {0};
    T_EQ(model_compare(m, &b, &out, &step), ERR_ARG);
    b.target = target;
    size_t need = model_compare_bytes(m, N, N, SEQS);
    T_EQ(arena_open(&small, "small", need), ERR_OK);
    T_EQ(model_compare(m, &b, &out, &small), ERR_OK);
    T_CHECK(small.peak <= need && small.peak > need / 2);
    arena_close(&small);
    T_EQ(arena_open(&small, "small", need / 2), ERR_OK);
    T_EQ(model_compare(m, &b, &out, &small), ERR_NOMEM);
    err_clear();
    arena_close(&small);
    model_close(m);
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    if (comm_start(&argc, &argv, &world) || arena_open(&step, "step", (size_t)1 << 30) || kern_select(&kern, NULL))
        return 1;
    for (int i = 0; i < N; i++) {
        token[i] = (int32_t)((i * 7919 + 13) % 16000);
        target[i] = i % 5 ? (int32_t)((i * 104729 + 1) % 16000) : -1;
    }
    T_RUN(every_number_is_that_of_whole_rows);
    T_RUN(losses_are_those_of_one_rank);
    T_RUN(dense_agrees_with_itself);
    T_RUN(too_little_memory_and_missing_targets_are_errors);
    arena_close(&step);
    comm_free(world);
    return t_done();
}
