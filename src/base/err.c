/* Errors: one sentence a thread. */
#include "base/err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local char text[ERR_TEXT];

int(err_set)(int code, const char *fmt, ...)
{
    va_list ap;
    AST_ASSERT(code < 0);
    if (text[0])
        return code;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return code;
}

int(err_prefix)(int code, const char *fmt, ...)
{
    char head[ERR_TEXT], old[ERR_TEXT];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(head, sizeof head, fmt, ap);
    va_end(ap);
    memcpy(old, text, sizeof old);
    int n = snprintf(text, sizeof text, "%s: ", head);
    size_t at = n > 0 && (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
    memcpy(text + at, old, sizeof text - at - 1); /* the end is cut if it does not fit */
    text[sizeof text - 1] = '\0';
    return code;
}

const char *err_text(void)
{
    return text;
}

void err_clear(void)
{
    text[0] = '\0';
}

const char *err_name(int code)
{
    switch (code) {
    case ERR_OK: return "ok";
    case ERR_ARG: return "argument";
    case ERR_NOMEM: return "memory";
    case ERR_IO: return "io";
    case ERR_PEER: return "peer";
    case ERR_FORMAT: return "format";
    case ERR_STOP: return "stopped";
    default: return "unknown";
    }
}

void err_bug(const char *file, int line, const char *what)
{
    fprintf(stderr, "asterism: bug at %s:%d: %s does not hold\n", file, line, what);
    fflush(stderr);
    abort();
}
