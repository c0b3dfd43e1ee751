/* The packed key and value store, block by block. Includes nothing but simd.h's vocabulary. Layout: kernels/kern.h. */
#ifndef AST_KERNELS_SIMD_KV_H
#define AST_KERNELS_SIMD_KV_H

#include <string.h>

#include "kernels/kern.h"

/* A whole block of keys. */
static void turn_keys(float *to, const float *k, int64_t stride, int64_t d)
{
    for (int64_t j = 0; j < KERN_KB; j += W) {
        int64_t i = 0;
        for (; i + W <= d; i += W) {
            vf x[W];
            for (int l = 0; l < W; l++)
                x[l] = vload(k + (j + l) * stride + i);
            vtranspose(x);
            for (int l = 0; l < W; l++)
                vstore(to + (i + l) * KERN_KB + j, x[l]);
        }
        for (; i < d; i++)
            for (int l = 0; l < W; l++)
                to[i * KERN_KB + j + l] = k[(j + l) * stride + i];
    }
}

/* n keys at lane `at` of one block, rows of stride floats. */
static void append_f32(struct kern_kv *kv, const float *k, const float *v, int64_t stride, int64_t n)
{
    int64_t d = kv->dim, at = kv->n % KERN_KB;
    float *to_k = (float *)kv->k + kv->n / KERN_KB * d * KERN_KB + at, *to_v = (float *)kv->v + kv->n * d;
    if (n == KERN_KB)
        turn_keys(to_k, k, stride, d);
    for (int64_t i = 0; i < d && n < KERN_KB; i++)
        for (int64_t j = 0; j < n; j++)
            to_k[i * KERN_KB + j] = k[j * stride + i];
    for (int64_t j = 0; j < n; j++)
        memcpy(to_v + j * d, v + j * stride, (size_t)d * sizeof(float));
}

static void to_bf16(uint16_t *y, const float *x, int64_t n)
{
    uint16_t rest[W];
    int64_t i = 0;
    for (; i + W <= n; i += W)
        vstore_bf16(y + i, vload(x + i));
    vstore_bf16(rest, vload_n(x + i, n - i));
    memcpy(y + i, rest, (size_t)(n - i) * sizeof(uint16_t));
}

/* The lower (0) or upper (1) halves of n words; the other halves stay. Line by line, as single halves cost as much each. */
static void put_halves(uint16_t *to, const uint16_t *half, int64_t n, int64_t which)
{
    const uint32_t keep = which ? 0xFFFF : 0xFFFF0000, shift = which ? 16 : 0;
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        uint32_t word[16];
        memcpy(word, to + 2 * i, sizeof word);
        for (int l = 0; l < 16; l++)
            word[l] = (word[l] & keep) | (uint32_t)half[i + l] << shift;
        memcpy(to + 2 * i, word, sizeof word);
    }
    for (; i < n; i++)
        to[2 * i + which] = half[i];
}

static void append_bf16(struct kern_kv *kv, const float *k, const float *v, int64_t stride, int64_t n)
{
    int64_t d = kv->dim, at = kv->n % KERN_KB, pairs = (d + 1) / 2;
    uint16_t row[KERN_MAX_DIM + 1];
    uint16_t *to_k = (uint16_t *)kv->k + kv->n / KERN_KB * pairs * KERN_KB * 2 + 2 * at;
    for (int64_t j = 0; j < n; j++) {
        to_bf16(row, k + j * stride, d);
        row[d] = 0; /* the pair of an odd last dim */
        for (int64_t i = 0; i < pairs; i++)
            memcpy(to_k + (i * KERN_KB + j) * 2, row + 2 * i, 2 * sizeof(uint16_t));
        to_bf16(row, v + j * stride, d);
        put_halves((uint16_t *)kv->v + (kv->n + j) / 2 * d * 2, row, d, (kv->n + j) % 2);
    }
}

/* A block that is entered is cleared first: keys past the last one are zeros. */
static void clear_block(struct kern_kv *kv, int64_t block)
{
    size_t size = kv->dtype == KERN_F32 ? sizeof(float) : sizeof(uint16_t);
    size_t k_bytes = kern_kv_bytes(kv->dtype, kv->dim, KERN_KB), v_bytes = (size_t)(KERN_KB * kv->dim) * size;
    memset((char *)kv->k + (size_t)block * k_bytes, 0, k_bytes);
    memset((char *)kv->v + (size_t)block * v_bytes, 0, v_bytes);
}

static void kv_append(struct kern_kv *kv, const float *k, const float *v, int64_t stride, int64_t n)
{
    for (int64_t j = 0; j < n;) {
        int64_t room = KERN_KB - kv->n % KERN_KB, part = n - j < room ? n - j : room;
        if (room == KERN_KB && part < room)
            clear_block(kv, kv->n / KERN_KB);
        (kv->dtype == KERN_F32 ? append_f32 : append_bf16)(kv, k + j * stride, v + j * stride, stride, part);
        kv->n += part;
        j += part;
    }
}

#endif
