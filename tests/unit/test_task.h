/* A stand-in for the engine, and what tests of tasks share: scores by a formula, continuations by a script, so that outputs
 * are known beforehand. Included by one test program each. */
#ifndef AST_TESTS_TEST_TASK_H
#define AST_TESTS_TEST_TASK_H

#include <unistd.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "cfg/cfg.h"
#include "model/model.h"
#include "task/generate.h"
#include "task/columns.h"
#include "task/task.h"
#include "text/tok.h"
#include "tests/t.h"

static struct tok *tok;
static struct task_env env;

struct model_cache {
    int64_t n, max, place;
};
static struct model_info info = {.context = 4096};
static int64_t feeds, largest_feed, caches;
static struct buf fed;          /* text of the tokens fed to single sequences since it was cleared */
static const char *script = ""; /* what every prompt is continued with: tokens of this text */
static struct tok_ids script_ids;

const struct model_info *model_info(const struct model *m)
{
    (void)m;
    return &info;
}

/* nll = id of the target / 1000, or 0 where not scored; the best next token is right for even targets */
int model_score(struct model *m, const struct model_batch *b, struct model_out *out, struct arena *step)
{
    (void)m;
    (void)step;
    for (int64_t t = 0; t < b->at[b->n_seq]; t++) {
        out->nll[t] = b->target[t] < 0 ? 0 : (float)b->target[t] / 1000;
        out->top1[t] = b->target[t] % 2 ? -1 : b->target[t];
    }
    return ERR_OK;
}

/* nll as above, dense attention's twice that; kl 0.25; both agree on tokens that three divides */
int model_compare(struct model *m, const struct model_batch *b, struct model_agree *out, struct arena *step)
{
    (void)m;
    (void)step;
    for (int64_t t = 0; t < b->at[b->n_seq]; t++)
        if (b->target[t] >= 0) {
            out->nll[t] = (float)b->target[t] / 1000;
            out->dense_nll[t] = (float)b->target[t] / 500;
            out->kl[t] = 0.25f;
            out->top1[t] = b->target[t] % 2 ? -1 : b->target[t];
            out->dense_top1[t] = b->target[t] % 3 ? -2 : out->top1[t];
        }
    return ERR_OK;
}

size_t model_compare_bytes(const struct model *m, int64_t tokens, int64_t longest, int64_t n_seq)
{
    (void)m;
    return (size_t)(tokens + longest + n_seq);
}

size_t model_score_bytes(const struct model *m, int64_t tokens, int64_t longest, int64_t n_seq)
{
    (void)m;
    return (size_t)(tokens + longest + n_seq);
}

int model_cache_open(struct model_cache **out, struct model *m, int64_t max_tokens)
{
    (void)m;
    *out = calloc(1, sizeof **out);
    (*out)->max = max_tokens;
    caches++;
    return ERR_OK;
}

int model_cache_copy(struct model_cache *to, const struct model_cache *from, int64_t same)
{
    (void)same;
    int64_t max = to->max;
    *to = *from;
    to->max = max;
    return ERR_OK;
}

void model_cache_close(struct model_cache *c)
{
    caches -= c != NULL;
    free(c);
}

size_t model_cache_bytes(const struct model *m, int64_t max_tokens)
{
    (void)m;
    return (size_t)max_tokens;
}

size_t model_feed_bytes(const struct model *m, int64_t tokens, int64_t longest, int64_t n_seq)
{
    return model_score_bytes(m, tokens, longest, n_seq);
}

/* Whatever the prompt, it is continued with the script and then EOS. */
int model_advance(struct model *m, struct model_cache *const *cache, const struct model_batch *b, struct model_out *out,
                  struct arena *step)
{
    float *logits = out->logits;
    (void)m;
    (void)step;
    feeds++;
    if (b->n_seq == 1)
        T_EQ(tok_decode(tok, b->token, b->at[1], true, &fed), ERR_OK);
    largest_feed = b->at[b->n_seq] > largest_feed ? b->at[b->n_seq] : largest_feed;
    for (int64_t s = 0; s < b->n_seq; s++) {
        int32_t last = b->token[b->at[s + 1] - 1], next;
        cache[s]->n += b->at[s + 1] - b->at[s];
        T_CHECK(cache[s]->n <= cache[s]->max);
        int64_t *place = &cache[s]->place; /* how much of the script this sequence has been given */
        bool follows = *place > 0 && b->at[s + 1] - b->at[s] == 1 && *place <= script_ids.n && script_ids.v[*place - 1] == last;
        *place = follows ? *place : 0;
        next = *place < script_ids.n ? script_ids.v[*place] : 0;
        *place += 1;
        for (int64_t v = 0; v < info.vocab; v++)
            logits[s * info.vocab + v] = v == next ? 1 : 0;
    }
    return ERR_OK;
}

static inline void set_script(const char *text)
{
    script = text;
    script_ids.n = 0;
    T_EQ(tok_encode(tok, script, strlen(script), false, &script_ids), ERR_OK);
}

static inline int open_with(struct task_set **set, const struct task *t, const char *const *overrides, int n)
{
    static max_align_t opts[64];
    struct cfg *c = NULL;
    *set = NULL;
    err_clear();
    T_CHECK(t->opts_size <= sizeof opts);
    int rc = cfg_open(&c, NULL, overrides, n);
    if (rc == ERR_OK)
        rc = cfg_load(c, "", t->fields, opts);
    if (rc == ERR_OK)
        rc = cfg_finish(c);
    if (rc == ERR_OK)
        rc = t->open(set, opts, &env);
    cfg_close(c);
    return rc;
}

#define OPEN(set, task, ...)                                                                                                       \
    open_with(&(set), task, (const char *const[]){__VA_ARGS__}, (int)(sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)))

static inline const char *write_temp(const char *text, size_t n)
{
    static char path[64];
    snprintf(path, sizeof path, "/tmp/ast-task-%ld.txt", (long)getpid());
    FILE *f = fopen(path, "wb");
    T_CHECK(f && fwrite(text, 1, n, f) == n);
    if (f)
        fclose(f);
    return path;
}

static inline double value(const struct task_score *s, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (strcmp(s[i].name, name) == 0)
            return s[i].value;
    return (double)NAN;
}

static inline int run_all(const struct task *t, struct task_set *set, struct task_acc *acc, struct buf *text, int64_t at_once)
{
    struct arena step;
    int64_t n = t->count(set), sample[512];
    int rc = arena_open(&step, "step", (size_t)1 << 30);
    T_CHECK(n <= 512);
    for (int64_t i = 0; i < n; i++)
        sample[i] = i;
    for (int64_t i = 0; i < n && rc == ERR_OK; i += at_once) {
        struct task_call c = {.set = set,
                              .tok = tok,
                              .env = &env,
                              .sample = sample + i,
                              .acc = acc + i,
                              .text = text ? text + i : NULL,
                              .step = &step};
        c.n = n - i < at_once ? n - i : at_once;
        rc = t->run(&c);
        T_EQ(step.used, 0);
    }
    arena_close(&step);
    T_EQ(caches, 0);
    return rc;
}

static inline int tests_begin(int *argc, char ***argv)
{
    t_start(argc, argv);
    if (tok_open(&tok, "data/asterism-S")) {
        printf("# %s\n", err_text());
        return 1;
    }
    env = (struct task_env){.tok = tok, .length = 512, .bos = 0, .vocab = tok_vocab(tok), .eos = {0}, .n_eos = 1, .seed = 1};
    info.vocab = tok_vocab(tok);
    return 0;
}

static inline int tests_end(void)
{
    tok_ids_free(&script_ids);
    buf_free(&fed);
    tok_close(tok);
    return t_done();
}

#endif
