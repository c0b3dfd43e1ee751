/* Tiles of listed blocks, with masks of rows or a list for each row, on the engine of kernels/simd_tile.h. */
#ifndef AST_KERNELS_SIMD_SPARSE_H
#define AST_KERNELS_SIMD_SPARSE_H

#include "kernels/simd_tile.h"

static void tile_blocks(const struct kern_tile *t, const struct kern_kv *kv, const int32_t *block, const uint64_t *mask, int64_t n)
{
    struct engine e;
    uint64_t all = all_rows(t->rows);
    start(&e, t, kv);
    e.ahead = block;
    e.n_ahead = t->rows > FEW ? n : 0; /* the few have their own way, see fetch */
    for (int64_t i = 0; i < n; i++) {
        for (int what = 0; what < 2; what++)
            e.next[what] = e.next[what] > i + AHEAD ? e.next[what] : i + AHEAD;
        push(&e, block[i], mask ? mask[i] & all : all);
    }
    flush(&e);
}

/* Rows of list i of a gathered tile. */
INL uint64_t rows_of_list(const struct kern_tile *t, int64_t share, int64_t i)
{
    return all_rows((i + 1) * share < t->rows ? (i + 1) * share : t->rows) & ~(i ? all_rows(i * share) : 0);
}

/* Lists that ascend are merged, so that rows share the loads of the blocks they share; others go one by one. */
static void tile_gather(const struct kern_tile *t, const struct kern_kv *kv, const int64_t *ptr, const int32_t *block)
{
    struct engine e;
    int64_t share = t->share > 1 ? t->share : 1, lists = (t->rows + share - 1) / share, open = 0;
    int64_t at[KERN_MAX_ROWS], end[KERN_MAX_ROWS];
    uint64_t rows[KERN_MAX_ROWS];
    start(&e, t, kv);
    for (int64_t i = 0; i < lists; i++) {
        bool ascends = true;
        for (int64_t j = ptr[i] + 1; j < ptr[i + 1]; j++)
            ascends = ascends && block[j] > block[j - 1];
        for (int64_t j = ptr[i]; j < ptr[i + 1] && !ascends; j++)
            push(&e, block[j], rows_of_list(t, share, i));
        if (ascends && ptr[i] < ptr[i + 1]) {
            at[open] = ptr[i], end[open] = ptr[i + 1];
            rows[open++] = rows_of_list(t, share, i);
        }
    }
    while (open > 0) {
        int32_t next = block[at[0]];
        uint64_t mask = 0;
        for (int64_t i = 1; i < open; i++)
            next = block[at[i]] < next ? block[at[i]] : next;
        for (int64_t i = 0; i < open;) {
            bool has = block[at[i]] == next;
            mask |= has ? rows[i] : 0;
            at[i] += has;
            if (at[i] == end[i]) {
                open--;
                at[i] = at[open], end[i] = end[open], rows[i] = rows[open];
                /* the list moved here has not been looked at yet */
                continue;
            }
            i++;
        }
        push(&e, next, mask);
    }
    flush(&e);
}

#endif
