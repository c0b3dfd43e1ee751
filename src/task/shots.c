/* Drawing examples without replacement. */
#include "task/shots.h"

#include <stdbool.h>

#include "base/err.h"
#include "base/rng.h"

enum { STREAM = 0x73686f74 }; /* apart from what else is drawn with the job's seed */

int shots_pick(int64_t *pick, int64_t k, int64_t n, uint64_t seed, const char *file)
{
    if (k > n)
        return err_set(ERR_ARG, "shots = %lld, but %s has %lld examples", (long long)k, file, (long long)n);
    uint64_t draw = 0;
    for (int64_t i = 0; i < k;) {
        bool taken = false;
        pick[i] = rng_below(seed, STREAM, draw++, n);
        for (int64_t j = 0; j < i; j++)
            taken = taken || pick[j] == pick[i];
        i += !taken;
    }
    return ERR_OK;
}
