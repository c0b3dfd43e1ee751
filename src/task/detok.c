/* The detokeniser: passes over the whole text, one rule after the other, each left to right without overlaps. */
#include "task/detok.h"

#include <stdbool.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "task/ws.h"

struct rule {
    const char *from, *to; /* a literal replacement ... */
    char open, close;      /* ... or, from NULL: white space goes behind open and before the next close */
};

/* The order is the reference's. Its second rule looks for slashes that no text has (a regular expression written with
 * delimiters), so it does nothing there and stands nowhere here. */
static const struct rule rules[] = {
    {.from = "s '", .to = "s'"},
    {.from = " @-@ ", .to = "-"},
    {.from = " @,@ ", .to = ","},
    {.from = " @.@ ", .to = "."},
    {.from = " : ", .to = ": "},
    {.from = " ; ", .to = "; "},
    {.from = " . ", .to = ". "},
    {.from = " ! ", .to = "! "},
    {.from = " ? ", .to = "? "},
    {.from = " , ", .to = ", "},
    {.open = '(', .close = ')'},
    {.open = '[', .close = ']'},
    {.open = '{', .close = '}'},
    {.open = '"', .close = '"'},
    {.open = '\'', .close = '\''},
    {.from = "= = = =", .to = "===="},
    {.from = "= = =", .to = "==="},
    {.from = "= =", .to = "=="},
    {.from = " \xc2\xb0 ", .to = "\xc2\xb0"},
    {.from = " \n", .to = "\n"},
    {.from = "\n ", .to = "\n"},
    {.from = " N ", .to = " 1 "},
    {.from = " 's", .to = "'s"},
};

static int replace(const struct rule *r, const char *s, size_t n, struct buf *out)
{
    size_t k = strlen(r->from), from = 0;
    int rc = ERR_OK;
    for (size_t at = 0; at < n && rc == ERR_OK;) {
        const char *hit = memchr(s + at, r->from[0], n - at);
        if (!hit)
            break;
        at = (size_t)(hit - s);
        if (n - at >= k && memcmp(hit, r->from, k) == 0) {
            rc = buf_add(out, s + from, at - from);
            if (rc == ERR_OK)
                rc = buf_puts(out, r->to);
            at += k;
            from = at;
        } else {
            at++;
        }
    }
    return rc ? rc : buf_add(out, s + from, n - from);
}

static int tighten(const struct rule *r, const char *s, size_t n, struct buf *out)
{
    size_t from = 0;
    int rc = ERR_OK;
    while (from < n && rc == ERR_OK) {
        const char *open = memchr(s + from, r->open, n - from);
        const char *close = open ? memchr(open + 1, r->close, n - (size_t)(open + 1 - s)) : NULL;
        if (!close)
            break;
        const char *inner = open + 1;
        size_t len = (size_t)(close - inner);
        ws_strip(&inner, &len);
        rc = buf_add(out, s + from, (size_t)(open + 1 - (s + from)));
        if (rc == ERR_OK)
            rc = buf_add(out, inner, len);
        if (rc == ERR_OK)
            rc = buf_add(out, close, 1);
        from = (size_t)(close + 1 - s);
    }
    return rc ? rc : buf_add(out, s + from, n - from);
}

int detok_wikitext(const char *s, size_t n, struct buf *out)
{
    struct buf work[2] = {0};
    const char *text = s;
    int rc = ERR_OK;
    for (size_t i = 0; i < sizeof rules / sizeof *rules && rc == ERR_OK; i++) {
        struct buf *b = &work[i % 2];
        buf_clear(b);
        rc = rules[i].from ? replace(&rules[i], text, n, b) : tighten(&rules[i], text, n, b);
        text = buf_text(b);
        n = b->len;
    }
    if (rc == ERR_OK)
        rc = buf_add(out, text, n);
    buf_free(&work[0]);
    buf_free(&work[1]);
    return rc;
}
