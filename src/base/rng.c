/* Philox4x32-10 and the distributions drawn from it. */
#include "base/rng.h"

#include <math.h>

static void round_once(uint32_t c[4], const uint32_t k[2])
{
    uint64_t a = (uint64_t)0xD2511F53u * c[0], b = (uint64_t)0xCD9E8D57u * c[2];
    uint32_t n0 = (uint32_t)(b >> 32) ^ c[1] ^ k[0], n2 = (uint32_t)(a >> 32) ^ c[3] ^ k[1];
    c[1] = (uint32_t)b;
    c[3] = (uint32_t)a;
    c[0] = n0;
    c[2] = n2;
}

void rng_philox(const uint32_t ctr[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t k[2] = {key[0], key[1]};
    for (int i = 0; i < 4; i++)
        out[i] = ctr[i];
    for (int r = 0; r < 10; r++) {
        round_once(out, k);
        k[0] += 0x9E3779B9u;
        k[1] += 0xBB67AE85u;
    }
}

static void draw(uint64_t seed, uint64_t stream, uint64_t i, uint64_t out[2])
{
    uint32_t ctr[4] = {(uint32_t)i, (uint32_t)(i >> 32), (uint32_t)stream, (uint32_t)(stream >> 32)};
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)}, r[4];
    rng_philox(ctr, key, r);
    out[0] = (uint64_t)r[1] << 32 | r[0];
    out[1] = (uint64_t)r[3] << 32 | r[2];
}

static double unit(uint64_t u)
{
    return (double)(u >> 11) * 0x1p-53;
}

uint64_t rng_u64(uint64_t seed, uint64_t stream, uint64_t i)
{
    uint64_t u[2];
    draw(seed, stream, i, u);
    return u[0];
}

double rng_uniform(uint64_t seed, uint64_t stream, uint64_t i)
{
    return unit(rng_u64(seed, stream, i));
}

double rng_normal(uint64_t seed, uint64_t stream, uint64_t i)
{
    uint64_t u[2];
    draw(seed, stream, i, u);
    return sqrt(-2 * log(1 - unit(u[0]))) * cos(6.283185307179586 * unit(u[1]));
}

int64_t rng_below(uint64_t seed, uint64_t stream, uint64_t i, int64_t n)
{
    /* The high half of a 128-bit product: bias below n / 2^64. */
    __extension__ typedef unsigned __int128 u128;
    return (int64_t)((u128)rng_u64(seed, stream, i) * (u128)(uint64_t)n >> 64);
}
