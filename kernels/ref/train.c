/* Kernels of training, plain. */
#include "kernels/ref/ref.h"

#include <math.h>

void ref_panel(const struct kern_panel *c)
{
    for (int64_t i = 0; i < c->m; i++)
        for (int64_t j = 0; j < c->n; j++) {
            const float *b = c->b + j / KERN_KB * c->b_block + j % KERN_KB;
            double sum = c->accumulate ? (double)c->c[i * c->ldc + j] : 0;
            for (int64_t s = 0; s < c->k; s++)
                sum += (double)c->a[i * c->a_row + s * c->a_step] * (double)b[s * c->b_step];
            c->c[i * c->ldc + j] = (float)sum;
        }
}

/* act and its slope at x -> what struct kern_act_grad asks for */
static void chain(const struct kern_act_grad *c, int64_t i, double act, double slope)
{
    double dh = (double)c->dh[i];
    if (c->up) {
        double up = (double)c->up[i];
        c->dup[i] = (float)(dh * act);
        dh *= up;
    }
    c->dgate[i] = (float)(dh * slope);
}

/* d/dx x sigma(x) = sigma (1 + x (1 - sigma)) */
void ref_silu_grad(const struct kern_act_grad *c)
{
    for (int64_t i = 0; i < c->n; i++) {
        double x = (double)c->gate[i], s = 1 / (1 + exp(-x));
        chain(c, i, x * s, s * (1 + x * (1 - s)));
    }
}

/* x Phi(x): Phi + x phi; the tanh form is x sigma(2u): sigma + x sigma (1 - sigma) 2u' */
void ref_gelu_grad(const struct kern_act_grad *c, bool tanh_form)
{
    for (int64_t i = 0; i < c->n; i++) {
        double x = (double)c->gate[i], s, slope;
        if (tanh_form) {
            double two_u = 2 * 0.79788456080286535588 * x * (1 + 0.044715 * x * x);
            s = 1 / (1 + exp(-two_u));
            slope = s + x * s * (1 - s) * 2 * 0.79788456080286535588 * (1 + 3 * 0.044715 * x * x);
        } else {
            s = 0.5 * erfc(-x * 0.70710678118654752440);
            slope = s + x * 0.39894228040143267794 * exp(-0.5 * x * x);
        }
        chain(c, i, x * s, slope);
    }
}

float ref_biased_max(const float *s, const float *bias, int64_t blocks)
{
    float top = -INFINITY;
    for (int64_t i = 0; i < blocks * KERN_KB; i++) {
        float x = s[i] + (bias ? bias[i / KERN_KB] : 0);
        top = x > top ? x : top;
    }
    return top;
}

float ref_biased_exp(float *s, const float *bias, int64_t blocks, float shift)
{
    double sum = 0;
    for (int64_t i = 0; i < blocks * KERN_KB; i++) {
        s[i] = (float)exp((double)(s[i] + (bias ? bias[i / KERN_KB] : 0)) - (double)shift);
        sum += (double)s[i];
    }
    return (float)sum;
}

void ref_softmax_grad(float *dp, const float *p, float dot, int64_t blocks, float *sums)
{
    for (int64_t b = 0; b < blocks; b++) {
        double sum = 0;
        for (int64_t i = b * KERN_KB; i < (b + 1) * KERN_KB; i++) {
            dp[i] = p[i] * (dp[i] - dot);
            sum += (double)dp[i];
        }
        if (sums)
            sums[b] += (float)sum;
    }
}

void ref_soft_sums(const struct kern_soft *c, float *sum, float *slope)
{
    double a = 0, b = 0;
    for (int64_t i = 0; i < c->n; i++) {
        double m = 1 / (1 + exp(-((double)c->s[i] - (double)c->tau) * (double)c->inv_T));
        a += m;
        b += m * (1 - m);
    }
    *sum = (float)a;
    *slope = (float)b;
}

/* ln sigma(z) = min(z, 0) - ln(1 + exp(-|z|)) */
void ref_soft_logs(const struct kern_soft *c, float *log_m, float *log_1m)
{
    for (int64_t i = 0; i < c->n; i++) {
        double z = ((double)c->s[i] - (double)c->tau) * (double)c->inv_T, soft = log1p(exp(-fabs(z)));
        log_m[i] = (float)(fmin(z, 0) - soft);
        if (log_1m)
            log_1m[i] = (float)(fmin(-z, 0) - soft);
    }
}
