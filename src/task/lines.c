/* Reading segments. */
#include "task/lines.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "io/sha.h"
#include "task/corpus.h"
#include "task/ws.h"

void lines_free(struct lines *l)
{
    buf_free(&l->text);
    spans_free(&l->line);
    *l = (struct lines){0};
}

static int split(struct lines *l)
{
    const char *s = buf_text(&l->text);
    int rc = ERR_OK;
    for (size_t at = 0; at < l->text.len && rc == ERR_OK;) {
        const char *nl = memchr(s + at, '\n', l->text.len - at);
        size_t end = nl ? (size_t)(nl - s) : l->text.len, n = end - at;
        if (n > 0 && s[end - 1] == '\r')
            n--;
        rc = spans_push(&l->line, s + at, n);
        at = end + 1;
    }
    return rc;
}

static bool is_sgm(const char *path)
{
    size_t n = strlen(path);
    if (n > 3 && strcmp(path + n - 3, ".gz") == 0)
        n -= 3;
    return (n > 4 && strncmp(path + n - 4, ".sgm", 4) == 0) || (n > 5 && strncmp(path + n - 5, ".sgml", 5) == 0);
}

/* Decodes the five entities and turns newlines into blanks, in place. Returns the new length. */
static size_t decode(char *s, size_t n)
{
    static const char *const entity[] = {"&quot;", "&lt;", "&gt;", "&apos;", "&amp;"};
    static const char plain[] = {'"', '<', '>', '\'', '&'};
    size_t out = 0;
    for (size_t i = 0; i < n;) {
        size_t k = 0, step = 1;
        char c = s[i] == '\n' || s[i] == '\r' ? ' ' : s[i];
        for (; s[i] == '&' && k < sizeof plain; k++)
            if (n - i >= strlen(entity[k]) && memcmp(s + i, entity[k], strlen(entity[k])) == 0) {
                c = plain[k];
                step = strlen(entity[k]);
                break;
            }
        s[out++] = c;
        i += step;
    }
    return out;
}

/* <seg id="1"> text </seg>: tags in small or large letters. */
static int split_sgm(struct lines *l, const char *path)
{
    char *s = l->text.data, *p = s;
    int rc = ERR_OK;
    for (; s && rc == ERR_OK; p++) {
        p = strchr(p, '<');
        if (!p)
            break;
        if (strncmp(p, "<seg", 4) != 0 && strncmp(p, "<SEG", 4) != 0)
            continue;
        char *open = strchr(p, '>'), *close = open ? strstr(open, "</seg>") : NULL;
        if (open && !close)
            close = strstr(open, "</SEG>");
        if (!close) {
            long long line = 1;
            for (const char *q = s; q < p; q++)
                line += *q == '\n';
            return err_set(ERR_FORMAT, "%s:%lld: this <seg> is never closed", path, line);
        }
        const char *from = open + 1;
        size_t n = decode(open + 1, (size_t)(close - open - 1));
        ws_strip(&from, &n);
        rc = spans_push(&l->line, from, n);
        p = close;
    }
    return rc;
}

int lines_read(struct lines *out, const char *path)
{
    *out = (struct lines){0};
    int rc = corpus_read(&out->text, path);
    if (rc == ERR_OK)
        rc = sha_bytes(buf_text(&out->text), out->text.len, out->sha256);
    if (rc == ERR_OK)
        rc = is_sgm(path) ? split_sgm(out, path) : split(out);
    if (rc)
        lines_free(out);
    return rc;
}
