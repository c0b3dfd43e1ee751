/* The vector vocabulary of kernels/simd_*.h for AVX-512: 16 floats. */
#ifndef AST_KERNELS_AVX512_SIMD_H
#define AST_KERNELS_AVX512_SIMD_H

#include <immintrin.h>
#include <stdint.h>

typedef __m512 vf;
typedef __m512i vi;
enum { W = 16 };
#define INL static inline __attribute__((always_inline, unused))

INL vf vset1(float x)
{
    return _mm512_set1_ps(x);
}
INL vf vzero(void)
{
    return _mm512_setzero_ps();
}
INL vf vload(const float *p)
{
    return _mm512_loadu_ps(p);
}
INL void vstore(float *p, vf x)
{
    _mm512_storeu_ps(p, x);
}
/* the first n lanes, 0 <= n <= W; the others are zeros */
INL vf vload_n(const float *p, int64_t n)
{
    return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}
INL void vstore_n(float *p, vf x, int64_t n)
{
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), x);
}
INL vf vadd(vf a, vf b)
{
    return _mm512_add_ps(a, b);
}
INL vf vsub(vf a, vf b)
{
    return _mm512_sub_ps(a, b);
}
INL vf vmul(vf a, vf b)
{
    return _mm512_mul_ps(a, b);
}
INL vf vdiv(vf a, vf b)
{
    return _mm512_div_ps(a, b);
}
INL vf vfma(vf a, vf b, vf c) /* a b + c */
{
    return _mm512_fmadd_ps(a, b, c);
}
INL vf vfnma(vf a, vf b, vf c) /* c - a b */
{
    return _mm512_fnmadd_ps(a, b, c);
}
INL vf vfms(vf a, vf b, vf c) /* a b - c */
{
    return _mm512_fmsub_ps(a, b, c);
}
/* b where either is NaN */
INL vf vmax(vf a, vf b)
{
    return _mm512_max_ps(a, b);
}
INL vf vmin(vf a, vf b)
{
    return _mm512_min_ps(a, b);
}
INL vf vround(vf a)
{
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* a 2^n for whole n, gradual underflow included */
INL vf vscale2(vf a, vf n)
{
    return _mm512_scalef_ps(a, n);
}
/* 2^(j / 32) 2^(e - 127), where the low 5 bits of t are j and those above them e, 1 <= e <= 254: a table without what j adds to
 * it in the shift. */
enum { POW2_BITS = 5 };
INL vf vpow2(vf t)
{
    static const uint32_t table[32] = {0x00000000, 0xFFFECD87, 0xFFFDAAC3, 0xFFFC980F, 0xFFFB95C2, 0xFFFAA43A, 0xFFF9C3D3,
                                       0xFFF8F4F0, 0xFFF837F0, 0xFFF78D3A, 0xFFF6F532, 0xFFF67043, 0xFFF5FED7, 0xFFF5A15B,
                                       0xFFF5583F, 0xFFF523F6, 0xFFF504F3, 0xFFF4FBAF, 0xFFF508A4, 0xFFF52C4D, 0xFFF5672A,
                                       0xFFF5B9BE, 0xFFF6248C, 0xFFF6A81E, 0xFFF744FD, 0xFFF7FBB8, 0xFFF8CCDF, 0xFFF9B907,
                                       0xFFFAC0C7, 0xFFFBE4BA, 0xFFFD257D, 0xFFFE83B3};
    vi bits = _mm512_castps_si512(t);
    vi part = _mm512_permutex2var_epi32(_mm512_loadu_si512(table), bits, _mm512_loadu_si512(table + 16));
    return _mm512_castsi512_ps(_mm512_add_epi32(part, _mm512_slli_epi32(bits, 23 - POW2_BITS)));
}
/* a b + c, but 0 where x < least */
INL vf vfma_unless_below(vf a, vf b, vf c, vf x, vf least)
{
    return _mm512_maskz_fmadd_ps(_mm512_cmp_ps_mask(x, least, _CMP_NLT_UQ), a, b, c);
}
INL float vsum(vf a)
{
    return _mm512_reduce_add_ps(a);
}
/* vsum of each of four, the same bits, in order */
INL void vsum4(const vf a[4], float out[4])
{
    vf x = _mm512_add_ps(_mm512_shuffle_f32x4(a[0], a[1], 0x44), _mm512_shuffle_f32x4(a[0], a[1], 0xEE)); /* 256 bits each */
    vf y = _mm512_add_ps(_mm512_shuffle_f32x4(a[2], a[3], 0x44), _mm512_shuffle_f32x4(a[2], a[3], 0xEE));
    x = _mm512_add_ps(_mm512_shuffle_f32x4(x, y, 0x88), _mm512_shuffle_f32x4(x, y, 0xDD)); /* 128 bits each */
    x = _mm512_add_ps(x, _mm512_permute_ps(x, 0x4E));
    x = _mm512_add_ps(x, _mm512_permute_ps(x, 0xB1));
    _mm_storeu_ps(out, _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, x)));
}
INL float vtop(vf a)
{
    return _mm512_reduce_max_ps(a);
}
INL int vany_gt(vf a, vf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ) != 0;
}
/* x in lanes first <= i < last, -INFINITY elsewhere */
INL vf vkeep(vf x, int64_t first, int64_t last)
{
    uint32_t upto = last >= W  ? 0xFFFFu
                    : last > 0 ? (1u << last) - 1
                               : 0,
             from = first <= 0   ? 0
                    : first >= W ? 0xFFFFu
                                 : (1u << first) - 1;
    return _mm512_mask_blend_ps((__mmask16)(upto & ~from), _mm512_set1_ps(-__builtin_inff()), x);
}
INL int vall_finite(vf a)
{
    return _mm512_fpclass_ps_mask(a, 0x99) == 0; /* quiet NaN, both infinities, signalling NaN */
}
INL int vnan_mask(vf a)
{
    return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
}
INL int veq_mask(vf a, vf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ);
}
INL int vge_mask(vf a, vf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ);
}
INL vf vrelu(vf a) /* NaN stays */
{
    return _mm512_max_ps(_mm512_setzero_ps(), a);
}
INL vf vneg_where(vf x, vf sign) /* -x where sign is negative */
{
    return _mm512_xor_ps(x, _mm512_and_ps(sign, _mm512_set1_ps(-0.0F)));
}
INL vf vabs(vf x)
{
    return _mm512_andnot_ps(_mm512_set1_ps(-0.0F), x);
}
INL vf vselect_neg(vf sign, vf neg, vf other) /* neg where sign < 0 */
{
    return _mm512_mask_blend_ps(_mm512_movepi32_mask(_mm512_castps_si512(sign)), other, neg);
}

/* 32-bit lanes that hold two bf16: the even one (low half) and the odd one as floats */
INL vf vbf_even(vf x)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(x), 16));
}
INL vf vbf_odd(vf x)
{
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32((int)0xFFFF0000)));
}
/* (W, W) turned about: lane i of x[j] becomes lane j of x[i] */
INL void vtranspose(vf x[16])
{
    vf y[16];
    for (int i = 0; i < 16; i += 4) { /* 4 x 4 of each 128 bits */
        __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(x[i], x[i + 1])), b = _mm512_castps_pd(_mm512_unpackhi_ps(x[i], x[i + 1]));
        __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(x[i + 2], x[i + 3])),
                d = _mm512_castps_pd(_mm512_unpackhi_ps(x[i + 2], x[i + 3]));
        y[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c)), y[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        y[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d)), y[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
    for (int i = 0; i < 4; i++) { /* 4 x 4 of those */
        vf a = _mm512_shuffle_f32x4(y[i], y[i + 4], 0x88), b = _mm512_shuffle_f32x4(y[i], y[i + 4], 0xDD);
        vf c = _mm512_shuffle_f32x4(y[i + 8], y[i + 12], 0x88), d = _mm512_shuffle_f32x4(y[i + 8], y[i + 12], 0xDD);
        x[i] = _mm512_shuffle_f32x4(a, c, 0x88), x[i + 8] = _mm512_shuffle_f32x4(a, c, 0xDD);
        x[i + 4] = _mm512_shuffle_f32x4(b, d, 0x88), x[i + 12] = _mm512_shuffle_f32x4(b, d, 0xDD);
    }
}
/* W bf16 at p as floats */
INL vf vload_bf16(const void *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
INL vf vload_f16(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
/* to bf16, nearest even, quiet NaN: W of them to p */
INL void vstore_bf16(void *p, vf x)
{
    vi bits = _mm512_castps_si512(x), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    vi up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
    up = _mm512_mask_or_epi32(up, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), bits, _mm512_set1_epi32(0x400000));
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(_mm512_srli_epi32(up, 16)));
}

/* The lanes of x, or their numbers from first on, whose bit is set in mask: side by side to p, which has room for W of them.
 * Returns how many. */
INL int64_t vpack(float *p, vf x, unsigned mask)
{
    _mm512_storeu_ps(p, _mm512_maskz_compress_ps((__mmask16)mask, x));
    return __builtin_popcount(mask);
}
INL int64_t vpack_index(void *p, int64_t first, unsigned mask)
{
    vi lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    vi index = _mm512_add_epi32(lane, _mm512_set1_epi32((int)first));
    _mm512_storeu_si512(p, _mm512_maskz_compress_epi32((__mmask16)mask, index));
    return __builtin_popcount(mask);
}

#endif
