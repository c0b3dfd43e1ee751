/* Python's white space, on UTF-8. */
#include "task/ws.h"

#include "base/utf8.h"

bool ws_is(uint32_t cp)
{
    if (cp < 0x80)
        return cp == ' ' || (cp >= 0x09 && cp <= 0x0d) || (cp >= 0x1c && cp <= 0x1f);
    return cp == 0x85 || cp == 0xa0 || cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200a) || cp == 0x2028 || cp == 0x2029 ||
           cp == 0x202f || cp == 0x205f || cp == 0x3000;
}

size_t ws_at(const char *s, size_t n)
{
    uint32_t cp = 0;
    if (n == 0)
        return 0;
    if ((unsigned char)s[0] < 0x80)
        return ws_is((unsigned char)s[0]);
    int k = utf8_decode(s, n, &cp);
    return k > 0 && ws_is(cp) ? (size_t)k : 0;
}

size_t ws_before(const char *s, size_t n)
{
    if (n == 0)
        return 0;
    if ((unsigned char)s[n - 1] < 0x80)
        return ws_is((unsigned char)s[n - 1]);
    size_t k = 1;
    while (k < n && k < 4 && ((unsigned char)s[n - k] & 0xc0) == 0x80)
        k++;
    return ws_at(s + n - k, k) == k ? k : 0;
}

size_t ws_rstrip(const char *s, size_t n)
{
    for (size_t k = ws_before(s, n); k; k = ws_before(s, n))
        n -= k;
    return n;
}

void ws_strip(const char **s, size_t *n)
{
    *n = ws_rstrip(*s, *n);
    for (size_t k = ws_at(*s, *n); k; k = ws_at(*s, *n)) {
        *s += k;
        *n -= k;
    }
}

bool ws_next(const char *s, size_t n, size_t *at, const char **word, size_t *len)
{
    size_t i = *at, k;
    while (i < n && (k = ws_at(s + i, n - i)) > 0)
        i += k;
    size_t begin = i;
    /* Continuation bytes never start a white-space character, so that one byte at a time is enough. */
    while (i < n && ws_at(s + i, n - i) == 0)
        i++;
    *at = i;
    *word = s + begin;
    *len = i - begin;
    return i > begin;
}
