/* Which rank computes in which worker group, and how large groups are for which dataset. Pure.
 *
 *     rank       0        1 2   3 4   5 6   7           tensor = 2; rank 5 is dead:
 *                master   [0]   [1]   [2]   idle        0  1 2  3 4  x  6 7     -> groups [1 2] [3 4] [6 7]
 *
 * A job whose datasets want groups of different sizes runs in *phases*, one a size, the largest first: all of a phase's groups
 * are of one size, and only ranks of one group ever wait for each other. Between phases the live ranks are grouped anew, so
 * that a rank that died costs the next phase nothing but itself. */
#ifndef AST_SCHED_LAYOUT_H
#define AST_SCHED_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

struct job;
struct work;

struct layout {
    int ranks, tensor, groups;
    int *group_of; /* (ranks,) -1: rank 0, dead, or left over */
    int *member;   /* (groups, tensor) world ranks; the first of a group leads it */
};

/* dead: (ranks,) non-zero: gone; NULL: none. One rank: one group of itself. ERR_NOMEM. */
int layout_open(struct layout *l, int ranks, int tensor, const uint8_t *dead);
void layout_close(struct layout *l); /* a zeroed one is fine */
int layout_leader(const struct layout *l, int group);

/* ERR_ARG if the sizes that the job asks for need more ranks than there are. */
int layout_check(const struct job *j, int ranks);

/* Sets each set's `tensor`: as the job says; where it leaves the choice (0), the smallest power of two at which the weights
 * and the longest sample are likely to fit into `memory` bytes a rank, and, if the job has fewer batches than there are
 * workers, one that gives the workers something to do. Every set must be open. */
void layout_choose(struct work *w, int ranks, size_t memory);

/* The phases: distinct sizes over all sets, largest first, into tensor (w->n_sets,). Returns how many. */
int layout_phases(const struct work *w, int *tensor);

#endif
