/* Scheduling policies: which shard next. Pure: they see numbers, so that a simulation of 10,000 groups and the real
 * master run the same code. One const struct a policy, one line in policies.def. */
#ifndef AST_SCHED_POLICY_H
#define AST_SCHED_POLICY_H

struct policy_cell { /* shards of one cell that wait */
    int model;
    double head_s; /* predicted seconds of the longest that waits; negative: none waits */
    double left_s; /* of all that wait */
};

struct policy_view {
    int n_cells, n_models, n_groups;
    const struct policy_cell *cell; /* (n_cells,) */
    const double *model_left_s;     /* (n_models,) predicted seconds that wait */
    const int *model_groups;        /* (n_models,) groups that have this model loaded */
    double left_s;                  /* of everything that waits */
};

struct policy {
    const char *name, *summary;
    /* The cell whose longest shard goes to a group that has `model` loaded (-1: none); -1: nothing waits. */
    int (*pick)(const struct policy_view *v, int model);
    /* At most so many seconds to one group at once: a longer shard is cut, if it can be. */
    double (*limit)(const struct policy_view *v);
};

const struct policy *policy_find(const char *name); /* NULL: unknown */
const struct policy *policy_at(int i);              /* NULL past the end */
int policy_unknown(const char *name);               /* ERR_ARG naming the nearest */

/* For pick: the model to work on. The loaded one while it has work, else the one with most work for its groups; -1: none. */
int policy_model(const struct policy_view *v, int loaded);

#endif
