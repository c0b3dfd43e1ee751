/* The seeds of the tokenizer's fuzz target and mutations of them, the same in every run: nothing may crash. */
#include "tests/unit/test_tok.h"

#include <dirent.h>

#include "base/rng.h"
#include "io/file.h"
#include "tests/fuzz/fuzz_tokenizer.c"

#define SEEDS "tests/fuzz/seeds/tokenizer"
enum { MUTATIONS = 400, MAX_SEED = 4096 };

/* One change at a random place: a bit, a byte, a piece taken out, a piece doubled, a number made large. */
static size_t mutate(uint64_t seed, uint64_t i, uint8_t *s, size_t n)
{
    static const char *const words[] = {"null", "-1", "\"\"", "99999999999999999999", "{}", "[", "\xFF", "\\u0000", "true"};
    size_t at = (size_t)rng_below(seed, i, 0, (int64_t)n), len = (size_t)rng_below(seed, i, 1, 24), rest;
    switch (rng_below(seed, i, 2, 5)) {
    case 0: s[at] ^= (uint8_t)(1 << rng_below(seed, i, 3, 8)); return n;
    case 1: s[at] = (uint8_t)rng_below(seed, i, 3, 256); return n;
    case 2:
        len = len < n - at ? len : n - at;
        memmove(s + at, s + at + len, n - at - len);
        return n - len > 0 ? n - len : n;
    case 3:
        len = len < n - at ? len : n - at;
        memmove(s + at + len, s + at, n - at);
        return n + len;
    default: break;
    }
    const char *w = words[rng_below(seed, i, 3, sizeof words / sizeof words[0])];
    rest = strlen(w);
    memmove(s + at + rest, s + at, n - at);
    memcpy(s + at, w, rest);
    return n + rest;
}

static int replay(const char *path)
{
    static uint8_t s[MAX_SEED + 256];
    struct buf seed = {0};
    int rc = buf_read_file(&seed, path, MAX_SEED);
    T_EQ(rc, ERR_OK);
    if (rc == ERR_OK)
        LLVMFuzzerTestOneInput((const uint8_t *)seed.data, seed.len);
    for (uint64_t m = 0; m < MUTATIONS && rc == ERR_OK; m++) {
        size_t n = seed.len;
        memcpy(s, seed.data, n);
        for (uint64_t k = 0; k <= m % 4; k++)
            n = mutate(m, k * 8, s, n);
        LLVMFuzzerTestOneInput(s, n);
    }
    err_clear();
    buf_free(&seed);
    return 1;
}

static void seeds_and_their_mutations_do_not_crash(void)
{
    int count = 0;
    DIR *d = opendir(SEEDS);
    T_CHECK(d != NULL);
    for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
        char path[FILE_PATH];
        if (e->d_name[0] != '.' && file_join(path, SEEDS, e->d_name) == ERR_OK)
            count += replay(path);
    }
    T_CHECK(count >= 15);
    if (d)
        closedir(d);
}

/* What is sound in the seeds must open: else they test nothing beyond the reader. */
static void sound_seeds_open(void)
{
    static const char *const sound[] = {"byte-level",    "llama3",  "llama2",   "normalizers",     "bytes-normalizer",
                                        "pretokenizers", "affixes", "prefixes", "no-byte-symbols", "long-run"};
    for (size_t i = 0; i < sizeof sound / sizeof sound[0]; i++) {
        char path[FILE_PATH];
        struct buf seed = {0};
        file_join(path, SEEDS, sound[i]);
        T_EQ(buf_read_file(&seed, path, MAX_SEED), ERR_OK);
        struct tok *t = seed.data ? tok_of(seed.data) : NULL;
        if (!t)
            T_FAIL("%s: %s", path, err_text());
        err_clear();
        tok_close(t);
        buf_free(&seed);
    }
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    T_RUN(sound_seeds_open);
    T_RUN(seeds_and_their_mutations_do_not_crash);
    return t_done();
}
