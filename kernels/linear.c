/* Linear layers over plain float weights (BLAS) and bf16 weights (widened a panel at a time). */
#include "kernels/linear.h"

#include <omp.h>
#include <string.h>

#include "kernels/blas.h"

enum { PANEL = 64 }; /* bf16 rows widened at once */

size_t kern_mat_bytes(enum kern_dtype t, int64_t out, int64_t in)
{
    return (size_t)out * (size_t)in * (t == KERN_BF16 ? sizeof(uint16_t) : sizeof(float));
}

void kern_mat_set(const struct kern_table *k, struct kern_mat *w, int64_t r0, int64_t n, const float *rows, int64_t stride)
{
    for (int64_t r = 0; r < n; r++)
        if (w->dtype == KERN_BF16)
            k->bf16_from_f32((uint16_t *)w->data + (r0 + r) * w->in, rows + r * stride, w->in);
        else
            memcpy((float *)w->data + (r0 + r) * w->in, rows + r * stride, (size_t)w->in * sizeof(float));
}

void kern_mat_row(const struct kern_table *k, const struct kern_mat *w, int64_t r, float *out)
{
    if (w->dtype == KERN_BF16)
        k->f32_from_bf16(out, (const uint16_t *)w->data + r * w->in, w->in);
    else
        memcpy(out, (const float *)w->data + r * w->in, (size_t)w->in * sizeof(float));
}

size_t kern_linear_scratch(const struct kern_mat *w, int64_t m)
{
    (void)m;
    return w->dtype == KERN_BF16 ? (size_t)(PANEL * w->in) * sizeof(float) : 0;
}

static void product(const struct kern_linear *c, const float *w, int64_t first, int64_t n)
{
    struct blas_gemm g = {
        .trans_b = true,
        .m = c->m,
        .n = n,
        .k = c->w->in,
        .alpha = 1,
        .beta = c->accumulate ? 1.0F : 0.0F,
        .a = c->x,
        .lda = c->ldx,
        .b = w,
        .ldb = c->w->in,
        .c = c->y + first,
        .ldc = c->ldy,
    };
    blas_gemm(&g);
}

void kern_linear(const struct kern_table *k, const struct kern_linear *c)
{
    const struct kern_mat *w = c->w;
    int64_t r0 = c->r1 > c->r0 ? c->r0 : 0, r1 = c->r1 > c->r0 ? c->r1 : w->out;
    if (w->dtype == KERN_F32) {
        product(c, (const float *)w->data + r0 * w->in, 0, r1 - r0);
        return;
    }
    float *wide = c->scratch;
    for (int64_t r = r0; r < r1; r += PANEL) {
        int64_t n = r1 - r < PANEL ? r1 - r : PANEL;
        k->f32_from_bf16(wide, (const uint16_t *)w->data + r * w->in, n * w->in);
        product(c, wide, r - r0, n);
    }
}

void kern_threads(int n)
{
    omp_set_num_threads(n);
    blas_threads(n);
}

const char *kern_blas_info(void)
{
    return blas_info();
}
