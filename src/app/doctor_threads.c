/* Cores and what the environment tells OpenMP about them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/doctor.h"
#include "base/mem.h"

/* Cores that the job's cgroup pays for (cpu.max: "quota period" in microseconds); 0: no limit is known. */
static double cgroup_cores(void)
{
    double quota = 0, period = 0;
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "r");
    if (f && fscanf(f, "%lf %lf", &quota, &period) != 2)
        quota = 0; /* "max" */
    if (f)
        fclose(f);
    return quota > 0 && period > 0 ? quota / period : 0;
}

static void cores(struct doctor *d)
{
    int mine = mem_cores();
    long all = sysconf(_SC_NPROCESSORS_ONLN);
    double paid = cgroup_cores();
    if (paid > 0 && paid < mine)
        doctor_warn(d, "cores", "give the container or job more CPU time, or set run.threads so that ranks x threads fit",
                    "%d cores can be used, but the cgroup allows the time of %.1f: threads will be halted in turn", mine, paid);
    else if (mine < all)
        doctor_ok(d, "cores", "%d of the machine's %ld (affinity of this process); default threads of a rank: cores / ranks", mine,
                  all);
    else
        doctor_ok(d, "cores", "%d; default threads of a rank: cores / ranks on the machine", mine);
}

/* Weights lie in the memory of the threads that touched them first; that helps only threads that stay where they are. */
static void memory_nodes(struct doctor *d)
{
    char path[64];
    int n = 0;
    do
        snprintf(path, sizeof path, "/sys/devices/system/node/node%d", n);
    while (access(path, F_OK) == 0 && ++n < 1024);
    if (n > 1)
        doctor_ok(d, "NUMA",
                  "%d memory nodes: a rank bound to each reads its own memory: mpirun --map-by numa --bind-to numa, under "
                  "Slurm --cpu-bind=ldoms; OMP_PROC_BIND=true keeps a rank's threads where their weights are",
                  n);
}

static void load(struct doctor *d)
{
    double l[1] = {0};
    int n = mem_cores();
    if (getloadavg(l, 1) == 1 && l[0] > 0.5 + 1.2 * n)
        doctor_warn(d, "load", "measure when the machine is idle", "the load is %.1f on %d core%s: times taken now mean little",
                    l[0], n, n == 1 ? "" : "s");
}

static long number(const char *name)
{
    const char *s = getenv(name);
    char *end;
    long v = s ? strtol(s, &end, 10) : 0;
    return s && end > s && *end == '\0' ? v : 0;
}

static bool is(const char *name, const char *value)
{
    const char *s = getenv(name);
    return s && strcasecmp(s, value) == 0;
}

static void openmp(struct doctor *d)
{
    int n = mem_cores(), before = d->n[DOCTOR_WARN];
    long threads = number("OMP_NUM_THREADS"), limit = number("OMP_THREAD_LIMIT");
    if (is("OMP_WAIT_POLICY", "active"))
        doctor_warn(d, "threads", "unset OMP_WAIT_POLICY (asterism then takes passive)",
                    "OMP_WAIT_POLICY=active: idle threads spin, and ranks that share cores run at a fraction of their speed");
    if (threads > n)
        doctor_warn(d, "threads", "unset OMP_NUM_THREADS, or set it to cores / ranks",
                    "OMP_NUM_THREADS=%ld, but only %d core%s can be used", threads, n, n == 1 ? "" : "s");
    if (getenv("OMP_NUM_THREADS") && !threads && !strchr(getenv("OMP_NUM_THREADS"), ','))
        doctor_warn(d, "threads", "unset OMP_NUM_THREADS", "OMP_NUM_THREADS=%s is not a number of threads",
                    getenv("OMP_NUM_THREADS"));
    if (limit > 0 && limit < n)
        doctor_warn(d, "threads", "unset OMP_THREAD_LIMIT", "OMP_THREAD_LIMIT=%ld leaves %ld of %d cores idle", limit, n - limit,
                    n);
    if (getenv("OMP_PROC_BIND") && !is("OMP_PROC_BIND", "false"))
        doctor_warn(d, "threads", "unset OMP_PROC_BIND for runs of several ranks on one machine",
                    "OMP_PROC_BIND=%s: unless mpirun binds each rank to cores of its own, all ranks bind to the same ones",
                    getenv("OMP_PROC_BIND"));
    if (getenv("GOMP_CPU_AFFINITY"))
        doctor_warn(d, "threads", "unset GOMP_CPU_AFFINITY",
                    "GOMP_CPU_AFFINITY=%s binds the threads of all ranks to the same cores", getenv("GOMP_CPU_AFFINITY"));
    if (is("OMP_DYNAMIC", "true"))
        doctor_warn(d, "threads", "unset OMP_DYNAMIC", "OMP_DYNAMIC=true lets OpenMP use fewer threads than asked for");
    if (number("OPENBLAS_NUM_THREADS") > 0 && threads > 0 && number("OPENBLAS_NUM_THREADS") != threads)
        doctor_warn(d, "threads", "unset OPENBLAS_NUM_THREADS",
                    "OPENBLAS_NUM_THREADS=%ld differs from OMP_NUM_THREADS=%ld; asterism sets both from run.threads",
                    number("OPENBLAS_NUM_THREADS"), threads);
    if (d->n[DOCTOR_WARN] == before)
        doctor_ok(d, "threads", "OMP_WAIT_POLICY=%s, GOMP_SPINCOUNT=%s%s%s, nothing in the environment that hurts",
                  getenv("OMP_WAIT_POLICY"), getenv("GOMP_SPINCOUNT") ? getenv("GOMP_SPINCOUNT") : "unset",
                  threads ? ", OMP_NUM_THREADS=" : "", threads ? getenv("OMP_NUM_THREADS") : "");
}

void doctor_threads(struct doctor *d)
{
    cores(d);
    memory_nodes(d);
    load(d);
    openmp(d);
}
