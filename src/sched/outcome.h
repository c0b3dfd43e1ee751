/* What came of a shard, and its durable form: sections of a shard file, and the name that says what it covers. */
#ifndef AST_SCHED_OUTCOME_H
#define AST_SCHED_OUTCOME_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/timer.h"
#include "io/sha.h"
#include "task/task.h"

enum outcome_status { OUTCOME_OK, OUTCOME_FAILED, OUTCOME_MEMORY, OUTCOME_PENDING };
const char *outcome_status_name(int status); /* "ok", "failed", "memory", "pending" */

struct outcome_layer { /* counters of one layer over all heads: attn_stats */
    double pairs_seen, pairs_causal, tile_dense, tile_blocks, tile_gather, select_s;
};

struct sparsity_cell; /* attn/sparsity.h */

struct outcome_map {
    int64_t sample, span; /* index in the dataset; tokens that the map covers */
};

struct outcome_sparsity { /* sampled rows of attention; heads 0: none were sampled */
    int64_t heads;
    struct sparsity_cell *cell; /* (layers, heads, SPARSITY_BUCKETS) */
    double seconds;             /* what sampling took, over threads and ranks */
    int64_t n_maps;
    struct outcome_map *of; /* (n_maps,) */
    float *map, *causal;    /* (n_maps, layers, heads, SPARSITY_MAP, SPARSITY_MAP), (n_maps, SPARSITY_MAP, SPARSITY_MAP) */
};

struct outcome {
    char job[SHA_HEX]; /* fingerprint of the job */
    int cell, n_counts, n_sums, rank, group_size, layers;
    int64_t first, n, cap;  /* positions; samples held; room */
    int64_t tokens, failed; /* through the model; samples not ok */
    double begin_s, end_s;  /* wall clock, since 1970 */
    double compute_s;
    size_t peak_bytes; /* of the rank with the largest */
    struct timer timer;
    int64_t *sample; /* (n,) index in the dataset */
    int32_t *status; /* (n,) enum outcome_status */
    struct task_acc *acc;
    double *seconds;             /* (n,) its share of the batch's time */
    struct buf *text;            /* (n,) generated text */
    struct buf *reason;          /* (n,) why it failed */
    struct outcome_layer *layer; /* (layers,) */
    struct outcome_sparsity sparsity;
};

int outcome_open(struct outcome *o, int64_t cap, int layers); /* ERR_NOMEM */
void outcome_close(struct outcome *o);                        /* a zeroed one is fine */

/* Room for one more map in o->sparsity: *map (layers, heads, ...), *causal, cleared. ERR_NOMEM. */
int outcome_add_map(struct outcome *o, const struct outcome_map *of, int64_t heads, float **map, float **causal);
void outcome_free_sparsity(struct outcome_sparsity *s);

/* Durable: CRC, fsync, published without replacing. An outcome with failed samples gets a name of its own, so that a later
 * attempt that succeeds is not taken for its copy. Local. ERR_IO. */
int outcome_commit(const struct outcome *o, const char *folder, bool *duplicate);

/* ERR_IO, ERR_FORMAT. The outcome is opened by the call. */
int outcome_read(struct outcome *o, const char *path);

/* Which cell and positions a file of that name covers; false: not a name of ours. */
struct outcome_name {
    int cell;
    int64_t first, n;
    bool failed; /* holds samples that are not ok */
};
bool outcome_parse(const char *name, struct outcome_name *out);

#endif
