/* Single keys by index, plain. */
#include "kernels/ref/ref.h"

void ref_list_scores(const struct kern_list *c)
{
    for (int64_t i = 0; i < c->n; i++) {
        double s = 0;
        for (int64_t j = 0; j < c->dim; j++)
            s += (double)c->x[j] * (double)c->rows[(int64_t)c->idx[i] * c->stride + j];
        c->y[i] = (float)s;
    }
}

void ref_list_mix(const struct kern_list *c)
{
    for (int64_t j = 0; j < c->dim; j++) {
        double s = 0;
        for (int64_t i = 0; i < c->n; i++)
            s += (double)c->x[i] * (double)c->rows[(int64_t)c->idx[i] * c->stride + j];
        c->y[j] = (float)s;
    }
}
