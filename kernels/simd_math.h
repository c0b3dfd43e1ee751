/* Vector exponential and what is built of it, in the vocabulary of <isa>/simd.h, which is included first.
 *
 * exp(x) = 2^n exp(f), n = round(x / ln 2), f = x - n ln 2 in two parts (Cody & Waite 1980, ch. 6), |f| <= ln 2 / 2;
 * exp(f) = 1 + f + f^2 P(f), P interpolated at five Chebyshev nodes: relative error 8e-9. Measured by test_vec over
 * [-87, 0]: below 1.1 ulp. */
#ifndef AST_KERNELS_SIMD_MATH_H
#define AST_KERNELS_SIMD_MATH_H

#define LOG2E_F 1.44269504F
#define LN2_HI 0.693145751953125F /* 16 bits, so that n times it is exact */
#define LN2_LO 1.42860677e-6F
#define EXP_P0 0.5F
#define EXP_P1 0.166665770F
#define EXP_P2 0.0416665547F
#define EXP_P3 0.00836317307F
#define EXP_P4 0.00139261761F

/* f and n of x */
INL vf vexp_split(vf x, vf *n)
{
    *n = vround(vmul(x, vset1(LOG2E_F)));
    return vfnma(*n, vset1(LN2_LO), vfnma(*n, vset1(LN2_HI), x));
}

INL vf vexp_poly(vf f)
{
    vf p = vfma(f, vset1(EXP_P4), vset1(EXP_P3));
    p = vfma(p, f, vset1(EXP_P2));
    p = vfma(p, f, vset1(EXP_P1));
    p = vfma(p, f, vset1(EXP_P0));
    return vadd(vset1(1), vfma(vmul(f, f), p, f));
}

/* NaN stays, +-INFINITY give INFINITY and 0 */
INL vf vexp(vf x)
{
    vf n, f;
    x = vmin(vset1(90), vmax(vset1(-110), x));
    f = vexp_split(x, &n);
    return vscale2(vexp_poly(f), n);
}

/* 2^y = 1 + y C(y), minimax: relative error 1.4e-8 for |y| <= 1/2, and 5.4e-8 for the two terms that |y| <= 1/64 takes, with
 * these rounded coefficients. */
#define LOG2E_LO 1.92596303e-8F
#define POW2_C0 0.693147242F
#define POW2_C1 0.240226507F
#define POW2_C2 0.0555029698F
#define POW2_C3 0.00961803086F
#define POW2_C4 0.00134101231F
#define POW2_C5 0.000154698384F
#define POW2_NEAR_C0 0.693157375F
#define POW2_NEAR_C1 0.240228862F

/* vexp_shifted's second argument for e^x 2^-exponent: a sum with it is rounded to a multiple of 2^-POW2_BITS, 127 above the
 * power of two, in the low bits of the float. */
INL float vexp_shift(float exponent)
{
    return (float)(3 << (22 - POW2_BITS)) + 127 - exponent;
}

/* e^x 2^-exponent, at most 1: 0 where x < least, which is exponent ln 2 - 86 or more (no denormal numbers: they are slow); NaN
 * stays. Below 2 ulp, see test_attn. */
INL vf vexp_shifted(vf x, vf shift, vf least)
{
    vf t = vfma(x, vset1(LOG2E_F), shift), n = vsub(t, shift), c;
    vf y = vfma(x, vset1(LOG2E_LO), vfms(x, vset1(LOG2E_F), n)), power = vpow2(t);
    if (POW2_BITS == 5)
        c = vfma(y, vset1(POW2_NEAR_C1), vset1(POW2_NEAR_C0));
    else {
        c = vfma(y, vset1(POW2_C5), vset1(POW2_C4));
        c = vfma(y, c, vset1(POW2_C3));
        c = vfma(y, c, vset1(POW2_C2));
        c = vfma(y, c, vset1(POW2_C1));
        c = vfma(y, c, vset1(POW2_C0));
    }
    return vfma_unless_below(vmul(y, power), c, power, x, least);
}

#endif
