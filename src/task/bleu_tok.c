/* The 13a tokenizer, byte by byte: its classes treat all bytes above 0x7f alike, so that no decoding is needed. */
#include <stdbool.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/utf8.h"
#include "task/bleu.h"
#include "task/ws.h"
#include "text/lower.h"

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_stop(char c)
{
    return c == '.' || c == ',';
}

/* ASCII but letters, digits, controls and ' , - . */
static bool is_split(char c)
{
    return c != '\0' && strchr(" !\"#$%&()*+/:;<=>?@[\\]^_`{|}~", c) != NULL;
}

static int replace_all(struct buf *b, const char *from, const char *to)
{
    struct buf out = {0};
    size_t k = strlen(from);
    int rc = ERR_OK;
    for (size_t i = 0; i < b->len && rc == ERR_OK;) {
        bool hit = b->len - i >= k && memcmp(b->data + i, from, k) == 0;
        rc = hit ? buf_puts(&out, to) : buf_add(&out, b->data + i, 1);
        i += hit ? k : 1;
    }
    buf_free(b);
    *b = out;
    return rc;
}

static int unescape(struct buf *b)
{
    static const char *const pair[][2] = {{"<skipped>", ""}, {"-\n", ""},   {"\n", " "},  {"&quot;", "\""},
                                          {"&amp;", "&"},    {"&lt;", "<"}, {"&gt;", ">"}};
    int rc = ERR_OK;
    for (size_t i = 0; i < sizeof pair / sizeof *pair && rc == ERR_OK; i++)
        if (b->len > 0 && memchr(b->data, pair[i][0][0], b->len))
            rc = replace_all(b, pair[i][0], pair[i][1]);
    return rc;
}

/* One of the four passes over s; each match is consumed whole, as a regular expression would. */
static int pass(int which, const struct buf *in, struct buf *out)
{
    const char *s = buf_text(in);
    size_t n = in->len;
    int rc = ERR_OK;
    buf_clear(out);
    for (size_t i = 0; i < n && rc == ERR_OK;) {
        char c = s[i], d = i + 1 < n ? s[i + 1] : '\0';
        bool two = i + 1 < n;
        if (which == 0 && is_split(c)) {
            rc = buf_add(out, (char[]){' ', c, ' '}, 3);
            i++;
        } else if (which == 1 && two && !is_digit(c) && is_stop(d)) {
            rc = buf_add(out, (char[]){c, ' ', d, ' '}, 4);
            i += 2;
        } else if (which == 2 && two && is_stop(c) && !is_digit(d)) {
            rc = buf_add(out, (char[]){' ', c, ' ', d}, 4);
            i += 2;
        } else if (which == 3 && two && is_digit(c) && d == '-') {
            rc = buf_add(out, (char[]){c, ' ', d, ' '}, 4);
            i += 2;
        } else {
            rc = buf_add(out, &c, 1);
            i++;
        }
    }
    return rc;
}

static int tokenise_13a(struct buf *b)
{
    struct buf work = {0}, padded = {0};
    int rc = unescape(b);
    if (rc == ERR_OK)
        rc = buf_puts(&padded, " ");
    if (rc == ERR_OK)
        rc = buf_add(&padded, buf_text(b), b->len);
    if (rc == ERR_OK)
        rc = buf_puts(&padded, " ");
    for (int p = 0; p < 4 && rc == ERR_OK; p++) {
        rc = pass(p, &padded, &work);
        struct buf t = padded;
        padded = work;
        work = t;
    }
    buf_free(&work);
    buf_free(b);
    *b = padded;
    return rc;
}

/* Every character a token; sacreBLEU joins them with spaces and splits again, so white space goes. */
static int tokenise_char(struct buf *b)
{
    struct buf out = {0};
    int rc = ERR_OK;
    for (size_t i = 0; i < b->len && rc == ERR_OK;) {
        uint32_t cp;
        int k = utf8_decode(b->data + i, b->len - i, &cp);
        size_t step = k > 0 ? (size_t)k : 1;
        rc = buf_add(&out, b->data + i, step);
        if (rc == ERR_OK)
            rc = buf_puts(&out, " ");
        i += step;
    }
    buf_free(b);
    *b = out;
    return rc;
}

int bleu_tokenise(struct buf *out, const char *s, size_t n, const struct bleu_opts *o)
{
    struct buf b = {0};
    const char *w;
    size_t at = 0, len;
    int rc = o->lowercase ? text_lower(s, n, &b) : buf_add(&b, s, n);
    if (rc == ERR_OK) {
        b.len = ws_rstrip(buf_text(&b), b.len);
        b.data[b.len] = '\0';
    }
    if (rc == ERR_OK && o->tok == BLEU_13A)
        rc = tokenise_13a(&b);
    if (rc == ERR_OK && o->tok == BLEU_CHAR)
        rc = tokenise_char(&b);
    for (bool first = true; rc == ERR_OK && ws_next(buf_text(&b), b.len, &at, &w, &len); first = false) {
        if (!first)
            rc = buf_puts(out, " ");
        if (rc == ERR_OK)
            rc = buf_add(out, w, len);
    }
    buf_free(&b);
    return rc;
}
