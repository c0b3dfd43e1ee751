/* Files of one segment a line: plain, gzipped, or the SGM of the WMT test sets. */
#ifndef AST_TASK_LINES_H
#define AST_TASK_LINES_H

#include "base/buf.h"
#include "task/ngram.h"

struct lines {
    struct buf text;
    struct spans line; /* without line ends */
    char sha256[65];   /* of the text as read */
};

/* UTF-8 is checked, a byte-order mark dropped, "\r\n" taken for a line end. A file whose name ends in .sgm, .sgml or one of
 * them and .gz gives the contents of its <seg> elements, entities decoded, newlines inside turned into blanks.
 * ERR_IO; ERR_FORMAT with file and line. */
int lines_read(struct lines *out, const char *path);
void lines_free(struct lines *l);

#endif
