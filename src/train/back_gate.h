/* The gate of AST in training: scores, soft and hard choices of one sequence in one layer, and their gradients. Formulas as in
 * attn/gate.h; m = sigmoid((s - tau) / T) with sum m = k (attn/softtopk.h). Of every row only tau is kept.
 *   source   ../shared/reference/ast_reference.py gate_scores, soft_topk, soft_topk_grad */
#ifndef AST_TRAIN_BACK_GATE_H
#define AST_TRAIN_BACK_GATE_H

#include "attn/gate.h"
#include "train/back_attn.h"

struct back_angles { /* rotations of the gate's vectors: the same in every layer */
    int64_t half;
    float *cs, *sn;       /* (n, half) at tokens */
    float *mid_c, *mid_s; /* (nb, half) at the middle of blocks */
};

struct back_gate {
    const struct kern_table *kern;
    const struct attn_shape *shape;
    const struct back_rule *rule;
    const struct back_angles *angles;
    const struct gate_layer *w; /* all tensors there */
    bool context;               /* wc counts: it is trained, or not all zeros */
    int64_t n, units, width, buckets;
    const float *q0, *k0, *x; /* (n, H, d), (n, G, d) unrotated; (n, D) the layer's normed input */
    const float *k, *v;       /* (n, G, d) rotated keys; values: for summaries */
    float *tau;               /* (units, n): written by the forward pass, read by the backward pass */
    /* made by back_gate_open; nb: complete blocks, ng: groups of 16 of them, ns, nsg: summaries likewise */
    int64_t block, nb, ng, ns, nsg;
    float *ctx, *rms;                   /* (n, D); (n,) what it was multiplied by */
    float *u;                           /* (n, units, e) rotated */
    float *rho;                         /* (n, units), BUDGET_LEARNED */
    float *feat;                        /* (G, nb, 3 d) */
    float *blk;                         /* (units, 16 ng, e) rotated */
    float *blkt;                        /* (units, ng, e, 16) the same, transposed */
    float *kbar, *vbar, *kbart, *vbart; /* (G, 16 nsg, d); (G, nsg, d, 16) */
    /* gradients; NULL in the forward pass */
    const struct gate_layer *g; /* added to; tensors NULL: not trained */
    float *du, *drho, *dblk;    /* (n, units, e), (n, units), (units, 16 ng, e): of rotated vectors */
    float *dkbar, *dvbar;       /* (G, 16 nsg, d) */
    float *dq0, *dk0, *dx;      /* added to; NULL: not wanted */
    double dtemp;               /* d loss / d temperature, added to */
    struct arena *step;
};

/* What a thread has of a tile: T tokens, ld columns a row. */
struct back_room {
    int64_t ld;
    float *s, *lm, *l1m;    /* (T, ld) scores; ln m, ln(1 - m) by block; l1m NULL without summaries */
    float *a, *b;           /* (T, ld) d loss / d ln m, d ln(1 - m) */
    struct select_set *set; /* (T,) */
    float *work;            /* (ld + 64,) */
    int32_t *chosen;        /* (ld,) */
    float *ddist, *dbeta;   /* (units, buckets), (H,) this thread's sums */
    float *dblk;            /* (units, 16 ng, e) this thread's sums */
    float *dkbar, *dvbar;   /* (G, 16 nsg, d) this thread's sums */
    double dtemp;
};

/* Makes vectors of tokens and blocks. Takes back_gate_bytes() of g->step and keeps it. ERR_NOMEM. */
int back_gate_open(struct back_gate *g, bool backward);
size_t back_gate_bytes(const struct attn_shape *s, const struct back_rule *r, int64_t n, const struct attn_params *p);

/* Tokens t0 .. t0+count-1 of a unit: sets, scores, ln m in room; tau is found, or taken when `again`. *kept: sum of m, forced
 * blocks counted in. */
struct back_tile {
    int64_t unit, t0, count;
};
void back_gate_choose(const struct back_gate *g, struct back_room *r, const struct back_tile *t, bool again, double *kept);
/* From r->a and r->b: gradients of scores, and through them of u, blocks, distances and budget. */
void back_gate_chosen(const struct back_gate *g, struct back_room *r, const struct back_tile *t);
/* After all tiles: from du, dblk, drho to weights and inputs. */
int back_gate_close(struct back_gate *g);

int back_angles_make(struct back_angles *out, const struct attn_shape *s, const int64_t n_width_block[3], struct arena *step);

#endif
