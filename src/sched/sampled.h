/* Sampled statistics of attention (attn/sparsity.h) around a shard: every layer's counters while it runs, then its outcome.
 * Maps are drawn of chosen samples, which run alone. */
#ifndef AST_SCHED_SAMPLED_H
#define AST_SCHED_SAMPLED_H

#include <stdint.h>

struct attn_stats;
struct comm_group;
struct model_info;
struct outcome;
struct sampled;

/* One row in `every` (>= 1) is sampled. ERR_NOMEM. Local. */
int sampled_open(struct sampled **out, const struct model_info *m, int64_t every);
void sampled_close(struct sampled *s); /* NULL is fine */

/* s may be NULL everywhere below: no statistics. Clears, and points stats[layer].more here. */
void sampled_begin(struct sampled *s, struct attn_stats *stats);
/* The sample that runs next is one of `span` tokens to be mapped; 0: none. */
void sampled_map(struct sampled *s, int64_t span);
/* Keeps the map of that sample (its index in the dataset) in o. ERR_NOMEM. Collective over g. */
int sampled_keep_map(struct sampled *s, struct outcome *o, int64_t sample, const struct comm_group *g);
/* Fills o->sparsity with sums over the group's ranks. ERR_NOMEM. Collective over g. */
int sampled_end(struct sampled *s, struct outcome *o, const struct comm_group *g);

#endif
