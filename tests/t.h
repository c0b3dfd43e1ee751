/* The test harness: TAP lines, then "N passed, N failed" alone on a line; non-zero exit unless all is well.
 * Compiled with T_MPI every rank checks and rank 0 prints the union. Test functions are sentences.
 *
 *     static void a_later_key_changes_nothing_before_it(void) { T_CHECK(...); T_NEAR(got, want, 1e-6); }
 *     int main(int argc, char **argv) { t_start(&argc, &argv); T_RUN(a_later_key...); return t_done(); } */
#ifndef AST_TESTS_T_H
#define AST_TESTS_T_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef T_MPI
#include <mpi.h>
#endif

static int t_here, t_count, t_bad, t_skipped, t_rank;

#define T_FAIL(...)                                                                                                                \
    (t_here++, printf("# rank %d %s:%d: ", t_rank, __FILE__, __LINE__), printf(__VA_ARGS__), printf("\n"), fflush(stdout))
#define T_CHECK(cond) ((cond) ? (void)0 : (void)T_FAIL("%s", #cond))
/* |got - want| <= tol * max(1, |want|), asked so that a NaN fails */
#define T_NEAR(got, want, tol)                                                                                                     \
    do {                                                                                                                           \
        double t_g = (double)(got), t_w = (double)(want);                                                                          \
        if (!(fabs(t_g - t_w) <= (tol)*fmax(1, fabs(t_w))))                                                                        \
            T_FAIL("%s = %.9g, want %.9g within %g", #got, t_g, t_w, (double)(tol));                                               \
    } while (0)
#define T_EQ(got, want)                                                                                                            \
    do {                                                                                                                           \
        long long t_g = (long long)(got), t_w = (long long)(want);                                                                 \
        if (t_g != t_w)                                                                                                            \
            T_FAIL("%s = %lld, want %lld", #got, t_g, t_w);                                                                        \
    } while (0)
#define T_STR(got, want)                                                                                                           \
    do {                                                                                                                           \
        const char *t_g = (got), *t_w = (want);                                                                                    \
        if (!t_g || strcmp(t_g, t_w) != 0)                                                                                         \
            T_FAIL("%s = \"%s\", want \"%s\"", #got, t_g ? t_g : "(null)", t_w);                                                   \
    } while (0)
#define T_RUN(fn) t_run(#fn, fn)

static inline void t_start(int *argc, char ***argv)
{
#ifdef T_MPI
    MPI_Init(argc, argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &t_rank);
#else
    (void)argc;
    (void)argv;
#endif
}

static inline void t_run(const char *name, void (*fn)(void))
{
    t_here = 0;
    fn();
#ifdef T_MPI
    MPI_Allreduce(MPI_IN_PLACE, &t_here, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
#endif
    t_count++;
    t_bad += t_here != 0;
    if (t_rank == 0)
        printf("%s %d - %s\n", t_here ? "not ok" : "ok", t_count + t_skipped, name);
    fflush(stdout);
}

/* Counts neither as passed nor as failed. */
static inline void t_skip(const char *name, const char *why)
{
    t_skipped++;
    if (t_rank == 0)
        printf("ok %d - %s # SKIP %s\n", t_count + t_skipped, name, why);
}

static inline int t_done(void)
{
    if (t_count + t_skipped == 0)
        t_count = t_bad = 1; /* a file without tests is a failure too */
    if (t_rank == 0)
        printf("1..%d\n%d passed, %d failed, %d skipped\n", t_count + t_skipped, t_count - t_bad, t_bad, t_skipped);
#ifdef T_MPI
    MPI_Finalize();
#endif
    return t_bad != 0;
}

#endif
