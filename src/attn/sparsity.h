/* What attention looks like and what a method makes of it, measured on sampled rows while it runs: how much of dense
 * attention's mass the choice keeps, how spread that mass is, how far back it lies, and a map of what was chosen.
 *
 * For one layer; every counter is additive over chunks, sequences and ranks, and exactly so: what a row adds is rounded to
 * multiples of 2^-24, so that sums do not depend on their order. Row t is sampled if t % every == every - 1, whatever the
 * cut into chunks. A sampled row costs one pass over its keys: `seconds` says what all took. Pointed to by
 * attn_stats.more. Methods that know their choice by key report it: dense, window and those that choose blocks. */
#ifndef AST_ATTN_SPARSITY_H
#define AST_ATTN_SPARSITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct arena;
struct attn_call;

enum { SPARSITY_DISTANCES = 24, SPARSITY_MAP = 32, SPARSITY_BUCKETS = 12 };

/* Sums over the sampled rows of one head whose past is of one length class. All members are doubles: added as an array. */
struct sparsity_cell {
    double rows;
    double recall;                       /* dense attention's mass on the keys kept: 1 a row at best */
    double entropy;                      /* of dense attention, in nats */
    double sink;                         /* mass on the first block of 16 keys */
    double seen, causal;                 /* keys kept; keys that causality allows */
    double dense, blocks, gather;        /* rows by the strategy that computed them */
    double distance[SPARSITY_DISTANCES]; /* mass at distance 0, 1, 2-3, 4-7, ... tokens back */
};
enum { SPARSITY_SUMS = sizeof(struct sparsity_cell) / sizeof(double) };

struct sparsity {
    int64_t heads, every;       /* heads of the whole model: ranks that share one fill in their own */
    int64_t span;               /* tokens that the map covers, 0: no map now */
    struct sparsity_cell *cell; /* (heads, SPARSITY_BUCKETS) */
    double *map;                /* (heads, SPARSITY_MAP, SPARSITY_MAP) keys kept by sampled rows, [query cell][key cell] */
    double *map_causal;         /* (SPARSITY_MAP, SPARSITY_MAP) keys that causality allows them, of one head */
    double seconds;             /* what sampling took, over all threads */
};

/* Length class of a row that may see n keys: 0 for n <= 128, then one a power of two: 129 .. 256 is 1, ... The last holds
 * all that are longer. sparsity_bucket_from: the least n of a class. */
int sparsity_bucket(int64_t n);
int64_t sparsity_bucket_from(int bucket);

/* ERR_NOMEM. heads and every >= 1; span as above. Cleared. */
int sparsity_make(struct sparsity *out, const struct sparsity *sizes, struct arena *a);
size_t sparsity_bytes(const struct sparsity *sizes);

/* Adds b to a, which has the same sizes. */
void sparsity_add(struct sparsity *a, const struct sparsity *b);

/* For methods. */
enum sparsity_how { SPARSITY_DENSE, SPARSITY_BLOCKS, SPARSITY_GATHER };
struct sparsity_row {
    int64_t token, head, kv_head; /* position; this rank's heads */
    int64_t from;                 /* the first key that the architecture's own window allows */
    const int32_t *list;          /* (n,) units of `size` keys that are kept, ascending; NULL: all from `from` on */
    int64_t n, size;
    enum sparsity_how how;
};
bool sparsity_wants(const struct attn_call *c, int64_t token); /* statistics are on and the token is sampled */
int64_t sparsity_room(int64_t tokens, int64_t dim);            /* floats of room for rows of so many keys */
/* Measures the row and adds it to c->stats->more. Threads may call it side by side, each with room of its own, 64-byte
 * aligned. */
void sparsity_row(const struct attn_call *c, const struct sparsity_row *x, float *room);

/* For methods whose choice does not depend on scores: measures the chunk's sampled rows of all heads after they were
 * computed. kept: lists the keys that the head's row sees, ascending, and returns how many (at most token + 1); NULL: all
 * that the architecture's window allows. Takes sparsity_chunk_bytes() of step. ERR_NOMEM. */
typedef int64_t (*sparsity_kept_fn)(const struct attn_call *c, int64_t head, int64_t token, int32_t *list);
int sparsity_chunk(const struct attn_call *c, sparsity_kept_fn kept);
size_t sparsity_chunk_bytes(int64_t dim, int64_t max_tokens);

#endif
