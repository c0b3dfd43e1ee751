/* Measured limits of this machine. */
#include "kernels/peak.h"

#include <omp.h>
#include <time.h>

double kern_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double kern_peak_flops(const struct kern_table *k, enum kern_dtype t, double seconds, double *kept)
{
    enum { ROUND = 40000 }; /* some 100 microseconds: seldom interrupted */
    double rate = 0, mean = 0;
#pragma omp parallel reduction(+ : rate, mean)
    {
        double best = 0, all = 0;
        k->peak(t, ROUND); /* wakes the units */
#pragma omp barrier
        double begin = kern_now(), start = begin, stop;
        do {
            double done = k->peak(t, ROUND);
            stop = kern_now();
            all += done;
            best = done / (stop - start) > best ? done / (stop - start) : best;
            start = stop;
        } while (stop - begin < seconds);
        rate += best;
        mean += all / (stop - begin);
    }
    if (kept)
        *kept = mean;
    return rate;
}

/* Memory is shared: a round begins and ends for all threads together, so that one does not count what the other's pause has
 * left it. */
double kern_peak_bandwidth(const struct kern_table *k, const float *at, size_t bytes, double seconds)
{
    enum { CHUNK = 4096, ROUND = 1 << 23 }; /* floats of each of two streams; a thread's bytes of a round, at least */
    double rate = 0, start = 0, begin = kern_now();
    bool more = true;
#pragma omp parallel
    {
        int64_t all = (int64_t)(bytes / sizeof(float)) / omp_get_num_threads() / 32 * 32, half = all / 2;
        int64_t part = half < ROUND / 8 ? half : ROUND / 8, from = 0; /* of each stream in one pass */
        int64_t passes = part > 0 ? ROUND / 8 / part : 1;
        const float *mine = at + all * omp_get_thread_num();
        volatile float seen = 0;
        while (more) {
#pragma omp barrier
#pragma omp master
            start = kern_now();
            for (int64_t p = 0; p < passes; p++) {
                for (int64_t i = 0; i < part; i += CHUNK)
                    seen = seen + k->dot(mine + from + i, mine + half + from + i, part - i < CHUNK ? part - i : CHUNK);
                from = from + 2 * part <= half ? from + part : 0;
            }
#pragma omp barrier
#pragma omp master
            {
                double stop = kern_now(),
                       one = (double)(passes * 2 * part) * sizeof(float) * omp_get_num_threads() / (stop - start);
                rate = one > rate ? one : rate;
                more = stop - begin < seconds;
            }
#pragma omp barrier
        }
    }
    return rate;
}
