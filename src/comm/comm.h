/* MPI behind our own door: start and stop, groups, agreement, sums, messages. mpi.h stays in comm/ and io/.
 * A NULL group stands for "this process alone" in every call that takes one. */
#ifndef AST_COMM_COMM_H
#define AST_COMM_COMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct comm_handle; /* the MPI communicator; comm/comm_mpi.h, for comm and io only */

struct comm_group {
    int rank, size;
    struct comm_handle *h;
};

/* Starts MPI (once) and gives the world. ERR_ARG if Slurm started several tasks that do not see each other
 * (singletons). Collective over the world. */
int comm_start(int *argc, char ***argv, struct comm_group **world);
void comm_stop(void);                  /* MPI_Finalize */
_Noreturn void comm_abort(int status); /* last resort: ends all ranks */

/* New group of the ranks that pass the same color (< 0: none, *out = NULL). Collective over g. */
int comm_split(const struct comm_group *g, int color, int key, struct comm_group **out);
/* New group of the ranks r with dead[r] == 0; all survivors pass the same list. Collective over the survivors only: the
 * others may be gone. */
int comm_survivors(const struct comm_group *g, const uint8_t *dead, struct comm_group **out);
/* New group of the n given ranks of g, in that order; this rank is one of them. Groups made at one time have no rank in
 * common. Collective over these ranks only. */
void comm_subset(const struct comm_group *g, const int *rank, int n, struct comm_group **out);
void comm_free(struct comm_group *g); /* collective over g; NULL is fine */

/* Collective. A rank that failed keeps its code; the others leave with ERR_PEER and the worst rank's sentence.
 * All go on or none does. rc <= 0. */
int comm_agree(const struct comm_group *g, int rc);
#ifdef __clang_analyzer__ /* which sees one file: who failed does not get ERR_OK */
static inline int comm_agree_seen(const struct comm_group *g, int rc)
{
    int all = comm_agree(g, rc);
    return rc ? rc : all;
}
#define comm_agree(g, rc) comm_agree_seen(g, rc)
#endif

/* Collective over g; counts may exceed int. Seconds spent are added to the caller's timer by the caller. */
void comm_bcast(const struct comm_group *g, void *p, size_t bytes, int root);
void comm_sum_f32(const struct comm_group *g, float *x, int64_t n);
void comm_sum_f64(const struct comm_group *g, double *x, int64_t n);
void comm_sum_i64(const struct comm_group *g, int64_t *x, int64_t n);
void comm_max_f32(const struct comm_group *g, float *x, int64_t n);
void comm_max_f64(const struct comm_group *g, double *x, int64_t n);
/* Sums over g that run beside other work: start any number, then wait for all. Every rank starts the same ones in the same
 * order; x must be left alone until then. Collective over g. */
struct comm_sums;
int comm_sums_open(struct comm_sums **out, const struct comm_group *g); /* ERR_NOMEM. Local. */
void comm_sums_start(struct comm_sums *s, float *x, int64_t n);
void comm_sums_wait(struct comm_sums *s);
void comm_sums_close(struct comm_sums *s); /* waits; NULL is fine */

void comm_barrier(const struct comm_group *g);
/* each rank's bytes (its own count), joined in rank order; out and n_out owned by the caller (free) on every rank */
int comm_allgatherv(const struct comm_group *g, const void *mine, size_t n, char **out, size_t *n_out);

/* Node-wide rank and size within g: for threads per rank and shared weights. Collective over g. */
void comm_node(const struct comm_group *g, int *node_rank, int *node_size);

#endif
