/* Python's str.lower() and the word characters of its regular expressions, which the scorers we must equal are written
 * with. */
#ifndef AST_TEXT_LOWER_H
#define AST_TEXT_LOWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;

/* Appends the lower-case form of s[0 .. n-1] (UTF-8): Unicode's full mapping, so that U+0130 becomes two code points and a
 * final capital sigma the final small one. Bytes that are not UTF-8 stay. ERR_NOMEM. */
int text_lower(const char *s, size_t n, struct buf *out);

/* \w: letters, numbers and the underscore. */
bool text_is_word(uint32_t cp);

#endif
