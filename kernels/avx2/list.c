/* Single keys by index, for AVX2. */
#include "kernels/avx2/simd.h"
#include "kernels/simd_list.h"

extern const struct kern_table kern_avx2_list;

const struct kern_table kern_avx2_list = {
    .list_scores = list_scores,
    .list_mix = list_mix,
};
