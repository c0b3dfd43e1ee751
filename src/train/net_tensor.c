/* Parts of a net as tensors of the checkpoint: their names, and their layout in the file (fused, transposed). */
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "train/net.h"

/* Does `name` stand for the list's file name under one of the prefixes? *layer is set where it has one. */
static bool matches(const struct model_arch *a, const char *file, const char *name, int64_t *layer)
{
    const char *d = strstr(file, "%d");
    for (int i = 0; i < 3 && a->prefix[i]; i++) {
        size_t at = strlen(a->prefix[i]);
        if (strncmp(name, a->prefix[i], at) != 0)
            continue;
        if (!d && !strcmp(name + at, file))
            return true;
        if (!d || strncmp(name + at, file, (size_t)(d - file)) != 0)
            continue;
        int used = 0, number = 0;
        const char *rest = name + at + (d - file);
        if (sscanf(rest, "%9d%n", &number, &used) == 1 && !strcmp(rest + used, d + 2)) {
            *layer = number;
            return true;
        }
    }
    return false;
}

/* x (rows, cols) of a part -> its place in the file's tensor. */
static void place(const struct net *n, const struct model_tensor *t, const struct net_part *p, const float *x, float *out)
{
    const struct model_shape *s = n->shape;
    int64_t which = t->part == PART_K || t->part == PART_K_B ? 1 : t->part == PART_V || t->part == PART_V_B ? 2 : 0;
    int64_t q = s->heads * s->dim, kv = s->kv_heads * s->dim, all = p->rows;
    bool side = t->flags & TENSOR_QKV_SIDE, head = t->flags & TENSOR_QKV_HEAD;
    if (side || head)
        all = q + 2 * kv;
    for (int64_t r = 0; r < p->rows; r++) {
        int64_t to = side ? r + (which > 0) * q + (which > 1) * kv : head ? (r / s->dim * 3 + which) * s->dim + r % s->dim : r;
        for (int64_t c = 0; c < p->cols; c++)
            out[t->flags & TENSOR_TRANSPOSED && p->cols > 1 ? c * all + to : to * p->cols + c] = x[r * p->cols + c];
    }
}

int net_tensor(const struct net *n, const char *name, bool gradient, float *out)
{
    const struct model_arch *a = n->model->arch;
    int64_t layer = -1;
    int found = 0;
    for (const struct model_tensor *t = a->tensors; t->file; t++) {
        if (!matches(a, t->file, name, &layer))
            continue;
        bool inner = strstr(t->file, "%d") != NULL;
        if (inner && layer >= n->shape->layers)
            continue;
        const struct net_part *p = inner ? &n->layer[layer][t->part] : &n->top[t->part];
        const float *x = gradient ? p->g : p->w;
        if (!x)
            continue;
        if (out)
            place(n, t, p, x, out);
        found++;
    }
    const struct net_part *head = &n->top[PART_HEAD];
    if (!found && !strcmp(name, a->head) && (gradient ? head->g : head->w)) {
        if (out)
            place(n, &(struct model_tensor){PART_HEAD, a->head, 0}, head, gradient ? head->g : head->w, out);
        found++;
    }
    return found ? ERR_OK : err_set(ERR_ARG, "the net has no tensor %s%s", gradient ? "with a gradient called " : "", name);
}
