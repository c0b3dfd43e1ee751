/* The vector vocabulary of kernels/simd_*.h for AVX2 with FMA and F16C: 8 floats. */
#ifndef AST_KERNELS_AVX2_SIMD_H
#define AST_KERNELS_AVX2_SIMD_H

#include <immintrin.h>
#include <stdint.h>

typedef __m256 vf;
typedef __m256i vi;
enum { W = 8 };
#define INL static inline __attribute__((always_inline, unused))

INL vf vset1(float x)
{
    return _mm256_set1_ps(x);
}
INL vf vzero(void)
{
    return _mm256_setzero_ps();
}
INL vf vload(const float *p)
{
    return _mm256_loadu_ps(p);
}
INL void vstore(float *p, vf x)
{
    _mm256_storeu_ps(p, x);
}
INL vi vlanes_below(int64_t n)
{
    int c = n > 8 ? 8 : n < 0 ? 0 : (int)n;
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(c), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
/* the first n lanes, 0 <= n <= W; the others are zeros */
INL vf vload_n(const float *p, int64_t n)
{
    return _mm256_maskload_ps(p, vlanes_below(n));
}
INL void vstore_n(float *p, vf x, int64_t n)
{
    _mm256_maskstore_ps(p, vlanes_below(n), x);
}
INL vf vadd(vf a, vf b)
{
    return _mm256_add_ps(a, b);
}
INL vf vsub(vf a, vf b)
{
    return _mm256_sub_ps(a, b);
}
INL vf vmul(vf a, vf b)
{
    return _mm256_mul_ps(a, b);
}
INL vf vdiv(vf a, vf b)
{
    return _mm256_div_ps(a, b);
}
INL vf vfma(vf a, vf b, vf c) /* a b + c */
{
    return _mm256_fmadd_ps(a, b, c);
}
INL vf vfnma(vf a, vf b, vf c) /* c - a b */
{
    return _mm256_fnmadd_ps(a, b, c);
}
INL vf vfms(vf a, vf b, vf c) /* a b - c */
{
    return _mm256_fmsub_ps(a, b, c);
}
/* b where either is NaN */
INL vf vmax(vf a, vf b)
{
    return _mm256_max_ps(a, b);
}
INL vf vmin(vf a, vf b)
{
    return _mm256_min_ps(a, b);
}
INL vf vround(vf a)
{
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* a 2^n for whole n, |n| <= 250: in two halves, for gradual underflow */
INL vf vscale2(vf a, vf n)
{
    vi whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1), rest = _mm256_sub_epi32(whole, half);
    vi bias = _mm256_set1_epi32(127);
    vf x = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
    vf y = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
    return _mm256_mul_ps(_mm256_mul_ps(a, x), y);
}
/* 2^(t - 127), where the low bits of t are a whole number from 1 to 254 */
enum { POW2_BITS = 0 };
INL vf vpow2(vf t)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(t), 23));
}
/* a b + c, but 0 where x < least */
INL vf vfma_unless_below(vf a, vf b, vf c, vf x, vf least)
{
    return _mm256_and_ps(_mm256_cmp_ps(x, least, _CMP_NLT_UQ), _mm256_fmadd_ps(a, b, c));
}
INL float vsum(vf a)
{
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
/* vsum of each of four, the same bits, in order */
INL void vsum4(const vf a[4], float out[4])
{
    __m128 x[4];
    for (int i = 0; i < 4; i++)
        x[i] = _mm_add_ps(_mm256_castps256_ps128(a[i]), _mm256_extractf128_ps(a[i], 1));
    __m128 ab = _mm_add_ps(_mm_movelh_ps(x[0], x[1]), _mm_movehl_ps(x[1], x[0]));
    __m128 cd = _mm_add_ps(_mm_movelh_ps(x[2], x[3]), _mm_movehl_ps(x[3], x[2]));
    _mm_storeu_ps(out, _mm_add_ps(_mm_shuffle_ps(ab, cd, 0x88), _mm_shuffle_ps(ab, cd, 0xDD)));
}
INL float vtop(vf a)
{
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
INL int vany_gt(vf a, vf b)
{
    return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)) != 0;
}
/* x in lanes first <= i < last, -INFINITY elsewhere */
INL vf vkeep(vf x, int64_t first, int64_t last)
{
    vi keep = _mm256_andnot_si256(vlanes_below(first), vlanes_below(last));
    return _mm256_blendv_ps(_mm256_set1_ps(-__builtin_inff()), x, _mm256_castsi256_ps(keep));
}
INL int vall_finite(vf a)
{
    vf zero = _mm256_sub_ps(a, a); /* NaN for NaN and infinities */
    return _mm256_movemask_ps(_mm256_cmp_ps(zero, zero, _CMP_UNORD_Q)) == 0;
}
INL int vnan_mask(vf a)
{
    return _mm256_movemask_ps(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
}
INL int veq_mask(vf a, vf b)
{
    return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_EQ_OQ));
}
INL int vge_mask(vf a, vf b)
{
    return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GE_OQ));
}
INL vf vrelu(vf a) /* NaN stays */
{
    return _mm256_max_ps(_mm256_setzero_ps(), a);
}
INL vf vneg_where(vf x, vf sign) /* -x where sign is negative */
{
    return _mm256_xor_ps(x, _mm256_and_ps(sign, _mm256_set1_ps(-0.0F)));
}
INL vf vabs(vf x)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0F), x);
}
INL vf vselect_neg(vf sign, vf neg, vf other) /* neg where sign < 0 */
{
    return _mm256_blendv_ps(other, neg, sign);
}

/* 32-bit lanes that hold two bf16: the even one (low half) and the odd one as floats */
INL vf vbf_even(vf x)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(x), 16));
}
INL vf vbf_odd(vf x)
{
    return _mm256_and_ps(x, _mm256_castsi256_ps(_mm256_set1_epi32((int)0xFFFF0000)));
}
/* (W, W) turned about: lane i of x[j] becomes lane j of x[i] */
INL void vtranspose(vf x[8])
{
    vf y[8];
    for (int i = 0; i < 8; i += 4) { /* 4 x 4 of each 128 bits */
        __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(x[i], x[i + 1])), b = _mm256_castps_pd(_mm256_unpackhi_ps(x[i], x[i + 1]));
        __m256d c = _mm256_castps_pd(_mm256_unpacklo_ps(x[i + 2], x[i + 3])),
                d = _mm256_castps_pd(_mm256_unpackhi_ps(x[i + 2], x[i + 3]));
        y[i] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c)), y[i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
        y[i + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d)), y[i + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
    }
    for (int i = 0; i < 4; i++) {
        x[i] = _mm256_permute2f128_ps(y[i], y[i + 4], 0x20);
        x[i + 4] = _mm256_permute2f128_ps(y[i], y[i + 4], 0x31);
    }
}
/* W bf16 at p as floats */
INL vf vload_bf16(const void *p)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}
INL vf vload_f16(const void *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
/* to bf16, nearest even, quiet NaN: W of them to p */
INL void vstore_bf16(void *p, vf x)
{
    vi bits = _mm256_castps_si256(x), odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    vi up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
    vi quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    up = _mm256_blendv_epi8(up, quiet, _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q)));
    up = _mm256_srli_epi32(up, 16);
    _mm_storeu_si128((__m128i *)p, _mm_packus_epi32(_mm256_castsi256_si128(up), _mm256_extracti128_si256(up, 1)));
}

/* The lanes of x, or their numbers from first on, whose bit is set in mask: side by side to p, which has room for W of them.
 * Returns how many. Four lanes at a time: their numbers for each mask. */
static const int32_t vpack_lanes[16][4]
    __attribute__((unused)) = {{0}, {0},    {1},    {0, 1},    {2},    {0, 2},    {1, 2},    {0, 1, 2},
                               {3}, {0, 3}, {1, 3}, {0, 1, 3}, {2, 3}, {0, 2, 3}, {1, 2, 3}, {0, 1, 2, 3}};
INL __m128i vpack_of(unsigned mask)
{
    return _mm_loadu_si128((const __m128i *)vpack_lanes[mask]);
}
INL int64_t vpack(float *p, vf x, unsigned mask)
{
    int low = __builtin_popcount(mask & 15);
    _mm_storeu_ps(p, _mm_permutevar_ps(_mm256_castps256_ps128(x), vpack_of(mask & 15)));
    _mm_storeu_ps(p + low, _mm_permutevar_ps(_mm256_extractf128_ps(x, 1), vpack_of(mask >> 4)));
    return low + __builtin_popcount(mask >> 4);
}
INL int64_t vpack_index(void *p, int64_t first, unsigned mask)
{
    int low = __builtin_popcount(mask & 15);
    __m128i from = _mm_set1_epi32((int)first);
    _mm_storeu_si128((__m128i *)p, _mm_add_epi32(from, vpack_of(mask & 15)));
    _mm_storeu_si128((__m128i *)((char *)p + 4 * low), _mm_add_epi32(_mm_add_epi32(from, _mm_set1_epi32(4)), vpack_of(mask >> 4)));
    return low + __builtin_popcount(mask >> 4);
}

#endif
