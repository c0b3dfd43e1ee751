/* /code, /parameters, /environment: what ran, with what, where. */
#include "sched/merge_out.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/timer.h"
#include "cfg/cfg.h"
#include "comm/comm.h"
#include "io/h5.h"
#include "io/sha.h"
#include "kernels/linear.h"
#include "sched/job.h"
#include "sched/merge.h"
#include "sched/work.h"

void merge_code(struct merge_out *o)
{
    h5_group(o->f, "/code");
    for (int k = 0; k < 8 && o->i->code[k][0]; k++)
        h5_attr_text(o->f, "/code", o->i->code[k][0], o->i->code[k][1]);
    h5_attr_text(o->f, "/code", "hdf5_version", h5_version());
}

/* Only what decides the results and is the same for any number of ranks: how the job was placed stands in /environment. */
void merge_parameters(struct merge_out *o)
{
    struct cfg_record r;
    char name[256], digest[SHA_HEX] = "";
    const char *source = cfg_source(o->w->job->cfg);
    h5_group(o->f, "/parameters");
    for (int i = 0; cfg_record_at(o->w->job->cfg, i, &r); i++) {
        if (!strcmp(r.key, "tensor") || (!strcmp(r.group, "run") && !strcmp(r.key, "threads")))
            continue;
        if (!strcmp(r.key, "output"))
            continue;
        snprintf(name, sizeof name, "%.120s%s%.120s", r.group, r.group[0] ? "." : "", r.key);
        h5_attr_text(o->f, "/parameters", name, r.text);
    }
    if (sha_bytes(source, strlen(source), digest))
        err_clear();
    h5_attr_text(o->f, "/parameters", "config_sha256", digest);
    h5_attr_text(o->f, "/parameters", "config_text", source);
}

/* Attributes are collective: all ranks pass what rank 0 has. */
static void shared_text(struct merge_out *o, const char *name, const char *mine)
{
    char text[1024];
    snprintf(text, sizeof text, "%s", mine ? mine : "");
    comm_bcast(o->g, text, sizeof text, 0);
    if (text[0])
        h5_attr_text(o->f, "/environment", name, text);
}

static void shared_number(struct merge_out *o, const char *name, double mine)
{
    comm_bcast(o->g, &mine, sizeof mine, 0);
    h5_attr_f64(o->f, "/environment", name, mine);
}

void merge_environment(struct merge_out *o)
{
    char host[65] = "", when[32];
    gethostname(host, sizeof host - 1);
    timer_iso(timer_wall(), when, sizeof when);
    h5_group(o->f, "/environment");
    shared_text(o, "host", host);
    shared_text(o, "date", when);
    shared_text(o, "blas", kern_blas_info());
    shared_text(o, "command_line", o->i->command_line);
    shared_text(o, "state", o->i->state);
    shared_text(o, "slurm_job_id", getenv("SLURM_JOB_ID"));
    shared_text(o, "slurm_restart_count", getenv("SLURM_RESTART_COUNT"));
    shared_text(o, "slurm_nodes", getenv("SLURM_JOB_NODELIST"));
    h5_attr_i64(o->f, "/environment", "ranks", o->i->ranks);
    h5_attr_i64(o->f, "/environment", "groups", o->i->groups);
    h5_attr_i64(o->f, "/environment", "ranks_per_group", o->i->tensor);
    h5_attr_i64(o->f, "/environment", "threads_per_rank", o->i->threads);
    if (o->w->job->run.calibrate) {
        h5_attr_f64(o->f, "/environment", "cost_blocks", o->i->costs.cost_blocks);
        h5_attr_f64(o->f, "/environment", "cost_gather", o->i->costs.cost_gather);
    }
    shared_number(o, "ranks_lost", o->i->dead);
    shared_number(o, "wall_s", o->i->wall_s);
}
