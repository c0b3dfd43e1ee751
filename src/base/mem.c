/* Memory and cores, from /proc, the cgroup and the affinity mask. */
#define _GNU_SOURCE
#include "base/mem.h"

#include <omp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The number after "key" in a /proc file whose lines read "key:   123 kB". */
static size_t proc_kb(const char *path, const char *key)
{
    char line[256];
    size_t kb = 0, n = strlen(key);
    FILE *f = fopen(path, "r");
    if (!f)
        return 0;
    while (fgets(line, sizeof line, f))
        if (strncmp(line, key, n) == 0 && line[n] == ':' && sscanf(line + n + 1, "%zu", &kb) == 1)
            break;
    fclose(f);
    return kb * 1024;
}

static size_t read_number(const char *path)
{
    size_t n = 0;
    FILE *f = fopen(path, "r");
    if (!f)
        return 0;
    if (fscanf(f, "%zu", &n) != 1)
        n = 0; /* "max" */
    fclose(f);
    return n;
}

size_t mem_peak(void)
{
    return proc_kb("/proc/self/status", "VmHWM");
}

size_t mem_resident(void)
{
    return proc_kb("/proc/self/status", "VmRSS");
}

/* "key 123" in a cgroup's memory.stat. */
static size_t stat_value(const char *path, const char *key)
{
    char line[256];
    size_t n = 0, len = strlen(key), v;
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, key, len) == 0 && sscanf(line + len, " %zu", &v) == 1)
            n = v;
    if (f)
        fclose(f);
    return n;
}

/* What one cgroup still allows; avail if it has no limit. Pages that files can be dropped from do not count as used. */
static size_t group_room(const char *folder, const char *limit, const char *usage, size_t avail)
{
    char path[1200];
    snprintf(path, sizeof path, "%s/%s", folder, limit);
    size_t max = read_number(path);
    snprintf(path, sizeof path, "%s/%s", folder, usage);
    size_t now = read_number(path);
    snprintf(path, sizeof path, "%s/memory.stat", folder);
    size_t files = stat_value(path, "inactive_file");
    now -= files < now ? files : now;
    if (!max)
        return avail;
    size_t room = max - (now < max ? now : max);
    return room < avail ? room : avail;
}

/* This process's cgroup (a Slurm job's, a container's) and all above it: the tightest counts.
 *   source   Linux Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst */
static size_t cgroup_room(size_t avail)
{
    char line[1024], folder[1100];
    FILE *f = fopen("/proc/self/cgroup", "r");
    avail = group_room("/sys/fs/cgroup", "memory.max", "memory.current", avail);
    while (f && fgets(line, sizeof line, f)) {
        bool two = strncmp(line, "0::", 3) == 0;
        char *at = two ? line + 3 : strstr(line, ":memory:"), *slash;
        if (!at)
            continue;
        at += two ? 0 : 8;
        at[strcspn(at, "\n")] = '\0';
        while ((slash = strrchr(at, '/')) != NULL && at[1]) {
            snprintf(folder, sizeof folder, "/sys/fs/cgroup%s%.1000s", two ? "" : "/memory", at);
            avail = two ? group_room(folder, "memory.max", "memory.current", avail)
                        : group_room(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", avail);
            *slash = '\0';
            if (slash == at)
                break;
        }
    }
    if (f)
        fclose(f);
    return avail;
}

size_t mem_available(void)
{
    return cgroup_room(proc_kb("/proc/meminfo", "MemAvailable"));
}

unsigned long long mem_nodes(void)
{
    enum { NODES = 64 };
    unsigned long long nodes = 0;
    char path[96];
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set))
        return 0;
    for (int n = 0; n < NODES; n++) {
        snprintf(path, sizeof path, "/sys/devices/system/node/node%d", n);
        if (access(path, F_OK))
            continue;
        for (unsigned c = 0; c < CPU_SETSIZE && !(nodes >> n & 1); c++) {
            snprintf(path, sizeof path, "/sys/devices/system/node/node%d/cpu%u", n, c);
            if (CPU_ISSET(c, &set) && !access(path, F_OK))
                nodes |= 1ULL << n;
        }
    }
    return nodes;
}

int mem_cores(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) {
        /* with OMP_PROC_BIND this thread is bound to one core already, and OpenMP remembers what there was */
        int before = omp_get_num_procs();
        return CPU_COUNT(&set) > before ? CPU_COUNT(&set) : before;
    }
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}
