/* Slurm: is it there, are we inside a job, would ranks find one another. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/child.h"
#include "app/doctor.h"
#include "base/buf.h"
#include "base/err.h"

static const char *value(const char *name)
{
    const char *s = getenv(name);
    return s ? s : "?";
}

static void inside(struct doctor *d)
{
    const char *cpus = getenv("SLURM_CPUS_PER_TASK"), *omp = getenv("OMP_NUM_THREADS");
    doctor_ok(d, "Slurm", "inside job %s on %s: %s tasks of %s cores", value("SLURM_JOB_ID"), value("SLURM_JOB_NODELIST"),
              value("SLURM_NTASKS"), cpus ? cpus : "1");
    if (cpus && omp && strcmp(cpus, omp))
        doctor_warn(d, "Slurm", "slurm/run.sbatch sets both alike", "%s cores a task, but OMP_NUM_THREADS=%s", cpus, omp);
}

static void found(struct doctor *d, const char *path, const struct child *ask, const char *version, bool pmix)
{
    if (ask->code || strncmp(version, "slurm ", 6))
        doctor_ok(d, "Slurm", "%s is installed, but no cluster answers here (no slurm.conf?)", path);
    else
        doctor_ok(d, "Slurm", "%.*s; %s", (int)strcspn(version, "\n"), version,
                  pmix ? "srun can start ranks too, but only mpirun lets a run survive a dead one"
                       : "ranks are started with mpirun (slurm/run.sbatch): srun knows no PMIx here");
}

void doctor_slurm(struct doctor *d)
{
    char path[512];
    struct buf version = {0}, kinds = {0};
    struct child ask = {.argv = (const char *const[]){"sbatch", "--version", NULL}, .limit_s = 5};
    struct child list = {.argv = (const char *const[]){"srun", "--mpi=list", NULL}, .limit_s = 5};
    if (getenv("SLURM_JOB_ID"))
        inside(d);
    child_find("sbatch", path, sizeof path);
    if (!path[0]) {
        if (!getenv("SLURM_JOB_ID"))
            doctor_ok(d, "Slurm", "not here; slurm/launch.sh runs jobs without it");
    } else if (!d->quick) {
        if (child_run(&ask, &version) || child_run(&list, &kinds))
            err_clear();
        found(d, path, &ask, buf_text(&version), strstr(buf_text(&kinds), "pmix") != NULL);
    }
    buf_free(&version);
    buf_free(&kinds);
}
