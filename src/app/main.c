/* asterism: a table of sub-commands. */
#define _GNU_SOURCE /* affinity */
#include <omp.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/app.h"
#include "base/err.h"
#include "build_info.h"
#include "cfg/cfg.h"

#define APP_COMMAND(n) extern const struct app_command app_##n;
#include "app/commands.def"
#undef APP_COMMAND

static const struct app_command *const commands[] = {
#define APP_COMMAND(n) &app_##n,
#include "app/commands.def"
#undef APP_COMMAND
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static void help(FILE *f)
{
    fprintf(f, "asterism: evaluates, trains and analyses sparse attention over many ranks\n\n"
               "usage: asterism COMMAND [options]        asterism COMMAND --help\n\n");
    for (int i = 0; i < N_COMMANDS; i++)
        fprintf(f, "  %-10s %s\n", commands[i]->name, commands[i]->brief);
    fprintf(f, "\n  --version  revision and compiler\n\nFirst steps: asterism doctor; mpirun -np 3 asterism run jobs/demo.cfg\n");
}

/* With OMP_PROC_BIND or OMP_PLACES libgomp has bound this thread to one place by now, and the program that takes ours over
 * would see that place alone: give back the others. */
static void release_cores(void)
{
    cpu_set_t all;
    CPU_ZERO(&all);
    for (int p = 0; p < omp_get_num_places(); p++) {
        int n = omp_get_place_num_procs(p), *id = calloc((size_t)n + 1, sizeof *id);
        if (id)
            omp_get_place_proc_ids(p, id);
        for (int i = 0; id && i < n; i++)
            CPU_SET((size_t)id[i], &all);
        free(id);
    }
    if (CPU_COUNT(&all) > 0)
        sched_setaffinity(0, sizeof all, &all);
}

/* OpenMP's idle threads spin for milliseconds unless told otherwise before the program starts, and ranks that share cores
 * then run at a fraction of their speed; or they sleep at once, and each of a layer's parallel steps pays 30 microseconds
 * to wake them. A short spin, then sleep, is right for both. So we start once more, with the environment that libgomp
 * wants; what is set already stays. */
static void polite_threads(char **argv)
{
    const char *policy = getenv("OMP_WAIT_POLICY");
    bool spins = policy && (policy[0] == 'a' || policy[0] == 'A');
    if (spins || (policy && getenv("GOMP_SPINCOUNT")))
        return;
    if (setenv("OMP_WAIT_POLICY", "passive", 0) || setenv("GOMP_SPINCOUNT", "1000", 0))
        return;
    release_cores();
    execv("/proc/self/exe", argv); /* where there is no /proc: as it is */
}

int main(int argc, char **argv)
{
    const char *names[N_COMMANDS], *near;
    polite_threads(argv);
    if (argc < 2) {
        help(stderr);
        return APP_USAGE;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        help(stdout);
        return APP_OK;
    }
    if (!strcmp(argv[1], "--version")) {
        printf("asterism %s%s (%s)\n", BUILD_REVISION, BUILD_DIRTY ? " with local changes" : "", BUILD_COMPILER);
        return APP_OK;
    }
    for (int i = 0; i < N_COMMANDS; i++) {
        names[i] = commands[i]->name;
        if (strcmp(argv[1], names[i]))
            continue;
        for (int a = 2; a < argc; a++)
            if (!strcmp(argv[a], "--help") || !strcmp(argv[a], "-h")) {
                fputs(commands[i]->usage, stdout);
                if (commands[i]->more)
                    commands[i]->more(stdout);
                return APP_OK;
            }
        return commands[i]->run(argc - 1, argv + 1);
    }
    near = cfg_nearest(argv[1], names, N_COMMANDS);
    fprintf(stderr, "asterism: there is no command '%s'%s%s%s; asterism --help lists them\n", argv[1],
            near ? ", did you mean '" : "", near ? near : "", near ? "'" : "");
    return APP_USAGE;
}
