/* The limits themselves: operations in registers, reads by working-set size. */
#include "bench/bench.h"

#include <math.h>
#include <stdio.h>

#include "base/err.h"
#include "kernels/linear.h"

static int peak_row(struct bench *b, enum kern_dtype t, int threads)
{
    double x[BENCH_ROUNDS];
    struct bench_row r = {.part = "peak", .unit = "FLOP/s"};
    const char *by = kern_pairs_by(&b->kern), *name = t == KERN_F32 ? "f32 multiply-adds" : by ? by : "bf16, widened";
    kern_threads(threads);
    for (int i = 0; i < b->o.rounds; i++)
        x[i] = bench_peak(b, t, 0.03, NULL);
    kern_threads(b->o.threads);
    r.rate = bench_median(x, b->o.rounds);
    snprintf(r.name, sizeof r.name, "%s, %d thread%s a rank", name, threads, threads > 1 ? "s" : "");
    return bench_add(b, &r);
}

/* What of that the machine keeps up for as long as work takes: less where others share its cores. */
static int kept_row(struct bench *b)
{
    double x[3][BENCH_ROUNDS];
    int n = b->o.rounds;
    struct bench_row r = {.part = "peak", .unit = "FLOP/s"};
    for (int i = 0; i < n; i++) {
        x[1][i] = bench_peak(b, KERN_F32, 0.3, &x[0][i]);
        x[2][i] = x[0][i] / x[1][i];
    }
    r.rate = bench_median(x[0], n), r.limit = bench_median(x[1], n), r.ratio = bench_median(x[2], n);
    r.low = x[2][0], r.high = x[2][n - 1]; /* in order now */
    snprintf(r.name, sizeof r.name, "f32 multiply-adds, kept up for 0.3 s");
    return bench_add(b, &r);
}

/* each: bytes of one thread's part */
static int read_row(struct bench *b, double each)
{
    double x[BENCH_ROUNDS], set = fmin(each * b->o.threads, (double)b->buffer_bytes);
    struct bench_row r = {.part = "peak", .unit = "byte/s"};
    char size[32];
    for (int i = 0; i < b->o.rounds; i++)
        x[i] = bench_read(b, set, 0.03);
    r.rate = bench_median(x, b->o.rounds);
    log_bytes(each, size, sizeof size);
    snprintf(r.name, sizeof r.name, "read, %s a thread, %d thread%s a rank", size, b->o.threads, b->o.threads > 1 ? "s" : "");
    return bench_add(b, &r);
}

int bench_peaks(struct bench *b)
{
    int rc = ERR_OK;
    for (int t = KERN_F32; !rc && t <= KERN_BF16; t++) {
        rc = peak_row(b, (enum kern_dtype)t, 1);
        if (!rc && b->o.threads > 1)
            rc = peak_row(b, (enum kern_dtype)t, b->o.threads);
    }
    rc = rc ? rc : kept_row(b);
    double most = (double)b->buffer_bytes / b->o.threads;
    for (double each = 16384; !rc && each < 2 * most; each *= 4)
        rc = read_row(b, fmin(each, most));
    return rc;
}
