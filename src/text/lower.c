/* Lower case (utf8proc has the tables). */
#include "text/lower.h"

#include <utf8proc.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/utf8.h"

enum { SIGMA = 0x3a3, SMALL_SIGMA = 0x3c3, FINAL_SIGMA = 0x3c2, DOTTED_I = 0x130, DOT_ABOVE = 0x307 };

static bool is_cased(uint32_t cp)
{
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return c == UTF8PROC_CATEGORY_LU || c == UTF8PROC_CATEGORY_LL || c == UTF8PROC_CATEGORY_LT;
}

/* Case_Ignorable, as far as it stands inside words: marks, modifiers, format characters, apostrophes and middle dots. */
static bool is_ignorable(uint32_t cp)
{
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return c == UTF8PROC_CATEGORY_MN || c == UTF8PROC_CATEGORY_ME || c == UTF8PROC_CATEGORY_CF || c == UTF8PROC_CATEGORY_LM ||
           c == UTF8PROC_CATEGORY_SK || cp == '\'' || cp == '.' || cp == ':' || cp == 0xb7 || cp == 0x2018 || cp == 0x2019;
}

/* Unicode's Final_Sigma: a cased letter before it and none after it. */
static bool sigma_is_final(const char *s, size_t n, size_t at)
{
    uint32_t cp = 0;
    bool before = false;
    for (size_t i = at; i > 0 && !before;) {
        size_t k = 1;
        while (k < i && k < 4 && ((unsigned char)s[i - k] & 0xc0) == 0x80)
            k++;
        if (utf8_decode(s + i - k, k, &cp) <= 0 || (!is_cased(cp) && !is_ignorable(cp)))
            break;
        before = is_cased(cp);
        i -= k;
    }
    for (size_t i = at + 2; i < n && before;) {
        int k = utf8_decode(s + i, n - i, &cp);
        if (k <= 0 || (!is_cased(cp) && !is_ignorable(cp)))
            break;
        before = !is_cased(cp);
        i += (size_t)k;
    }
    return before;
}

static int put(struct buf *out, uint32_t cp)
{
    char b[4];
    return buf_add(out, b, (size_t)utf8_encode(cp, b));
}

int text_lower(const char *s, size_t n, struct buf *out)
{
    int rc = ERR_OK;
    for (size_t i = 0; i < n && rc == ERR_OK;) {
        uint32_t cp = 0;
        int k = utf8_decode(s + i, n - i, &cp);
        if (k <= 0) {
            rc = buf_add(out, s + i, 1);
            i++;
            continue;
        }
        if (cp == SIGMA) {
            rc = put(out, sigma_is_final(s, n, i) ? FINAL_SIGMA : SMALL_SIGMA);
        } else if (cp == DOTTED_I) {
            rc = put(out, 'i');
            if (rc == ERR_OK)
                rc = put(out, DOT_ABOVE);
        } else {
            rc = put(out, (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp));
        }
        i += (size_t)k;
    }
    return rc;
}

bool text_is_word(uint32_t cp)
{
    if (cp < 0x80)
        return (cp >= '0' && cp <= '9') || (cp >= 'a' && cp <= 'z') || (cp >= 'A' && cp <= 'Z') || cp == '_';
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO) || c == UTF8PROC_CATEGORY_ND || c == UTF8PROC_CATEGORY_NL ||
           c == UTF8PROC_CATEGORY_NO;
}
