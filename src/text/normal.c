/* Normalizers: text to text. One row of the table each. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/err.h"
#include "base/utf8.h"
#include "text/tok_impl.h"

/* Compatibility forms and decompositions leave ASCII as it is. */
static bool is_ascii(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)s[i] >= 0x80)
            return false;
    return true;
}

/* Blocks whose characters composition neither changes, moves nor joins (NFC_Quick_Check = Yes and combining class 0):
 * most text is made of these alone. tests/unit/test_tok_normal.c asks utf8proc about each one. */
static const struct {
    uint32_t first, last;
} inert[] = {{0x0000, 0x02FF},   {0x2010, 0x2027}, {0x4E00, 0x9FFF}, {0x3000, 0x3029}, {0x3030, 0x3098}, {0x309B, 0x30FF},
             {0x0388, 0x0482},   {0xFF00, 0xFFEF}, {0x2030, 0x20CF}, {0xAC00, 0xD7A3}, {0x1E00, 0x1EFF}, {0x048A, 0x0590},
             {0x1F000, 0x1FAFF}, {0x2190, 0x2328}, {0x232B, 0x2ADB}, {0x3400, 0x4DBF}};

bool normal_is_inert(uint32_t cp)
{
    for (size_t i = 0; i < sizeof inert / sizeof inert[0]; i++)
        if (cp >= inert[i].first && cp <= inert[i].last)
            return true;
    return false;
}

static bool all_inert(const char *s, size_t n)
{
    uint32_t cp;
    for (size_t i = 0; i < n; i += (size_t)char_next(s + i, &cp)) {
        while (i < n && (unsigned char)s[i] < 0xCC) /* below U+0300, or inside a character */
            i++;
        if (i >= n)
            break;
        char_next(s + i, &cp);
        if (!normal_is_inert(cp))
            return false;
    }
    return true;
}

static int unicode(const char *s, size_t n, struct buf *out, utf8proc_option_t options)
{
    utf8proc_uint8_t *got = NULL;
    utf8proc_ssize_t len = utf8proc_map((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)n, &got, options);
    if (len < 0)
        return err_set(len == UTF8PROC_ERROR_NOMEM ? ERR_NOMEM : ERR_FORMAT, "Unicode normalisation of %zu bytes: %s", n,
                       utf8proc_errmsg(len));
    int rc = buf_add(out, got, (size_t)len);
    free(got);
    return rc;
}

static int nfc(const struct step *st, struct regex_run **run, const char *s, size_t n, struct buf *out)
{
    (void)st, (void)run;
    return all_inert(s, n) ? buf_add(out, s, n) : unicode(s, n, out, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
}

static int nfd(const struct step *st, struct regex_run **run, const char *s, size_t n, struct buf *out)
{
    (void)st, (void)run;
    return is_ascii(s, n) ? buf_add(out, s, n) : unicode(s, n, out, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE);
}

static int nfkc(const struct step *st, struct regex_run **run, const char *s, size_t n, struct buf *out)
{
    (void)st, (void)run;
    return is_ascii(s, n) ? buf_add(out, s, n) : unicode(s, n, out, UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT);
}

static int nfkd(const struct step *st, struct regex_run **run, const char *s, size_t n, struct buf *out)
{
    (void)st, (void)run;
    return is_ascii(s, n) ? buf_add(out, s, n) : unicode(s, n, out, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT);
}

/* Simple case mapping, and the one full mapping that Unicode has unconditionally for lower case: U+0130. */
static int lowercase(const struct step *st, struct regex_run **run, const char *s, size_t n, struct buf *out)
{
    uint32_t cp;
    char one[4];
    int rc = buf_reserve(out, n + n / 2);
    (void)st, (void)run;
    for (size_t i = 0; i < n && rc == ERR_OK;) {
        i += (size_t)char_next(s + i, &cp);
        if (cp == 0x130)
            rc = buf_puts(out, "i\xCC\x87");
        else
            rc = buf_add(out, one, (size_t)utf8_encode((uint32_t)utf8proc_tolower((utf8proc_int32_t)cp), one));
    }
    return rc;
}

static int strip_accents(const struct step *st, struct regex_run **run, const char *s, size_t n, struct buf *out)
{
    uint32_t cp;
    int rc = ERR_OK;
    (void)st, (void)run;
    for (size_t i = 0; i < n && rc == ERR_OK;) {
        size_t w = (size_t)char_next(s + i, &cp);
        utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
        if (c < UTF8PROC_CATEGORY_MN || c > UTF8PROC_CATEGORY_ME)
            rc = buf_add(out, s + i, w);
        i += w;
    }
    return rc;
}

static int strip(const struct step *st, struct regex_run **run, const char *s, size_t n, struct buf *out)
{
    size_t from = 0;
    uint32_t cp;
    (void)run;
    while (st->left && from < n) {
        size_t w = (size_t)char_next(s + from, &cp);
        if (!char_is_space(cp))
            break;
        from += w;
    }
    while (st->right && n > from) {
        size_t last = char_last(s, n, &cp);
        if (!char_is_space(cp))
            break;
        n = last;
    }
    return buf_add(out, s + from, n - from);
}

static int strip_parse(const struct json_doc *d, const struct json *o, struct step *s)
{
    int rc = json_bool(d, o, "strip_left", true, &s->left);
    return rc ? rc : json_bool(d, o, "strip_right", true, &s->right);
}

static int prepend(const struct step *st, struct regex_run **run, const char *s, size_t n, struct buf *out)
{
    int rc = n ? buf_add(out, st->text, st->text_n) : ERR_OK;
    (void)run;
    return rc ? rc : buf_add(out, s, n);
}

static int prepend_parse(const struct json_doc *d, const struct json *o, struct step *s)
{
    return step_text(d, o, "prepend", s);
}

static int replace(const struct step *st, struct regex_run **run, const char *s, size_t n, struct buf *out)
{
    struct matches m = {.pattern = &st->find, .run = run, .s = s, .n = n};
    size_t done = 0;
    int got;
    while ((got = pattern_next(&m)) > 0) {
        int rc = buf_add(out, s + done, m.at - done);
        if (rc == ERR_OK)
            rc = buf_add(out, st->text, st->text_n);
        if (rc == ERR_OK)
            rc = tok_growth(n, out->len);
        if (rc)
            return rc;
        done = m.end;
    }
    return got < 0 ? got : buf_add(out, s + done, n - done);
}

static int replace_parse(const struct json_doc *d, const struct json *o, struct step *s)
{
    int rc = pattern_parse(&s->find, d, json_get(o, "pattern"), "Replace");
    return rc ? rc : step_text(d, o, "content", s);
}

static int bytes(const struct step *st, struct regex_run **run, const char *s, size_t n, struct buf *out)
{
    (void)st, (void)run;
    return bytelevel_map(s, n, out);
}

static const struct step_kind kinds[] = {
    {.name = "NFC", .normal = nfc},
    {.name = "NFD", .normal = nfd},
    {.name = "NFKC", .normal = nfkc},
    {.name = "NFKD", .normal = nfkd},
    {.name = "Lowercase", .normal = lowercase},
    {.name = "Strip", .parse = strip_parse, .normal = strip},
    {.name = "StripAccents", .normal = strip_accents},
    {.name = "Prepend", .parse = prepend_parse, .normal = prepend},
    {.name = "Replace", .parse = replace_parse, .normal = replace},
    {.name = "ByteLevel", .normal = bytes},
};
const struct step_table normal_table = {"normalizer", "normalizers", kinds, sizeof kinds / sizeof kinds[0]};

int normal_run(const struct steps *steps, struct regex_run **run, struct normal_work *w, const char **s, size_t *n)
{
    size_t first = *n;
    for (int64_t i = 0; i < steps->n; i++) {
        struct buf *out = &w->buf[i & 1];
        buf_clear(out);
        int rc = steps->v[i].kind->normal(&steps->v[i], run, *s, *n, out);
        if (rc == ERR_OK)
            rc = tok_growth(first, out->len);
        if (rc)
            return rc;
        *s = buf_text(out);
        *n = out->len;
    }
    return ERR_OK;
}
