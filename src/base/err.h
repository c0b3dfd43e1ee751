/* Errors: a negative code that travels up, and one sentence set where it happened.
 * Environment errors (missing file, bad key, full disk) return a code; bugs stop at AST_ASSERT. */
#ifndef AST_BASE_ERR_H
#define AST_BASE_ERR_H

#include <stdarg.h>
#include <stddef.h>

enum err {
    ERR_OK = 0,
    ERR_ARG = -1,    /* an option, a key or a command line that cannot be right */
    ERR_NOMEM = -2,  /* memory: predicted, limited or refused */
    ERR_IO = -3,     /* the file system said no */
    ERR_PEER = -4,   /* another rank failed; its sentence is ours */
    ERR_FORMAT = -5, /* a file is there but is not what it should be */
    ERR_STOP = -6    /* asked to stop: a signal or a deadline */
};

enum { ERR_TEXT = 1024 }; /* bytes of the sentence, terminator included */

/* Sets this thread's sentence unless one is set already (the first one is the cause). Returns code. */
int err_set(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Puts "prefix: " before the sentence that is set, e.g. the file that was being read. Returns code. */
int err_prefix(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* What the analyser cannot see: both return their code, so that what failed is not taken for what went well. */
#ifdef __clang_analyzer__
#define err_set(code, ...) ((void)err_set(code, __VA_ARGS__), (code))
#define err_prefix(code, ...) ((void)err_prefix(code, __VA_ARGS__), (code))
#endif

/* This thread's sentence; "" if none. */
const char *err_text(void);

/* Where recoverable errors end (the shard, a test): forget the sentence. */
void err_clear(void);

/* One word for a code, for logs and results: "ok", "argument", "memory", ... */
const char *err_name(int code);

/* Never returns: file, line and condition on stderr, then abort(). */
_Noreturn void err_bug(const char *file, int line, const char *what);

/* A broken precondition; kept in every build. */
#define AST_ASSERT(cond) ((cond) ? (void)0 : err_bug(__FILE__, __LINE__, #cond))

#endif
