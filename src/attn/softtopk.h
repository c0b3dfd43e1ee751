/* Differentiable top-k: m_i = sigmoid((s_i - tau) / T) with tau such that the m_i sum to k.
 *   source   Amos et al. 2019 (LML); gradient by implicit differentiation of sum m = k */
#ifndef AST_ATTN_SOFTTOPK_H
#define AST_ATTN_SOFTTOPK_H

#include <stdint.h>

/* m (n,) from s (n,), T > 0, 0 < k < n real; k >= n: all ones; k <= 0: all zeros. Returns tau (+-INFINITY at the edges).
 * |sum m - k| <= 1e-12 max(1, k) where doubles allow. */
double soft_topk(double *m, const double *s, int64_t n, double k, double T);

/* ds (n,) = dL/ds and *dk = dL/dk from g (n,) = dL/dm: with v = m (1 - m) and gbar = sum(v g) / sum(v),
 * ds_i = v_i / T (g_i - gbar), dk = gbar. k >= n or k <= 0: zeros. */
void soft_topk_grad(double *ds, double *dk, const double *m, const double *g, int64_t n, double k, double T);

#endif
