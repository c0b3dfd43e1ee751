/* Counter-based random numbers: a value is a pure function of (seed, stream, index), so it does not depend on how many
 * ranks or threads draw.
 *   source   Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3": Philox4x32-10 */
#ifndef AST_BASE_RNG_H
#define AST_BASE_RNG_H

#include <stdint.h>

void rng_philox(const uint32_t ctr[4], const uint32_t key[2], uint32_t out[4]);

uint64_t rng_u64(uint64_t seed, uint64_t stream, uint64_t i);
double rng_uniform(uint64_t seed, uint64_t stream, uint64_t i);           /* [0, 1), 53 bits */
double rng_normal(uint64_t seed, uint64_t stream, uint64_t i);            /* mean 0, variance 1 (Box-Muller) */
int64_t rng_below(uint64_t seed, uint64_t stream, uint64_t i, int64_t n); /* 0 .. n-1, n > 0 */

#endif
