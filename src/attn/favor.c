/* Drawing the feature directions of FAVOR+. */
#include "attn/favor.h"

#include <math.h>

#include "base/rng.h"

/* Rows of g (d, d) become orthonormal. Twice, so that it holds to rounding. */
static void orthonormal(double *g, int64_t d)
{
    for (int64_t i = 0; i < d; i++) {
        double square = 0;
        for (int pass = 0; pass < 2; pass++)
            for (int64_t k = 0; k < i; k++) {
                double dot = 0;
                for (int64_t j = 0; j < d; j++)
                    dot += g[i * d + j] * g[k * d + j];
                for (int64_t j = 0; j < d; j++)
                    g[i * d + j] -= dot * g[k * d + j];
            }
        for (int64_t j = 0; j < d; j++)
            square += g[i * d + j] * g[i * d + j];
        for (int64_t j = 0; j < d; j++)
            g[i * d + j] /= sqrt(square);
    }
}

static double length(const struct favor_draw *f, int64_t r)
{
    double square = 0;
    if (f->sqrt_norm)
        return sqrt((double)f->dim);
    for (int64_t j = 0; j < f->dim; j++) {
        double x = rng_normal(f->seed, 2 * f->layer + 1, (uint64_t)(r * f->dim + j));
        square += x * x;
    }
    return sqrt(square);
}

void favor_draw(const struct favor_draw *f, float *w, double *work)
{
    int64_t d = f->dim, m = f->features;
    for (int64_t b = 0; b * d < m; b++) {
        for (int64_t i = 0; i < d * d; i++)
            work[i] = rng_normal(f->seed, 2 * f->layer, (uint64_t)(b * d * d + i));
        orthonormal(work, d);
        for (int64_t r = b * d; r < m && r < (b + 1) * d; r++) {
            double len = length(f, r);
            for (int64_t j = 0; j < d; j++)
                w[j * m + r] = (float)(len * work[(r - b * d) * d + j]);
        }
    }
}
