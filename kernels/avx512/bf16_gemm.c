/* Linear layers for AVX-512 with bf16 dot products. */
#include "kernels/avx512/simd.h"

#define STEP_F32(acc, w, x) vfma(w, x, acc)
#define STEP_BF16(acc, w, x) _mm512_dpbf16_ps(acc, (__m512bh)(w), (__m512bh)(x))
#include "kernels/simd_gemm.h"

extern const struct kern_table kern_avx512_bf16_gemm;

const struct kern_table kern_avx512_bf16_gemm = {.gemm = gemm, .lay_few = lay_few, .peak = peak};
