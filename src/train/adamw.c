/* AdamW and schedules. */
#include "train/adamw.h"

#include <math.h>

#include "base/arena.h"
#include "base/err.h"

enum { SMALL = 1 << 15 }; /* elements below which threads cost more than they give */

int adamw_alloc(struct adamw *a, const struct train_params *p, struct arena *run)
{
    a->m = ARENA_NEW(run, p->n, float *);
    a->v = ARENA_NEW(run, p->n, float *);
    if (!a->m || !a->v)
        return ERR_NOMEM;
    for (int64_t i = 0; i < p->n; i++) {
        a->m[i] = ARENA_NEW0(run, p->at[i].n, float);
        a->v[i] = ARENA_NEW0(run, p->at[i].n, float);
        if (!a->m[i] || !a->v[i])
            return ERR_NOMEM;
    }
    return ERR_OK;
}

void adamw_step(struct adamw *a, struct train_params *p, const struct adamw_opts *o, const struct adamw_at *at)
{
    double t = (double)(at->step + 1), c1 = 1 - pow(o->beta1, t), c2 = 1 - pow(o->beta2, t);
    float b1 = (float)o->beta1, b2 = (float)o->beta2, scale = (float)at->scale, eps = (float)o->eps, root = (float)(1 / sqrt(c2));
    for (int64_t i = 0; i < p->n; i++) {
        const struct train_param *q = &p->at[i];
        double lr = at->lr * (double)q->lr;
        float *w = q->w, *m = a->m[i], *v = a->v[i], rate = (float)(lr / c1);
        float keep = (float)(1 - (q->decay ? lr * o->weight_decay : 0));
        const float *g = q->g;
#pragma omp parallel for simd if (q->n > SMALL)
        for (int64_t x = 0; x < q->n; x++) {
            float gx = g[x] * scale;
            m[x] = b1 * m[x] + (1 - b1) * gx;
            v[x] = b2 * v[x] + (1 - b2) * gx * gx;
            w[x] = keep * w[x] - rate * m[x] / (sqrtf(v[x]) * root + eps);
        }
    }
}

double schedule_lr(const struct schedule *s, int64_t step)
{
    double left, span = (double)(s->steps - s->warmup);
    if (step < s->warmup)
        return s->lr * (double)(step + 1) / (double)s->warmup;
    left = span > 0 ? 1 - (double)(step - s->warmup) / span : 0;
    switch (s->kind) {
    case SCHEDULE_COSINE: return s->lr * (s->end + (1 - s->end) * (1 + cos(3.14159265358979323846 * (1 - left))) / 2);
    case SCHEDULE_LINEAR: return s->lr * (s->end + (1 - s->end) * left);
    default: return s->lr;
    }
}

double schedule_temperature(double from, double to, int64_t step, int64_t soft_steps)
{
    double at = soft_steps > 1 ? (double)step / (double)(soft_steps - 1) : 1;
    return step < soft_steps ? from * pow(to / from, at) : to;
}
