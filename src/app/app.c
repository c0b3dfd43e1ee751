/* What the sub-commands share. */
#include "app/app.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/err.h"
#include "base/log.h"

int app_fail(int rc)
{
    if (rc == ERR_OK)
        return APP_OK;
    /* ERR_PEER: another rank has said it already. */
    if (rc != ERR_PEER)
        fprintf(stderr, "asterism: %s\n", err_text()[0] ? err_text() : err_name(rc));
    return rc == ERR_ARG ? APP_USAGE : rc == ERR_STOP ? APP_INCOMPLETE : APP_ERROR;
}

int app_usage(const struct app_command *c, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    fprintf(stderr, "asterism %s: %s\n(asterism %s --help)\n", c->name, text, c->name);
    return APP_USAGE;
}
