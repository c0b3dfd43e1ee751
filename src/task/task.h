/* Tasks: a dataset and how it is scored. Only additive counts leave a task, so that a score does not depend on how many
 * ranks there were or which shard came first. One const struct a task, one line in tasks.def. */
#ifndef AST_TASK_TASK_H
#define AST_TASK_TASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct arena;
struct buf;
struct cfg_field;
struct model;
struct task_cache; /* texts read and tokenised once, however many lengths they are cut for */
struct task_set;   /* an opened dataset; each task defines its own */
struct timer;
struct tok;
struct attn_stats;

enum { TASK_COUNTS = 40, TASK_SUMS = 8, TASK_SCORES = 48 };

/* One sample's outcome: exact counts and sums, meaning by the task's count_name and sum_name. */
struct task_acc {
    int64_t n[TASK_COUNTS];
    double s[TASK_SUMS];
};

struct task_sample {  /* what the scheduler must know beforehand; the same on every rank */
    int64_t id;       /* position in the dataset, 0-based */
    int64_t group;    /* document or article: the unit of the bootstrap */
    int64_t tokens;   /* tokens that go through the model */
    int64_t scored;   /* of these, positions that need the vocabulary projection */
    int64_t generate; /* at most this many new tokens */
};

struct task_env { /* what a dataset is cut for */
    const struct tok *tok;
    int64_t length;     /* sequence length of this run: window or context */
    int64_t bos, vocab; /* of the model; bos -1: none */
    int64_t eos[8], n_eos;
    uint64_t seed;
    struct task_cache *cache; /* shared by the sets of a run; NULL: each set reads for itself */
};

struct task_score {
    char name[32]; /* "word_perplexity"; "f1@1k-2k": of a part of the samples */
    double value;
    double lo, hi; /* 95 % interval; NaN if none */
    bool higher_is_better;
    char unit[16]; /* "1", "bit", "%" */
};

struct task_pair { /* per-sample counts of two methods, in dataset order */
    const struct task_acc *a, *b;
};

struct task_call {
    struct task_set *set;
    struct model *model;
    const struct tok *tok;
    const struct task_env *env;
    const int64_t *sample; /* indices into the set */
    int64_t n;
    struct task_acc *acc; /* (n,) zeroed by the caller */
    struct buf *text;     /* (n,) generated text, or NULL: not wanted */
    struct timer *timer;
    struct attn_stats *stats; /* (layers,) or NULL */
    struct arena *step;
};

struct task {
    const char *name, *summary, *cite;
    const struct cfg_field *fields;
    size_t opts_size;
    const char *const *count_name; /* NULL-terminated, at most TASK_COUNTS; HDF5 columns */
    const char *const *sum_name;   /* NULL-terminated, at most TASK_SUMS */
    /* Reads and cuts the dataset for one length. Local, deterministic. ERR_IO, ERR_FORMAT, ERR_ARG. */
    int (*open)(struct task_set **out, const void *opts, const struct task_env *env);
    void (*close)(struct task_set *set);
    int64_t (*count)(const struct task_set *set);
    void (*sample)(const struct task_set *set, int64_t i, struct task_sample *out);
    /* Protocol, data, digest, denominators in one line; store it with the scores. */
    int (*signature)(const struct task_set *set, struct buf *out);
    /* Runs samples; collective over the model's group. ERR_NOMEM: does not fit. */
    int (*run)(struct task_call *c);
    size_t (*run_bytes)(const struct task_set *set, const struct model *m, int64_t n, int64_t tokens, int64_t longest);
    /* Scores from per-sample counts in dataset order (n = count(set)); pure. missing[i]: the sample failed.
     * Returns the number of scores written, at most TASK_SCORES. */
    int (*score)(const struct task_set *set, const struct task_acc *acc, const bool *missing, uint64_t seed,
                 struct task_score *out);
    /* Differences b - a of scores on the same samples, by the scores' names, with paired intervals (the same draws for
     * both). missing[i]: the sample failed in one of them. Pure. NULL: this task has none. */
    int (*compare)(const struct task_set *set, const struct task_pair *pair, const bool *missing, uint64_t seed,
                   struct task_score *out);
};

const struct task *task_find(const char *name); /* NULL if there is none */
const struct task *task_at(int i);              /* NULL past the end */
int task_unknown(const char *name);             /* sets the sentence with the nearest name; ERR_ARG */

int task_cache_open(struct task_cache **out); /* ERR_NOMEM */
void task_cache_close(struct task_cache *c);  /* NULL is fine; sets that still use a text keep it */

#endif
