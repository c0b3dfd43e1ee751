/* The table as HDF5 columns. */
#include <stdlib.h>

#include "base/err.h"
#include "bench/bench.h"
#include "comm/comm.h"
#include "io/h5.h"
#include "kernels/linear.h"

static void strings(struct h5 *f, const struct bench *b, const char *path, size_t at, bool inside, const char *about)
{
    const char **v = malloc((size_t)(b->n_rows + 1) * sizeof *v);
    AST_ASSERT(v != NULL);
    for (int i = 0; i < b->n_rows; i++) {
        const char *field = (const char *)&b->row[i] + at;
        v[i] = inside ? field : *(const char *const *)(const void *)field;
    }
    h5_strings(f, path, v, b->n_rows, about);
    free(v);
}

static void numbers(struct h5 *f, const struct bench *b, const char *path, size_t at, const char *about)
{
    double *x = malloc((size_t)(b->n_rows + 1) * sizeof *x);
    AST_ASSERT(x != NULL);
    for (int i = 0; i < b->n_rows; i++)
        x[i] = *(const double *)(const void *)((const char *)&b->row[i] + at);
    h5_write(f,
             &(struct h5_column){.path = path, .type = H5_F64, .rows = b->n_rows, .count = b->n_rows, .data = x, .about = about});
    free(x);
}

static int write_file(const struct bench *b, const char *path, const char *const *about)
{
    struct h5 *f = NULL;
    int rc = h5_create(&f, path, NULL, false);
    if (rc)
        return rc;
    h5_group(f, "/bench");
    for (int i = 0; about[i]; i += 2)
        h5_attr_text(f, "/bench", about[i], about[i + 1]);
    h5_attr_text(f, "/bench", "isa", b->kern.isa);
    h5_attr_text(f, "/bench", "blas", kern_blas_info());
    h5_attr_i64(f, "/bench", "ranks", b->ranks);
    h5_attr_i64(f, "/bench", "threads", b->o.threads);
    h5_attr_i64(f, "/bench", "rounds", b->o.rounds);
    h5_attr_f64(f, "/bench", "others", b->others);
    strings(f, b, "/bench/part", offsetof(struct bench_row, part), false, "peak, kernel, engine or peer");
    strings(f, b, "/bench/name", offsetof(struct bench_row, name), true, "what was measured");
    strings(f, b, "/bench/unit", offsetof(struct bench_row, unit), false, "of rate and limit");
    numbers(f, b, "/bench/rate", offsetof(struct bench_row, rate), "median of the rounds");
    numbers(f, b, "/bench/limit", offsetof(struct bench_row, limit), "roofline measured in turn; 0: a limit itself");
    numbers(f, b, "/bench/ratio", offsetof(struct bench_row, ratio), "rate over limit, median of the rounds");
    numbers(f, b, "/bench/ratio_low", offsetof(struct bench_row, low), "ratio of the worst round");
    numbers(f, b, "/bench/ratio_high", offsetof(struct bench_row, high), "ratio of the best round");
    numbers(f, b, "/bench/others", offsetof(struct bench_row, others), "share of the cores that other processes used meanwhile");
    numbers(f, b, "/bench/seconds", offsetof(struct bench_row, seconds), "of one call, s, median");
    numbers(f, b, "/bench/tokens_s", offsetof(struct bench_row, tokens_s), "tokens a second; 0: not tokens");
    return h5_commit(f);
}

int bench_save(const struct bench *b, const char *path, const char *const *about)
{
    int rc = ERR_OK;
    if (!b->world || b->world->rank == 0)
        rc = write_file(b, path, about);
    return comm_agree(b->world, rc);
}
