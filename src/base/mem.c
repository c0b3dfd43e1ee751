/* Memory and cores, from /proc, the cgroup and the affinity mask. */
#define _GNU_SOURCE
#include "base/mem.h"

#include <sched.h>
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

size_t mem_available(void)
{
    size_t avail = proc_kb("/proc/meminfo", "MemAvailable");
    size_t max = read_number("/sys/fs/cgroup/memory.max"), now = read_number("/sys/fs/cgroup/memory.current");
    if (max && max - (now < max ? now : max) < avail)
        avail = max - (now < max ? now : max);
    return avail;
}

int mem_cores(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        return CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}
