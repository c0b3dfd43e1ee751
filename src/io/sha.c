/* SHA-256 through libcrypto's EVP. */
#include "io/sha.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "io/file.h"

struct sha {
    EVP_MD_CTX *ctx;
};

int sha_open(struct sha **out)
{
    struct sha *s = calloc(1, sizeof *s);
    *out = NULL;
    if (s)
        s->ctx = EVP_MD_CTX_new();
    if (!s || !s->ctx || EVP_DigestInit_ex(s->ctx, EVP_sha256(), NULL) != 1) {
        sha_close(s, NULL);
        return err_set(ERR_NOMEM, "libcrypto cannot start a SHA-256");
    }
    *out = s;
    return ERR_OK;
}

void sha_add(struct sha *s, const void *bytes, size_t n)
{
    AST_ASSERT(EVP_DigestUpdate(s->ctx, bytes, n) == 1);
}

void sha_close(struct sha *s, char out[SHA_HEX])
{
    unsigned char d[EVP_MAX_MD_SIZE];
    unsigned int n = 0;
    if (!s)
        return;
    if (out) {
        AST_ASSERT(EVP_DigestFinal_ex(s->ctx, d, &n) == 1 && n == 32);
        for (unsigned int i = 0; i < n; i++)
            snprintf(out + 2 * (size_t)i, 3, "%02x", d[i]);
    }
    EVP_MD_CTX_free(s->ctx);
    free(s);
}

int sha_bytes(const void *bytes, size_t n, char out[SHA_HEX])
{
    struct sha *s;
    int rc = sha_open(&s);
    if (rc)
        return rc;
    sha_add(s, bytes, n);
    sha_close(s, out);
    return ERR_OK;
}

int sha_file(const char *path, char out[SHA_HEX])
{
    enum { STEP = 1 << 18 };
    struct sha *s = NULL;
    ssize_t got = 0;
    int fd = -1, rc = file_readable(path);
    char *chunk = rc ? NULL : malloc(STEP);
    if (rc)
        return rc;
    if (!chunk)
        return err_set(ERR_NOMEM, "%s: out of memory", path);
    rc = sha_open(&s);
    if (rc)
        goto out;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && (got = read(fd, chunk, STEP)) > 0)
        sha_add(s, chunk, (size_t)got);
    if (fd < 0 || got < 0)
        rc = err_set(ERR_IO, "%s: %s", path, strerror(errno));
out:
    sha_close(s, rc ? NULL : out);
    if (fd >= 0)
        close(fd);
    free(chunk);
    return rc;
}
