/* Gate files: the weights of a sparsity predictor, beside the checkpoint that they were trained for.
 *
 *     safetensors, F32: layers.%d.{wq, wk, wc, dist, wr, br, beta} as in attn/gate.h; wc and what follows may be missing
 *     metadata: format = asterism-gates-1, base = fingerprint of the model (struct model_info), unit = kv-head | head,
 *               block = tokens a block in training */
#ifndef AST_MODEL_GATES_H
#define AST_MODEL_GATES_H

#include "attn/gate.h"

struct gates;
struct model_info;

/* Local. ERR_IO, ERR_FORMAT (shapes, numbers that are not finite), ERR_ARG (another base model), ERR_NOMEM. */
int gates_open(struct gates **out, const char *path, const struct model_info *base);
void gates_close(struct gates *g); /* NULL is fine */
const struct attn_params *gates_params(const struct gates *g);

/* Writes p, whose tensors must all be there but wc, dist, wr with br, beta, which may be NULL. ERR_IO, ERR_NOMEM. */
int gates_save(const char *path, const struct attn_params *p);

#endif
