/* What choosing keys costs, and the key and value store, for AVX2. */
#include "kernels/avx2/simd.h"
#include "kernels/simd_predict.h"
#include "kernels/simd_kv.h"
#include "kernels/simd_pool.h"

extern const struct kern_table kern_avx2_predict;

const struct kern_table kern_avx2_predict = {
    .rows_matmul = rows_matmul,
    .block_scores = block_scores,
    .topk = topk,
    .running_mean = running_mean,
    .pool_rows = pool_rows,
    .kv_append = kv_append,
};
