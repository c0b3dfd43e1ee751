/* Kernels of training, for AVX2. */
#include "kernels/avx2/simd.h"
#include "kernels/simd_math.h"
#include "kernels/simd_train.h"

extern const struct kern_table kern_avx2_train;

const struct kern_table kern_avx2_train = {
    .panel = panel,
    .silu_grad = silu_grad,
    .gelu_grad = gelu_grad,
    .biased_max = biased_max,
    .biased_exp = biased_exp,
    .softmax_grad = softmax_grad,
    .soft_sums = soft_sums,
    .soft_logs = soft_logs,
};
