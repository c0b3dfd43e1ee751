/* Writes results.h5 from gathered cells: collective parallel HDF5 into a temporary name, then renamed. Redoable.
 *
 *     /cells        one row a cell: model, method, task, length, samples, protocol signature
 *     /metrics      one row a cell and metric: value, 95 % interval, difference to dense attention
 *     /samples/T    one row a cell and sample of task T, in the job's and the dataset's order: id, group, tokens, status,
 *                   the task's counts and sums by name; generated texts as bytes and offsets
 *     /models       one row a model: what was read, fingerprints, the tokens that begin and end a text and which file says so
 *     /layers       one row a cell and layer: token pairs attended and allowed
 *     /sparsity     one row a cell, layer, head and class of query length, from sampled query rows: density, mass recall,
 *                   entropy, distances, strategies; /sparsity/map: what chosen samples attend to, in cells
 *     /timing       seconds, rates, memory: by cell, by rank; what differs from run to run stands here and in /environment
 *     /code /parameters /environment   attributes: program, resolved options, machine */
#ifndef AST_SCHED_MERGE_H
#define AST_SCHED_MERGE_H

#include <stdint.h>

#include "attn/costs.h"

struct comm_group;
struct gathered;
struct work;

struct merge_rank { /* one a rank of the merge, in rank order */
    int64_t rank, shards, tokens, peak_bytes;
    double compute_s, io_s, wait_s, load_s, deal_s; /* deal_s: rank 0's, in its own code; the rest of its time it waits */
    char host[64];
};

struct merge_info {
    const char *path;                         /* of results.h5 */
    const int64_t *sizes;                     /* (cells,) samples */
    const char *command_line;                 /* NULL: unknown */
    int ranks, groups, tensor, threads, dead; /* groups, tensor: of the last phase */
    double wall_s;
    const char *state;            /* "complete", "incomplete", "failed samples" */
    const char *isa, *code[8][2]; /* name, text; ends with a NULL name */
    struct attn_costs costs;      /* calibrated; zeros: not */
    const struct merge_rank *rank;
    int n_ranks;
};

/* Collective over g. ERR_IO, ERR_NOMEM. */
int merge_write(const struct work *w, const struct gathered *x, const struct merge_info *i, const struct comm_group *g);

#endif
