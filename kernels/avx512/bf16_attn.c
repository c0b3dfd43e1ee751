/* Attention tiles for AVX-512 with bf16 dot products. */
#include "kernels/avx512/simd.h"
#include "kernels/simd_math.h"

#define TILE_DOT 1
#define VDOT(acc, k, q) _mm512_dpbf16_ps(acc, (__m512bh)(k), (__m512bh)(q))
#define STORE_BF16(p, x) _mm256_storeu_si256((__m256i *)(p), (__m256i)_mm512_cvtneps_pbh(x))
#include "kernels/simd_dense.h"
#include "kernels/simd_half.h"
#include "kernels/simd_sparse.h"

extern const struct kern_table kern_avx512bf16;

const struct kern_table kern_avx512bf16 = {
    .isa = "avx512bf16",
    .has_bf16_dot = true,
    .tile_begin = tile_begin,
    .tile_dense = tile_dense,
    .tile_blocks = tile_blocks,
    .tile_gather = tile_gather,
    .tile_halves = tile_halves,
    .tile_end = tile_end,
};
