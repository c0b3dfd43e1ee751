/* asterism train: trains a job, or every point of its sweep. */
#include <stdlib.h>
#include <string.h>

#include "app/app.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "base/timer.h"
#include "build_info.h"
#include "comm/comm.h"
#include "io/file.h"
#include "io/h5.h"
#include "kernels/linear.h"
#include "sched/stop.h"
#include "train/loop.h"
#include "train/spec.h"

static int run(int argc, char **argv);

const struct app_command app_train = {
    .name = "train",
    .brief = "train a job: gates by distillation, or end to end, over MPI, with checkpoints",
    .usage = "usage: [mpirun -np N] asterism train JOB [options] [KEY=VALUE ...]\n\n"
             "JOB is a libconfig file, e.g. jobs/train-distil.cfg. KEY=VALUE overrides one of its options: train.steps=200\n"
             "The same command continues a training that was interrupted. Into the job's folder go checkpoint-* (all that a\n"
             "continuation needs), training.h5 (curves) and at the end what was trained: gates.safetensors, which\n"
             "`asterism run` reads as a method's `gate`, and model files where weights have changed.\n\n"
             "  --fresh      start over: drop the checkpoints of an earlier run\n"
             "  --point N    of a job with a sweep, train point N only (0 first), e.g. one element of a Slurm array\n"
             "  --points     print how many points the sweep has, and end\n"
             "  --exit-file FILE   write the exit code there too (slurm/launch.sh)\n"
             "  --quiet      warnings only       --verbose  more\n\n"
             "exit codes: 0 complete, 1 error, 2 wrong command line or job, 75 stopped in order (signal, Slurm end time): run\n"
             "            the same command again\n\n",
    .run = run,
    .more = spec_help,
};

struct args {
    const char *job, *exit_file;
    const char *output;    /* of a sweep: the folder of its points */
    const char **override; /* room for a sweep's keys behind them */
    int n_overrides;
    int64_t point; /* -1: all */
    bool fresh, count;
    enum log_level level;
};

static int parse(int argc, char **argv, struct args *a)
{
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--fresh"))
            a->fresh = true;
        else if (!strcmp(argv[i], "--points"))
            a->count = true;
        else if (!strcmp(argv[i], "--quiet"))
            a->level = LOG_WARN;
        else if (!strcmp(argv[i], "--verbose"))
            a->level = LOG_DEBUG;
        else if (!strcmp(argv[i], "--exit-file") && i + 1 < argc)
            a->exit_file = argv[++i];
        else if (!strcmp(argv[i], "--point") && i + 1 < argc) {
            char *end;
            a->point = strtoll(argv[++i], &end, 10);
            if (*end || end == argv[i] || a->point < 0)
                return err_set(ERR_ARG, "--point %s: a number from 0 on is expected", argv[i]);
        } else if (argv[i][0] == '-')
            return err_set(ERR_ARG, "there is no option '%s' (asterism train --help)", argv[i]);
        else if (strchr(argv[i], '='))
            a->override[a->n_overrides++] = argv[i];
        else if (!a->job)
            a->job = argv[i];
        else
            return err_set(ERR_ARG, "two jobs, '%s' and '%s': one is trained at a time (options are KEY=VALUE)", a->job, argv[i]);
    }
    return a->job ? ERR_OK : err_set(ERR_ARG, "which job? e.g. asterism train jobs/train-distil.cfg");
}

/* A signal, or the end of the Slurm job near: what a checkpoint takes is left. */
static bool stop(void *context)
{
    enum { MARGIN_S = 60 };
    double end = stop_deadline();
    (void)context;
    return stop_signal() != 0 || (end > 0 && timer_wall() > end - MARGIN_S);
}

static int train_one(const struct args *a, int n_overrides, const struct comm_group *world, struct loop_result *r)
{
    char ranks[24];
    const struct curve_fact fact[] = {{"job", a->job},
                                      {"git_revision", BUILD_REVISION},
                                      {"git_dirty", BUILD_DIRTY ? "yes" : "no"},
                                      {"compiler", BUILD_COMPILER},
                                      {"cflags", BUILD_CFLAGS},
                                      {"blas", kern_blas_info()},
                                      {"hdf5", h5_version()},
                                      {"ranks", ranks}};
    struct loop_opts o = {.path = a->job, .overrides = a->override, .n_overrides = n_overrides, .fresh = a->fresh, .stop = stop};
    snprintf(ranks, sizeof ranks, "%d", world ? world->size : 1);
    o.fact = fact;
    o.n_facts = (int)(sizeof fact / sizeof fact[0]);
    return loop_train(&o, world, r);
}

/* Point i of a sweep: its overrides behind the command line's, and a folder of its own. Collective over the world. */
static int train_point(struct args *a, const struct sweep *s, int64_t i, const struct comm_group *world, struct loop_result *r)
{
    struct buf text[9] = {{0}};
    int n = a->n_overrides, rc = ERR_OK;
    for (int k = 0; !rc && k < s->keys; k++) {
        rc = sweep_override(s, i, k, &text[k]);
        a->override[n + k] = buf_text(&text[k]);
    }
    rc = rc ? rc : buf_printf(&text[8], "output=\"%s/point-%02lld\"", a->output, (long long)i);
    a->override[n + s->keys] = buf_text(&text[8]);
    if (!rc) {
        for (int k = 0; k < s->keys; k++)
            log_info("point %lld of %lld: %s", (long long)i, (long long)s->points, a->override[n + k]);
        rc = train_one(a, n + s->keys + 1, world, r);
    }
    for (int k = 0; k < 9; k++)
        buf_free(&text[k]);
    return rc;
}

/* All points, or the one that was asked for. */
static int train_all(struct args *a, const struct comm_group *world, struct loop_result *r)
{
    struct train_spec *job = NULL;
    struct sweep s = {.points = 1};
    int rc = spec_open(&job, a->job, a->override, a->n_overrides);
    rc = rc ? rc : sweep_load(&s, job->cfg);
    a->output = rc ? NULL : job->output;
    if (!rc && a->point >= s.points)
        rc = err_set(ERR_ARG, "--point %lld: %s has %lld points, 0 to %lld", (long long)a->point, a->job, (long long)s.points,
                     (long long)s.points - 1);
    rc = comm_agree(world, rc);
    if (!rc && a->count && (!world || world->rank == 0))
        printf("%lld\n", (long long)s.points);
    for (int64_t i = 0; !rc && !a->count && i < s.points && !r->stopped; i++)
        if (a->point < 0 || a->point == i)
            rc = s.keys ? train_point(a, &s, i, world, r) : train_one(a, a->n_overrides, world, r);
    spec_close(job);
    return rc;
}

/* All ranks failed, as agreed: the lowest rank that knows why says it, and all leave with its code. Collective. */
static int fail_together(int rc, const struct comm_group *world)
{
    double who = rc == ERR_PEER ? -1e9 : -(world ? world->rank : 0), mine = who, code;
    comm_max_f64(world, &who, 1);
    code = mine == who ? app_fail(rc) : 0;
    comm_max_f64(world, &code, 1);
    return (int)code;
}

static void write_code(const char *path, int code)
{
    char text[16];
    int n = snprintf(text, sizeof text, "%d\n", code);
    if (file_write_durable(path, text, (size_t)n))
        log_warn("the exit code %d cannot be written: %s", code, err_text());
}

static int run(int argc, char **argv)
{
    struct comm_group *world = NULL;
    struct args a = {.point = -1, .level = LOG_INFO};
    struct loop_result r = {0};
    int rc = comm_start(&argc, &argv, &world), code;
    a.override = calloc((size_t)argc + 16, sizeof *a.override);
    AST_ASSERT(a.override != NULL);
    log_setup(world ? world->rank : 0, a.level);
    rc = rc ? rc : parse(argc, argv, &a);
    log_setup(world ? world->rank : 0, a.level);
    if (!rc) {
        stop_catch();
        rc = train_all(&a, world, &r);
        stop_release();
    }
    code = rc ? fail_together(rc, world) : r.stopped ? APP_INCOMPLETE : APP_OK;
    if (a.exit_file && (!world || world->rank == 0))
        write_code(a.exit_file, code);
    fflush(NULL);
    if (!rc && world && world->rank != 0)
        code = APP_OK; /* only rank 0's code is the job's */
    free(a.override);
    comm_free(world);
    comm_stop();
    return code;
}
