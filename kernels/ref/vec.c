/* Vectors and conversions, plain. */
#include "kernels/ref/ref.h"

#include <math.h>
#include <string.h>

/* double on purpose: the reference is the accurate one */
float ref_dot(const float *x, const float *y, int64_t n)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++)
        s += (double)x[i] * (double)y[i];
    return (float)s;
}

void ref_axpy(float *y, float a, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] += a * x[i];
}

void ref_add(float *y, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] += x[i];
}

void ref_scale(float *y, float a, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] *= a;
}

bool ref_all_finite(const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

int64_t ref_argmax(const float *x, int64_t n)
{
    int64_t best = 0;
    float top = -INFINITY;
    for (int64_t i = 0; i < n; i++)
        if (x[i] > top) {
            top = x[i];
            best = i;
        }
    return best;
}

void ref_f32_from_bf16(float *y, const void *x, int64_t n)
{
    const unsigned char *src = x;
    for (int64_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, src + 2 * i, sizeof h);
        uint32_t bits = (uint32_t)h << 16;
        memcpy(y + i, &bits, sizeof bits);
    }
}

/* IEEE 754 binary16: 1 sign, 5 exponent (bias 15), 10 fraction bits. */
static float from_f16(uint16_t h)
{
    unsigned exponent = (h >> 10) & 31u, fraction = h & 1023u;
    float v;
    if (exponent == 0)
        v = ldexpf((float)fraction, -24);
    else if (exponent < 31)
        v = ldexpf((float)(1024u + fraction), (int)exponent - 25);
    else
        v = fraction ? NAN : INFINITY;
    return h & 0x8000u ? -v : v;
}

void ref_f32_from_f16(float *y, const void *x, int64_t n)
{
    const unsigned char *src = x;
    for (int64_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, src + 2 * i, sizeof h);
        y[i] = from_f16(h);
    }
}

/* Round to nearest, ties to even: add half of the dropped part, less one, plus one if the kept part is odd. */
void ref_bf16_from_f32(uint16_t *y, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        if (isnan(x[i]))
            y[i] = (uint16_t)(bits >> 16 | 0x40u); /* quiet, so that no NaN becomes an infinity */
        else
            y[i] = (uint16_t)((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
    }
}
