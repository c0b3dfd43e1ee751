/* asterism plan: what a job will take. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/app.h"
#include "base/err.h"
#include "sched/job.h"
#include "sched/plan.h"

static int run(int argc, char **argv);

const struct app_command app_plan = {
    .name = "plan",
    .brief = "what a job will take: shards, operations, memory a rank, hours on N ranks, the sbatch line",
    .usage =
        "usage: asterism plan JOB -n RANKS [options] [KEY=VALUE ...]\n\n"
        "  -n RANKS           ranks of the run, the one that deals out the work included\n"
        "  --per-node N       ranks on one machine (default: as many as its cores)\n"
        "  --seconds S        measure for about S seconds on this machine (default 10; 0: guess)\n"
        "  --gflops L,A       machine figures instead of measuring: 1e9 operations a second of one rank in linear\n"
        "                     layers and in attention\n\n"
        "The prediction runs some of the job's own batches (and of shorter lengths, where its own take too long) and then the\n"
        "run's own schedule in virtual time. Other layouts of as many cores stand beside the one asked for.\n",
    .run = run,
};

struct args {
    const char *job;
    const char **override;
    int n_overrides;
    struct plan_opts o;
};

/* A number after the option at argv[*i]. */
static int number(int argc, char **argv, int *i, double min, double *out)
{
    char *end = NULL;
    if (*i + 1 >= argc)
        return err_set(ERR_ARG, "%s needs a number", argv[*i]);
    *out = strtod(argv[*i + 1], &end);
    if (end == argv[*i + 1] || *end || !(*out >= min && *out <= 1e9))
        return err_set(ERR_ARG, "%s %s: a number from %g to 1e9 is needed", argv[*i], argv[*i + 1], min);
    ++*i;
    return ERR_OK;
}

static int gflops(int argc, char **argv, int *i, struct work_rate *out)
{
    if (*i + 1 >= argc || sscanf(argv[*i + 1], "%lf,%lf", &out->linear, &out->attn) != 2 || !(out->linear > 0) || !(out->attn > 0))
        return err_set(ERR_ARG, "--gflops needs two positive numbers, e.g. --gflops 50,20");
    out->linear *= 1e9;
    out->attn *= 1e9;
    ++*i;
    return ERR_OK;
}

static int parse(int argc, char **argv, struct args *a)
{
    double v;
    int rc = ERR_OK;
    for (int i = 1; i < argc && !rc; i++) {
        if (!strcmp(argv[i], "-n")) {
            rc = number(argc, argv, &i, 1, &v);
            a->o.ranks = rc ? 0 : (int)v;
        } else if (!strcmp(argv[i], "--per-node")) {
            rc = number(argc, argv, &i, 1, &v);
            a->o.per_node = rc ? 0 : (int)v;
        } else if (!strcmp(argv[i], "--seconds")) {
            rc = number(argc, argv, &i, 0, &a->o.seconds);
        } else if (!strcmp(argv[i], "--gflops")) {
            rc = gflops(argc, argv, &i, &a->o.rate);
        } else if (argv[i][0] == '-') {
            rc = err_set(ERR_ARG, "there is no option '%s' (asterism plan --help)", argv[i]);
        } else if (strchr(argv[i], '=')) {
            a->override[a->n_overrides++] = argv[i];
        } else if (!a->job) {
            a->job = argv[i];
        } else {
            rc = err_set(ERR_ARG, "two jobs, '%s' and '%s'", a->job, argv[i]);
        }
    }
    if (!rc && !a->job)
        rc = err_set(ERR_ARG, "which job? e.g. asterism plan jobs/demo.cfg -n 9");
    return !rc && a->o.ranks < 1 ? err_set(ERR_ARG, "on how many ranks? -n RANKS") : rc;
}

static int run(int argc, char **argv)
{
    struct args a = {.override = calloc((size_t)argc, sizeof *a.override), .o = {.seconds = 10}};
    struct job *job = NULL;
    struct plan plan = {0};
    AST_ASSERT(a.override != NULL);
    int rc = parse(argc, argv, &a);
    rc = rc ? rc : job_open(&job, a.job, a.override, a.n_overrides);
    rc = rc ? rc : plan_make(&plan, job, &a.o);
    if (!rc)
        plan_print(stdout, &plan, &a.o, a.job);
    plan_free(&plan);
    job_close(job);
    free(a.override);
    return app_fail(rc);
}
