/* asterism: a table of sub-commands. */
#include <stdio.h>
#include <string.h>

#include "app/app.h"
#include "app/restart.h"
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

int main(int argc, char **argv)
{
    const char *names[N_COMMANDS], *near;
    restart_if_better(argv);
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
