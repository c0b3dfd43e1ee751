/* SHA-256 against the examples of FIPS 180-4 (NIST's "SHA_All" sheet), in one piece, in many, and of files. */
#include "tests/t.h"

#include <unistd.h>

#include "base/err.h"
#include "io/file.h"
#include "io/sha.h"

static const struct {
    const char *text, *want;
} known[] = {
    {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
     "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
};

static void known_digests_come_out(void)
{
    char hex[SHA_HEX];
    for (int i = 0; i < 3; i++) {
        T_EQ(sha_bytes(known[i].text, strlen(known[i].text), hex), ERR_OK);
        T_STR(hex, known[i].want);
    }
}

static void pieces_make_the_same_digest(void)
{
    struct sha *s = NULL;
    char hex[SHA_HEX];
    T_EQ(sha_open(&s), ERR_OK);
    for (int i = 0; i < 1000000; i++)
        sha_add(s, "a", 1);
    sha_close(s, hex);
    T_STR(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    T_EQ(sha_open(&s), ERR_OK);
    sha_close(s, NULL);
    sha_close(NULL, NULL);
}

static void files_have_the_digest_of_their_bytes(void)
{
    char path[] = "/tmp/ast-sha-XXXXXX", hex[SHA_HEX], want[SHA_HEX];
    size_t n = (1 << 20) + 7;
    char *bytes = malloc(n);
    int fd = mkstemp(path);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (char)(i * 31 % 251);
    T_EQ(file_write_durable(path, bytes, n), ERR_OK);
    T_EQ(sha_bytes(bytes, n, want), ERR_OK);
    T_EQ(sha_file(path, hex), ERR_OK);
    T_STR(hex, want);
    close(fd);
    unlink(path);
    free(bytes);
    err_clear();
    T_EQ(sha_file(path, hex), ERR_IO);
    T_CHECK(strstr(err_text(), path));
    err_clear();
    T_EQ(sha_file("/tmp", hex), ERR_IO);
    T_CHECK(strstr(err_text(), "is a folder"));
    err_clear();
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    T_RUN(known_digests_come_out);
    T_RUN(pieces_make_the_same_digest);
    T_RUN(files_have_the_digest_of_their_bytes);
    return t_done();
}
