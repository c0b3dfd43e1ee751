/* One tile of queries against its chunks of keys; the inner part of back_attn.c. */
#ifndef AST_TRAIN_BACK_TILE_H
#define AST_TRAIN_BACK_TILE_H

#include "train/back_attn.h"
#include "train/back_gate.h"

/* TILE_STRIDE: an odd number of cache lines, so that columns of S do not fall into one set of the cache */
enum { TILE_BLOCKS = 16, TILE_KEYS = TILE_BLOCKS * KERN_KB, TILE_STRIDE = TILE_KEYS + 16, TILE_ROWS = 96 };

struct tile_room { /* one thread's */
    struct back_room gate;
    float *q, *o, *dout;      /* (rows, d) q scaled; forward: running output, backward: dq; */
    float *s, *dp;            /* (rows, TILE_STRIDE) */
    float *m, *l, *lse, *dot; /* (rows,) */
    float *bias, *sums;       /* (T, TILE_BLOCKS) */
    float *kt, *vt, *k, *v;   /* gathered blocks: (TILE_BLOCKS, d, 16), (TILE_KEYS, d) */
    float *dk, *dv;           /* (TILE_KEYS, d) gradients of gathered blocks */
    float *acc_k, *acc_v;     /* (16 nk, d) this thread's gradients of one KV head's keys and values */
    int32_t *block;           /* (nk,) blocks of 16 keys that the tile looks at */
    unsigned char *mark;      /* (nk,) */
    uint16_t *bits;           /* (T, nk) BACK_PATTERN: keys of each block that a token sees */
    int32_t *picked;
    double kept, pairs;
};

struct tile_run { /* what all threads share */
    struct back_attn *a;
    int64_t units, heads, tokens; /* units; query heads of one; tokens of a tile */
    int64_t nk;                   /* blocks of 16 keys */
    float *kt, *vt;               /* (G, nk, d, 16) */
    bool backward;
};

struct tile {
    struct back_tile at;
    int64_t kv, rows, n_blocks; /* KV head; tokens x heads; entries of room->block */
};

/* Positions that token t sees: 0 .. sink-1 and from .. t. */
struct tile_span {
    int64_t sink, from;
};
struct tile_span tile_span_of(const struct back_attn *a, int64_t t);

void tile_forward(const struct tile_run *r, struct tile_room *w, struct tile *t);
void tile_backward(const struct tile_run *r, struct tile_room *w, struct tile *t);

#endif
