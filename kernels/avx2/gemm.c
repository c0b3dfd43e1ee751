/* Linear layers for AVX2; bf16 weights are widened. */
#include "kernels/avx2/simd.h"

#define STEP_F32(acc, w, x) vfma(w, x, acc)
#include "kernels/simd_gemm.h"

extern const struct kern_table kern_avx2_gemm;

const struct kern_table kern_avx2_gemm = {.gemm = gemm, .lay_few = lay_few, .peak = peak};
