/* BPE's own structures: bpe.c (tables, words, cache) and bpe_word.c (symbols and merging).
 *
 *     pair table    (a, b) -> rank, id of ab      open addressing, a third full
 *     whole[id]     the text of token id encodes to [id]
 *     joins         a Bloom filter of the pairs of characters that some merge joins */
#ifndef AST_TEXT_BPE_IMPL_H
#define AST_TEXT_BPE_IMPL_H

#include "text/tok_impl.h"

enum {
    BPE_SHORT = 48,       /* symbols: measured, the heap wins above */
    BPE_CACHE = 4096,     /* words; 256 KiB: stays in the second-level cache */
    BPE_CACHE_KEY = 26,   /* bytes */
    BPE_CACHE_IDS = 9,    /* ids: 64 bytes an entry */
    BPE_CACHE_FROM = 512, /* bytes that come before there is a cache */
    BPE_JOIN_BITS = 1 << 18
};

struct bpe_pair {
    int32_t a, b, rank, id;
};
struct bpe {
    struct bpe_options o;  /* its strings are the caller's: not after opening */
    struct bpe_pair *pair; /* [mask + 1] */
    uint32_t mask;
    int64_t n;                 /* merges so far */
    int32_t byte_id[256], unk; /* -1: none */
    bool all_bytes, cuts;      /* cuts: words may be cut where no merge joins */
    char *prefix, *suffix;     /* NULL: none */
    size_t prefix_n;
    struct words raw; /* byte-level: tokens as the bytes they stand for */
    uint8_t *whole;   /* [size of vocab] */
    uint64_t *joins;  /* [BPE_JOIN_BITS / 64] */
};
struct bpe_cached {
    uint8_t n, count; /* n = 0: free */
    char key[BPE_CACHE_KEY];
    int32_t id[BPE_CACHE_IDS];
};
struct bpe_work {
    int32_t *sym; /* [n] ids */
    uint32_t *next, *prev;
    uint64_t *heap; /* rank << 32 | place */
    int64_t n, sym_cap, next_cap, prev_cap, heap_n, heap_cap;
    size_t seen;
    struct bpe_cached *cache; /* [BPE_CACHE]; NULL at first */
};

const struct bpe_pair *bpe_find(const struct bpe *m, int32_t a, int32_t b); /* NULL: no merge */
int bpe_work_open(struct bpe_work **w);
/* Appends the ids of one word, without short cuts. */
int bpe_word(const struct bpe *m, struct bpe_work *w, const char *s, size_t n, struct tok_ids *out);

#endif
