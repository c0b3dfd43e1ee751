/* asterism run: evaluates a job. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/app.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "build_info.h"
#include "comm/comm.h"
#include "io/file.h"
#include "sched/job.h"
#include "sched/run.h"

static int run(int argc, char **argv);

const struct app_command app_run = {
    .name = "run",
    .brief = "evaluate a job: models x attention methods x tasks x lengths, over MPI, into results.h5",
    .usage = "usage: [mpirun -np N] asterism run JOB [options] [KEY=VALUE ...]\n\n"
             "JOB is a libconfig file, e.g. jobs/demo.cfg. KEY=VALUE overrides one of its options: run.threads=2 "
             "tasks.[0].lengths=[512]\n"
             "The same command continues a job that was interrupted, with any number of ranks.\n\n"
             "  --fresh    start over: drop what an earlier run of this output has finished\n"
             "  --exit-file FILE   write the exit code there too: mpirun --enable-recovery, which survives dead ranks, returns 0\n"
             "                     whatever happened (slurm/launch.sh does all this)\n"
             "  --quiet    warnings and the table only       --verbose  more\n\n"
             "exit codes: 0 complete, 1 error, 2 wrong command line or job, 3 complete but some samples failed,\n"
             "            75 stopped in order (signal, Slurm end time, full disk): run the same command again\n\n",
    .run = run,
    .more = job_help,
};

struct args {
    const char *job, *exit_file;
    const char **override;
    int n_overrides;
    bool fresh;
    enum log_level level;
};

static int parse(int argc, char **argv, struct args *a)
{
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--fresh"))
            a->fresh = true;
        else if (!strcmp(argv[i], "--quiet"))
            a->level = LOG_WARN;
        else if (!strcmp(argv[i], "--verbose"))
            a->level = LOG_DEBUG;
        else if (!strcmp(argv[i], "--exit-file") && i + 1 < argc)
            a->exit_file = argv[++i];
        else if (argv[i][0] == '-')
            return err_set(ERR_ARG, "there is no option '%s' (asterism run --help)", argv[i]);
        else if (strchr(argv[i], '='))
            a->override[a->n_overrides++] = argv[i];
        else if (!a->job)
            a->job = argv[i];
        else
            return err_set(ERR_ARG, "two jobs, '%s' and '%s': one is run at a time (options are KEY=VALUE)", a->job, argv[i]);
    }
    return a->job ? ERR_OK : err_set(ERR_ARG, "which job? e.g. asterism run jobs/demo.cfg");
}

static void join(int argc, char **argv, struct buf *out)
{
    int rc = buf_puts(out, "asterism");
    for (int i = 0; i < argc && !rc; i++)
        rc = buf_printf(out, " %s", argv[i]);
    if (rc)
        err_clear();
}

/* All ranks failed, as agreed: the lowest rank that knows why says it, and all leave with its code. Collective. */
static int fail_together(int rc, const struct comm_group *world)
{
    double who = rc == ERR_PEER ? -1e9 : -(world ? world->rank : 0), code;
    double mine = who;
    comm_max_f64(world, &who, 1);
    code = mine == who ? app_fail(rc) : 0;
    comm_max_f64(world, &code, 1);
    return (int)code;
}

static int exit_code(int rc, const struct run_result *res, const struct comm_group *world)
{
    if (rc)
        return res->lost_ranks ? app_fail(rc) : fail_together(rc, world);
    return res->stopped ? APP_INCOMPLETE : res->failed_samples ? APP_FAILED : APP_OK;
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
    struct args a = {.override = calloc((size_t)argc, sizeof *a.override), .level = LOG_INFO};
    struct run_result res = {0};
    struct buf line = {0};
    int code, rc = comm_start(&argc, &argv, &world);
    AST_ASSERT(a.override != NULL);
    log_setup(world ? world->rank : 0, a.level);
    if (!rc)
        rc = parse(argc, argv, &a);
    log_setup(world ? world->rank : 0, a.level);
    join(argc, argv, &line);
    if (!rc) {
        struct run_opts o = {
            .path = a.job,
            .overrides = a.override,
            .n_overrides = a.n_overrides,
            .fresh = a.fresh,
            .command_line = buf_text(&line),
            .code = {{"git_revision", BUILD_REVISION},
                     {"git_branch", BUILD_BRANCH},
                     {"git_dirty", BUILD_DIRTY ? "yes" : "no"},
                     {"compiler", BUILD_COMPILER},
                     {"cflags", BUILD_CFLAGS}},
        };
        rc = run_job(&o, world, stdout, &res);
    }
    code = exit_code(rc, &res, world);
    if (a.exit_file && (!world || world->rank == 0))
        write_code(a.exit_file, code);
    fflush(NULL);
    /* Only rank 0's code is the job's: others that say the same again make mpirun tell about each. */
    if (!rc && world && world->rank != 0)
        code = APP_OK;
    free(a.override);
    buf_free(&line);
    if (res.lost_ranks)
        alarm(10); /* MPI_Finalize among survivors works with Open MPI 4.1; should it wait for the dead, it ends here */
    comm_free(world);
    comm_stop();
    return code;
}
