/* The list of objectives. */
#include "train/objective.h"

#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "cfg/cfg.h"

#define TRAIN_OBJECTIVE(n) extern const struct train_objective objective_##n;
#include "train/objectives.def"
#undef TRAIN_OBJECTIVE

static const struct train_objective *const objectives[] = {
#define TRAIN_OBJECTIVE(n) &objective_##n,
#include "train/objectives.def"
#undef TRAIN_OBJECTIVE
};
enum { N_OBJECTIVES = sizeof objectives / sizeof objectives[0] };

const struct train_objective *objective_at(int i)
{
    return i >= 0 && i < N_OBJECTIVES ? objectives[i] : NULL;
}

const struct train_objective *objective_find(const char *name)
{
    for (int i = 0; i < N_OBJECTIVES; i++)
        if (!strcmp(objectives[i]->name, name))
            return objectives[i];
    return NULL;
}

int objective_unknown(const char *name)
{
    const char *names[N_OBJECTIVES], *near;
    struct buf list = {0};
    int rc = ERR_OK;
    for (int i = 0; i < N_OBJECTIVES && !rc; i++) {
        names[i] = objectives[i]->name;
        rc = buf_printf(&list, "%s%s", i ? ", " : "", names[i]);
    }
    near = rc ? NULL : cfg_nearest(name, names, N_OBJECTIVES);
    err_set(ERR_ARG, "there is no training objective '%s'%s%s%s; there are: %s", name, near ? ", did you mean '" : "",
            near ? near : "", near ? "'?" : "", buf_text(&list));
    buf_free(&list);
    return ERR_ARG;
}
