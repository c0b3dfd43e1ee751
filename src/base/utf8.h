/* UTF-8: decode, encode, validate. */
#ifndef AST_BASE_UTF8_H
#define AST_BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Reads one code point of s[0 .. n-1], n > 0, into *cp. Returns its bytes, 1 to 4; 0 if the bytes are not UTF-8
 * (overlong forms, surrogates and values above U+10FFFF are not). */
int utf8_decode(const char *s, size_t n, uint32_t *cp);

/* Writes cp to out (room for 4 bytes). Returns its bytes. */
int utf8_encode(uint32_t cp, char *out);

/* Offset of the first byte that is not UTF-8, or n if all is well. */
size_t utf8_check(const char *s, size_t n);

#endif
