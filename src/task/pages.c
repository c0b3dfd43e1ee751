/* Articles of WikiText. */
#include "task/pages.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "task/ws.h"

static int push(struct page_list *p, size_t at, size_t n)
{
    if (p->n == p->cap) {
        int64_t cap = p->cap ? 2 * p->cap : 64;
        struct page *v = realloc(p->v, (size_t)cap * sizeof *v);
        if (!v)
            return err_set(ERR_NOMEM, "out of memory for %lld articles", (long long)cap);
        p->v = v;
        p->cap = cap;
    }
    p->v[p->n++] = (struct page){at, n};
    return ERR_OK;
}

/* Drops the blanks inside each run of the form "= =" of exactly `k` signs at a time, left to right. */
static size_t join_signs(char *s, size_t n, size_t k)
{
    size_t out = 0, i = 0, span = 2 * k - 1;
    while (i < n) {
        bool hit = i + span <= n;
        for (size_t j = 0; hit && j < span; j++)
            hit = s[i + j] == (j % 2 ? ' ' : '=');
        if (hit) {
            for (size_t j = 0; j < k; j++)
                s[out++] = '=';
            i += span;
        } else {
            s[out++] = s[i++];
        }
    }
    return out;
}

static bool is_heading(const char *line, size_t n)
{
    enum { LONGEST = 4096 };
    char probe[LONGEST];
    ws_strip(&line, &n);
    /* The joining changes nothing but runs of "= =": without a "=" at both ends this is no heading, whatever the length. */
    if (n < 2 || line[0] != '=' || line[n - 1] != '=' || n > LONGEST)
        return false;
    memcpy(probe, line, n);
    n = join_signs(probe, n, 3);
    n = join_signs(probe, n, 2);
    return n >= 2 && probe[0] == '=' && probe[1] == ' ' && probe[n - 2] == ' ' && probe[n - 1] == '=';
}

static bool is_blank(const char *s, size_t n)
{
    ws_strip(&s, &n);
    return n == 0;
}

int pages_split(const char *s, size_t n, struct page_list *out)
{
    size_t begin = 0;
    int rc = ERR_OK;
    for (size_t at = 0; at < n && rc == ERR_OK;) {
        const char *nl = memchr(s + at, '\n', n - at);
        size_t end = nl ? (size_t)(nl - s) : n;
        if (is_heading(s + at, end - at)) {
            /* at == 0: nothing has been collected; else the newline before the heading joins nothing */
            if (at > 0 && !is_blank(s + begin, at - 1 - begin))
                rc = push(out, begin, at - 1 - begin);
            begin = at;
        }
        at = nl ? end + 1 : n;
    }
    return rc ? rc : push(out, begin, n - begin);
}

void pages_free(struct page_list *p)
{
    free(p->v);
    *p = (struct page_list){0};
}

int64_t pages_words(const char *s, size_t n)
{
    if (n == 0)
        return 1;
    int64_t words = (ws_at(s, n) > 0) + (ws_before(s, n) > 0);
    const char *w;
    size_t len, at = 0;
    int64_t inside = 0;
    while (ws_next(s, n, &at, &w, &len))
        inside++;
    return inside + words;
}

int pages_rows(const char *s, size_t n, struct buf *out)
{
    int rc = ERR_OK;
    for (size_t at = 0; at < n && rc == ERR_OK;) {
        const char *nl = memchr(s + at, '\n', n - at);
        size_t end = nl ? (size_t)(nl - s) + 1 : n;
        if (at > 0)
            rc = buf_add(out, "\n\n", 2);
        if (rc == ERR_OK && !is_blank(s + at, end - at))
            rc = buf_add(out, s + at, end - at);
        at = end;
    }
    return rc;
}
