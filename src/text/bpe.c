/* Byte-pair encoding: a piece becomes symbols (bytes or characters), then the pair of neighbours with the lowest rank is
 * joined, leftmost first, until no pair has a rank.
 *
 *     short pieces    scan for the best pair, at most BPE_SHORT symbols
 *     long pieces     linked list and a heap of (rank, place): O(n log n)
 *     before both     a piece that is a token and encodes to itself (found out once, at opening), the call's word cache,
 *                     and, for characters, cuts between neighbours that no merge joins: exact, and makes words of a text
 *   source   Sennrich et al. 2016, algorithm 1; order and unknown characters as huggingface/tokenizers models/bpe */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/utf8.h"
#include "text/bpe_impl.h"

/* ---- opening ----------------------------------------------------------------------------------------------------------- */

static uint32_t pair_hash(int32_t a, int32_t b)
{
    uint64_t h = ((uint64_t)(uint32_t)a << 32 | (uint32_t)b) * 0x9E3779B97F4A7C15u;
    return (uint32_t)(h >> 32) ^ (uint32_t)(h >> 13);
}

const struct bpe_pair *bpe_find(const struct bpe *m, int32_t a, int32_t b)
{
    for (uint32_t i = pair_hash(a, b) & m->mask;; i = (i + 1) & m->mask) {
        const struct bpe_pair *p = &m->pair[i];
        if (p->a == a && p->b == b)
            return p;
        if (p->a < 0)
            return NULL;
    }
}

/* Ids of the single bytes: as characters of the byte alphabet, or as <0x00> to <0xFF>. */
static void find_bytes(struct bpe *m)
{
    m->all_bytes = true;
    for (int b = 0; b < 256; b++) {
        char s[] = "<0x00>";
        int n = m->o.bytes ? utf8_encode(byte_to_char((unsigned char)b), s) : 6;
        if (!m->o.bytes) {
            static const char hex[] = "0123456789ABCDEF";
            s[3] = hex[b >> 4];
            s[4] = hex[b & 15];
        }
        m->byte_id[b] = words_find(m->o.vocab, s, (size_t)n);
        m->all_bytes = m->all_bytes && m->byte_id[b] >= 0;
    }
}

/* The tokens as the bytes that they stand for; tokens with other characters cannot come from text and are left out. */
static int raw_words(struct bpe *m)
{
    int rc = ERR_OK;
    struct buf raw = {0};
    for (int64_t id = 0; id < m->o.vocab->size && rc == ERR_OK; id++) {
        size_t n, i = 0;
        const char *s = words_text(m->o.vocab, id, &n);
        buf_clear(&raw);
        while (s && i < n && rc == ERR_OK) {
            uint32_t cp;
            i += (size_t)char_next(s + i, &cp);
            int b = char_to_byte(cp);
            char c = (char)b;
            if (b < 0)
                s = NULL;
            else
                rc = buf_add(&raw, &c, 1);
        }
        if (s && rc == ERR_OK)
            rc = words_put(&m->raw, id, buf_text(&raw), raw.len);
    }
    buf_free(&raw);
    return rc ? rc : words_index(&m->raw);
}

static int alloc_tables(struct bpe *m)
{
    uint32_t slots = 16;
    while ((int64_t)slots < 3 * m->o.n_merges)
        slots *= 2;
    m->mask = slots - 1;
    m->pair = malloc(slots * sizeof *m->pair);
    m->whole = calloc((size_t)m->o.vocab->size + 1, 1);
    m->joins = calloc(BPE_JOIN_BITS / 64, sizeof *m->joins);
    if (!m->pair || !m->whole || !m->joins)
        return err_set(ERR_NOMEM, "out of memory for %lld merges", (long long)m->o.n_merges);
    memset(m->pair, 0xFF, slots * sizeof *m->pair); /* a = -1: free */
    return ERR_OK;
}

int bpe_open(struct bpe **out, const struct bpe_options *o)
{
    struct bpe *m = calloc(1, sizeof *m);
    if (!m)
        return err_set(ERR_NOMEM, "out of memory for a BPE model");
    m->o = *o;
    m->unk = -1;
    m->cuts = !o->prefix && !o->suffix && !o->bytes;
    m->prefix_n = o->prefix ? strlen(o->prefix) : 0;
    if (o->unk)
        m->unk = words_find(o->vocab, o->unk, strlen(o->unk));
    m->prefix = o->prefix ? strdup(o->prefix) : NULL;
    m->suffix = o->suffix ? strdup(o->suffix) : NULL;
    int rc = o->unk && m->unk < 0 ? err_set(ERR_FORMAT, "unk_token \"%.60s\" is not in the vocabulary", o->unk) : ERR_OK;
    find_bytes(m);
    if ((o->prefix && !m->prefix) || (o->suffix && !m->suffix))
        rc = err_set(ERR_NOMEM, "out of memory for a BPE model");
    if (rc == ERR_OK)
        rc = alloc_tables(m);
    if (rc == ERR_OK && o->bytes)
        rc = raw_words(m);
    if (rc == ERR_OK)
        *out = m;
    else
        bpe_close(m);
    return rc;
}

void bpe_close(struct bpe *m)
{
    if (!m)
        return;
    words_free(&m->raw);
    free(m->prefix);
    free(m->suffix);
    free(m->pair);
    free(m->whole);
    free(m->joins);
    free(m);
}

int64_t bpe_merges(const struct bpe *m)
{
    return m->n;
}

/* Two bits for a pair of characters: a set bit that was not meant costs time, never exactness. */
static void join_bits(uint32_t x, uint32_t y, uint32_t bit[2])
{
    uint64_t h = ((uint64_t)x << 32 | y) * 0x9E3779B97F4A7C15u;
    bit[0] = (uint32_t)(h >> 40) % BPE_JOIN_BITS;
    bit[1] = (uint32_t)(h >> 20) % BPE_JOIN_BITS;
}

static void note_join(struct bpe *m, const char *a, size_t an, const char *b)
{
    uint32_t x, y, bit[2];
    if (an == 6 && memcmp(a, "<0x", 3) == 0) /* parts that may stand for bytes, not for their own characters */
        m->cuts = false;
    if (strncmp(b, "<0x", 3) == 0)
        m->cuts = false;
    char_last(a, an, &x);
    char_next(b, &y);
    join_bits(x, y, bit);
    for (int i = 0; i < 2; i++)
        m->joins[bit[i] / 64] |= (uint64_t)1 << bit[i] % 64;
}

static bool may_join(const struct bpe *m, uint32_t x, uint32_t y)
{
    uint32_t bit[2];
    join_bits(x, y, bit);
    return (m->joins[bit[0] / 64] >> bit[0] % 64 & 1) && (m->joins[bit[1] / 64] >> bit[1] % 64 & 1);
}

int bpe_merge(struct bpe *m, const char *a, size_t an, const char *b, size_t bn)
{
    int32_t ia = words_find(m->o.vocab, a, an), ib = words_find(m->o.vocab, b, bn), id = -1;
    long long at = (long long)m->n;
    if (m->n >= m->o.n_merges)
        return err_set(ERR_FORMAT, "more than %lld merges", (long long)m->o.n_merges);
    if (ia < 0 || ib < 0)
        return err_set(ERR_FORMAT, "merge %lld names \"%.60s\", which is not in the vocabulary", at, ia < 0 ? a : b);
    if (an == 0 || bn < m->prefix_n + (m->prefix_n == 0))
        return err_set(ERR_FORMAT, "merge %lld (\"%.60s\" \"%.60s\") has an empty part", at, a, b);
    struct buf both = {0};
    int rc = buf_add(&both, a, an);
    if (rc == ERR_OK)
        rc = buf_add(&both, b + m->prefix_n, bn - m->prefix_n);
    if (rc == ERR_OK) {
        id = words_find(m->o.vocab, both.data, both.len);
        if (id < 0)
            rc = err_set(ERR_FORMAT, "merge %lld makes \"%.60s\", which is not in the vocabulary", at, both.data);
    }
    buf_free(&both);
    if (rc)
        return rc;
    uint32_t i = pair_hash(ia, ib) & m->mask;
    while (m->pair[i].a >= 0 && (m->pair[i].a != ia || m->pair[i].b != ib))
        i = (i + 1) & m->mask;
    m->pair[i] = (struct bpe_pair){ia, ib, (int32_t)m->n++, id}; /* of two equal merges the later one counts */
    if (m->cuts)
        note_join(m, a, an, b);
    return ERR_OK;
}

int bpe_finish(struct bpe *m)
{
    const struct words *text = m->o.bytes ? &m->raw : m->o.vocab;
    struct bpe_work *w = NULL;
    struct tok_ids ids = {0};
    /* A character without a token may vanish, so that its neighbours meet, or wait for the next one: no cuts then. */
    m->cuts = m->cuts && (m->o.byte_fallback ? m->all_bytes : m->unk >= 0 && !m->o.fuse_unk);
    int rc = bpe_work_open(&w);
    for (int64_t id = 0; w && id < text->size && rc == ERR_OK; id++) {
        size_t n;
        const char *s = words_text(text, id, &n);
        if (!s || n == 0)
            continue;
        ids.n = 0;
        rc = bpe_word(m, w, s, n, &ids);
        m->whole[id] = ids.n == 1 && ids.v[0] == id; /* it encodes to itself: no need to merge it again */
    }
    bpe_work_free(w);
    tok_ids_free(&ids);
    return rc;
}

/* ---- encoding ---------------------------------------------------------------------------------------------------------- */

int bpe_work_open(struct bpe_work **w)
{
    if (*w)
        return ERR_OK;
    *w = calloc(1, sizeof **w);
    return *w ? ERR_OK : err_set(ERR_NOMEM, "out of memory for encoding text");
}

void bpe_work_free(struct bpe_work *w)
{
    if (!w)
        return;
    free(w->sym);
    free(w->next);
    free(w->prev);
    free(w->heap);
    free(w->cache);
    free(w);
}

/* The cache pays for texts, not for a word or two. */
static struct bpe_cached *cache_slot(struct bpe_work *w, size_t n, uint32_t hash)
{
    w->seen += n;
    if (n > BPE_CACHE_KEY || w->seen < BPE_CACHE_FROM)
        return NULL;
    if (!w->cache)
        w->cache = calloc(BPE_CACHE, sizeof *w->cache); /* without memory: no cache */
    return w->cache ? &w->cache[hash % BPE_CACHE] : NULL;
}

/* One word: the token itself, the cache, or the long way. */
static int word(const struct bpe *m, struct bpe_work *w, const char *s, size_t n, struct tok_ids *out)
{
    const struct words *text = m->o.bytes ? &m->raw : m->o.vocab;
    if (n > text->longest && n > BPE_CACHE_KEY)
        return bpe_word(m, w, s, n, out);
    uint32_t hash = words_hash(s, n);
    int32_t id = words_find_hashed(text, s, n, hash);
    if (id >= 0 && m->whole[id])
        return tok_ids_push(out, id);
    struct bpe_cached *c = cache_slot(w, n, hash);
    if (c && c->n == n && memcmp(c->key, s, n) == 0) {
        int rc = out->n + c->count > out->cap ? tok_grow(&out->v, &out->cap, out->n + c->count, sizeof *out->v) : ERR_OK;
        for (int i = 0; i < c->count && rc == ERR_OK; i++)
            out->v[out->n++] = c->id[i];
        return rc;
    }
    int64_t from = out->n;
    int rc = bpe_word(m, w, s, n, out);
    if (rc || !c || out->n - from > BPE_CACHE_IDS)
        return rc;
    c->n = (uint8_t)n;
    c->count = (uint8_t)(out->n - from);
    memcpy(c->key, s, n);
    for (int i = 0; i < c->count; i++)
        c->id[i] = out->v[from + i];
    return ERR_OK;
}

int bpe_encode(const struct bpe *m, struct bpe_work **work, const char *s, size_t n, struct tok_ids *out)
{
    if (n == 0)
        return ERR_OK;
    int rc = bpe_work_open(work);
    if (rc || !*work)
        return rc;
    const struct words *text = m->o.bytes ? &m->raw : m->o.vocab;
    if (m->o.ignore_merges && n <= text->longest) {
        int32_t id = words_find(text, s, n);
        if (id >= 0)
            return tok_ids_push(out, id);
    }
    if (!m->cuts)
        return word(m, *work, s, n, out);
    uint32_t last, cp;
    size_t from = 0, at = (size_t)char_next(s, &last);
    for (; at < n && rc == ERR_OK; last = cp) {
        size_t w = (size_t)char_next(s + at, &cp);
        if (!may_join(m, last, cp)) {
            rc = word(m, *work, s + from, at - from, out);
            from = at;
        }
        at += w;
    }
    return rc ? rc : word(m, *work, s + from, n - from, out);
}
