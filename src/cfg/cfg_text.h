/* The text of a configuration: @include expanded here, so that every line knows where it came from, and scanned for what
 * libconfig would misread without a word. */
#ifndef AST_CFG_CFG_TEXT_H
#define AST_CFG_CFG_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"

struct cfg_line {
    int file, line; /* index into file[]; 1-based */
};

struct cfg_text {
    struct buf text;       /* all lines, includes in their place */
    struct cfg_line *line; /* (n_lines,) */
    int n_lines, cap;
    char **file; /* paths */
    int n_files;
};

/* ERR_IO; ERR_ARG: includes that never end, an integer that libconfig would wrap. */
int cfg_text_read(struct cfg_text *t, const char *path);
void cfg_text_free(struct cfg_text *t);

/* "FILE:LINE" of a line of the text (1-based). */
void cfg_text_where(const struct cfg_text *t, int line, char *out, size_t cap);

/* Integers outside 32 bits without the L that libconfig needs. where(line) is named in the error; t NULL: no place. */
int cfg_text_check(const struct cfg_text *t, const char *text);

#endif
