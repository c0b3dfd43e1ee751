/* The list of what is trained. */
#include "train/params.h"

#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "base/err.h"

int train_params_alloc(struct train_params *p, int64_t n, struct arena *run)
{
    *p = (struct train_params){.at = ARENA_NEW0(run, n, struct train_param)};
    return p->at ? ERR_OK : ERR_NOMEM;
}

int train_params_add(struct train_params *p, const char *name, const struct train_shape *shape, float *w, struct arena *run)
{
    struct train_param *to = &p->at[p->n];
    int64_t n = 1;
    *to = (struct train_param){.rank = shape->rank, .w = w, .lr = 1};
    for (int i = 0; i < 3; i++) {
        to->dim[i] = i < shape->rank ? shape->dim[i] : 1;
        n *= to->dim[i];
    }
    AST_ASSERT(snprintf(to->name, sizeof to->name, "%s", name) < TRAIN_NAME);
    to->n = n;
    to->g = ARENA_NEW0(run, n, float);
    if (!to->g)
        return ERR_NOMEM;
    p->n++;
    return ERR_OK;
}

int64_t train_params_total(const struct train_params *p)
{
    int64_t n = 0;
    for (int64_t i = 0; i < p->n; i++)
        n += p->at[i].n;
    return n;
}

void train_params_zero_grad(struct train_params *p)
{
    for (int64_t i = 0; i < p->n; i++)
        memset(p->at[i].g, 0, (size_t)p->at[i].n * sizeof(float));
}

const struct train_param *train_params_find(const struct train_params *p, const char *name)
{
    for (int64_t i = 0; i < p->n; i++)
        if (!strcmp(p->at[i].name, name))
            return &p->at[i];
    return NULL;
}
