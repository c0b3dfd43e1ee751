/* Speed against this machine's limits. Every figure stands beside a limit measured moments before it, in turn:
 *
 *     limit, thing, limit, thing, ...      `rounds` times; rate, limit and ratio are medians of the rounds
 *
 * A thing's limit is the roofline: the longer of operations / peak and bytes / bandwidth (Williams, Waterman & Patterson
 * 2009), the bandwidth being that of a working set of the thing's size. ratio = 1: nothing is left to gain.
 * All calls are collective over the world (NULL: this process alone), so that several ranks load the machine at once;
 * rates and limits are sums over the ranks. */
#ifndef AST_BENCH_BENCH_H
#define AST_BENCH_BENCH_H

#include <stdbool.h>
#include <stdio.h>

#include "base/log.h"
#include "kernels/kern.h"

struct comm_group;
struct bench;

struct bench_row {
    const char *part; /* "peak", "kernel", "engine", "peer" */
    char name[80];
    const char *unit;          /* of rate and limit: "FLOP/s", "byte/s", "token/s" */
    double rate, limit, ratio; /* medians of the rounds; a limit itself has limit 0 */
    double low, high;          /* ratios of the worst and the best round; of a limit: 0 */
    double others;             /* share of the machine's cores that other processes used meanwhile */
    double seconds;            /* of one call, median */
    double tokens_s;           /* engine and peer, else 0 */
};

enum { BENCH_ROUNDS = 64 }; /* at most */

struct bench_opts {
    bool kernels, engine; /* which parts; peaks are always measured, but for a peer */
    bool quick;
    int rounds, threads; /* threads of this process */
    const int64_t *length;
    int n_lengths;
    bool dtype[2];            /* enum kern_dtype: which ones */
    const char *const *model; /* folders */
    int n_models;
    const char *match;                         /* only rows whose name holds it; NULL: all */
    const char *peer, *peer_match, *peer_what; /* NULL: none; see bench_peer */
};

/* One thing to measure. flops and bytes of one call, summed over the ranks; 0: does not count. */
struct bench_work {
    const char *part;
    char name[80];
    enum kern_dtype dtype;                   /* which peak */
    double flops, bytes, set;                /* set: working set in bytes of one rank, for the bandwidth */
    double tokens;                           /* of a call, or 0 */
    bool one_thread;                         /* the limit is one core's */
    int64_t most_calls;                      /* of a round; 0: any number */
    double about_s;                          /* of a call, if known beforehand; 0: short */
    int (*open)(struct bench *, void *arg);  /* NULL: nothing to prepare */
    int (*ready)(struct bench *, void *arg); /* before each round, not timed; NULL: nothing */
    int (*call)(struct bench *, void *arg);
    void (*close)(void *arg);                /* also after a failed open; NULL: nothing */
    void (*note)(struct bench *, void *arg); /* more lines under the row; NULL: none */
    void *arg;
};

struct bench {
    struct bench_opts o;
    struct kern_table kern;
    const struct comm_group *world;
    int ranks;
    bool one_node;
    FILE *out; /* NULL: this rank prints nothing */
    struct bench_row *row;
    int n_rows, cap_rows;
    float *buffer; /* to read from */
    size_t buffer_bytes;
    bool dry;               /* only adds up what will be done, for the progress line */
    double total_s, done_s; /* predicted */
    double others;          /* as in a row, of the whole run */
    struct progress progress;
};

/* ERR_NOMEM, ERR_ARG. */
int bench_open(struct bench *b, const struct bench_opts *o, const struct comm_group *world, FILE *out);
void bench_close(struct bench *b);

/* All parts that the options ask for; rows are printed as they come. */
int bench_run(struct bench *b);

/* Every row as columns of an HDF5 file, with where they come from; rank 0 writes. about: NULL-terminated pairs. ERR_IO. */
int bench_save(const struct bench *b, const char *path, const char *const *about);

/* ---- for the parts ---- */

int bench_measure(struct bench *b, const struct bench_work *w);
/* FLOP/s of all ranks and threads: the best, and the mean of as many seconds (NULL: not wanted) */
double bench_peak(struct bench *b, enum kern_dtype t, double seconds, double *kept);
double bench_read(struct bench *b, double set, double seconds); /* byte/s; set: bytes of one rank */
int bench_add(struct bench *b, const struct bench_row *row);    /* keeps and prints it */
double bench_median(double *x, int n);                          /* sorts x */
void *bench_bytes(size_t n);                                    /* 64-byte aligned, at least one; free(); NULL: err is set */
float *bench_numbers(int64_t n);                                /* uniform in [-0.5, 0.5), always the same; NULL likewise */

/* The machine's load between a start and now. */
struct bench_load {
    double wall_s, busy_s, own_s;
};
struct bench_load bench_load_start(void);
double bench_load_others(const struct bench *b, const struct bench_load *start); /* share of the cores; collective */

int bench_peaks(struct bench *b);
int bench_kernels(struct bench *b);
int bench_tiles(struct bench *b);
int bench_engine(struct bench *b);
int bench_peer(struct bench *b);

/* The last number of the last line of text that matches the extended regular expression. A number starts where no letter,
 * digit, '_' or '.' stands before it: "pp512 | 628.1 t/s" gives 628.1. ERR_FORMAT, ERR_ARG (pattern). */
int bench_parse(const char *text, const char *match, double *out);

#endif
