/* Rounds of limit and thing in turn, and the table. */
#include "bench/bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/err.h"
#include "base/timer.h"
#include "comm/comm.h"
#include "kernels/linear.h"
#include "kernels/peak.h"

/* Seconds: of a limit before each round; of the shortest round; what a thing may take to be warmed up first. */
#define LIMIT_S 0.015
#define ROUND_S 0.02
#define WARM_S 5.0
#define BUSY 0.1 /* of the machine: what others' use is worth telling */

enum { HUGE = 1 << 21 };

static int rising(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, rising);
    return n < 1 ? 0 : n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

void *bench_bytes(size_t n)
{
    size_t align = n < HUGE ? 64 : HUGE;
    void *p = aligned_alloc(align, (n + align) / align * align);
    if (!p)
        err_set(ERR_NOMEM, "no memory for %zu bytes to measure with", n);
    else if (align == HUGE)
        madvise(p, (n + align) / align * align, MADV_HUGEPAGE); /* as arenas do; a hint */
    return p;
}

float *bench_numbers(int64_t n)
{
    float *x = bench_bytes((size_t)n * sizeof *x);
    /* Filled by the threads that will read it: pages lie where they are used. */
#pragma omp parallel for schedule(static) if (x && n > 1 << 16)
    for (int64_t c = 0; c < (x ? (n + 1023) / 1024 : 0); c++) {
        uint32_t s = (uint32_t)(c * 2654435761) + 1;
        for (int64_t i = c * 1024; i < n && i < (c + 1) * 1024; i++) {
            s = s * 1664525u + 1013904223u;
            x[i] = (float)(s >> 8) / 16777216.0F - 0.5F;
        }
    }
    return x;
}

int bench_open(struct bench *b, const struct bench_opts *o, const struct comm_group *world, FILE *out)
{
    int node_rank, node_size;
    comm_node(world, &node_rank, &node_size);
    *b = (struct bench){.o = *o, .world = world, .ranks = world ? world->size : 1, .out = out};
    b->one_node = node_size == b->ranks;
    if (kern_select(&b->kern, NULL))
        return err_set(ERR_ARG, "AST_ISA names no instruction set that this CPU runs; asterism doctor --isas lists them");
    kern_threads(o->threads);
    b->buffer_bytes = (size_t)(o->quick ? 64 : 256) << 20;
    b->buffer = bench_numbers((int64_t)(b->buffer_bytes / sizeof(float)));
    return b->buffer ? ERR_OK : ERR_NOMEM;
}

void bench_close(struct bench *b)
{
    free(b->buffer);
    free(b->row);
    *b = (struct bench){0};
}

/* ---- limits ---- */

static double sum_over_ranks(const struct bench *b, double x)
{
    comm_sum_f64(b->world, &x, 1);
    return x;
}

double bench_peak(struct bench *b, enum kern_dtype t, double seconds, double *kept)
{
    double mean;
    comm_barrier(b->world);
    double best = sum_over_ranks(b, kern_peak_flops(&b->kern, t, seconds, &mean));
    mean = sum_over_ranks(b, mean);
    if (kept)
        *kept = mean;
    return best;
}

double bench_read(struct bench *b, double set, double seconds)
{
    double bytes = fmin(fmax(set, 4096), (double)b->buffer_bytes);
    comm_barrier(b->world);
    return sum_over_ranks(b, kern_peak_bandwidth(&b->kern, b->buffer, (size_t)bytes, seconds));
}

/* ---- rows ---- */

static void print_row(const struct bench *b, const struct bench_row *r)
{
    bool tokens = strcmp(r->unit, "token/s") == 0;
    double by = tokens ? 1 : 1e-9;
    const char *unit = tokens ? "tokens/s" : r->unit[0] == 'F' ? "GFLOP/s" : "GB/s";
    if (!b->out)
        return;
    fprintf(b->out, "%-50s %9.1f", r->name, r->rate * by);
    if (r->limit > 0)
        fprintf(b->out, " %9.1f  %5.2f %5.2f  %-8s", r->limit * by, r->ratio, r->high, unit);
    else
        fprintf(b->out, " %9s  %5s %5s  %-8s", "", "", "", unit);
    if (r->tokens_s > 0 && !tokens)
        fprintf(b->out, " %.0f tokens/s", r->tokens_s);
    if (r->others > BUSY)
        fprintf(b->out, "  [others used %.0f %% of the machine]", 100 * r->others);
    fprintf(b->out, "\n");
    fflush(b->out);
}

int bench_add(struct bench *b, const struct bench_row *row)
{
    if (b->n_rows == b->cap_rows) {
        int cap = b->cap_rows ? 2 * b->cap_rows : 64;
        struct bench_row *more = realloc(b->row, (size_t)cap * sizeof *more);
        if (!more)
            return err_set(ERR_NOMEM, "no memory for %d rows of the table", cap);
        b->row = more;
        b->cap_rows = cap;
    }
    b->row[b->n_rows++] = *row;
    print_row(b, row);
    return ERR_OK;
}

/* ---- measuring ---- */

struct round {
    double seconds, flops_s, bytes_s; /* of one call; what each side of the roofline asks for */
};

static int calls(struct bench *b, const struct bench_work *w, int64_t n, double *seconds)
{
    int rc = w->ready ? w->ready(b, w->arg) : ERR_OK;
    comm_barrier(b->world);
    double t0 = timer_now();
    for (int64_t i = 0; !rc && i < n; i++)
        rc = w->call(b, w->arg);
    *seconds = timer_now() - t0;
    comm_max_f64(b->world, seconds, 1); /* the slowest rank ends the call */
    *seconds /= (double)n;
    return rc;
}

/* Calls that make a round long enough for the clock; the same on every rank. */
static int calibrate(struct bench *b, const struct bench_work *w, int64_t *n)
{
    double s = 0;
    int64_t most = w->most_calls > 0 ? w->most_calls : 1 << 24;
    *n = 1;
    if (w->about_s > WARM_S)
        return ERR_OK;
    int rc = calls(b, w, 1, &s); /* warms up */
    if (!rc)
        rc = calls(b, w, 1, &s);
    while (!rc && s * (double)*n < ROUND_S && *n < most) {
        double more = s > 0 ? fmin(1.2 * ROUND_S / s + 1, 64.0 * (double)*n) : 64.0 * (double)*n;
        *n = (int64_t)fmin(more, (double)most);
        rc = calls(b, w, *n, &s);
    }
    return rc;
}

static int rounds(struct bench *b, const struct bench_work *w, struct round *r)
{
    int64_t n = 1;
    double least = 0;
    int rc = calibrate(b, w, &n);
    for (int i = 0; !rc && i < b->o.rounds; i++) {
        r[i].flops_s = w->flops > 0 ? w->flops / bench_peak(b, w->dtype, LIMIT_S, NULL) : 0;
        r[i].bytes_s = w->bytes > 0 ? w->bytes / bench_read(b, w->set, LIMIT_S) : 0;
        rc = calls(b, w, n, &r[i].seconds);
        least = i == 0 ? r[i].flops_s : fmin(least, r[i].flops_s);
    }
    for (int i = 0; i < b->o.rounds; i++) /* what a core did once it can do: others' work lowers no limit */
        r[i].flops_s = least;
    return rc;
}

static struct bench_row row_of(const struct bench *b, const struct bench_work *w, const struct round *r)
{
    double x[4][BENCH_ROUNDS];
    int n = b->o.rounds, by_flops = 0;
    for (int i = 0; i < n; i++)
        by_flops += r[i].flops_s >= r[i].bytes_s;
    bool compute = 2 * by_flops > n; /* the side that binds in most rounds gives the row its unit */
    double what = compute ? w->flops : w->bytes;
    for (int i = 0; i < n; i++) {
        double limit_s = fmax(r[i].flops_s, r[i].bytes_s);
        x[0][i] = what / r[i].seconds;
        x[1][i] = what / limit_s;
        x[2][i] = limit_s / r[i].seconds;
        x[3][i] = r[i].seconds;
    }
    struct bench_row row = {.part = w->part, .unit = compute ? "FLOP/s" : "byte/s"};
    memcpy(row.name, w->name, sizeof row.name);
    row.rate = bench_median(x[0], n);
    row.limit = bench_median(x[1], n);
    row.ratio = bench_median(x[2], n);
    row.low = x[2][0];
    row.high = x[2][n - 1];
    row.seconds = bench_median(x[3], n);
    row.tokens_s = w->tokens / row.seconds;
    return row;
}

/* Predicted seconds of a measurement: for the progress line only. */
static double predicted(const struct bench *b, const struct bench_work *w)
{
    double call = fmax(w->about_s, 2 * ROUND_S), n = b->o.rounds;
    return w->about_s > WARM_S ? n * call : (n + 2) * call + n * 2 * LIMIT_S;
}

int bench_measure(struct bench *b, const struct bench_work *w)
{
    struct round r[BENCH_ROUNDS];
    struct bench_load load = bench_load_start();
    if (b->o.match && !strstr(w->name, b->o.match))
        return ERR_OK;
    if (b->dry) {
        b->total_s += predicted(b, w);
        return ERR_OK;
    }
    progress_update(&b->progress, b->done_s, w->name);
    int rc = w->open ? w->open(b, w->arg) : ERR_OK;
    rc = comm_agree(b->world, rc);
    kern_threads(w->one_thread ? 1 : b->o.threads);
    if (!rc)
        rc = rounds(b, w, r);
    kern_threads(b->o.threads);
    if (!rc) {
        struct bench_row row = row_of(b, w, r);
        row.others = bench_load_others(b, &load);
        rc = bench_add(b, &row);
    }
    if (!rc && w->note)
        w->note(b, w->arg);
    if (w->close)
        w->close(w->arg);
    b->done_s += predicted(b, w);
    return rc;
}

/* ---- all of it ---- */

static int parts(struct bench *b)
{
    int rc = ERR_OK;
    if (b->o.kernels && !b->o.peer)
        rc = bench_kernels(b);
    if (!rc && b->o.kernels && !b->o.peer)
        rc = bench_tiles(b);
    if (!rc && b->o.engine && !b->o.peer)
        rc = bench_engine(b);
    return rc;
}

int bench_run(struct bench *b)
{
    if (b->out) {
        const char *by = kern_pairs_by(&b->kern);
        fprintf(b->out, "%s%s%s, %s, %d rank%s x %d thread%s, %d rounds, medians; best: the best round's ratio\n", b->kern.isa,
                by ? " with " : "", by ? by : "", kern_blas_info(), b->ranks, b->ranks > 1 ? "s" : "", b->o.threads,
                b->o.threads > 1 ? "s" : "", b->o.rounds);
        fprintf(b->out, "%-50s %9s %9s  %5s %5s\n", "", "rate", "limit", "ratio", "best");
    }
    b->dry = true;
    int rc = parts(b);
    b->dry = false;
    struct bench_load load = bench_load_start();
    progress_begin(&b->progress, "bench", b->total_s);
    if (!rc && !b->o.peer)
        rc = bench_peaks(b);
    if (!rc)
        rc = parts(b);
    progress_end(&b->progress);
    if (!rc && b->o.peer)
        rc = bench_peer(b);
    b->others = rc ? 0 : bench_load_others(b, &load);
    if (!rc && b->out && b->others > BUSY)
        fprintf(b->out, "Other processes used %.0f %% of this machine's cores meanwhile: compare ratios, or 'best', not rates.\n",
                100 * b->others);
    return rc;
}
