/* Replays a fuzz target's seeds and deterministic mutations of them inside a unit test: the same in every run. Include it
 * after the target and tests/t.h. */
#ifndef AST_TESTS_FUZZ_REPLAY_H
#define AST_TESTS_FUZZ_REPLAY_H

#include <dirent.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/rng.h"
#include "io/file.h"

enum { REPLAY_MAX_SEED = 4096, REPLAY_ROOM = 512 };

/* One change at a random place: a bit, a byte, a piece taken out, a piece doubled, a word put in. At most 24 bytes longer. */
static size_t replay_mutate(uint64_t seed, uint64_t i, uint8_t *s, size_t n)
{
    static const char *const words[] = {"null",    "-1",   "\"\"", "99999999999999999999", "{}", "[", "\xFF",
                                        "\\u0000", "true", "1e308"};
    if (n == 0)
        return 0;
    size_t at = (size_t)rng_below(seed, i, 0, (int64_t)n), len = (size_t)rng_below(seed, i, 1, 24);
    len = len < n - at ? len : n - at;
    const char *w = words[rng_below(seed, i, 3, sizeof words / sizeof words[0])];
    switch (rng_below(seed, i, 2, 5)) {
    case 0: s[at] ^= (uint8_t)(1 << rng_below(seed, i, 3, 8)); return n;
    case 1: s[at] = (uint8_t)rng_below(seed, i, 3, 256); return n;
    case 2: memmove(s + at, s + at + len, n - at - len); return n - len;
    case 3: memmove(s + at + len, s + at, n - at); return n + len;
    default: break;
    }
    memmove(s + at + strlen(w), s + at, n - at);
    memcpy(s + at, w, strlen(w));
    return n + strlen(w);
}

/* The target must take exactly n bytes: they stand at the end of an allocation, so that reading on is seen. */
static void replay_one(const uint8_t *s, size_t n)
{
    uint8_t *exact = malloc(n + 1);
    AST_ASSERT(exact);
    if (n)
        memcpy(exact + 1, s, n);
    LLVMFuzzerTestOneInput(exact + 1, n);
    free(exact);
}

/* Every file of the folder, and `mutations` of each. Returns the number of seeds. */
static int replay_folder(const char *folder, uint64_t mutations)
{
    static uint8_t s[REPLAY_MAX_SEED + REPLAY_ROOM];
    int count = 0;
    DIR *d = opendir(folder);
    for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
        char path[FILE_PATH];
        struct buf seed = {0};
        if (e->d_name[0] == '.' || file_join(path, folder, e->d_name))
            continue;
        T_EQ(buf_read_file(&seed, path, REPLAY_MAX_SEED), ERR_OK);
        replay_one((const uint8_t *)buf_text(&seed), seed.len);
        for (uint64_t m = 0; m < mutations; m++) {
            size_t n = seed.len;
            memcpy(s, buf_text(&seed), n);
            for (uint64_t k = 0; k <= m % 4; k++)
                n = replay_mutate(m, k * 8, s, n);
            replay_one(s, n);
        }
        buf_free(&seed);
        count++;
    }
    if (d)
        closedir(d);
    return count;
}

#endif
