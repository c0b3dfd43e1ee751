/* The list of tasks. */
#include "task/task.h"

#include <string.h>

#include "base/err.h"
#include "cfg/cfg.h"

#define TASK(n) extern const struct task task_##n;
#include "task/tasks.def"
#undef TASK

static const struct task *const tasks[] = {
#define TASK(n) &task_##n,
#include "task/tasks.def"
#undef TASK
};
enum { N_TASKS = sizeof tasks / sizeof *tasks };

const struct task *task_at(int i)
{
    return i >= 0 && i < N_TASKS ? tasks[i] : NULL;
}

const struct task *task_find(const char *name)
{
    for (int i = 0; i < N_TASKS; i++)
        if (strcmp(tasks[i]->name, name) == 0)
            return tasks[i];
    return NULL;
}

int task_unknown(const char *name)
{
    const char *names[N_TASKS];
    for (int i = 0; i < N_TASKS; i++)
        names[i] = tasks[i]->name;
    const char *near = cfg_nearest(name, names, N_TASKS);
    return near ? err_set(ERR_ARG, "there is no task \"%s\"; did you mean \"%s\"?", name, near)
                : err_set(ERR_ARG, "there is no task \"%s\" (asterism run --help lists them)", name);
}
