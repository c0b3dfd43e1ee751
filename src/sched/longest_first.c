/* Longest predicted first, of the model that is loaded: what is left at the end is short, so the groups end together.
 *   source   Graham 1969, "Bounds on multiprocessing timing anomalies": longest first ends within 4/3 of the optimum;
 *            the cut to half of a group's share: Polychronopoulos & Kuck 1987, guided self-scheduling */
#include <stddef.h>

#include "sched/policy.h"

static int pick(const struct policy_view *v, int model)
{
    int best = -1, m = policy_model(v, model);
    for (int c = 0; c < v->n_cells; c++)
        if (v->cell[c].model == m && v->cell[c].head_s >= 0 && (best < 0 || v->cell[c].head_s > v->cell[best].head_s))
            best = c;
    return best;
}

static double limit(const struct policy_view *v)
{
    return v->left_s / (2.0 * v->n_groups);
}

const struct policy policy_longest_first = {
    .name = "longest_first",
    .summary = "longest predicted shard first, cut near the end so that all groups end together",
    .pick = pick,
    .limit = limit,
};
