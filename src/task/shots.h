/* Worked examples in front of a prompt (few-shot): which ones, the same for every sample and on every rank. */
#ifndef AST_TASK_SHOTS_H
#define AST_TASK_SHOTS_H

#include <stdint.h>

/* k different numbers below n into pick (k,), a function of the seed alone. ERR_ARG, naming the file, if there are
 * not k. */
int shots_pick(int64_t *pick, int64_t k, int64_t n, uint64_t seed, const char *file);

#endif
