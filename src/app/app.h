/* Sub-commands: each is one const struct in cmd_NAME.c and one line in commands.def. */
#ifndef AST_APP_APP_H
#define AST_APP_APP_H

#include <stdio.h>

struct app_command {
    const char *name, *brief;          /* one line in --help */
    const char *usage;                 /* the whole text of `asterism NAME --help` */
    void (*more)(FILE *f);             /* printed after usage: option tables; NULL: nothing */
    int (*run)(int argc, char **argv); /* argv[0] is the command's name; returns the exit code */
};

/* Exit codes of the program. */
enum {
    APP_OK = 0,
    APP_ERROR = 1,      /* something went wrong; the sentence is on stderr */
    APP_USAGE = 2,      /* command line or job that cannot be right */
    APP_FAILED = 3,     /* the job completed, but samples failed */
    APP_INCOMPLETE = 75 /* stopped in order; run the same command again (EX_TEMPFAIL; Slurm's RequeueExit) */
};

/* Prints the sentence that is set and returns the exit code for rc (0 for ERR_OK). */
int app_fail(int rc);

/* A usage error: one sentence, the hint at --help, APP_USAGE. */
int app_usage(const struct app_command *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
