/* RMS and layer norm of one row, plain. */
#include "kernels/ref/ref.h"

#include <math.h>

/* Zhang & Sennrich 2019, eq. 4 */
void ref_rms_norm(float *y, const float *x, const float *w, int64_t n, float eps)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++)
        s += (double)x[i] * (double)x[i];
    float r = (float)(1 / sqrt(s / (double)(n > 0 ? n : 1) + (double)eps));
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] * r * w[i];
}

/* Ba, Kiros & Hinton 2016, eq. 4; two passes: the mean is gone before anything is squared */
void ref_layer_norm(float *y, const float *x, const float *w, const float *b, int64_t n, float eps)
{
    double sum = 0, var = 0, count = (double)(n > 0 ? n : 1);
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i];
    double mean = sum / count;
    for (int64_t i = 0; i < n; i++)
        var += ((double)x[i] - mean) * ((double)x[i] - mean);
    float r = (float)(1 / sqrt(var / count + (double)eps)), mu = (float)mean;
    for (int64_t i = 0; i < n; i++)
        y[i] = (x[i] - mu) * r * w[i] + (b ? b[i] : 0.0F);
}
