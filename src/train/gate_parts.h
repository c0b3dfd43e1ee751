/* Gates over a group of ranks: each has the units of its own heads. */
#ifndef AST_TRAIN_GATE_PARTS_H
#define AST_TRAIN_GATE_PARTS_H

#include "attn/gate.h"

struct arena;
struct comm_group;

/* own: this rank's units of `all`, pointers into it; what is NULL there is NULL here. g NULL: all of them. ERR_NOMEM. */
int gate_parts_cut(struct attn_params *own, const struct attn_params *all, const struct comm_group *g, struct arena *run);

/* Makes `all` whole on every rank from what each has of it. Collective over g; NULL: nothing to do. */
void gate_parts_gather(const struct attn_params *own, const struct attn_params *all, const struct comm_group *g);

#endif
