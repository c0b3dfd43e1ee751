/* MPI: the library, the launcher, and two ranks that are really started: they add up numbers and write a file together. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/app.h"
#include "app/child.h"
#include "app/doctor.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/timer.h"
#include "comm/comm.h"
#include "comm/comm_info.h"
#include "io/file.h"
#include "io/h5.h"

enum { ROUNDS = 200, ROWS = 1000, LIMIT_S = 15 };

/* ---- the two ranks ---- */

static double time_sums(const struct comm_group *world)
{
    double x[4] = {1, 2, 3, 4}, start;
    comm_barrier(world);
    start = timer_now();
    for (int i = 0; i < ROUNDS; i++)
        comm_sum_f64(world, x, 4);
    return (timer_now() - start) / ROUNDS * 1e6;
}

static int write_together(const struct comm_group *world, const char *path)
{
    struct h5 *f = NULL;
    int64_t mine[ROWS];
    for (int64_t i = 0; i < ROWS; i++)
        mine[i] = world->rank * ROWS + i;
    int rc = h5_create(&f, path, world, true);
    if (rc)
        return rc;
    h5_write(f, &(struct h5_column){.path = "/x",
                                    .type = H5_I64,
                                    .rows = (int64_t)ROWS * world->size,
                                    .first = (int64_t)ROWS * world->rank,
                                    .count = ROWS,
                                    .data = mine});
    return h5_commit(f);
}

int doctor_ping(int argc, char **argv, const char *file)
{
    struct comm_group *world = NULL;
    int rc = comm_start(&argc, &argv, &world);
    double us = rc ? 0 : time_sums(world);
    rc = rc ? rc : write_together(world, file);
    if (!rc && world->rank == 0)
        printf("ping ranks=%d threads=%s allreduce_us=%.1f hdf5=ok\n", world->size, comm_thread_level(), us);
    fflush(NULL);
    int code = app_fail(rc);
    comm_free(world);
    comm_stop();
    return code;
}

/* ---- who starts them ---- */

struct ping {
    bool ok;
    int ranks, code;
    bool late;
    char threads[16];
    double us;
    struct buf said;
};

static void ping(struct doctor *d, const char *const *env, struct ping *p)
{
    char path[FILE_PATH], name[64], self[FILE_PATH];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    snprintf(name, sizeof name, "asterism-doctor-%ld-ping.h5", (long)getpid());
    if (n <= 0 || file_join(path, d->folder, name)) {
        err_clear();
        return;
    }
    self[n] = '\0';
    struct child c = {
        .argv = (const char *const[]){"mpirun", "--oversubscribe", "-np", "2", self, "doctor", "--ping", path, NULL},
        .env = env,
        .limit_s = LIMIT_S,
    };
    buf_clear(&p->said);
    if (child_run(&c, &p->said))
        err_clear();
    unlink(path);
    p->code = c.code;
    p->late = c.late;
    const char *line = strstr(buf_text(&p->said), "ping ranks=");
    p->ok = !c.code && !c.late && line &&
            sscanf(line, "ping ranks=%d threads=%15s allreduce_us=%lf", &p->ranks, p->threads, &p->us) == 3;
}

/* A line of words, neither a frame nor "[host:pid] ..." of Open MPI's inside. */
static bool speaks(const char *line)
{
    return (line[0] >= 'A' && line[0] <= 'Z') || (line[0] >= 'a' && line[0] <= 'z');
}

/* What ended it: the first line that a person would read. */
static void reason(const struct ping *p, char *out, size_t cap)
{
    const char *at = buf_text(&p->said);
    if (p->late) {
        snprintf(out, cap, "they were still busy after %d s", LIMIT_S);
        return;
    }
    while (*at && !speaks(at)) {
        at += strcspn(at, "\n");
        at += *at == '\n';
    }
    snprintf(out, cap, "exit code %d%s%.*s", p->code, *at ? ": " : "", (int)strcspn(at, "\n"), at);
}

/* What the ranks said although they worked. */
static void judge_words(struct doctor *d, const struct ping *p)
{
    const char *said = buf_text(&p->said);
    if (strstr(said, "errno = 1") && strstr(said, "Read -1"))
        doctor_warn(d, "MPI", "export OMPI_MCA_btl_vader_single_copy_mechanism=none",
                    "the kernel refuses direct copies between ranks (CMA), as in many containers; each run prints errors");
    if (strstr(said, "unable to open file for mmap"))
        doctor_warn(d, "MPI", "export OMPI_MCA_sharedfp=^sm",
                    "MPI-IO prints that a shared file pointer cannot be mapped; harmless");
    if (strcmp(p->threads, "multiple"))
        doctor_fail(d, "MPI", "use an MPI library built with thread support", "threads: %s; heartbeats need MPI_THREAD_MULTIPLE",
                    p->threads);
    if (p->us > 5000)
        doctor_warn(d, "MPI", "export OMPI_MCA_mpi_yield_when_idle=1, and do not bind ranks of several runs to the same cores",
                    "a sum over 2 ranks takes %.1f ms: ranks wait for one another with all their might on a core that they share",
                    p->us / 1e3);
}

static void two_ranks(struct doctor *d)
{
    /* what slurm/launch.sh sets on one machine */
    static const char *const quiet[] = {"OMPI_MCA_mpi_yield_when_idle=1",
                                        "OMPI_MCA_pml=ob1",
                                        "OMPI_MCA_btl=self,vader",
                                        "OMPI_MCA_btl_vader_single_copy_mechanism=none",
                                        "OMPI_MCA_oob_tcp_if_include=lo",
                                        "OMPI_MCA_hwloc_base_binding_policy=none",
                                        "OMPI_MCA_sharedfp=^sm",
                                        "OMPI_ALLOW_RUN_AS_ROOT=1",
                                        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
                                        NULL};
    const char *const *root = quiet + 7;
    struct ping p = {0};
    char why[512];
    ping(d, geteuid() == 0 ? root : NULL, &p);
    if (p.ok) {
        doctor_ok(d, "MPI", "%d ranks started: a sum takes %.1f us, threads %s, one HDF5 file written by both", p.ranks, p.us,
                  p.threads);
        judge_words(d, &p);
    } else {
        reason(&p, why, sizeof why);
        ping(d, quiet, &p);
        if (p.ok)
            doctor_warn(d, "MPI", "start runs with AST_LOCAL=1 slurm/launch.sh, or copy its export lines",
                        "two ranks do not work together with this environment (%s), but do with that of slurm/launch.sh", why);
        else
            doctor_fail(d, "MPI",
                        "try: mpirun -np 2 hostname; then AST_LOCAL=1 slurm/launch.sh -np 2 build/asterism run jobs/demo.cfg",
                        "two ranks cannot be started: %s", why);
    }
    buf_free(&p.said);
}

/* The first number with a point in a text, "4.1.4"; "" if there is none. */
static void version_in(const char *text, char *out, size_t cap)
{
    size_t n;
    for (out[0] = '\0'; *text; text += n ? n : 1) {
        n = strspn(text, "0123456789.");
        if (n >= 3 && memchr(text, '.', n)) {
            snprintf(out, cap, "%.*s", (int)n, text);
            return;
        }
    }
}

/* mpirun of another MPI starts ranks that are each alone. */
static bool launcher(struct doctor *d, const char *library)
{
    char path[512], ours[32], theirs[32];
    struct buf said = {0};
    struct child ask = {.argv = (const char *const[]){"mpirun", "--version", NULL}, .limit_s = 5};
    child_find("mpirun", path, sizeof path);
    if (!path[0]) {
        doctor_warn(d, "mpirun", "install openmpi-bin, or load the cluster's MPI module",
                    "there is no mpirun in PATH: asterism runs as one process only");
        return false;
    }
    if (d->quick)
        return true;
    if (child_run(&ask, &said))
        err_clear();
    version_in(library, ours, sizeof ours);
    version_in(buf_text(&said), theirs, sizeof theirs);
    bool same = theirs[0] && !strcmp(ours, theirs);
    if (same)
        doctor_ok(d, "mpirun", "%s, of the same version", path);
    else
        doctor_warn(d, "mpirun", "put the mpirun of the library that asterism is linked with first in PATH",
                    "%s is of version %s, the library of %s: ranks may not find one another", path, theirs[0] ? theirs : "unknown",
                    ours);
    buf_free(&said);
    return true;
}

static void environment(struct doctor *d)
{
    const char *btl = getenv("OMPI_MCA_btl"), *yield = getenv("OMPI_MCA_mpi_yield_when_idle");
    const char *shm = getenv("OMPI_MCA_btl_vader_backing_directory"), *tmp = getenv("TMPDIR");
    bool root = geteuid() == 0 && !(getenv("OMPI_ALLOW_RUN_AS_ROOT") && getenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"));
    if (btl && btl[0] != '^' && !strstr(btl, "self"))
        doctor_fail(d, "MPI", "export OMPI_MCA_btl=self,vader,tcp", "OMPI_MCA_btl=%s lacks self: a rank cannot send to itself",
                    btl);
    if (shm && !file_is_folder(shm))
        doctor_fail(d, "MPI", "unset OMPI_MCA_btl_vader_backing_directory",
                    "OMPI_MCA_btl_vader_backing_directory=%s is not a folder", shm);
    if (yield && !strcmp(yield, "0"))
        doctor_warn(d, "MPI", "export OMPI_MCA_mpi_yield_when_idle=1",
                    "OMPI_MCA_mpi_yield_when_idle=0: when ranks share cores a message can take a hundredth of a second");
    if (tmp && strlen(tmp) > 60)
        doctor_warn(d, "MPI", "export TMPDIR=/tmp", "TMPDIR is %zu bytes long: the paths of Open MPI's sockets end at 108",
                    strlen(tmp));
    if (root && !d->quick)
        doctor_warn(d, "MPI", "use slurm/launch.sh, or export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
                    "you are root, and mpirun refuses root unless it is told twice");
}

void doctor_mpi(struct doctor *d)
{
    char library[128];
    comm_library(library, sizeof library);
    doctor_ok(d, "MPI", "%s", library);
    environment(d);
    bool there = launcher(d, library);
    if (getenv("OMPI_COMM_WORLD_SIZE"))
        doctor_warn(d, "MPI", "start doctor without mpirun", "started under mpirun: two more ranks cannot be tried from here");
    else if (there && !d->quick)
        two_ranks(d);
}
