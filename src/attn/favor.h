/* FAVOR+: positive orthogonal random features of the softmax kernel. Pure: no state of its own.
 *     x' = x sqrt(scale);  a_r = w_r . x' (and -w_r . x' with hyperbolic features);  E sum_r e^(a_r(q) + a_r(k)) e^(-|q'|^2/2 -
 * |k'|^2/2) / M equals e^(scale q.k) source   Choromanski et al. 2021 (arXiv 2009.14794), 2.3, 2.4, lemma 1 */
#ifndef AST_ATTN_FAVOR_H
#define AST_ATTN_FAVOR_H

#include <stdbool.h>
#include <stdint.h>

struct favor_draw {
    int64_t features, dim; /* m, d */
    uint64_t seed, layer;
    bool sqrt_norm; /* rows have length sqrt(d); else that of a fresh Gaussian row each */
};

/* w (d, m), transposed: column r is w_r. Per d columns the rows of an orthogonal matrix, from a Gaussian one by Gram-Schmidt
 * (the Q of its QR decomposition with a positive diagonal). Element (i, j) of block b's Gaussian is normal number b d^2 + i d + j
 * of stream 2 layer, of r's length normal number r d + j of stream 2 layer + 1. work: d * d doubles. */
void favor_draw(const struct favor_draw *d, float *w, double *work);

#endif
