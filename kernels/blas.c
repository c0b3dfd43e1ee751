/* The only cblas.h. */
#include "kernels/blas.h"

#include <cblas.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

void blas_gemm(const struct blas_gemm *g)
{
    if (g->m <= 0 || g->n <= 0)
        return;
    cblas_sgemm(CblasRowMajor, g->trans_a ? CblasTrans : CblasNoTrans, g->trans_b ? CblasTrans : CblasNoTrans, (blasint)g->m,
                (blasint)g->n, (blasint)g->k, g->alpha, g->a, (blasint)g->lda, g->b, (blasint)g->ldb, g->beta, g->c,
                (blasint)g->ldc);
}

void blas_threads(int n)
{
    openblas_set_num_threads(n);
}

const char *blas_info(void)
{
    static _Thread_local char text[256];
    static const char *const model[] = {"sequential", "pthreads", "openmp"};
    int parallel = openblas_get_parallel();
    char version[64] = "?";
    sscanf(openblas_get_config(), "OpenBLAS %63s", version);
    snprintf(text, sizeof text, "OpenBLAS %s %s %s, %d threads", version, model[parallel >= 0 && parallel < 3 ? parallel : 0],
             openblas_get_corename(), openblas_get_num_threads());
    return text;
}

bool blas_is_old(void)
{
    static const char *const old[] = {"Prescott", "Core2",      "Katmai",  "Generic",  "GENERIC",
                                      "Penryn",   "Dunnington", "Nehalem", "Barcelona"};
    const char *core = openblas_get_corename();
    for (size_t i = 0; i < sizeof old / sizeof old[0]; i++)
        if (!strcmp(core, old[i]))
            return true;
    return false;
}
