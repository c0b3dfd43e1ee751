/* Weights: checked against the shape, cut over ranks, converted tensor by tensor into the layout of the kernels.
 * A tensor of the file is read once, in blocks of rows, and its pages are given back: no second copy of the model. */
#ifndef AST_MODEL_WEIGHTS_H
#define AST_MODEL_WEIGHTS_H

#include <stddef.h>

#include "model/layer.h"

struct safetensors;

/* Every tensor of the architecture is there with the right shape and a type that we read, and none is left over.
 * Local, headers only. ERR_FORMAT naming the tensor. */
int weights_check(const struct model_arch *a, const struct model_shape *s, const struct safetensors *st, const char *path);

int64_t weights_count(const struct model_arch *a, const struct model_shape *s);                    /* parameters, tied ones once */
size_t weights_bytes(const struct model_shape *s, const struct model_cut *cut, enum kern_dtype t); /* of one rank */

/* Allocates every matrix and vector of this rank in m->weights, which holds weights_bytes(); where its contents are kept, they
 * are the weights already. */
int weights_alloc(struct model *m, enum kern_dtype t);
/* Room that weights_load takes from m->run beyond that, and gives back. */
size_t weights_stage_bytes(void);
/* Fills them. ERR_FORMAT: NaN or infinity with check_finite, naming the tensor. Local. */
int weights_load(struct model *m, const struct safetensors *st, bool check_finite);

#endif
