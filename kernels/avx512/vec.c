/* Vectors for AVX-512. */
#include "kernels/kern.h"
#include "kernels/avx512/simd.h"
#include "kernels/simd_math.h"
#include "kernels/simd_vec.h"

extern const struct kern_table kern_avx512;

const struct kern_table kern_avx512 = {.isa = "avx512", VEC_ENTRIES};
