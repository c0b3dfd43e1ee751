/* Another program, run to its end or to a time limit: what it prints and how it ended. */
#ifndef AST_APP_CHILD_H
#define AST_APP_CHILD_H

#include <stdbool.h>

struct buf;

struct child {
    const char *const *argv; /* NULL-terminated; argv[0] is looked up in PATH */
    const char *const *env;  /* "NAME=VALUE" put over our own environment, NULL-terminated; or NULL */
    double limit_s;          /* then it is killed, with all that it started in its process group */
    int code;                /* out: exit code; 128 + the signal that ended it; 127: not found */
    bool late;               /* out: it was killed at the limit */
};

/* Appends standard output and error to out (the first 64 KiB). ERR_IO, ERR_NOMEM if it cannot be started. */
int child_run(struct child *c, struct buf *out);

/* The first folder of PATH with an executable file of this name, joined; "" if there is none. out: cap bytes. */
void child_find(const char *name, char *out, int cap);

#endif
