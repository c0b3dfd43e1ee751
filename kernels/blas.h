/* Matrix products of plain row-major float matrices, through the machine's BLAS; its threads. */
#ifndef AST_KERNELS_BLAS_H
#define AST_KERNELS_BLAS_H

#include <stdbool.h>
#include <stdint.h>

/* C (m, n; row stride ldc) = alpha op(A) op(B) + beta C, op(A) (m, k), op(B) (k, n); op(X) = X^T where said.
 * lda, ldb: row strides of A and B as stored. */
struct blas_gemm {
    bool trans_a, trans_b;
    int64_t m, n, k;
    float alpha, beta;
    const float *a, *b;
    float *c;
    int64_t lda, ldb, ldc;
};
void blas_gemm(const struct blas_gemm *g);

void blas_threads(int n);
/* "OpenBLAS 0.3.21 openmp SkylakeX, 2 threads"; the text lives until the same thread calls again */
const char *blas_info(void);
/* Does it run kernels for CPUs from before AVX2? */
bool blas_is_old(void);

#endif
