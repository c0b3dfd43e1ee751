/* SHA-256 through libcrypto: fingerprints of models, tokenizers, jobs and datasets. */
#ifndef AST_IO_SHA_H
#define AST_IO_SHA_H

#include <stddef.h>

enum { SHA_HEX = 65 }; /* 64 hexadecimal digits and the terminator */

struct sha;

int sha_open(struct sha **out); /* ERR_NOMEM */
void sha_add(struct sha *s, const void *bytes, size_t n);
void sha_close(struct sha *s, char out[SHA_HEX]); /* frees s; out NULL: only that; s NULL is fine */

int sha_bytes(const void *bytes, size_t n, char out[SHA_HEX]);
int sha_file(const char *path, char out[SHA_HEX]); /* ERR_IO */

#endif
