/* Threads that wait politely and matrix products that fit the CPU: settings that libraries read once, at their start. */
#define _GNU_SOURCE /* affinity */
#include "app/restart.h"

#include <limits.h>
#include <omp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/mem.h"
#include "kernels/linear.h"

/* With OMP_PROC_BIND or OMP_PLACES libgomp has bound this thread to one place by now, and the program that takes ours over
 * would see that place alone: give back the others. */
static void release_cores(void)
{
    cpu_set_t all;
    CPU_ZERO(&all);
    for (int p = 0; p < omp_get_num_places(); p++) {
        int n = omp_get_place_num_procs(p), *id = calloc((size_t)n + 1, sizeof *id);
        if (id)
            omp_get_place_proc_ids(p, id);
        for (int i = 0; id && i < n; i++)
            CPU_SET((size_t)id[i], &all);
        free(id);
    }
    if (CPU_COUNT(&all) > 0)
        sched_setaffinity(0, sizeof all, &all);
}

/* Ranks of this job on this machine, as mpirun or Slurm say before MPI has begun; 1 if nobody does. */
static int ranks_here(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "SLURM_STEP_TASKS_PER_NODE"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *s = getenv(names[i]);
        long n = s ? strtol(s, NULL, 10) : 0; /* Slurm's "4(x2),3" begins with a number too */
        if (n > 0 && n < INT_MAX)
            return (int)n;
    }
    return 1;
}

/* OpenMP's idle threads spin for milliseconds unless told otherwise before the program starts, and ranks that share cores
 * then run at a fraction of their speed; or they sleep at once, and each of a layer's parallel steps pays 30 microseconds
 * to wake them. A spin of 50 microseconds, then sleep, is bearable for both; where ranks leave each other cores for threads, five
 * times as much saves most of what is left: 125 M parameters decode at 0.79 of the memory's speed instead of 0.69. (Ranks that
 * share cores lose 18 % by it.) One rank of several leads and needs no core. True if something was set. */
static bool polite_threads(void)
{
    const char *policy = getenv("OMP_WAIT_POLICY");
    bool spins = policy && (policy[0] == 'a' || policy[0] == 'A');
    if (spins || (policy && getenv("GOMP_SPINCOUNT")))
        return false;
    int ranks = ranks_here(), workers = ranks > 1 ? ranks - 1 : 1;
    return !setenv("OMP_WAIT_POLICY", "passive", 0) && !setenv("GOMP_SPINCOUNT", mem_cores() / workers > 1 ? "5000" : "1000", 0);
}

/* OpenBLAS takes a CPU that it does not know, or whose model a virtual machine hides, for one of 2004: less than half of
 * the speed of training and of f32 prefill. True if another was set. */
static bool right_blas(void)
{
    const char *core = kern_blas_core();
    return core && !getenv("OPENBLAS_CORETYPE") && !setenv("OPENBLAS_CORETYPE", core, 0);
}

void restart_if_better(char **argv)
{
    bool threads = polite_threads(), blas = right_blas();
    if (!threads && !blas)
        return;
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n <= 0)
        return; /* no /proc: as it is */
    path[n] = 0;
    release_cores();
    execv(path, argv); /* by its own name: top and pgrep show it as they did */
    execv("/proc/self/exe", argv);
}
