/* Decoders: a list of token texts, changed step by step, then strung together. One row of the table each. */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/utf8.h"
#include "text/tok_impl.h"

static const char replacement[] = "\xEF\xBF\xBD"; /* U+FFFD */

static int push_end(size_t **end, int64_t *n, int64_t *cap, size_t at)
{
    int rc = tok_grow(end, cap, *n + 1, sizeof **end);
    if (rc == ERR_OK)
        (*end)[(*n)++] = at;
    return rc;
}

int strings_push(struct strings *x, const char *s, size_t n)
{
    int rc = buf_add(&x->text, s, n);
    return rc ? rc : push_end(&x->end, &x->n, &x->cap, x->text.len);
}

/* Ends a string of the next list; its text is in x->next. */
static int next_done(struct strings *x)
{
    return push_end(&x->next_end, &x->next_n, &x->next_cap, x->next.len);
}

static void turn(struct strings *x)
{
    struct buf text = x->text;
    size_t *end = x->end;
    int64_t cap = x->cap;
    x->text = x->next;
    x->end = x->next_end;
    x->n = x->next_n;
    x->cap = x->next_cap;
    x->next = text;
    x->next_end = end;
    x->next_cap = cap;
    x->next_n = 0;
    buf_clear(&x->next);
}

static const char *string(const struct strings *x, int64_t i, size_t *n)
{
    size_t from = i ? x->end[i - 1] : 0;
    *n = x->end[i] - from;
    return buf_text(&x->text) + from;
}

void strings_free(struct strings *x)
{
    buf_free(&x->text);
    buf_free(&x->next);
    free(x->end);
    free(x->next_end);
    *x = (struct strings){0};
}

/* ---- bytes to text ------------------------------------------------------------------------------------------------------ */

/* Bytes of the longest start of a well-formed sequence at s, at least 1 (Unicode 15, 3.9: maximal subpart). */
static size_t bad_length(const unsigned char *s, size_t n)
{
    unsigned char lo = 0x80, hi = 0xBF;
    size_t want = s[0] >= 0xC2 && s[0] <= 0xDF ? 2 : s[0] >= 0xE0 && s[0] <= 0xEF ? 3 : s[0] >= 0xF0 && s[0] <= 0xF4 ? 4 : 1, k = 1;
    if (s[0] == 0xE0)
        lo = 0xA0;
    if (s[0] == 0xED)
        hi = 0x9F;
    if (s[0] == 0xF0)
        lo = 0x90;
    if (s[0] == 0xF4)
        hi = 0x8F;
    for (; k < want && k < n && s[k] >= lo && s[k] <= hi; k++) {
        lo = 0x80;
        hi = 0xBF;
    }
    return k;
}

/* Appends bytes; each maximal part that is not UTF-8 becomes U+FFFD. */
static int add_lossy(struct buf *out, const char *s, size_t n)
{
    while (n > 0) {
        size_t good = utf8_check(s, n);
        int rc = buf_add(out, s, good);
        if (rc || good == n)
            return rc;
        size_t k = bad_length((const unsigned char *)s + good, n - good);
        rc = buf_puts(out, replacement);
        if (rc)
            return rc;
        s += good + k;
        n -= good + k;
    }
    return ERR_OK;
}

/* A token whose characters are all of the byte alphabet gives bytes, another its own text. */
static int add_token_bytes(struct buf *out, const char *s, size_t n)
{
    size_t from = out->len;
    int rc = buf_reserve(out, n);
    for (size_t i = 0; i < n && rc == ERR_OK;) {
        uint32_t cp;
        i += (size_t)char_next(s + i, &cp);
        int b = char_to_byte(cp);
        char c = (char)b;
        if (b < 0) {
            out->len = from;
            return buf_add(out, s, n);
        }
        rc = buf_add(out, &c, 1);
    }
    return rc;
}

static int bytelevel(const struct step *st, struct strings *x)
{
    struct buf raw = {0};
    int rc = ERR_OK;
    (void)st;
    for (int64_t i = 0; i < x->n && rc == ERR_OK; i++) {
        size_t n;
        const char *s = string(x, i, &n);
        rc = add_token_bytes(&raw, s, n);
    }
    if (rc == ERR_OK)
        rc = add_lossy(&x->next, buf_text(&raw), raw.len);
    buf_free(&raw);
    if (rc == ERR_OK)
        rc = next_done(x);
    turn(x);
    return rc;
}

/* <0x41>: its byte, else -1. */
static int byte_of(const char *s, size_t n)
{
    int v = 0;
    if (n != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>')
        return -1;
    for (int i = 3; i < 5; i++) {
        char c = s[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0)
            return -1;
        v = v * 16 + digit;
    }
    return v;
}

/* A run of bytes is text if all of it is UTF-8, else one U+FFFD for each byte. */
static int end_bytes(struct strings *x, struct buf *run)
{
    bool good = utf8_check(buf_text(run), run->len) == run->len;
    int rc = run->len && good ? buf_add(&x->next, run->data, run->len) : ERR_OK;
    if (good && run->len && rc == ERR_OK)
        rc = next_done(x);
    for (size_t i = 0; i < run->len && !good && rc == ERR_OK; i++) {
        rc = buf_puts(&x->next, replacement);
        if (rc == ERR_OK)
            rc = next_done(x);
    }
    buf_clear(run);
    return rc;
}

static int byte_fallback(const struct step *st, struct strings *x)
{
    struct buf run = {0};
    int rc = ERR_OK;
    (void)st;
    for (int64_t i = 0; i < x->n && rc == ERR_OK; i++) {
        size_t n;
        const char *s = string(x, i, &n);
        int b = byte_of(s, n);
        char c = (char)b;
        if (b >= 0) {
            rc = buf_add(&run, &c, 1);
            continue;
        }
        rc = end_bytes(x, &run);
        if (rc == ERR_OK)
            rc = buf_add(&x->next, s, n);
        if (rc == ERR_OK)
            rc = next_done(x);
    }
    if (rc == ERR_OK)
        rc = end_bytes(x, &run);
    buf_free(&run);
    turn(x);
    return rc;
}

/* ---- text to text ------------------------------------------------------------------------------------------------------- */

static int fuse(const struct step *st, struct strings *x)
{
    (void)st;
    if (x->n > 1) {
        x->end[0] = x->text.len;
        x->n = 1;
    }
    return ERR_OK;
}

/* s with each match replaced, as a string of the next list. */
static int replace_one(const struct step *st, struct regex_run **run, const char *s, size_t n, struct strings *x)
{
    struct matches m = {.pattern = &st->find, .run = run, .s = s, .n = n};
    size_t done = 0;
    int got, rc = ERR_OK;
    while (rc == ERR_OK && (got = pattern_next(&m)) != 0) {
        rc = got < 0 ? got : buf_add(&x->next, s + done, m.at - done);
        if (rc == ERR_OK)
            rc = buf_add(&x->next, st->text, st->text_n);
        if (rc == ERR_OK)
            rc = tok_growth(x->text.len, x->next.len);
        done = m.end;
    }
    if (rc == ERR_OK)
        rc = buf_add(&x->next, s + done, n - done);
    return rc ? rc : next_done(x);
}

static int replace(const struct step *st, struct strings *x)
{
    struct regex_run *run = NULL;
    int rc = ERR_OK;
    for (int64_t i = 0; i < x->n && rc == ERR_OK; i++) {
        size_t n;
        const char *s = string(x, i, &n);
        rc = replace_one(st, &run, s, n, x);
    }
    regex_run_free(run);
    turn(x);
    return rc;
}

static int replace_parse(const struct json_doc *d, const struct json *o, struct step *s)
{
    int rc = pattern_parse(&s->find, d, json_get(o, "pattern"), "Replace");
    return rc ? rc : step_text(d, o, "content", s);
}

/* Up to start characters s->cp at the front of each string, up to stop at its end. */
static int strip(const struct step *st, struct strings *x)
{
    int rc = ERR_OK;
    for (int64_t i = 0; i < x->n && rc == ERR_OK; i++) {
        size_t n, w = st->text_n;
        const char *s = string(x, i, &n);
        for (int64_t k = 0; k < st->start && n >= w && memcmp(s, st->text, w) == 0; k++) {
            s += w;
            n -= w;
        }
        for (int64_t k = 0; k < st->stop && n >= w && memcmp(s + n - w, st->text, w) == 0; k++)
            n -= w;
        rc = buf_add(&x->next, s, n);
        if (rc == ERR_OK)
            rc = next_done(x);
    }
    turn(x);
    return rc;
}

static int strip_parse(const struct json_doc *d, const struct json *o, struct step *s)
{
    int rc = step_char(d, o, "content", s);
    if (rc == ERR_OK)
        rc = json_int(d, o, "start", 0, 0, 1 << 20, &s->start);
    return rc ? rc : json_int(d, o, "stop", 0, 0, 1 << 20, &s->stop);
}

/* The replacement character becomes a space, in the first token nothing. */
static int metaspace(const struct step *st, struct strings *x)
{
    int rc = ERR_OK;
    for (int64_t i = 0; i < x->n && rc == ERR_OK; i++) {
        size_t n;
        const char *s = string(x, i, &n);
        for (size_t at = 0, w; at < n && rc == ERR_OK; at += w) {
            uint32_t cp;
            w = (size_t)char_next(s + at, &cp);
            if (cp != st->cp)
                rc = buf_add(&x->next, s + at, w);
            else if (i > 0 || st->prepend == PREPEND_NEVER)
                rc = buf_puts(&x->next, " ");
        }
        if (rc == ERR_OK)
            rc = next_done(x);
    }
    turn(x);
    return rc;
}

/* The suffix becomes a space, in the last token nothing. */
static int bpe(const struct step *st, struct strings *x)
{
    int rc = ERR_OK;
    for (int64_t i = 0; i < x->n && rc == ERR_OK; i++) {
        size_t n, w = st->text_n;
        const char *s = string(x, i, &n);
        for (size_t at = 0; at < n && rc == ERR_OK;) {
            bool here = w > 0 && n - at >= w && memcmp(s + at, st->text, w) == 0;
            rc = here ? buf_puts(&x->next, i + 1 < x->n ? " " : "") : buf_add(&x->next, s + at, 1);
            at += here ? w : 1;
        }
        if (rc == ERR_OK)
            rc = next_done(x);
    }
    turn(x);
    return rc;
}

static int bpe_parse(const struct json_doc *d, const struct json *o, struct step *s)
{
    return step_text(d, o, "suffix", s);
}

static const struct step_kind kinds[] = {
    {.name = "ByteLevel", .decode = bytelevel},
    {.name = "Replace", .parse = replace_parse, .decode = replace},
    {.name = "ByteFallback", .decode = byte_fallback},
    {.name = "Fuse", .decode = fuse},
    {.name = "Strip", .parse = strip_parse, .decode = strip},
    {.name = "Metaspace", .parse = metaspace_parse, .decode = metaspace},
    {.name = "BPEDecoder", .parse = bpe_parse, .decode = bpe},
};
const struct step_table decode_table = {"decoder", "decoders", kinds, sizeof kinds / sizeof kinds[0]};

int decode_run(const struct steps *steps, struct strings *x, struct buf *out)
{
    int rc = ERR_OK;
    for (int64_t i = 0; i < steps->n && rc == ERR_OK; i++)
        rc = steps->v[i].kind->decode(&steps->v[i], x);
    return rc ? rc : buf_add(out, buf_text(&x->text), x->text.len);
}
