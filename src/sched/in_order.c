/* Cells in the job's order, whole shards: for comparison, and to see first results of the first cell early. */
#include <math.h>

#include "sched/policy.h"

static int pick(const struct policy_view *v, int model)
{
    int m = policy_model(v, model);
    for (int c = 0; c < v->n_cells; c++)
        if (v->cell[c].model == m && v->cell[c].head_s >= 0)
            return c;
    return -1;
}

static double limit(const struct policy_view *v)
{
    (void)v;
    return (double)INFINITY;
}

const struct policy policy_in_order = {
    .name = "in_order",
    .summary = "cell after cell in the job's order",
    .pick = pick,
    .limit = limit,
};
