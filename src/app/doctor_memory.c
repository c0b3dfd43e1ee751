/* Memory, its limits, and the shared memory that ranks on one machine talk through. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "app/doctor.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/shared.h"

static void memory(struct doctor *d)
{
    char free_text[32], limit[32];
    struct rlimit r = {RLIM_INFINITY, RLIM_INFINITY};
    size_t free_bytes = mem_available();
    log_bytes((double)free_bytes, free_text, sizeof free_text);
    if (getrlimit(RLIMIT_AS, &r) == 0 && r.rlim_cur != RLIM_INFINITY) {
        log_bytes((double)r.rlim_cur, limit, sizeof limit);
        doctor_warn(d, "memory", "ulimit -v unlimited",
                    "a process may map %s (ulimit -v), and checkpoints are mapped whole beside the weights; %s are free", limit,
                    free_text);
    } else if (free_bytes && free_bytes < (size_t)1 << 30) {
        doctor_warn(d, "memory", "end other programs, or set run.memory_gb", "only %s are free", free_text);
    } else {
        doctor_ok(d, "memory", "%s free to this job; run.memory_gb limits a rank", free_text);
    }
    if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < 256)
        doctor_warn(d, "memory", "ulimit -n 1024", "only %llu files may be open at once", (unsigned long long)r.rlim_cur);
}

/* Segments of Open MPI that belong to us and whose process is not asked for: killed ranks leave them behind. */
static int leftovers(double *bytes)
{
    char path[512];
    struct dirent *e;
    struct stat st;
    int n = 0;
    DIR *shm = opendir("/dev/shm");
    *bytes = 0;
    while (shm && (e = readdir(shm))) {
        if (strncmp(e->d_name, "vader_segment.", 14) && strncmp(e->d_name, "sm_segment.", 11))
            continue;
        snprintf(path, sizeof path, "/dev/shm/%.400s", e->d_name);
        if (!stat(path, &st) && st.st_uid == getuid() && time(NULL) - st.st_mtime > 3600) {
            n++;
            *bytes += (double)st.st_blocks * 512;
        }
    }
    if (shm)
        closedir(shm);
    return n;
}

static void shared_memory(struct doctor *d)
{
    struct statvfs v;
    char size[32], left[32];
    double old_bytes;
    int old = leftovers(&old_bytes);
    if (statvfs("/dev/shm", &v) || access("/dev/shm", W_OK)) {
        doctor_warn(d, "/dev/shm", "mount a tmpfs there (docker: --shm-size=1g)",
                    "it is not there or not writable: ranks on one machine talk through files in $TMPDIR or TCP instead");
        return;
    }
    log_bytes((double)v.f_frsize * (double)v.f_blocks, size, sizeof size);
    log_bytes((double)v.f_frsize * (double)v.f_bavail, left, sizeof left);
    if ((double)v.f_frsize * (double)v.f_bavail < 32e6)
        doctor_warn(d, "/dev/shm", "docker: --shm-size=1g; elsewhere: mount -o remount,size=1g /dev/shm",
                    "%s free of %s: Open MPI needs about 4 MiB for each rank on this machine and ends with a bus error when it "
                    "runs out",
                    left, size);
    else
        doctor_ok(d, "/dev/shm", "%s free of %s", left, size);
    if (old) {
        log_bytes(old_bytes, size, sizeof size);
        doctor_warn(d, "/dev/shm", "when nothing of yours runs: rm /dev/shm/vader_segment.*",
                    "%d segments (%s) more than an hour old were left by ranks that were killed", old, size);
    }
}

/* One copy of a model for all ranks: run.share_weights. */
static void shared_weights(struct doctor *d)
{
    bool huge;
    const char *why = shared_probe(&huge);
    if (why)
        doctor_warn(d, "weights", "let ranks see each other's files in /proc", "each rank holds a copy of its own: %s", why);
    else
        doctor_ok(d, "weights", "ranks can share one copy%s",
                  huge ? ", in huge pages"
                       : "; without huge pages: only with run.share_weights = \"on\" or where memory asks for it");
}

void doctor_memory(struct doctor *d)
{
    memory(d);
    shared_weights(d);
    shared_memory(d);
}
