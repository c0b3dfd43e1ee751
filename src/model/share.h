/* Weights in memory that the ranks of a machine share (base/shared.h). */
#ifndef AST_MODEL_SHARE_H
#define AST_MODEL_SHARE_H

#include "base/shared.h"
#include "model/layer.h"

struct safetensors;

/* Hexadecimal digits that are equal only if the packed weights of two processes are: of the same files, unchanged, read by the
 * same program for the same kernels, cut, typed, checked and lying on the same memory nodes alike. ERR_NOMEM. */
int model_share_key(const struct model *m, const struct safetensors *st, const struct model_open *how, char out[SHARED_KEY + 1]);

/* Opens m->shared; its state says whether there are weights in it, or it is to be filled, or there is none (ERR_OK too).
 * Local. ERR_NOMEM. */
int model_share(struct model *m, const struct safetensors *st, const struct model_open *how, size_t bytes);

#endif
