/* Kernels of training in the vocabulary of <isa>/simd.h and simd_math.h. What each does stands in kernels/kern.h. */
#ifndef AST_KERNELS_SIMD_TRAIN_H
#define AST_KERNELS_SIMD_TRAIN_H

#include <math.h>

#include "kernels/kern.h"

enum { PAN_ROWS = 6, PAN_VECS = W == 16 ? 4 : 2, PAN_STEPS = 96, SOFT_VB = KERN_KB / W };
#define PAN_UNROLL _Pragma("GCC unroll 32")

/* ---- products: mr x nv vectors of C in registers; steps s0 .. s1-1; tail: only so many columns, nv 1 ---- */

INL void pan_block(const int mr, const int nv, const int64_t tail, const struct kern_panel *c, const int64_t at[4])
{
    int64_t i0 = at[0], j0 = at[1], s0 = at[2], s1 = at[3];
    bool add = c->accumulate || s0 > 0;
    vf acc[PAN_ROWS][PAN_VECS];
    const float *a = c->a + i0 * c->a_row, *b[PAN_VECS];
    PAN_UNROLL for (int v = 0; v < nv; v++) b[v] = c->b + (j0 + v * W) / KERN_KB * c->b_block + (j0 + v * W) % KERN_KB;
    PAN_UNROLL for (int r = 0; r < mr; r++) PAN_UNROLL for (int v = 0; v < nv; v++)
    {
        const float *y = c->c + (i0 + r) * c->ldc + j0 + v * W;
        acc[r][v] = !add ? vzero() : tail ? vload_n(y, tail) : vload(y);
    }
    for (int64_t s = s0; s < s1; s++) {
        vf wide[PAN_VECS];
        PAN_UNROLL for (int v = 0; v < nv; v++) wide[v] = tail ? vload_n(b[v] + s * c->b_step, tail) : vload(b[v] + s * c->b_step);
        PAN_UNROLL for (int r = 0; r < mr; r++)
        {
            vf one = vset1(a[r * c->a_row + s * c->a_step]);
            PAN_UNROLL for (int v = 0; v < nv; v++) acc[r][v] = vfma(one, wide[v], acc[r][v]);
        }
    }
    PAN_UNROLL for (int r = 0; r < mr; r++) PAN_UNROLL for (int v = 0; v < nv; v++)
    {
        float *y = c->c + (i0 + r) * c->ldc + j0 + v * W;
        tail ? vstore_n(y, acc[r][v], tail) : vstore(y, acc[r][v]);
    }
}

/* All rows of some columns: B's part stays in the first-level cache. */
INL void pan_columns(const int nv, const int64_t tail, const struct kern_panel *c, int64_t j0, int64_t s0)
{
    int64_t s1 = c->k - s0 < PAN_STEPS ? c->k : s0 + PAN_STEPS, i = 0;
    for (; i + PAN_ROWS <= c->m; i += PAN_ROWS)
        pan_block(PAN_ROWS, nv, tail, c, (const int64_t[4]){i, j0, s0, s1});
    if (i + 4 <= c->m) {
        pan_block(4, nv, tail, c, (const int64_t[4]){i, j0, s0, s1});
        i += 4;
    }
    if (i + 2 <= c->m) {
        pan_block(2, nv, tail, c, (const int64_t[4]){i, j0, s0, s1});
        i += 2;
    }
    if (i < c->m)
        pan_block(1, nv, tail, c, (const int64_t[4]){i, j0, s0, s1});
}

static void panel(const struct kern_panel *c)
{
    for (int64_t s = 0; s < c->k || (s == 0 && !c->accumulate); s += PAN_STEPS) {
        int64_t j = 0;
        for (; j + PAN_VECS * W <= c->n; j += PAN_VECS * W)
            pan_columns(PAN_VECS, 0, c, j, s);
        for (; j + W <= c->n; j += W)
            pan_columns(1, 0, c, j, s);
        if (j < c->n)
            pan_columns(1, c->n - j, c, j, s);
    }
}

/* ---- activations ---- */

INL vf sigmoid_of(vf x)
{
    return vdiv(vset1(1), vadd(vset1(1), vexp(vsub(vzero(), x))));
}

/* n lanes from i: act and its slope times what comes from above */
INL void act_store(const struct kern_act_grad *c, int64_t i, int64_t n, vf act, vf slope)
{
    vf dh = vload_n(c->dh + i, n);
    if (c->up) {
        vf up = vload_n(c->up + i, n);
        vstore_n(c->dup + i, vmul(dh, act), n);
        dh = vmul(dh, up);
    }
    vstore_n(c->dgate + i, vmul(dh, slope), n);
}

static void silu_grad(const struct kern_act_grad *c)
{
    for (int64_t i = 0; i < c->n; i += W) {
        int64_t n = c->n - i < W ? c->n - i : W;
        vf x = vload_n(c->gate + i, n), s = sigmoid_of(x), act = vmul(x, s);
        act_store(c, i, n, act, vfma(act, vsub(vset1(1), s), s));
    }
}

/* Phi by erfc of z = |x| / sqrt 2: Abramowitz & Stegun 1964, 7.1.26 (|error| <= 1.5e-7) */
INL vf normal_cdf(vf x, vf *gauss)
{
    vf z = vmin(vmul(vabs(x), vset1(0.70710678F)), vset1(13));
    vf t = vdiv(vset1(1), vfma(z, vset1(0.3275911F), vset1(1)));
    vf p = vfma(t, vset1(1.061405429F), vset1(-1.453152027F));
    p = vfma(p, t, vset1(1.421413741F));
    p = vfma(p, t, vset1(-0.284496736F));
    p = vfma(p, t, vset1(0.254829592F));
    *gauss = vexp(vsub(vzero(), vmul(z, z)));
    vf tail = vmul(vmul(vset1(0.5F), vmul(p, t)), *gauss);
    return vselect_neg(x, tail, vsub(vset1(1), tail));
}

static void gelu_grad(const struct kern_act_grad *c, bool tanh_form)
{
    for (int64_t i = 0; i < c->n; i += W) {
        int64_t n = c->n - i < W ? c->n - i : W;
        vf x = vload_n(c->gate + i, n), s, slope, gauss;
        if (tanh_form) { /* 1.59576912 = 2 sqrt(2 / pi) */
            vf sq = vmul(x, x), two_u = vmul(vmul(x, vset1(1.59576912F)), vfma(sq, vset1(0.044715F), vset1(1)));
            s = sigmoid_of(two_u);
            slope = vmul(vset1(1.59576912F), vfma(sq, vset1(3 * 0.044715F), vset1(1)));
            slope = vfma(vmul(vmul(x, s), vsub(vset1(1), s)), slope, s);
        } else {
            s = normal_cdf(x, &gauss);
            slope = vfma(vmul(x, vset1(0.39894228F)), gauss, s);
        }
        act_store(c, i, n, vmul(x, s), slope);
    }
}

/* ---- softmax rows ---- */

static float biased_max(const float *s, const float *bias, int64_t blocks)
{
    vf top = vset1(-INFINITY);
    for (int64_t b = 0; b < blocks; b++) {
        vf add = vset1(bias ? bias[b] : 0);
        for (int u = 0; u < SOFT_VB; u++)
            top = vmax(vadd(vload(s + b * KERN_KB + u * W), add), top);
    }
    return vtop(top);
}

static float biased_exp(float *s, const float *bias, int64_t blocks, float shift)
{
    vf sum = vzero();
    for (int64_t b = 0; b < blocks; b++) {
        vf add = vset1((bias ? bias[b] : 0) - shift);
        for (int u = 0; u < SOFT_VB; u++) {
            float *at = s + b * KERN_KB + u * W;
            vf e = vexp(vadd(vload(at), add));
            vstore(at, e);
            sum = vadd(sum, e);
        }
    }
    return vsum(sum);
}

static void softmax_grad(float *dp, const float *p, float dot, int64_t blocks, float *sums)
{
    vf less = vset1(dot);
    for (int64_t b = 0; b < blocks; b++) {
        vf sum = vzero();
        for (int u = 0; u < SOFT_VB; u++) {
            float *at = dp + b * KERN_KB + u * W;
            vf d = vmul(vload(p + b * KERN_KB + u * W), vsub(vload(at), less));
            vstore(at, d);
            sum = vadd(sum, d);
        }
        if (sums)
            sums[b] += vsum(sum);
    }
}

/* ---- differentiable top-k ---- */

INL vf soft_z(const struct kern_soft *c, int64_t i, int64_t n)
{
    return vmul(vsub(vload_n(c->s + i, n), vset1(c->tau)), vset1(c->inv_T));
}

static void soft_sums(const struct kern_soft *c, float *sum, float *slope)
{
    vf a = vzero(), b = vzero();
    int64_t i = 0;
    for (; i + W <= c->n; i += W) {
        vf m = sigmoid_of(soft_z(c, i, W));
        a = vadd(a, m);
        b = vfma(m, vsub(vset1(1), m), b);
    }
    float rest_m[W] = {0}, m_sum = vsum(a), v_sum = vsum(b);
    if (i < c->n)
        vstore(rest_m, sigmoid_of(soft_z(c, i, c->n - i)));
    for (int64_t j = 0; i + j < c->n; j++) {
        m_sum += rest_m[j];
        v_sum += rest_m[j] * (1 - rest_m[j]);
    }
    *sum = m_sum;
    *slope = v_sum;
}

/* ln(1 + e) for 0 <= e <= 1 as 2 artanh(e / (2 + e)), whose argument is at most 1/3: seven terms leave 1e-8 */
INL vf log_1p(vf e)
{
    vf x = vdiv(e, vadd(e, vset1(2))), sq = vmul(x, x), p = vset1(2.0F / 13);
    p = vfma(p, sq, vset1(2.0F / 11));
    p = vfma(p, sq, vset1(2.0F / 9));
    p = vfma(p, sq, vset1(2.0F / 7));
    p = vfma(p, sq, vset1(2.0F / 5));
    p = vfma(p, sq, vset1(2.0F / 3));
    p = vfma(p, sq, vset1(2));
    return vmul(p, x);
}

static void soft_logs(const struct kern_soft *c, float *log_m, float *log_1m)
{
    for (int64_t i = 0; i < c->n; i += W) {
        int64_t n = c->n - i < W ? c->n - i : W;
        vf z = soft_z(c, i, n), soft = log_1p(vexp(vsub(vzero(), vabs(z))));
        vstore_n(log_m + i, vsub(vmin(z, vzero()), soft), n);
        if (log_1m)
            vstore_n(log_1m + i, vsub(vmin(vsub(vzero(), z), vzero()), soft), n);
    }
}

#endif
