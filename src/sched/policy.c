/* The list of policies, and what they share. */
#include "sched/policy.h"

#include <string.h>

#include "base/err.h"
#include "cfg/cfg.h"

#define POLICY(n) extern const struct policy policy_##n;
#include "sched/policies.def"
#undef POLICY

static const struct policy *const policies[] = {
#define POLICY(n) &policy_##n,
#include "sched/policies.def"
#undef POLICY
};
enum { N_POLICIES = sizeof policies / sizeof policies[0] };

const struct policy *policy_at(int i)
{
    return i >= 0 && i < N_POLICIES ? policies[i] : NULL;
}

const struct policy *policy_find(const char *name)
{
    for (int i = 0; i < N_POLICIES; i++)
        if (!strcmp(policies[i]->name, name))
            return policies[i];
    return NULL;
}

int policy_unknown(const char *name)
{
    const char *names[N_POLICIES], *near;
    for (int i = 0; i < N_POLICIES; i++)
        names[i] = policies[i]->name;
    near = cfg_nearest(name, names, N_POLICIES);
    return err_set(ERR_ARG, "there is no scheduling policy '%s'; did you mean '%s'?", name, near ? near : names[0]);
}

int policy_model(const struct policy_view *v, int loaded)
{
    int best = -1;
    double most = 0;
    if (loaded >= 0 && v->model_left_s[loaded] > 0)
        return loaded;
    for (int m = 0; m < v->n_models; m++) {
        double share = v->model_left_s[m] / (v->model_groups[m] + 1);
        if (share > most) {
            most = share;
            best = m;
        }
    }
    return best;
}
