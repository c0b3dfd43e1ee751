/* Growing text or bytes: always terminated, freed by buf_free; a zeroed struct is an empty one. */
#ifndef AST_BASE_BUF_H
#define AST_BASE_BUF_H

#include <stddef.h>

struct buf {
    char *data; /* len bytes and a terminator; NULL while empty */
    size_t len, cap;
};

/* Each returns ERR_OK, or ERR_NOMEM with the buffer unchanged. */
int buf_add(struct buf *b, const void *bytes, size_t n);
int buf_puts(struct buf *b, const char *s);
int buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int buf_reserve(struct buf *b, size_t extra);

/* The text, "" while empty; borrowed until the next change. */
const char *buf_text(const struct buf *b);

void buf_clear(struct buf *b); /* empties, keeps the memory */
void buf_free(struct buf *b);

/* The whole of a file; limit 0: none. Errors: ERR_IO with the path, ERR_FORMAT if longer than limit bytes. */
int buf_read_file(struct buf *b, const char *path, size_t limit);

#endif
