/* Gradients over ranks. */
#include "train/reduce.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "comm/comm.h"

enum { CHUNK = 1 << 14, MANY = 64 };

int reduce_open(struct reduce *r)
{
    r->begun = calloc((size_t)r->p->n + 1, sizeof *r->begun);
    if (!r->begun)
        return err_set(ERR_NOMEM, "no memory for %lld parameters", (long long)r->p->n);
    return comm_sums_open(&r->sums, r->replicas);
}

void reduce_close(struct reduce *r)
{
    comm_sums_close(r->sums);
    free(r->begun);
    r->sums = NULL;
    r->begun = NULL;
}

void reduce_ready(void *reduce, int64_t first, int64_t n)
{
    struct reduce *r = reduce;
    for (int64_t i = first; i < first + n; i++) {
        AST_ASSERT(i >= 0 && i < r->p->n && !r->begun[i]);
        r->begun[i] = true;
        comm_sums_start(r->sums, r->p->at[i].g, r->p->at[i].n);
    }
}

void reduce_finish(struct reduce *r)
{
    for (int64_t i = 0; i < r->p->n; i++)
        if (!r->begun[i])
            reduce_ready(r, i, 1);
    comm_sums_wait(r->sums);
    memset(r->begun, 0, (size_t)r->p->n * sizeof *r->begun);
}

/* Sum of squares, in chunks whose sums are added in order. */
static double square(const float *g, int64_t n)
{
    double all = 0;
    for (int64_t at = 0; at < n; at += (int64_t)CHUNK * MANY) {
        double part[MANY] = {0};
        int64_t left = n - at, chunks = (left + CHUNK - 1) / CHUNK < MANY ? (left + CHUNK - 1) / CHUNK : MANY;
#pragma omp parallel for if (chunks > 1)
        for (int64_t c = 0; c < chunks; c++) {
            int64_t from = at + c * CHUNK, to = from + CHUNK < n ? from + CHUNK : n;
            for (int64_t i = from; i < to; i++)
                part[c] += (double)g[i] * (double)g[i];
        }
        for (int64_t c = 0; c < chunks; c++)
            all += part[c];
    }
    return all;
}

double reduce_norm(const struct reduce *r)
{
    double own = 0, shared = 0;
    for (int64_t i = 0; i < r->p->n; i++)
        *(r->p->at[i].shared ? &shared : &own) += square(r->p->at[i].g, r->p->at[i].n);
    comm_sum_f64(r->model, &own, 1);
    return sqrt(own + shared);
}
