/* The two products of an MLP with the activation between them. Up to KERN_NARROW rows are shared by all threads, who activate
 * what they have multiplied; more are one thread's own, and nothing between reaches memory farther than the core's second-level
 * cache. */
#ifndef AST_KERNELS_MLP_H
#define AST_KERNELS_MLP_H

#include "kernels/linear.h"

enum { KERN_MLP_PART = 64 }; /* columns of the hidden layer that come into being together, at most */

/* y (m, down.out; ldy) (+)= act(up x) down^T: bit for bit what two calls of kern_linear with act between them give.
 * act gets columns first .. first+n-1 of a row: h is in and out, gated: h = act(h) * u, else u is NULL. */
struct kern_mlp {
    const struct kern_mat *up, *down; /* (F, in), gated: (2 F, in) gate rows first; (out, F) */
    bool gated;
    void (*act)(const void *arg, float *h, float *u, int64_t first, int64_t n);
    const void *arg;
    const float *x;                                     /* (m, in; ldx) */
    void (*row)(const void *arg, float *to, int64_t r); /* as in struct kern_linear */
    int64_t m, ldx;
    float *y;
    int64_t ldy;
    bool accumulate;
    void *scratch; /* kern_mlp_scratch() bytes, 64-byte aligned */
};
/* Whether it can be done so: F in whole blocks, weights of one type. Otherwise call kern_linear twice. */
bool kern_mlp_fits(const struct kern_mat *up, const struct kern_mat *down, int64_t m);
size_t kern_mlp_scratch(const struct kern_mat *up, const struct kern_mat *down, int64_t m);
void kern_mlp(const struct kern_table *k, const struct kern_mlp *c);

#endif
