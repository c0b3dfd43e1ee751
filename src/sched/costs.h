/* run.calibrate: costs of attention's kernels are measured once, by rank 0 at a job's first start, and belong to the job. */
#ifndef AST_SCHED_COSTS_H
#define AST_SCHED_COSTS_H

#include <stdbool.h>

#include "attn/costs.h"

struct comm_group;
struct job;

/* Nothing unless the job wants it. Rank 0 reads FOLDER/costs.txt, or measures and writes it (anew: in any case); every rank
 * puts them into the options of the job's methods where these stand at their defaults. Collective over g (NULL: alone).
 * ERR_IO, ERR_FORMAT (a costs.txt that is none), ERR_NOMEM, ERR_ARG (no such instruction set). */
int costs_open(struct job *j, const char *folder, bool anew, const struct comm_group *g, struct attn_costs *out);

#endif
