/* Vector kernels in the vocabulary of <isa>/simd.h and simd_math.h. What each does stands in kernels/kern.h. */
#ifndef AST_KERNELS_SIMD_VEC_H
#define AST_KERNELS_SIMD_VEC_H

#include <math.h>
#include <string.h>

static float dot(const float *x, const float *y, int64_t n)
{
    vf a = vzero(), b = vzero();
    int64_t i = 0;
    for (; i + 2 * W <= n; i += 2 * W) {
        a = vfma(vload(x + i), vload(y + i), a);
        b = vfma(vload(x + i + W), vload(y + i + W), b);
    }
    for (; i < n; i += W) {
        int64_t k = n - i < W ? n - i : W;
        a = vfma(vload_n(x + i, k), vload_n(y + i, k), a);
    }
    return vsum(vadd(a, b));
}

/* y[i] = EXPR of x = y[i] and what else it names, for all i < n */
#define MAP(EXPR, EXPR_N)                                                                                                          \
    int64_t i = 0;                                                                                                                 \
    for (; i + W <= n; i += W)                                                                                                     \
        vstore(y + i, EXPR);                                                                                                       \
    if (i < n) {                                                                                                                   \
        int64_t k = n - i;                                                                                                         \
        vstore_n(y + i, EXPR_N, k);                                                                                                \
    }

static void axpy(float *y, float a, const float *x, int64_t n)
{
    vf f = vset1(a);
    MAP(vfma(f, vload(x + i), vload(y + i)), vfma(f, vload_n(x + i, k), vload_n(y + i, k)))
}

static void add(float *y, const float *x, int64_t n)
{
    MAP(vadd(vload(y + i), vload(x + i)), vadd(vload_n(y + i, k), vload_n(x + i, k)))
}

static void scale(float *y, float a, int64_t n)
{
    vf f = vset1(a);
    MAP(vmul(vload(y + i), f), vmul(vload_n(y + i, k), f))
}

static bool all_finite(const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i += W)
        if (!vall_finite(n - i < W ? vload_n(x + i, n - i) : vload(x + i)))
            return false;
    return true;
}

static float row_max(const float *x, int64_t n)
{
    vf top = vset1(-INFINITY);
    int64_t i = 0;
    for (; i + W <= n; i += W)
        top = vmax(vload(x + i), top);
    if (i < n)
        top = vmax(vkeep(vload_n(x + i, n - i), 0, n - i), top);
    return vtop(top);
}

static int64_t argmax(const float *x, int64_t n)
{
    float top = row_max(x, n);
    if (top == -INFINITY)
        return 0;
    for (int64_t i = 0; i < n; i += W) {
        int hit = veq_mask(n - i < W ? vkeep(vload_n(x + i, n - i), 0, n - i) : vload(x + i), vset1(top));
        if (hit)
            return i + __builtin_ctz((unsigned)hit);
    }
    return 0;
}

static void f32_from_bf16(float *y, const void *x, int64_t n)
{
    const char *src = x;
    uint16_t rest[W] = {0};
    int64_t i = 0;
    for (; i + W <= n; i += W)
        vstore(y + i, vload_bf16(src + 2 * i));
    memcpy(rest, src + 2 * i, (size_t)(n - i) * 2);
    vstore_n(y + i, vload_bf16(rest), n - i);
}

static void f32_from_f16(float *y, const void *x, int64_t n)
{
    const char *src = x;
    uint16_t rest[W] = {0};
    int64_t i = 0;
    for (; i + W <= n; i += W)
        vstore(y + i, vload_f16(src + 2 * i));
    memcpy(rest, src + 2 * i, (size_t)(n - i) * 2);
    vstore_n(y + i, vload_f16(rest), n - i);
}

static void bf16_from_f32(uint16_t *y, const float *x, int64_t n)
{
    uint16_t rest[W];
    int64_t i = 0;
    for (; i + W <= n; i += W)
        vstore_bf16(y + i, vload(x + i));
    if (i < n) {
        vstore_bf16(rest, vload_n(x + i, n - i));
        memcpy(y + i, rest, (size_t)(n - i) * 2);
    }
}

static void rms_norm(float *y, const float *x, const float *w, int64_t n, float eps)
{
    float mean = n > 0 ? dot(x, x, n) / (float)n : 0;
    vf r = vset1(1 / sqrtf(mean + eps));
    MAP(vmul(vmul(vload(x + i), r), vload(w + i)), vmul(vmul(vload_n(x + i, k), r), vload_n(w + i, k)))
}

static void layer_norm(float *y, const float *x, const float *w, const float *b, int64_t n, float eps)
{
    vf sum = vzero(), var = vzero();
    for (int64_t i = 0; i < n; i += W)
        sum = vadd(sum, n - i < W ? vload_n(x + i, n - i) : vload(x + i));
    vf mu = vset1(vsum(sum) / (float)(n > 0 ? n : 1));
    int64_t j = 0;
    for (; j + W <= n; j += W) {
        vf d = vsub(vload(x + j), mu);
        var = vfma(d, d, var);
    }
    float square = 0;
    for (; j < n; j++) {
        float d = x[j] - _mm_cvtss_f32(*(const __m128 *)&mu);
        square += d * d;
    }
    vf r = vset1(1 / sqrtf((vsum(var) + square) / (float)(n > 0 ? n : 1) + eps));
    if (b) {
        MAP(vfma(vmul(vsub(vload(x + i), mu), r), vload(w + i), vload(b + i)),
            vfma(vmul(vsub(vload_n(x + i, k), mu), r), vload_n(w + i, k), vload_n(b + i, k)))
    } else {
        MAP(vmul(vmul(vsub(vload(x + i), mu), r), vload(w + i)), vmul(vmul(vsub(vload_n(x + i, k), mu), r), vload_n(w + i, k)))
    }
}

/* x / (1 + exp(-x)); beyond -88 the exponential is infinite and the quotient -0 */
INL vf silu_of(vf x)
{
    return vdiv(x, vadd(vset1(1), vexp(vneg_where(x, vset1(-1)))));
}

static void silu(float *y, int64_t n)
{
    MAP(silu_of(vload(y + i)), silu_of(vload_n(y + i, k)))
}

static void silu_mul(float *y, const float *gate, const float *up, int64_t n){
    MAP(vmul(silu_of(vload(gate + i)), vload(up + i)), vmul(silu_of(vload_n(gate + i, k)), vload_n(up + i, k)))}

/* x / (1 + exp(-2u)), u = sqrt(2/pi) (x + 0.044715 x^3): Hendrycks & Gimpel 2016, sec. 2 */
INL vf gelu_tanh(vf x)
{
    vf u = vmul(vmul(x, vset1(-1.59576912F)), vfma(vmul(x, x), vset1(0.044715F), vset1(1)));
    return vdiv(x, vadd(vset1(1), vexp(u)));
}

/* x Phi(x), Phi by erfc of z = |x| / sqrt 2: Abramowitz & Stegun 1964, 7.1.26 (|error| <= 1.5e-7) */
INL vf gelu_erf(vf x)
{
    vf z = vmin(vmul(vabs(x), vset1(0.70710678F)), vset1(13));
    vf t = vdiv(vset1(1), vfma(z, vset1(0.3275911F), vset1(1)));
    vf p = vfma(t, vset1(1.061405429F), vset1(-1.453152027F));
    p = vfma(p, t, vset1(1.421413741F));
    p = vfma(p, t, vset1(-0.284496736F));
    p = vfma(p, t, vset1(0.254829592F));
    vf half_erfc = vmul(vmul(vset1(0.5F), vmul(p, t)), vexp(vneg_where(vmul(z, z), vset1(-1))));
    return vmul(x, vselect_neg(x, half_erfc, vsub(vset1(1), half_erfc)));
}

static void gelu(float *y, int64_t n, bool tanh_form)
{
    if (tanh_form) {
        MAP(gelu_tanh(vload(y + i)), gelu_tanh(vload_n(y + i, k)))
    } else {
        MAP(gelu_erf(vload(y + i)), gelu_erf(vload_n(y + i, k)))
    }
}

static void gelu_mul(float *y, const float *gate, const float *up, int64_t n, bool tanh_form)
{
    if (tanh_form) {
        MAP(vmul(gelu_tanh(vload(gate + i)), vload(up + i)), vmul(gelu_tanh(vload_n(gate + i, k)), vload_n(up + i, k)))
    } else {
        MAP(vmul(gelu_erf(vload(gate + i)), vload(up + i)), vmul(gelu_erf(vload_n(gate + i, k)), vload_n(up + i, k)))
    }
}

static void relu(float *y, int64_t n)
{
    MAP(vrelu(vload(y + i)), vrelu(vload_n(y + i, k)))
}

static void rope(float *x, const float *cs, const float *sn, int64_t rot)
{
    int64_t half = rot / 2;
    for (int64_t i = 0; i < half; i += W) {
        int64_t k = half - i < W ? half - i : W;
        vf a = vload_n(x + i, k), b = vload_n(x + half + i, k), c = vload_n(cs + i, k), s = vload_n(sn + i, k);
        vstore_n(x + i, vfnma(b, s, vmul(a, c)), k);
        vstore_n(x + half + i, vfma(a, s, vmul(b, c)), k);
    }
}

static float exp_row(float *y, const float *x, int64_t n, float *sum)
{
    float top = row_max(x, n);
    vf from = vset1(top == -INFINITY ? 0 : top), s = vzero();
    int64_t i = 0;
    for (; i + W <= n; i += W) {
        vf e = vexp(vsub(vload(x + i), from));
        vstore(y + i, e);
        s = vadd(s, e);
    }
    if (i < n) {
        vf e = vexp(vsub(vkeep(vload_n(x + i, n - i), 0, n - i), from));
        vstore_n(y + i, e, n - i);
        s = vadd(s, e);
    }
    *sum = vsum(s);
    return top;
}

static void lse_update(const float *x, int64_t n, float *m, double *s)
{
    float top = row_max(x, n);
    if (top > *m) {
        *s = *m == -INFINITY ? *s : *s * exp((double)*m - (double)top);
        *m = top;
    }
    vf from = vset1(*m == -INFINITY ? 0 : *m);
    for (int64_t i = 0; i < n;) { /* floats for a while, then double: a vocabulary has 10^5 terms */
        int64_t stop = n - i > 64 * W ? i + 64 * W : n;
        vf part = vzero();
        for (; i + W <= stop; i += W)
            part = vadd(part, vexp(vsub(vload(x + i), from)));
        if (i < stop) {
            part = vadd(part, vexp(vsub(vkeep(vload_n(x + i, stop - i), 0, stop - i), from)));
            i = stop;
        }
        *s += (double)vsum(part);
    }
}

#define VEC_ENTRIES                                                                                                                \
    .dot = dot, .axpy = axpy, .add = add, .scale = scale, .all_finite = all_finite, .f32_from_bf16 = f32_from_bf16,                \
    .f32_from_f16 = f32_from_f16, .bf16_from_f32 = bf16_from_f32, .rms_norm = rms_norm, .layer_norm = layer_norm,                  \
    .silu_mul = silu_mul, .gelu_mul = gelu_mul, .silu = silu, .gelu = gelu, .relu = relu, .rope = rope, .exp_row = exp_row,        \
    .lse_update = lse_update, .argmax = argmax

#endif
