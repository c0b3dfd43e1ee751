/* Attention tiles for AVX-512; bf16 keys are widened here, avx512/bf16_attn.c has dot products. */
#include "kernels/avx512/simd.h"
#include "kernels/simd_math.h"

#define STEP_F32(acc, k, q) vfma(k, q, acc)
#define STEP_BF16(acc, k, q) vfma(vbf_odd(k), vbf_odd(q), vfma(vbf_even(k), vbf_even(q), acc))
#define STORE_BF16 vstore_bf16
#include "kernels/simd_half.h"
#include "kernels/simd_tile.h"

extern const struct kern_table kern_avx512_attn;

const struct kern_table kern_avx512_attn = {
    .tile_begin = tile_begin,
    .tile_dense = tile_dense,
    .tile_blocks = tile_blocks,
    .tile_gather = tile_gather,
    .tile_halves = tile_halves,
    .tile_end = tile_end,
};
