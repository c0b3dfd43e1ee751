/* What the columns of /samples mean: every name that a task lists in count_name or sum_name, once for all tasks. The same
 * name means the same thing in each of them. A name that ends in digits is looked up without them: "correct3" is
 * "correct#", of n-grams of 3. tests/unit/test_task.c refuses a task whose names are not here. */
#ifndef AST_TASK_COLUMNS_H
#define AST_TASK_COLUMNS_H

struct task_column {
    const char *name, *unit, *about; /* about: long_name, with the digits after it if the name ends in '#' */
};

/* The entry of a name, or NULL. */
const struct task_column *task_column(const char *name);

#endif
