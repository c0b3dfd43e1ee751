/* Activations and rotary embedding, plain. */
#include "kernels/ref/ref.h"

#include <math.h>

/* x sigmoid(x): Elfwing et al. 2017, eq. 2 */
static float silu_of(float x)
{
    return (float)((double)x / (1 + exp(-(double)x)));
}

/* Hendrycks & Gimpel 2016, sec. 2: x Phi(x), and its tanh approximation */
static float gelu_of(float x, bool tanh_form)
{
    double v = (double)x;
    if (!tanh_form)
        return (float)(0.5 * v * erfc(-v * 0.70710678118654752440));
    /* 0.5 (1 + tanh u) = 1 / (1 + exp(-2u)): no cancellation for negative u */
    double u = 0.79788456080286535588 * (v + 0.044715 * v * v * v);
    return (float)(v / (1 + exp(-2 * u)));
}

void ref_silu_mul(float *y, const float *gate, const float *up, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = silu_of(gate[i]) * up[i];
}

void ref_gelu_mul(float *y, const float *gate, const float *up, int64_t n, bool tanh_form)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = gelu_of(gate[i], tanh_form) * up[i];
}

void ref_silu(float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = silu_of(x[i]);
}

void ref_gelu(float *x, int64_t n, bool tanh_form)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = gelu_of(x[i], tanh_form);
}

void ref_relu(float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = x[i] < 0 ? 0.0F : x[i];
}

/* Su et al. 2021, eq. 34, with pairs (i, i + rot/2) as GPT-NeoX and Llama checkpoints have them */
void ref_rope(float *x, const float *cs, const float *sn, int64_t rot)
{
    int64_t half = rot / 2;
    for (int64_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = a * cs[i] - b * sn[i];
        x[i + half] = b * cs[i] + a * sn[i];
    }
}
