/* Sums that run beside other work. */
#include <stdlib.h>

#include "base/err.h"
#include "comm/comm_mpi.h"

enum { PIECE = 1 << 28 };

struct comm_sums {
    const struct comm_group *g;
    MPI_Request *request; /* (n,) under way */
    int n, cap;
};

int comm_sums_open(struct comm_sums **out, const struct comm_group *g)
{
    struct comm_sums *s = calloc(1, sizeof *s);
    *out = s;
    if (!s)
        return err_set(ERR_NOMEM, "no memory for sums over ranks");
    s->g = g;
    return ERR_OK;
}

/* Room for one more; inside a step nothing is recoverable, so without memory the others are waited for. */
static void make_room(struct comm_sums *s)
{
    if (s->n < s->cap)
        return;
    int cap = s->cap * 2 + 64;
    MPI_Request *more = realloc(s->request, (size_t)cap * sizeof *more);
    AST_ASSERT(more || s->cap > 0);
    if (!more) {
        comm_sums_wait(s);
        return;
    }
    s->request = more;
    s->cap = cap;
}

void comm_sums_start(struct comm_sums *s, float *x, int64_t n)
{
    if (!s->g || s->g->size == 1)
        return;
    for (; n > 0; n -= PIECE, x += PIECE) {
        make_room(s);
        MPI_Iallreduce(MPI_IN_PLACE, x, (int)(n < PIECE ? n : PIECE), MPI_FLOAT, MPI_SUM, comm_mpi(s->g), &s->request[s->n++]);
    }
}

void comm_sums_wait(struct comm_sums *s)
{
    if (s->n > 0)
        MPI_Waitall(s->n, s->request, MPI_STATUSES_IGNORE);
    s->n = 0;
}

void comm_sums_close(struct comm_sums *s)
{
    if (s) {
        comm_sums_wait(s);
        free(s->request);
    }
    free(s);
}
