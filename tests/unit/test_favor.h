/* Performer's directions and features in double precision. */
#ifndef AST_TESTS_UNIT_TEST_FAVOR_H
#define AST_TESTS_UNIT_TEST_FAVOR_H

#include "tests/unit/test_base.h"

/* w (d, m) drawn here once more: Gaussian blocks, classical Gram-Schmidt thrice, lengths. */
static inline void favor_directions(double *w, int64_t m, uint64_t seed, uint64_t layer, bool sqrt_norm)
{
    static double g[B_D][B_D];
    for (int64_t b = 0; b * B_D < m; b++) {
        for (int i = 0; i < B_D * B_D; i++)
            g[i / B_D][i % B_D] = rng_normal(seed, 2 * layer, (uint64_t)(b * B_D * B_D + i));
        for (int i = 0; i < B_D; i++)
            for (int pass = 0; pass < 3; pass++) {
                double dot[B_D] = {0}, square = 0;
                for (int k = 0; k < i; k++)
                    for (int j = 0; j < B_D; j++)
                        dot[k] += g[i][j] * g[k][j];
                for (int j = 0; j < B_D; j++) {
                    for (int k = 0; k < i; k++)
                        g[i][j] -= dot[k] * g[k][j];
                    square += g[i][j] * g[i][j];
                }
                for (int j = 0; j < B_D; j++)
                    g[i][j] /= sqrt(square);
            }
        for (int64_t r = b * B_D; r < m && r < (b + 1) * B_D; r++) {
            double square = 0;
            for (int j = 0; j < B_D; j++) {
                double x = rng_normal(seed, 2 * layer + 1, (uint64_t)(r * B_D + j));
                square += x * x;
            }
            for (int j = 0; j < B_D; j++) /* the program's directions are floats */
                w[j * m + r] = (double)(float)((sqrt_norm ? sqrt(B_D) : sqrt(square)) * g[r - b * B_D][j]);
        }
    }
}

/* ln of the features of x, without 1/sqrt(M) */
static inline void favor_log_phi(const float *x, const double *w, int64_t m, int64_t M, double scale, double *out)
{
    double half = 0;
    for (int j = 0; j < B_D; j++)
        half += (double)x[j] * (double)x[j] * scale / 2;
    for (int64_t r = 0; r < M; r++) {
        double a = 0;
        for (int j = 0; j < B_D; j++)
            a += w[j * m + r % m] * (double)x[j] * sqrt(scale);
        out[r] = (r < m ? a : -a) - half;
    }
}

#endif
