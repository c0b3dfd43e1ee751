/* Measured limits of this machine. */
#include "kernels/peak.h"

#include <omp.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double kern_peak_flops(const struct kern_table *k, enum kern_dtype t, double seconds)
{
    enum { ROUND = 40000 }; /* some 100 microseconds: seldom interrupted */
    double rate = 0;
#pragma omp parallel reduction(+ : rate)
    {
        double best = 0;
        k->peak(t, ROUND); /* wakes the units */
#pragma omp barrier
        double begin = now(), start = begin, stop;
        do {
            double done = k->peak(t, ROUND);
            stop = now();
            best = done / (stop - start) > best ? done / (stop - start) : best;
            start = stop;
        } while (stop - begin < seconds);
        rate += best;
    }
    return rate;
}

double kern_peak_bandwidth(const struct kern_table *k, const float *at, size_t bytes, double seconds)
{
    enum { CHUNK = 4096, ROUND = 1 << 21 }; /* floats of each of two streams; bytes between looks at the clock */
    double rate = 0;
#pragma omp parallel reduction(+ : rate)
    {
        int64_t all = (int64_t)(bytes / sizeof(float)) / omp_get_num_threads() / 32 * 32, half = all / 2;
        int64_t passes = all > 0 ? ROUND / (all * (int64_t)sizeof(float)) + 1 : 1;
        const float *mine = at + all * omp_get_thread_num();
        volatile float seen = 0;
        double best = 0;
#pragma omp barrier
        double begin = now(), start = begin, stop;
        do {
            for (int64_t p = 0; p < passes; p++)
                for (int64_t i = 0; i < half; i += CHUNK)
                    seen = seen + k->dot(mine + i, mine + half + i, half - i < CHUNK ? half - i : CHUNK);
            stop = now();
            double one = (double)(passes * 2 * half) * sizeof(float) / (stop - start);
            best = one > best ? one : best;
            start = stop;
        } while (stop - begin < seconds);
        rate += best;
    }
    return rate;
}
