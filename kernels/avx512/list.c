/* Single keys by index, for AVX-512. */
#include "kernels/avx512/simd.h"
#include "kernels/simd_list.h"

extern const struct kern_table kern_avx512_list;

const struct kern_table kern_avx512_list = {
    .list_scores = list_scores,
    .list_mix = list_mix,
};
