/* Strings to ids and back: one block of text, one table of places, one hash table. */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "text/tok_impl.h"

int tok_grow(void *v, int64_t *cap, int64_t need, size_t size)
{
    void *old, *p;
    int64_t to = *cap ? *cap : 16;
    if (need <= *cap)
        return ERR_OK;
    while (to < need)
        to += to / 2 + 16;
    if ((uint64_t)to > SIZE_MAX / 2 / size)
        return err_set(ERR_NOMEM, "a list of %lld elements of %zu bytes is too long", (long long)need, size);
    memcpy(&old, v, sizeof old);         /* v may be a pointer to any type of pointer */
    p = realloc(old, (size_t)to * size); /* the old one stays the caller's if this fails */
    if (!p)
        return err_set(ERR_NOMEM, "out of memory growing a list to %lld elements of %zu bytes", (long long)to, size);
    memcpy(v, &p, sizeof p);
    *cap = to;
    return ERR_OK;
}

int tok_ids_push(struct tok_ids *ids, int32_t id)
{
    if (ids->n >= ids->cap) {
        int rc = tok_grow(&ids->v, &ids->cap, ids->n + 1, sizeof *ids->v);
        if (rc)
            return rc;
    }
    ids->v[ids->n++] = id;
    return ERR_OK;
}

int tok_growth(size_t from, size_t now)
{
    enum { TIMES = 64, FREE = 1 << 16 };
    return now < FREE || now / TIMES <= from
               ? ERR_OK
               : err_set(ERR_FORMAT, "the tokenizer's steps make %zu bytes of a text of %zu bytes", now, from);
}

void words_free(struct words *w)
{
    free(w->text);
    free(w->word);
    free(w->slot);
    *w = (struct words){0};
}

int words_put(struct words *w, int64_t id, const char *s, size_t n)
{
    if (id < 0 || id > TOK_ID_MAX)
        return err_set(ERR_FORMAT, "token \"%.60s\" has the id %lld, ids go from 0 to %d", s, (long long)id, TOK_ID_MAX);
    if (id < w->size && w->word[id].used)
        return err_set(ERR_FORMAT, "tokens \"%.60s\" and \"%.60s\" have the same id %lld", w->text + w->word[id].at, s,
                       (long long)id);
    int64_t cap = (int64_t)w->text_cap;
    int rc = n > UINT32_MAX - 1 - w->text_n ? err_set(ERR_FORMAT, "a vocabulary of more than 4 GiB") : ERR_OK;
    if (rc == ERR_OK)
        rc = tok_grow(&w->text, &cap, (int64_t)(w->text_n + n + 1), 1);
    w->text_cap = (size_t)cap;
    if (rc == ERR_OK)
        rc = tok_grow(&w->word, &w->cap, id + 1, sizeof *w->word);
    if (rc)
        return rc;
    for (; w->size <= id; w->size++)
        w->word[w->size] = (struct word){0};
    memcpy(w->text + w->text_n, s, n);
    w->text[w->text_n + n] = '\0';
    w->word[id] = (struct word){.at = (uint32_t)w->text_n, .n = (uint32_t)n, .used = true};
    w->text_n += n + 1;
    w->count++;
    if (n > w->longest)
        w->longest = (uint32_t)n;
    return ERR_OK;
}

/* Eight bytes at a time, multiplied and folded; the constants are odd parts of the golden ratio and of pi. */
uint32_t words_hash(const char *s, size_t n)
{
    uint64_t h = 0x9E3779B97F4A7C15u ^ n, v;
    for (; n > 8; n -= 8, s += 8) {
        memcpy(&v, s, 8);
        h = (h ^ v) * 0x243F6A8885A308D3u;
        h ^= h >> 32;
    }
    v = 0;
    memcpy(&v, s, n);
    h = (h ^ v) * 0x243F6A8885A308D3u;
    h ^= h >> 29;
    h *= 0x9E3779B97F4A7C15u;
    return (uint32_t)(h >> 32);
}

int words_index(struct words *w)
{
    uint32_t slots = 16;
    while ((int64_t)slots < 2 * w->count)
        slots *= 2;
    w->slot = malloc(slots * sizeof *w->slot);
    if (!w->slot)
        return err_set(ERR_NOMEM, "out of memory for an index of %lld tokens", (long long)w->count);
    w->mask = slots - 1;
    memset(w->slot, 0xFF, slots * sizeof *w->slot); /* id -1: free */
    for (int64_t id = 0; id < w->size; id++) {
        if (!w->word[id].used)
            continue;
        const char *s = w->text + w->word[id].at;
        uint32_t hash = words_hash(s, w->word[id].n), i = hash & w->mask;
        int32_t other = words_find_hashed(w, s, w->word[id].n, hash);
        if (other >= 0)
            return err_set(ERR_FORMAT, "token \"%.60s\" has two ids, %d and %lld", s, other, (long long)id);
        while (w->slot[i].id >= 0)
            i = (i + 1) & w->mask;
        w->slot[i] = (struct word_slot){hash, (int32_t)id};
    }
    return ERR_OK;
}

int32_t words_find_hashed(const struct words *w, const char *s, size_t n, uint32_t hash)
{
    if (!w->slot)
        return -1;
    for (uint32_t i = hash & w->mask; w->slot[i].id >= 0; i = (i + 1) & w->mask) {
        if (w->slot[i].hash != hash)
            continue;
        const struct word *o = &w->word[w->slot[i].id];
        if (o->n == n && memcmp(w->text + o->at, s, n) == 0)
            return w->slot[i].id;
    }
    return -1;
}

int32_t words_find(const struct words *w, const char *s, size_t n)
{
    return words_find_hashed(w, s, n, words_hash(s, n));
}
