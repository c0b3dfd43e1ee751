/* Training curves. */
#include "train/curve.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "io/h5.h"

static const struct {
    const char *name, *unit, *about;
} columns[CURVE_PARTS] = {
    {"loss", "1", "mean loss over the step's rows or tokens"},
    {"lr", "1", "learning rate"},
    {"grad_norm", "1", "norm of the whole gradient before clipping"},
    {"temperature", "1", "of soft choices"},
    {"tokens", "token", "that went through the model in this step"},
    {"count", "1", "rows or tokens that the loss is a mean of"},
    {"seconds", "s", "wall clock since the training began, interruptions left out"},
};

void curve_means(double row[CURVE_COLUMNS], const struct train_sums *s)
{
    for (int i = 0; i < CURVE_COLUMNS; i++)
        row[i] = (double)NAN;
    row[CURVE_LOSS] = s->count > 0 ? s->loss / s->count : (double)NAN;
    row[CURVE_TOKENS] = s->tokens;
    row[CURVE_COUNT] = s->count;
    for (int i = 0; i < TRAIN_PARTS; i++)
        row[CURVE_PARTS + i] = s->part[i].n > 0 ? s->part[i].sum / s->part[i].n : (double)NAN;
}

static void column(struct h5 *f, const struct curve *c, int from, const char *name, double *line)
{
    char path[128];
    struct h5_column col = {.path = path, .type = H5_F64, .rows = c->n, .count = c->n, .data = line};
    snprintf(path, sizeof path, "/curve/%s", name);
    for (int64_t i = 0; i < c->n; i++)
        line[i] = c->v[i * CURVE_COLUMNS + from];
    col.unit = from < CURVE_PARTS ? columns[from].unit : "1";
    col.about = from < CURVE_PARTS ? columns[from].about : "mean over the step, as the objective names it";
    h5_write(f, &col);
    h5_attach(f, path, 0, "/curve/step");
}

int curve_write(const struct curve *c, const char *path, const char *const *parts, const struct curve_fact *fact, int n)
{
    struct h5 *f = NULL;
    double *line = malloc((size_t)(c->n + 1) * sizeof *line);
    int64_t *step = malloc((size_t)(c->n + 1) * sizeof *step);
    int rc = line && step ? h5_create(&f, path, NULL, true) : err_set(ERR_NOMEM, "no memory to write %s", path);
    if (rc)
        goto out;
    for (int i = 0; i < n; i++)
        h5_attr_text(f, "/", fact[i].key, fact[i].value);
    for (int64_t i = 0; i < c->n; i++)
        step[i] = i;
    h5_group(f, "/curve");
    h5_write(f, &(struct h5_column){.path = "/curve/step",
                                    .type = H5_I64,
                                    .rows = c->n,
                                    .count = c->n,
                                    .data = step,
                                    .unit = "1",
                                    .about = "optimiser step"});
    h5_scale(f, "/curve/step", "step");
    for (int i = 0; i < CURVE_PARTS; i++)
        column(f, c, i, columns[i].name, line);
    for (int i = 0; parts && parts[i] && i < TRAIN_PARTS; i++)
        column(f, c, CURVE_PARTS + i, parts[i], line);
    rc = h5_commit(f);
out:
    free(line);
    free(step);
    return rc;
}
