/* One layer over a whole batch, forward and backward. What a layer's backward needs and the forward pass has not kept is
 * computed anew in the rooms of struct layer_work, which all layers share. */
#ifndef AST_TRAIN_BACK_LAYER_H
#define AST_TRAIN_BACK_LAYER_H

#include "train/back_gate.h"
#include "train/net.h"

enum { LAYER_ROWS = 2048 }; /* rows of the MLP at once */

struct layer_work {          /* N tokens; NULL where the net has no use for it */
    float *cs, *sn, *ns;     /* (N, rot/2) cosine, sine, minus sine */
    float *xn;               /* (N, D) normed input */
    float *qkv;              /* (N, H d + 2 G d) as the product leaves it, bias in */
    float *q, *k, *v;        /* (N, H, d), (N, G, d) ready for attention */
    float *q0, *k0;          /* before rotation: gates */
    float *xm, *up, *h, *dh; /* (LAYER_ROWS, D), (.., 2 F), (.., F), (.., F) */
    float *x1, *dxm;         /* (N, D) between attention and MLP, unless it is kept; (LAYER_ROWS, D) */
    float *datt, *dq, *dk, *dv, *dq0, *dk0, *dqkv, *dxn, *stat;
};

struct layer_keep { /* of one layer, from forward to backward */
    float *x;       /* (N, D) input; the next layer's is the output */
    float *att;     /* (N, H, d) */
    float *lse;     /* (N, H) */
    float *tau;     /* (units, N) */
    float *x1;      /* (N, D) between attention and MLP, where layer_keeps_x1; else NULL */
};

/* A group keeps it: to compute it anew would be a third sum over ranks on the way back. */
bool layer_keeps_x1(const struct net *n);

struct layer_run {
    struct net *net;
    struct net_step *s;
    struct layer_work w;
    struct back_angles angles;
    int64_t tokens, layer;
    struct arena *step;
};

int layer_forward(struct layer_run *r, const struct layer_keep *k, float *out);
/* dx (N, D): gradient of the layer's output, becomes that of its input. last: nothing below is trained, its input's gradient
 * is not wanted and dx is left undefined. */
int layer_backward(struct layer_run *r, const struct layer_keep *k, float *dx, bool last);

/* Counts the bytes of the rooms, and takes them from `to` unless it is NULL. */
size_t layer_take(struct arena *to, const struct net *n, struct layer_work *w, int64_t tokens, bool backward);

#endif
