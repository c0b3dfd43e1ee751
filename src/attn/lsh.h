/* Locality-sensitive hashing of keys into buckets, a list each: which keys a token of Reformer sees (attn/reformer.c says what
 * they are and why). Shared by its forward pass and its gradient.
 *
 *     state   tokens | stage | stage | ...    a stage: tokens of one b(t), 2 c, then 2 c, 4 c, 8 c ..., whatever `buckets` says
 *     stage   used, newest, nodes of lists: all keys up to its end | M (G, d, columns) | rows (tokens, K d + G d)
 *             row = keys and values of a token; K = G, or H with shared_qk
 *
 * What stands before the rows of a stage fills whole rows, so that row `slot` of the state is found by one multiplication:
 * slot = t + the stage's gap. Gaps are the same on ranks that share the heads: each part grows with their number, padded alone. */
#ifndef AST_ATTN_LSH_H
#define AST_ATTN_LSH_H

#include "attn/attn.h"

enum { LSH_PART = 1024 };                   /* tokens entered before their rows are computed */
enum { LSH_GROUP = 512, LSH_BLOCK = 4096 }; /* tokens that go over the keys together; slots they pass at a time */

struct lsh_opts { /* of the method */
    int64_t rounds, buckets, chunk, seed;
    bool shared_qk;
};

enum { LSH_NODE = 31, LSH_ROUNDS = 64 };
struct lsh_node {                   /* of a bucket's list: two cache lines, which come together */
    int32_t slot[LSH_NODE], before; /* oldest first; the full node before it, as a place; 0: none */
};

/* Place in a list: node * 32 + its keys up to there (1 .. 31); 0: none. */
struct lsh_stage {
    uint64_t draw;           /* which directions: its level if they grow, one set for all if not */
    int64_t start, len, gap; /* its tokens; slot = token + gap */
    int64_t b, f[2], cols;   /* buckets = f[0] f[1], directions of the factors; columns of M = R (f[0] / 2 + f[1] / 2) */
    int64_t nodes;
    int32_t *used, *newest; /* (K, pad(R)) nodes; (K, pad(R b)) places of the newest keys */
    struct lsh_node *node;  /* (K, R, nodes) */
    float *proj;            /* (G, pad(d cols)): columns (R, both factors) */
};

enum { LSH_STAGES = 40 };
struct lsh {          /* sizes, and the parts of the state */
    int64_t R, reach; /* 2 c */
    bool shared, grows;
    int64_t H, G, K, d, row; /* K: key heads; row: floats of a token's keys and values */
    int64_t *tokens;
    float *rows;
    int n_stages;
    struct lsh_stage stage[LSH_STAGES];
};

struct lsh_lane {         /* one thread's room */
    float *x, *p, *line;  /* (16, d), (16, cols), (largest factor,) */
    uint64_t *bits;       /* (slots,) bits: chosen; zeros between queries */
    int32_t *list;        /* (cap + 1,) */
    int64_t cap, queries; /* keys of a query, at most; queries that fit */
    int64_t blocks, slots;
    int32_t *id, *ptr;        /* (queries, cap) slots by block; (queries, blocks + 1) where a block's begin */
    float *s, *q, *mix;       /* (queries, cap), (queries, d), (d,) */
    float *copy;              /* (LSH_BLOCK, d): a block's keys or values side by side */
    int32_t next[LSH_ROUNDS]; /* where the lists of the query to come are fetched */
    double pairs;
};

struct lsh_part { /* tokens at .. at+n-1, of one stage */
    const struct attn_call *c;
    const struct lsh_opts *o;
    const struct lsh *l;
    const struct lsh_stage *g;
    int64_t at, n;
    int32_t *bucket; /* (n, H + K, R): queries, then keys */
    int32_t *seen;   /* (n, H, R) place of the newest key of the query's bucket when its token was entered */
};

/* Queries of tokens x0 .. x0+n-1 of a part, heads h0 .. h0+heads-1 of one key head. */
struct lsh_group {
    int64_t x0, n, h0, heads;
};

/* Cuts the state (base NULL: only sizes) as far as so many tokens need it; returns its bytes. */
size_t lsh_cut(struct lsh *l, unsigned char *base, const struct lsh_opts *o, const struct attn_shape *s, int64_t tokens);
/* The same of a thread's room, ready for use; tokens: of the sequence, n: of a chunk. */
size_t lsh_lane_cut(struct lsh_lane *w, unsigned char *base, const struct lsh *l, int64_t n, int64_t tokens);

/* The part after this one, up to `tokens`; false: there is none. The first: at = the chunk's first token, n = 0. */
bool lsh_next(struct lsh_part *t, int64_t tokens);
/* Hashes the part's tokens, stores their rows and lists them. By all threads of a team, with a barrier at the end. */
void lsh_enter(struct lsh_part *t, struct lsh_lane *w);
/* Size of the part's groups for so many threads: large ones share more, but every thread should have some. */
struct lsh_group lsh_group_of(const struct lsh_part *t, const struct lsh_lane *w, int threads);

/* Of every query of the group, which is number i = token x heads + head: its keys, sorted by block, and their weights: w->s
 * (queries, cap), the softmax in the order of w->id; w->q (queries, d) scaled; c->lse unless it is NULL. */
void lsh_weights(const struct lsh_part *t, struct lsh_lane *w, const struct lsh_group *g);
int64_t lsh_row_of(const struct lsh_part *t, const struct lsh_group *g, int64_t i); /* of the chunk's (n, H) */
/* Begins a block for the group's n queries: where rows idx[i] of key head `which` stand (values: K + KV head), side by side in
 * w->copy if that pays, else as they are stored. Until the next call. */
void lsh_block(const struct lsh_part *t, struct lsh_lane *w, int64_t n, int64_t block, int64_t which, struct kern_list *list);
/* The keys of query i in the block begun, without x and y: false if there are none. */
bool lsh_in_block(const struct lsh_lane *w, int64_t i, int64_t block, struct kern_list *list);
int64_t lsh_count(const struct lsh_lane *w, int64_t i);                /* keys of query i */
int64_t lsh_place(const struct lsh_lane *w, int64_t i, int64_t block); /* of its first key in a block, in (queries, cap) */

const struct lsh_stage *lsh_stage_of(const struct lsh *l, int64_t t);
/* Keys of key head `which` of a slot; values: K + KV head. */
float *lsh_row(const struct lsh *l, int64_t slot, int64_t which);

#endif
