/* Attention tiles for AVX-512; bf16 keys are widened here, avx512/bf16_attn.c has dot products. */
#include "kernels/avx512/simd.h"
#include "kernels/simd_math.h"

#define TILE_DOT 0
#define VDOT(acc, k, q) (acc) /* not there */
#include "kernels/simd_dense.h"
#include "kernels/simd_half.h"
#include "kernels/simd_sparse.h"

extern const struct kern_table kern_avx512_attn;

const struct kern_table kern_avx512_attn = {
    .tile_begin = tile_begin,
    .tile_dense = tile_dense,
    .tile_blocks = tile_blocks,
    .tile_gather = tile_gather,
    .tile_halves = tile_halves,
    .tile_end = tile_end,
};
