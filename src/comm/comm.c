/* MPI behind our own door. Inside a group MPI's errors are fatal (its default), so return codes are not tested. */
#include "comm/comm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "comm/comm_mpi.h"

struct comm_handle {
    MPI_Comm comm;
};

/* Elements of one MPI call: counts are int there, and 1 GiB pieces keep every byte count within it too. */
enum { PIECE = 1 << 27, BYTES = 1 << 30 };

MPI_Comm comm_mpi(const struct comm_group *g)
{
    return g ? g->h->comm : MPI_COMM_SELF;
}

struct comm_group *comm_wrap(MPI_Comm comm)
{
    struct comm_group *g = malloc(sizeof *g);
    struct comm_handle *h = malloc(sizeof *h);
    if (!g || !h) {
        free(g);
        free(h);
        err_set(ERR_NOMEM, "no memory for a group of ranks");
        return NULL;
    }
    h->comm = comm;
    g->h = h;
    MPI_Comm_rank(comm, &g->rank);
    MPI_Comm_size(comm, &g->size);
    return g;
}

/* srun without a PMI that Open MPI knows starts N processes that are each alone and would do the whole work N times. */
static int check_singleton(const struct comm_group *world)
{
    const char *mpirun = getenv("OMPI_COMM_WORLD_SIZE"), *tasks = getenv("SLURM_STEP_NUM_TASKS");
    if (!tasks)
        tasks = getenv("SLURM_NTASKS");
    if (world->size > 1 || mpirun || !tasks || atol(tasks) <= 1)
        return ERR_OK;
    return err_set(ERR_ARG,
                   "Slurm has %s tasks but this process is alone in MPI: start it with 'srun --mpi=pmix' (see srun --mpi=list) or "
                   "with mpirun inside the allocation; for one process use 'mpirun -np 1'",
                   tasks);
}

int comm_start(int *argc, char ***argv, struct comm_group **world)
{
    int up = 0, level;
    *world = NULL;
    MPI_Initialized(&up);
    /* MULTIPLE: heartbeats go out from a thread of their own while the main thread computes or is inside a collective. */
    if (!up)
        MPI_Init_thread(argc, argv, MPI_THREAD_MULTIPLE, &level);
    *world = comm_wrap(MPI_COMM_WORLD);
    if (!*world)
        return ERR_NOMEM;
    return check_singleton(*world);
}

void comm_stop(void)
{
    int up = 0, down = 0;
    MPI_Initialized(&up);
    MPI_Finalized(&down);
    if (up && !down)
        MPI_Finalize();
}

_Noreturn void comm_abort(int status)
{
    int up = 0, down = 0;
    fflush(NULL);
    MPI_Initialized(&up);
    MPI_Finalized(&down);
    if (up && !down)
        MPI_Abort(MPI_COMM_WORLD, status);
    _Exit(status);
}

int comm_split(const struct comm_group *g, int color, int key, struct comm_group **out)
{
    MPI_Comm c;
    int rc = ERR_OK;
    *out = NULL;
    if (!g)
        return ERR_OK;
    MPI_Comm_split(g->h->comm, color < 0 ? MPI_UNDEFINED : color, key, &c);
    if (c != MPI_COMM_NULL) {
        *out = comm_wrap(c);
        rc = *out ? ERR_OK : ERR_NOMEM;
    }
    return comm_agree(g, rc);
}

int comm_survivors(const struct comm_group *g, const uint8_t *dead, struct comm_group **out)
{
    enum { TAG = 4711 };
    MPI_Group all, alive;
    MPI_Comm c;
    int n = 0, *gone = g ? calloc((size_t)g->size, sizeof *gone) : NULL;
    *out = NULL;
    if (!g)
        return ERR_OK;
    AST_ASSERT(gone != NULL); /* nobody can be told: the others wait for us below */
    for (int r = 0; r < g->size; r++)
        if (dead[r])
            gone[n++] = r;
    MPI_Comm_group(g->h->comm, &all);
    MPI_Group_excl(all, n, gone, &alive);
    MPI_Comm_create_group(g->h->comm, alive, TAG, &c);
    MPI_Group_free(&alive);
    MPI_Group_free(&all);
    free(gone);
    *out = comm_wrap(c);
    AST_ASSERT(*out != NULL);
    return ERR_OK;
}

void comm_subset(const struct comm_group *g, const int *rank, int n, struct comm_group **out)
{
    enum { TAG = 4712 };
    MPI_Group all, some;
    MPI_Comm c;
    MPI_Comm_group(g->h->comm, &all);
    MPI_Group_incl(all, n, rank, &some);
    MPI_Comm_create_group(g->h->comm, some, TAG, &c);
    MPI_Group_free(&some);
    MPI_Group_free(&all);
    *out = comm_wrap(c);
    AST_ASSERT(*out != NULL); /* a few bytes; the others wait for us */
}

void comm_free(struct comm_group *g)
{
    int down = 0;
    if (!g)
        return;
    MPI_Finalized(&down);
    if (!down && g->h->comm != MPI_COMM_WORLD && g->h->comm != MPI_COMM_SELF)
        MPI_Comm_free(&g->h->comm);
    free(g->h);
    free(g);
}

static bool alone(const struct comm_group *g)
{
    return !g || g->size == 1;
}

int(comm_agree)(const struct comm_group *g, int rc)
{
    struct {
        int code, rank;
    } mine = {rc, g ? g->rank : 0}, worst;
    char text[ERR_TEXT] = "";
    AST_ASSERT(rc <= 0);
    if (alone(g))
        return rc;
    MPI_Allreduce(&mine, &worst, 1, MPI_2INT, MPI_MINLOC, g->h->comm);
    if (worst.code == ERR_OK)
        return ERR_OK;
    if (g->rank == worst.rank)
        snprintf(text, sizeof text, "%s", err_text());
    MPI_Bcast(text, sizeof text, MPI_CHAR, worst.rank, g->h->comm);
    return rc ? rc : err_set(ERR_PEER, "rank %d of the group: %s", worst.rank, text);
}

void comm_bcast(const struct comm_group *g, void *p, size_t bytes, int root)
{
    char *at = p;
    if (alone(g))
        return;
    while (bytes > 0) {
        size_t n = bytes < BYTES ? bytes : BYTES;
        MPI_Bcast(at, (int)n, MPI_BYTE, root, g->h->comm);
        at += n;
        bytes -= n;
    }
}

static void reduce(const struct comm_group *g, void *x, int64_t n, MPI_Datatype type, MPI_Op op)
{
    char *at = x;
    int width;
    AST_ASSERT(n >= 0);
    if (alone(g))
        return;
    MPI_Type_size(type, &width);
    while (n > 0) {
        int64_t k = n < PIECE ? n : PIECE;
        MPI_Allreduce(MPI_IN_PLACE, at, (int)k, type, op, g->h->comm);
        at += k * width;
        n -= k;
    }
}

void comm_sum_f32(const struct comm_group *g, float *x, int64_t n)
{
    reduce(g, x, n, MPI_FLOAT, MPI_SUM);
}

void comm_sum_f64(const struct comm_group *g, double *x, int64_t n)
{
    reduce(g, x, n, MPI_DOUBLE, MPI_SUM);
}

void comm_sum_i64(const struct comm_group *g, int64_t *x, int64_t n)
{
    reduce(g, x, n, MPI_INT64_T, MPI_SUM);
}

void comm_max_f32(const struct comm_group *g, float *x, int64_t n)
{
    reduce(g, x, n, MPI_FLOAT, MPI_MAX);
}

void comm_max_f64(const struct comm_group *g, double *x, int64_t n)
{
    reduce(g, x, n, MPI_DOUBLE, MPI_MAX);
}

void comm_barrier(const struct comm_group *g)
{
    if (!alone(g))
        MPI_Barrier(g->h->comm);
}

int comm_allgatherv(const struct comm_group *g, const void *mine, size_t n, char **out, size_t *n_out)
{
    int size = g ? g->size : 1, rank = g ? g->rank : 0, rc = ERR_OK;
    int64_t *count = calloc((size_t)size, sizeof *count), total = 0;
    char *joined = NULL;
    *out = NULL;
    *n_out = 0;
    /* Memory first, on all ranks, then the exchange that nobody can leave. */
    if (!count)
        rc = err_set(ERR_NOMEM, "no memory to gather from %d ranks", size);
    rc = comm_agree(g, rc);
    if (rc)
        goto out;
    count[rank] = (int64_t)n;
    comm_sum_i64(g, count, size);
    for (int r = 0; r < size; r++)
        total += count[r];
    joined = malloc((size_t)total + 1);
    if (!joined)
        rc = err_set(ERR_NOMEM, "no memory to gather %lld bytes from %d ranks", (long long)total, size);
    rc = comm_agree(g, rc);
    if (rc)
        goto out;
    for (int64_t r = 0, at = 0; r < size; at += count[r++]) {
        if (r == rank && n > 0)
            memcpy(joined + at, mine, n);
        comm_bcast(g, joined + at, (size_t)count[r], (int)r);
    }
    joined[total] = '\0';
    *out = joined;
    *n_out = (size_t)total;
    joined = NULL;
out:
    free(joined);
    free(count);
    return rc;
}

void comm_node(const struct comm_group *g, int *node_rank, int *node_size)
{
    MPI_Comm node;
    *node_rank = 0;
    *node_size = 1;
    if (alone(g))
        return;
    MPI_Comm_split_type(g->h->comm, MPI_COMM_TYPE_SHARED, g->rank, MPI_INFO_NULL, &node);
    MPI_Comm_rank(node, node_rank);
    MPI_Comm_size(node, node_size);
    MPI_Comm_free(&node);
}
