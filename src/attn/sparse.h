/* The driver that block-selecting methods share: choosing (a method's own scores) apart from running (tile kernels).
 *
 *     chunk -> features of its blocks -> for each unit and tile of tokens:
 *              scores -> budget -> block lists -> dense | blocks under row masks | each token's own blocks (gather)
 *
 * A unit chooses: a KV head with its g query heads, or one query head. What a token keeps and how it is computed follow
 * from that token and the past alone, so that neither later tokens nor the cut into chunks and tiles change a bit. */
#ifndef AST_ATTN_SPARSE_H
#define AST_ATTN_SPARSE_H

#include "attn/attn.h"
#include "attn/feat.h"
#include "attn/gate.h"
#include "attn/select.h"
#include "cfg/cfg.h"

enum sparse_unit { SPARSE_KV, SPARSE_HEAD };
enum sparse_strategy { SPARSE_AUTO, SPARSE_DENSE, SPARSE_BLOCKS, SPARSE_GATHER };

struct sparse_opts {
    int64_t keep, block, local, all_below, dense_layers, candidates, width;
    int budget, unit, strategy; /* enums select_budget, sparse_unit, sparse_strategy */
    double top_p;
    double cost_blocks, cost_gather; /* relative: walking one block of a tile's past; merging one block of a token's list */
    struct cfg_ints summary;         /* tokens a summary by layer third; 0: none */
    double summary_beta;             /* where the gates have none */
};

/* clang-format off */
#define SPARSE_FIELDS_COMMON \
    CFG_INT(struct sparse_opts, keep, 1024, 0, 1e9, "tokens a query keeps, forced ones counted (learned and top-p: at most; 0: no limit)"), \
    CFG_INT(struct sparse_opts, block, 16, 8, 128, "tokens a block: 8, 16, 32, 64 or 128"), \
    CFG_INT(struct sparse_opts, local, 64, 0, 1e9, "the last tokens, whose blocks are always kept"), \
    CFG_INT(struct sparse_opts, all_below, 0, 0, 1e9, "tokens before this position keep everything"), \
    CFG_INT(struct sparse_opts, dense_layers, 0, 0, 1e6, "first layers that keep everything"), \
    CFG_ENUM(struct sparse_opts, unit, SPARSE_KV, "kv-head|head", "who chooses a set: a key/value head for its group, or each query head"), \
    CFG_ENUM(struct sparse_opts, strategy, SPARSE_AUTO, "auto|dense|blocks|gather", "kernel for what was chosen; all give the same bits"), \
    CFG_REAL(struct sparse_opts, cost_blocks, 0.5, 0, 1e6, "ns to walk a block of a tile's past when rows are masked"), \
    CFG_REAL(struct sparse_opts, cost_gather, 10, 0, 1e6, "ns to merge a block of a token's own list when lists are gathered")
/* clang-format on */

struct sparse_run { /* one call, prepared */
    struct attn_call *c;
    const struct sparse_opts *o;
    const struct sparse_ops *ops;
    const struct gate_layer *gate; /* NULL: untrained */
    const struct attn_params *params;
    struct select_rule rule;
    struct feat f;
    int64_t units, heads, unit0; /* this rank's; query heads of one; model-wide index of the first */
    int64_t tile, slice;         /* tokens of a tile, heads of a unit that go through a kernel tile together */
    int64_t first;               /* of the chunk's tokens: those before it keep everything and need no query */
    float *u, *rho;              /* (units, n - first, e) rotated queries of the others; (units, n - first) */
    float *ctx, *square;         /* (ctx_room, D): of the tokens from ctx0 on that are being worked on; NULL: none; their squares */
    int64_t ctx0, ctx_room;
    float *base;         /* rotation tables of the chunk */
    float *pooled, *vec; /* (G, 16, 3, d); (G, 16, e) */
    float inv_sqrt_dim;
};

/* What the tokens of a tile chose. */
struct sparse_choice {
    struct select_set *set; /* (T,) */
    int32_t *list;          /* lists of all tokens end to end */
    int64_t *ptr;           /* (T + 1,) */
    bool some;              /* a token of the tile has not kept everything: lists are filled */
};
/* Tiles that choose, one after the other, while the blocks' vectors are in cache, and then attend together, while the blocks' keys
 * and values are. */
enum { SPARSE_AHEAD = 4 };

/* A tile while it attends. */
struct sparse_tile {
    struct kern_tile t;
    float *q, *o, *m, *l, *lse; /* see struct kern_tile */
    int64_t *begin, *end;
    void *kern;
    int32_t *block;       /* (nk,) union of its lists */
    uint64_t *mask;       /* (nk,) rows that see each */
    int64_t blocks, done; /* in the union; attended to so far */
    int how;              /* enum sparse_strategy */
};

struct sparse_lane {                                /* one thread's room; T tokens of a tile; nb blocks, nk pieces so far */
    float *scores, *work;                           /* (T, ld); (ld + 64,) */
    struct kern_guess guess;                        /* of the last token */
    int64_t ld, score0;                             /* columns of scores; the block of column 0 */
    struct sparse_choice choice[SPARSE_AHEAD], *at; /* at, in: of the tile that is worked on */
    struct sparse_tile tile[SPARSE_AHEAD], *in;
    int32_t *chosen;     /* (nb,) */
    unsigned char *mark; /* (nb,) */
    float *sampled;      /* sparsity_room() */
    void *extra;
    struct attn_stats stats;
};

struct sparse_ops {
    bool raw;     /* pools keys before rotation (else after) */
    bool context; /* keeps the running mean of x */
    bool rotate;  /* rotates its vectors with the model's frequencies */
    /* Width of a block's vector, 0: no features (own scores). */
    int64_t (*width)(const struct sparse_opts *o, const struct attn_shape *s);
    /* v (n, e), not rotated, from pooled keys (n, 3, d): mean, max, min. */
    void (*block)(const struct sparse_run *r, int64_t unit, const float *pooled, int64_t n, float *v);
    /* u (n, e), not rotated, and rho (n,) of tokens i .. i+n-1 of the chunk; their contexts are rows i - ctx0 .. of ctx. */
    void (*query)(const struct sparse_run *r, int64_t unit, int64_t i, int64_t n, float *u, float *rho);
    /* Added to the scores of candidates lo .. hi-1 of the set; NULL: nothing. */
    void (*bias)(const struct sparse_run *r, int64_t unit, const struct select_set *set, float *s);
    /* Instead of block and query: scores (hi - lo,) of one token; work: extra() bytes. */
    void (*scores)(const struct sparse_run *r, int64_t unit, const struct select_set *set, float *s, void *work);
    size_t (*extra)(const struct attn_shape *s, int64_t max_tokens);
    float scale; /* of the products, 0: 1/sqrt(d) */
};

int sparse_check(const struct sparse_opts *o, const struct attn_shape *s);
size_t sparse_state_bytes(const struct sparse_opts *o, const struct sparse_ops *ops, const struct attn_shape *s,
                          int64_t max_tokens);
size_t sparse_scratch(const struct sparse_opts *o, const struct sparse_ops *ops, const struct attn_shape *s, int64_t n,
                      int64_t max_tokens);
int sparse_run(struct attn_call *c, const struct sparse_ops *ops);

struct sparse_span { /* tokens pos .. pos+n-1 */
    int64_t pos, n;
};
extern const struct attn_method attn_ast, attn_mean_key, attn_quest;

void sparse_cost(const struct sparse_opts *o, const struct sparse_ops *ops, const struct attn_shape *s, struct sparse_span span,
                 struct attn_cost *out);

/* Tokens of the pieces that lists are made of: kernel blocks, or halves of them where blocks are of 8. */
int64_t sparse_piece(const struct sparse_opts *o);

/* The parts, for each other. Tokens i .. i+n-1 of the chunk. */
int64_t sparse_summary_of(const struct sparse_opts *o, const struct attn_shape *s);
size_t sparse_query_bytes(const struct sparse_run *r, int64_t n); /* that sparse_queries takes of step, for n tokens */
/* Fills first, u and rho, and adds the chunk to the running context. ERR_NOMEM. */
int sparse_queries(struct sparse_run *r);
void sparse_choose(const struct sparse_run *r, struct sparse_lane *w, int64_t unit, int64_t i, int64_t n);
/* The n tiles of w, whose tokens are tok[x], have chosen. */
void sparse_attend(const struct sparse_run *r, struct sparse_lane *w, int64_t unit, const struct sparse_span *tok, int64_t n);
/* The union of the lists of w->at in w->in->block, with the rows that see each in w->in->mask; returns how many. n tokens of
 * `heads` rows. */
int64_t sparse_masks(struct sparse_lane *w, int64_t n, int64_t heads);
/* Mixes summaries of what token `tok` of the tile has not chosen into rows row .. row+heads-1 of w->in; h0: the
 * rank's first head of these. */
struct sparse_rows {
    int64_t tok, row, heads, h0, kv_head;
};
void sparse_mix(const struct sparse_run *r, struct sparse_lane *w, const struct sparse_rows *at);

#endif
