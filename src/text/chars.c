/* Classes of characters, by utf8proc's tables, and GPT-2's byte alphabet. */
#include <utf8proc.h>

#include "text/tok_impl.h"

/* clang-format off */
enum { O = CHAR_OTHER, L = CHAR_LETTER, N = CHAR_NUMBER, S = CHAR_SPACE };
const uint8_t char_ascii[128] = {
    O, O, O, O, O, O, O, O, O, S, S, S, S, S, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O,
    S, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, N, N, N, N, N, N, N, N, N, N, O, O, O, O, O, O,
    O, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, O, O, O, O, O,
    O, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, O, O, O, O, O,
};
/* clang-format on */

/* The White_Space property of Unicode 15 (PropList.txt); U+001C to U+001F are not in it. */
bool char_is_space(uint32_t cp)
{
    if (cp < 0x85)
        return cp == ' ' || (cp >= '\t' && cp <= '\r');
    return cp == 0x85 || cp == 0xA0 || cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 ||
           cp == 0x202F || cp == 0x205F || cp == 0x3000;
}

enum char_class char_class(uint32_t cp)
{
    if (cp < 128)
        return (enum char_class)char_ascii[cp];
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    if (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO)
        return CHAR_LETTER;
    if (c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO)
        return CHAR_NUMBER;
    return char_is_space(cp) ? CHAR_SPACE : CHAR_OTHER;
}

/* Alphabetic is letters, Nl and Other_Alphabetic: marks (counted anyway) and the circled and squared Latin letters. */
bool char_is_word(uint32_t cp)
{
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_ME) || c == UTF8PROC_CATEGORY_ND || c == UTF8PROC_CATEGORY_NL ||
           c == UTF8PROC_CATEGORY_PC || cp == 0x200C || cp == 0x200D || (cp >= 0x24B6 && cp <= 0x24E9) ||
           (cp >= 0x1F130 && cp <= 0x1F149) || (cp >= 0x1F150 && cp <= 0x1F169) || (cp >= 0x1F170 && cp <= 0x1F189);
}

bool char_is_punct(uint32_t cp)
{
    if (cp < 128)
        return cp > ' ' && cp < 127 && char_ascii[cp] == CHAR_OTHER;
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return c >= UTF8PROC_CATEGORY_PC && c <= UTF8PROC_CATEGORY_PO;
}

int char_next(const char *str, uint32_t *cp)
{
    const unsigned char *s = (const unsigned char *)str;
    if (s[0] < 0x80) {
        *cp = s[0];
        return 1;
    }
    if (s[0] < 0xE0) {
        *cp = (uint32_t)(s[0] & 0x1F) << 6 | (s[1] & 0x3F);
        return 2;
    }
    if (s[0] < 0xF0) {
        *cp = (uint32_t)(s[0] & 0x0F) << 12 | (uint32_t)(s[1] & 0x3F) << 6 | (s[2] & 0x3F);
        return 3;
    }
    *cp = (uint32_t)(s[0] & 0x07) << 18 | (uint32_t)(s[1] & 0x3F) << 12 | (uint32_t)(s[2] & 0x3F) << 6 | (s[3] & 0x3F);
    return 4;
}

size_t char_last(const char *s, size_t n, uint32_t *cp)
{
    do
        n--;
    while (n > 0 && ((unsigned char)s[n] & 0xC0) == 0x80);
    char_next(s + n, cp);
    return n;
}

/* Printable: 33-126, 161-172, 174-255 (openai/gpt-2 encoder.py, bytes_to_unicode). */
uint32_t byte_to_char(unsigned char b)
{
    if (b <= 32)
        return 256u + b;
    if (b <= 126)
        return b;
    if (b <= 160)
        return 256u + 33 + (b - 127u);
    return b == 173 ? 256 + 67 : b;
}

int char_to_byte(uint32_t cp)
{
    if (cp >= 256 && cp < 256 + 33)
        return (int)cp - 256;
    if (cp >= 256 + 33 && cp < 256 + 67)
        return (int)cp - 256 - 33 + 127;
    if (cp == 256 + 67)
        return 173;
    return (cp >= 33 && cp <= 126) || (cp >= 161 && cp <= 255 && cp != 173) ? (int)cp : -1;
}
