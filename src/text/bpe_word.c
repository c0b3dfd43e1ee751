/* One word of BPE: its symbols, then the merging, in one of two ways with equal results. */
#include <string.h>

#include "base/err.h"
#include "text/bpe_impl.h"

#define END UINT32_MAX /* no neighbour */

/* ---- symbols ------------------------------------------------------------------------------------------------------------ */

static int push(struct bpe_work *w, int32_t id)
{
    if (w->n >= w->sym_cap) {
        int rc = tok_grow(&w->sym, &w->sym_cap, w->n + 1, sizeof *w->sym);
        if (rc)
            return rc;
    }
    w->sym[w->n++] = id;
    return ERR_OK;
}

struct unknown { /* an unknown token that waits: with fuse_unk the next unknown character is part of it */
    bool waits;
};

static int flush_unknown(const struct bpe *m, struct bpe_work *w, struct unknown *u)
{
    int rc = u->waits ? push(w, m->unk) : ERR_OK;
    u->waits = false;
    return rc;
}

/* A character that is not in the vocabulary: its bytes, the unknown token, or nothing where there is none. */
static int unknown_char(const struct bpe *m, struct bpe_work *w, const char *s, size_t n, struct unknown *u)
{
    int rc = ERR_OK;
    bool have = m->o.byte_fallback;
    for (size_t i = 0; i < n && have; i++)
        have = m->byte_id[(unsigned char)s[i]] >= 0;
    if (have) {
        for (size_t i = 0; i < n && rc == ERR_OK; i++)
            rc = push(w, m->byte_id[(unsigned char)s[i]]);
        return rc;
    }
    if (m->unk < 0)
        return ERR_OK;
    if (!m->o.fuse_unk)
        rc = flush_unknown(m, w, u);
    u->waits = true;
    return rc;
}

/* The character [at, at + k) of a word of n bytes, with a prefix unless it is the first, a suffix if it is the last. */
static int affixed(const struct bpe *m, const char *word, size_t n, struct piece c, struct buf *out)
{
    buf_clear(out);
    int rc = c.at > 0 && m->prefix ? buf_puts(out, m->prefix) : ERR_OK;
    if (rc == ERR_OK)
        rc = buf_add(out, word + c.at, c.n);
    return rc == ERR_OK && c.at + c.n == n && m->suffix ? buf_puts(out, m->suffix) : rc;
}

/* One character as the vocabulary writes it. */
static int char_symbol(const struct bpe *m, struct bpe_work *w, const char *s, size_t n, struct unknown *u)
{
    int32_t id = words_find(m->o.vocab, s, n);
    if (id < 0)
        return unknown_char(m, w, s, n, u);
    int rc = flush_unknown(m, w, u);
    return rc ? rc : push(w, id);
}

static int char_symbols(const struct bpe *m, struct bpe_work *w, const char *s, size_t n)
{
    struct unknown u = {false};
    struct buf tmp = {0};
    int rc = ERR_OK;
    for (size_t at = 0, k; at < n && rc == ERR_OK; at += k) {
        uint32_t cp;
        k = (size_t)char_next(s + at, &cp);
        if (m->prefix || m->suffix) {
            rc = affixed(m, s, n, (struct piece){.at = at, .n = k}, &tmp);
            if (rc == ERR_OK)
                rc = char_symbol(m, w, tmp.data, tmp.len, &u);
        } else
            rc = char_symbol(m, w, s + at, k, &u);
    }
    buf_free(&tmp);
    return rc ? rc : flush_unknown(m, w, &u);
}

static int byte_symbols(const struct bpe *m, struct bpe_work *w, const char *s, size_t n)
{
    struct unknown u = {false};
    int rc = ERR_OK;
    for (size_t i = 0; i < n && rc == ERR_OK; i++) {
        int32_t id = m->byte_id[(unsigned char)s[i]];
        if (id < 0) {
            rc = unknown_char(m, w, s + i, 1, &u);
            continue;
        }
        rc = flush_unknown(m, w, &u);
        if (rc == ERR_OK)
            rc = push(w, id);
    }
    return rc ? rc : flush_unknown(m, w, &u);
}

/* ---- merging ------------------------------------------------------------------------------------------------------------ */

static void merge_short(const struct bpe *m, int32_t *sym, int64_t *count)
{
    const struct bpe_pair *pair[BPE_SHORT];
    int64_t n = *count;
    for (int64_t i = 0; i + 1 < n; i++)
        pair[i] = bpe_find(m, sym[i], sym[i + 1]);
    for (;;) {
        int64_t best = -1;
        for (int64_t i = 0; i + 1 < n; i++)
            if (pair[i] && (best < 0 || pair[i]->rank < pair[best]->rank))
                best = i;
        if (best < 0)
            break;
        sym[best] = pair[best]->id;
        n--;
        for (int64_t i = best + 1; i < n; i++) {
            sym[i] = sym[i + 1];
            pair[i - 1] = pair[i];
        }
        if (best > 0)
            pair[best - 1] = bpe_find(m, sym[best - 1], sym[best]);
        if (best + 1 < n)
            pair[best] = bpe_find(m, sym[best], sym[best + 1]);
    }
    *count = n;
}

static void sift_down(uint64_t *heap, int64_t n, int64_t at)
{
    uint64_t v = heap[at];
    for (int64_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && heap[child + 1] < heap[child])
            child++;
        if (heap[child] >= v)
            break;
        heap[at] = heap[child];
    }
    heap[at] = v;
}

static int heap_push(struct bpe_work *w, uint64_t v)
{
    if (w->heap_n >= w->heap_cap) {
        int rc = tok_grow(&w->heap, &w->heap_cap, w->heap_n + 1, sizeof *w->heap);
        if (rc)
            return rc;
    }
    int64_t at = w->heap_n++;
    while (at > 0 && w->heap[(at - 1) / 2] > v) {
        w->heap[at] = w->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    w->heap[at] = v;
    return ERR_OK;
}

static uint64_t heap_pop(struct bpe_work *w)
{
    uint64_t top = w->heap[0];
    w->heap[0] = w->heap[--w->heap_n];
    if (w->heap_n > 1)
        sift_down(w->heap, w->heap_n, 0);
    return top;
}

static int push_pair(const struct bpe *m, struct bpe_work *w, uint32_t at)
{
    const struct bpe_pair *p = w->next[at] == END ? NULL : bpe_find(m, w->sym[at], w->sym[w->next[at]]);
    return p ? heap_push(w, (uint64_t)(uint32_t)p->rank << 32 | at) : ERR_OK;
}

/* Joins at with its right neighbour into id. */
static int merge_at(const struct bpe *m, struct bpe_work *w, uint32_t at, int32_t id)
{
    uint32_t gone = w->next[at];
    w->sym[at] = id;
    w->sym[gone] = -1;
    w->next[at] = w->next[gone];
    if (w->next[at] != END)
        w->prev[w->next[at]] = at;
    int rc = push_pair(m, w, at);
    return rc || w->prev[at] == END ? rc : push_pair(m, w, w->prev[at]);
}

static int merge_long(const struct bpe *m, struct bpe_work *w)
{
    int64_t to = 0;
    int rc = w->n >= END ? err_set(ERR_FORMAT, "a word of %lld symbols is too long", (long long)w->n) : ERR_OK;
    if (rc == ERR_OK)
        rc = tok_grow(&w->next, &w->next_cap, w->n, sizeof *w->next);
    if (rc == ERR_OK)
        rc = tok_grow(&w->prev, &w->prev_cap, w->n, sizeof *w->prev);
    w->heap_n = 0;
    for (int64_t i = 0; i < w->n && rc == ERR_OK; i++) {
        w->next[i] = i + 1 < w->n ? (uint32_t)(i + 1) : END;
        w->prev[i] = i > 0 ? (uint32_t)(i - 1) : END;
    }
    for (int64_t i = 0; i + 1 < w->n && rc == ERR_OK; i++)
        rc = push_pair(m, w, (uint32_t)i);
    while (w->heap_n > 0 && rc == ERR_OK) {
        uint64_t top = heap_pop(w);
        uint32_t at = (uint32_t)top;
        /* an entry is out of date if its left symbol is gone or the pair there has another rank by now */
        if (w->sym[at] < 0 || w->next[at] == END)
            continue;
        const struct bpe_pair *p = bpe_find(m, w->sym[at], w->sym[w->next[at]]);
        if (p && (uint32_t)p->rank == top >> 32)
            rc = merge_at(m, w, at, p->id);
    }
    for (int64_t i = 0; i < w->n && rc == ERR_OK; i++)
        if (w->sym[i] >= 0)
            w->sym[to++] = w->sym[i];
    w->n = to;
    return rc;
}

int bpe_word(const struct bpe *m, struct bpe_work *w, const char *s, size_t n, struct tok_ids *out)
{
    w->n = 0;
    int rc = m->o.bytes ? byte_symbols(m, w, s, n) : char_symbols(m, w, s, n);
    if (rc == ERR_OK && w->n > 1) {
        if (w->n <= BPE_SHORT)
            merge_short(m, w->sym, &w->n);
        else
            rc = merge_long(m, w);
    }
    if (rc == ERR_OK)
        rc = out->n + w->n > out->cap ? tok_grow(&out->v, &out->cap, out->n + w->n, sizeof *out->v) : ERR_OK;
    if (rc == ERR_OK && w->n > 0)
        memcpy(out->v + out->n, w->sym, (size_t)w->n * sizeof *out->v);
    out->n += rc == ERR_OK ? w->n : 0;
    return rc;
}
