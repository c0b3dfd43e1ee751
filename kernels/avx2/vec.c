/* Vectors for AVX2. */
#include "kernels/kern.h"
#include "kernels/avx2/simd.h"
#include "kernels/simd_math.h"
#include "kernels/simd_vec.h"

extern const struct kern_table kern_avx2;

const struct kern_table kern_avx2 = {.isa = "avx2", VEC_ENTRIES};
