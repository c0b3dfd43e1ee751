/* Growing text: doubles its memory, so that n appends cost O(n). */
#include "base/buf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"

int buf_reserve(struct buf *b, size_t extra)
{
    size_t need = b->len + extra + 1, cap = b->cap ? b->cap : 64;
    if (need < b->len)
        return err_set(ERR_NOMEM, "a text of more than %zu bytes", b->len);
    if (need <= b->cap)
        return ERR_OK;
    while (cap < need)
        cap = cap > (size_t)-1 / 2 ? need : cap * 2;
    char *p = realloc(b->data, cap);
    if (!p)
        return err_set(ERR_NOMEM, "out of memory growing a text to %zu bytes", cap);
    if (!b->data)
        p[0] = '\0';
    b->data = p;
    b->cap = cap;
    return ERR_OK;
}

int buf_add(struct buf *b, const void *bytes, size_t n)
{
    int rc = buf_reserve(b, n);
    if (rc)
        return rc;
    if (n)
        memcpy(b->data + b->len, bytes, n);
    b->len += n;
    b->data[b->len] = '\0';
    return ERR_OK;
}

int buf_puts(struct buf *b, const char *s)
{
    return buf_add(b, s, strlen(s));
}

int buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    AST_ASSERT(n >= 0);
    int rc = buf_reserve(b, (size_t)n);
    if (rc)
        return rc;
    va_start(ap, fmt);
    vsnprintf(b->data + b->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->len += (size_t)n;
    return ERR_OK;
}

const char *buf_text(const struct buf *b)
{
    return b->data ? b->data : "";
}

void buf_clear(struct buf *b)
{
    b->len = 0;
    if (b->data)
        b->data[0] = '\0';
}

void buf_free(struct buf *b)
{
    free(b->data);
    *b = (struct buf){0};
}

int buf_read_file(struct buf *b, const char *path, size_t limit)
{
    struct stat st;
    int rc = ERR_OK;
    FILE *f = fopen(path, "rb");
    if (!f)
        return err_set(ERR_IO, "%s: %s", path, strerror(errno));
    if (fstat(fileno(f), &st) == 0 && S_ISDIR(st.st_mode)) {
        rc = err_set(ERR_IO, "%s: is a folder, a file is needed", path);
        goto out;
    }
    for (;;) {
        rc = buf_reserve(b, 1 << 16);
        if (rc)
            goto out;
        size_t got = fread(b->data + b->len, 1, b->cap - b->len - 1, f);
        b->len += got;
        b->data[b->len] = '\0';
        if (limit && b->len > limit) {
            rc = err_set(ERR_FORMAT, "%s: longer than %zu bytes", path, limit);
            goto out;
        }
        if (got == 0)
            break;
    }
    if (ferror(f))
        rc = err_set(ERR_IO, "%s: %s", path, strerror(errno));
out:
    fclose(f);
    return rc;
}
