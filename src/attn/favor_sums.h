/* Features of keys and queries and their running sums: what Performer's forward pass and its gradient share. attn/performer.c
 * says what they are.
 *
 *     tokens   ......... 64 tokens ......... | open 64: features of keys e^(a_jr - b_j), b_j, v_j          state, of each KV head
 *              S, z scaled by e^-c ----------+ */
#ifndef AST_ATTN_FAVOR_SUMS_H
#define AST_ATTN_FAVOR_SUMS_H

#include "attn/attn.h"

enum { FAVOR_OPEN = 64 };

struct favor_opts { /* of the method */
    int64_t features, seed;
    bool hyperbolic;
    int norm;
};

struct favor_sizes { /* directions, features, head width */
    int64_t m, M, d;
};
struct favor_sizes favor_sizes_of(const struct favor_opts *o, const struct attn_shape *s);

struct favor_head {    /* of one KV head, in the state */
    float *sum, *z;    /* (M, d), (M,) */
    float *pk, *b, *v; /* (M, 64), (64,), (64, d): the open tokens */
    float *c;          /* running maximum of b before them; valid once tokens are in */
};

struct favor_state {
    int64_t *tokens;
    float *w; /* (d, m) */
    unsigned char *heads;
};

struct favor_lane {   /* one thread's room; rows are tokens of one query head */
    float *x, *a, *p; /* (64, d) scaled; (64, M) exponents; (64, M) features */
    float *tri, *o;   /* (64, 64), (64, d) */
    float *shift;     /* (64,) largest exponent of a row */
};

/* Cut out of base (NULL: only sizes); return bytes. */
size_t favor_head_cut(struct favor_head *h, unsigned char *base, const struct favor_sizes *z);
size_t favor_state_cut(struct favor_state *s, unsigned char *base, const struct favor_sizes *z);
size_t favor_lane_cut(struct favor_lane *w, unsigned char *base, const struct favor_sizes *z);

struct favor_part { /* tokens of the call within one open 64: slots slot .. slot+n-1, the first is row i of the chunk */
    const struct attn_call *c;
    const struct favor_state *st;
    struct favor_sizes z;
    int64_t i, n, slot;
};

/* w->p (n, M) = e^(a - shift) of the rows src + x ld, w->x the scaled rows, and half their |x'|^2 into half (64,) */
void favor_features(const struct favor_part *t, struct favor_lane *w, const float *src, int64_t ld, float *half);
/* Keys and values of the part into the open 64 of KV head g. */
void favor_keys(const struct favor_part *t, struct favor_lane *w, int64_t g, const struct favor_head *h);
/* The open 64 are complete: into S and z. first: they are the sequence's first. */
void favor_close(const struct favor_part *t, const struct favor_head *h, bool first);

struct favor_rows { /* of one query head's rows: half |x'|^2, shift of the sums, their weight e^(c - top), all weights' sum */
    float half[FAVOR_OPEN], top[FAVOR_OPEN], by[FAVOR_OPEN], den[FAVOR_OPEN];
};
/* Features of the query head's rows in w->p; w->tri (n, 64) weights of the open keys, own and earlier ones, the others zeros. */
void favor_weights(const struct favor_part *t, struct favor_lane *w, int64_t head, const struct favor_head *h,
                   struct favor_rows *r);

#endif
