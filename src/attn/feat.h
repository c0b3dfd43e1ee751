/* What a selector remembers of a sequence's past: the keys of each block, pooled and projected, as they complete.
 *
 *     head | context sum (D) | rotation offsets | pools of the open block (G, 3, d) | summary pools (G, 2, d) | records ...
 *     record = 16 blocks (or 16 summaries, whichever is longer) of every unit:
 *         v     [group of 16 blocks][unit][e][16]      transposed like keys, for kern.block_scores
 *         kbar  [group of 16 summaries][KV head][d][16], vbar [summary][KV head][d]
 *
 * Records are written in order and nothing before is moved, so that any cut of the sequence into chunks gives the same
 * bits, and memory is touched only as far as the sequence has grown. */
#ifndef AST_ATTN_FEAT_H
#define AST_ATTN_FEAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct attn_call;
struct attn_shape;

enum { FEAT_GROUP = 16, FEAT_MAX_WIDTH = 512, FEAT_ROT = 16 };

struct feat_dims {
    int64_t units, kv_heads, dim, hidden; /* hidden 0: no context kept */
    int64_t width;                        /* e; 0: no block features */
    int64_t block;                        /* B */
    int64_t half;                         /* rotated pairs of width, 0: none */
    int64_t summary;                      /* tokens a summary, 0: none */
};

struct feat { /* a view into the state's memory */
    struct feat_dims d;
    int64_t *tokens; /* seen so far */
    double *ctx;     /* (D,) sum of x */
    float *offs;     /* (2, FEAT_ROT, half, 2) cosine and sine of 0 .. 15 positions, and of 0 .. 15 times 16 positions */
    float *pool;     /* (G, 3, d) sum, max, min of the open block */
    float *sum;      /* (G, 2, d) sums of keys and values of the open summary */
    float *rec;
    int64_t rec_floats, rec_groups, rec_sums; /* of one record: floats, groups of 16 blocks, groups of 16 summaries */
    int64_t rec_tokens;
};

size_t feat_bytes(const struct feat_dims *d, int64_t max_tokens);
void feat_view(struct feat *f, const struct feat_dims *d, void *state);

/* v of groups of 16 blocks; feat_run(f, g) more groups follow at a distance of feat_stride(f). */
float *feat_group(const struct feat *f, int64_t unit, int64_t group);
int64_t feat_stride(const struct feat *f);
int64_t feat_run(const struct feat *f, int64_t group);
float *feat_kbar(const struct feat *f, int64_t kv_head, int64_t group);   /* (d, 16) */
float *feat_vbar(const struct feat *f, int64_t kv_head, int64_t summary); /* (d,) */

/* Frequencies of the gate's own rotation: pairs and radians a position of pair i. */
int64_t feat_half(const struct attn_shape *s, int64_t width);
double feat_freq(const struct attn_shape *s, int64_t width, int64_t i);

/* cs, sn (half,) at a position that may be a fraction (a block's centre). */
void feat_angles(const struct attn_shape *s, const struct feat_dims *d, double pos, float *cs, float *sn);

/* Rotation tables of a chunk: base (chunk / 16 + 2, half, 2) at multiples of 16 positions, from which feat_rotation makes
 * cs, sn (half,) of token t by adding angles. The same bits for any chunk that holds t. feat_base: n rows from the first-th
 * multiple on, after feat_bases has seen the sequence's beginning. */
int64_t feat_base_rows(int64_t n);
void feat_base(const struct attn_shape *s, const struct feat *f, int64_t first, int64_t n, float *base);
void feat_bases(const struct attn_shape *s, struct feat *f, int64_t pos, int64_t n, float *base);
void feat_rotation(const struct feat *f, const float *base, int64_t pos, int64_t t, float *cs, float *sn);

/* Sums rotated keys and values of KV head g into its summaries. */
void feat_summaries(struct feat *f, const struct attn_call *c, int64_t g);

#endif
