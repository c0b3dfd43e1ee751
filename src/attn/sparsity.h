/* What a sparse method does to attention, measured on sampled rows while it runs: how much of dense attention's mass its
 * choice keeps, how spread that mass is, how far back it lies, and a map of what was chosen.
 *
 * For one layer and this rank's heads; every counter is additive over chunks, sequences and ranks. Row t is sampled if
 * t % every == every - 1, so that samples do not depend on the cut into chunks. A sampled row costs two passes over its
 * keys: `seconds` says what that took. Pointed to by attn_stats.more. */
#ifndef AST_ATTN_SPARSITY_H
#define AST_ATTN_SPARSITY_H

#include <stddef.h>
#include <stdint.h>

struct arena;

enum { SPARSITY_DISTANCES = 24, SPARSITY_MAP = 32 };

struct sparsity_head { /* sums over the sampled rows of one head */
    double rows;
    double recall;                       /* dense attention's mass on the keys kept: 1 a row at best */
    double entropy;                      /* of dense attention, in nats */
    double sink;                         /* mass on the first block of 16 keys */
    double seen, causal;                 /* keys kept; keys that causality allows */
    double distance[SPARSITY_DISTANCES]; /* mass at distance 0, 1, 2-3, 4-7, ... tokens back */
};

struct sparsity {
    int64_t heads, every, max_tokens;
    int64_t span;               /* tokens that the map covers, 0: no map */
    struct sparsity_head *head; /* (H,) */
    double *map;                /* (H, SPARSITY_MAP, SPARSITY_MAP) keys kept by sampled rows, [query cell][key cell] */
    double *map_causal;         /* (SPARSITY_MAP, SPARSITY_MAP) keys that causality allows them, of one head */
    double seconds;             /* what sampling took, over all threads */
    struct sparsity_head *slot; /* (max_tokens / every + 1, H) rows of the chunk that runs: summed in order at its end */
};

/* ERR_NOMEM. heads: this rank's; every >= 1; span as above. */
int sparsity_make(struct sparsity *out, const struct sparsity *sizes, struct arena *a);
size_t sparsity_bytes(const struct sparsity *sizes);

/* Adds b to a, which has the same sizes. */
void sparsity_add(struct sparsity *a, const struct sparsity *b);

/* For the driver. */
struct sparse_run;
struct sparse_lane;
void sparsity_rows(const struct sparse_run *r, struct sparse_lane *w, int64_t unit, int64_t n); /* the tile's n tokens */
void sparsity_close_chunk(struct sparsity *s, int64_t pos, int64_t n);

#endif
