/* The parts of a layer that work row by row, forward and backward. Gradients of weights are added to; every function uses all
 * threads and gives the same bits for any number of them, but for the sums inside OpenBLAS. */
#ifndef AST_TRAIN_BACK_OPS_H
#define AST_TRAIN_BACK_OPS_H

#include "train/net.h"

/* A linear layer of `out` rows from the part's first on (a fused matrix has those of its parts). x (m, in), y (m, out). */
struct op_linear {
    const struct net_part *w;
    int64_t out, m;
};
void op_linear(const struct op_linear *l, const float *x, float *y, bool add);         /* y = x W^T */
void op_linear_input(const struct op_linear *l, const float *dy, float *dx, bool add); /* dx = dy W */
void op_linear_weight(const struct op_linear *l, const float *dy, const float *x);     /* dW += dy^T x; nothing if frozen */

void op_bias(const struct kern_table *k, float *y, const struct net_part *b, int64_t m, int64_t width); /* b->w NULL: nothing */
void op_bias_grad(const struct net_part *b, const float *dy, int64_t m, int64_t width);

/* RMSNorm or LayerNorm over rows of `width`, as the model has it. */
struct op_norm {
    const struct kern_table *kern;
    const struct net_part *w, *b;
    bool rms;
    int64_t m, width;
    float eps;
    float *stat; /* (m, 2) scratch of the way back */
};
void op_norm(const struct op_norm *o, const float *x, float *y);
/* dx += the gradient of the input x; those of w and b are added to. dx NULL: only those. */
void op_norm_grad(const struct op_norm *o, const float *x, const float *dy, float *dx);

/* h (m, F) = act(up) or act(gate) * up of up (m, F) or (m, 2 F), biases already in. */
struct op_act {
    const struct kern_table *kern;
    enum model_act act;
    bool gated;
    int64_t m, mlp;
};
void op_act(const struct op_act *o, const float *up, float *h);
void op_act_grad(const struct op_act *o, const float *dh, float *up); /* up becomes its gradient */

#endif
