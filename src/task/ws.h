/* White space as Python's str.split(), strip() and \s mean it: U+0009-000D, 001C-001F, 0020, 0085, 00A0, 1680, 2000-200A,
 * 2028, 2029, 202F, 205F, 3000. The scorers we must equal are written in Python, and U+001C or U+0085 decide counts. */
#ifndef AST_TASK_WS_H
#define AST_TASK_WS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool ws_is(uint32_t cp);

/* Bytes of the white-space character that s[0 .. n-1] starts (ends) with; 0 if it is none, or n is 0. */
size_t ws_at(const char *s, size_t n);
size_t ws_before(const char *s, size_t n);

/* Cuts white space off both ends: moves *s, shortens *n. */
void ws_strip(const char **s, size_t *n);
size_t ws_rstrip(const char *s, size_t n); /* the length that is left */

/* The next word of s[*at .. n-1]: skips white space, gives its bytes through *word and *len and moves *at behind it.
 * false: no word is left. */
bool ws_next(const char *s, size_t n, size_t *at, const char **word, size_t *len);

#endif
