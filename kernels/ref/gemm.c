/* The product of a linear layer, plain: one row and one block of 16 outputs at a time. */
#include "kernels/ref/ref.h"

static void widen(const struct kern_gemm *g, int64_t at, float out[2 * KERN_KB])
{
    if (g->dtype == KERN_BF16)
        ref_f32_from_bf16(out, (const uint16_t *)g->w + 2 * at, 2 * KERN_KB);
    else
        for (int64_t i = 0; i < KERN_KB; i++)
            out[i] = ((const float *)g->w)[at + i];
}

static void one_block(const struct kern_gemm *g, int64_t r, int64_t b, float acc[KERN_KB])
{
    int64_t each = g->dtype == KERN_BF16 ? 2 : 1;
    for (int64_t c = 0; c < g->steps; c++) {
        float w[2 * KERN_KB];
        widen(g, (b * g->w_stride + c) * KERN_KB, w);
        for (int64_t e = 0; e < each; e++) {
            int64_t i = c * each + e;
            float x = ((const float *)g->x)[g->ldx ? r * g->ldx + i : i * g->rows + r];
            for (int64_t j = 0; j < KERN_KB; j++)
                acc[j] += x * w[j * each + e];
        }
    }
}

void ref_lay_few(const struct kern_lay *c)
{
    int64_t all = c->dtype == KERN_BF16 ? c->n + c->n % 2 : c->n;
    for (int64_t r = 0; r < c->rows; r++)
        for (int64_t i = 0; i < all; i++) {
            float one = i < c->n ? c->x[r * c->ldx + i] : 0;
            uint16_t half;
            if (c->dtype == KERN_BF16) {
                ref_bf16_from_f32(&half, &one, 1);
                ref_f32_from_bf16(&one, &half, 1);
            }
            c->to[(c->first + i) * c->rows + r] = one;
        }
}

void ref_gemm(const struct kern_gemm *g)
{
    for (int64_t b = g->block0; b < g->block1; b++)
        for (int64_t r = 0; r < g->rows; r++) {
            float acc[KERN_KB] = {0};
            int64_t first = b * KERN_KB - g->col0;
            float *y = g->y + r * g->ldy;
            for (int64_t j = 0; j < KERN_KB; j++)
                if (g->accumulate && first + j >= 0 && first + j < g->cols)
                    acc[j] = y[first + j];
            one_block(g, r, b, acc);
            for (int64_t j = 0; j < KERN_KB; j++)
                if (first + j >= 0 && first + j < g->cols)
                    y[first + j] = acc[j];
        }
}

double ref_peak(enum kern_dtype t, int64_t n)
{
    enum { CHAINS = 64 };
    volatile float seen; /* so that the compiler does the work */
    float acc[CHAINS] = {0}, sum = 0;
    (void)t; /* bf16 is widened: the same operations */
    for (int64_t i = 0; i < n; i++)
        for (int j = 0; j < CHAINS; j++)
            acc[j] = acc[j] * 0.999F + 0.5F;
    for (int j = 0; j < CHAINS; j++)
        sum += acc[j];
    seen = sum;
    (void)seen;
    return 2.0 * CHAINS * (double)n;
}
