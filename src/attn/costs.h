/* What the choice between the two sparse kernels is made of, measured on this machine. Both kernels give the same bits: what
 * is measured here moves time and the counts of strategies, and nothing else. */
#ifndef AST_ATTN_COSTS_H
#define AST_ATTN_COSTS_H

#include "kernels/kern.h"

struct attn_costs { /* ns; options of the same names in SPARSE_FIELDS_COMMON */
    double cost_blocks, cost_gather;
};

/* For key/value heads of `heads` query heads and width dim, both at least 1: which kernel is faster depends on them. Some
 * milliseconds, on one thread. ERR_NOMEM. */
int attn_costs_measure(struct attn_costs *out, const struct kern_table *k, int64_t heads, int64_t dim);

#endif
