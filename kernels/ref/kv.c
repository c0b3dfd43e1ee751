/* The packed key and value store, plain. Layout: struct kern_kv in kernels/kern.h. */
#include "kernels/ref/ref.h"

#include <string.h>

/* Index of dim i of a key within the store, in elements. */
static int64_t key_at(const struct kern_kv *kv, int64_t key, int64_t i)
{
    int64_t block = key / KERN_KB, lane = key % KERN_KB;
    if (kv->dtype == KERN_F32)
        return (block * kv->dim + i) * KERN_KB + lane;
    return ((block * ((kv->dim + 1) / 2) + i / 2) * KERN_KB + lane) * 2 + i % 2;
}

static int64_t value_at(const struct kern_kv *kv, int64_t key, int64_t i)
{
    return kv->dtype == KERN_F32 ? key * kv->dim + i : (key / 2 * kv->dim + i) * 2 + key % 2;
}

/* A block that is entered is cleared first: keys past the last one are zeros. */
static void clear_block(struct kern_kv *kv, int64_t block)
{
    size_t size = kv->dtype == KERN_F32 ? sizeof(float) : sizeof(uint16_t);
    size_t k_bytes = kern_kv_bytes(kv->dtype, kv->dim, KERN_KB), v_bytes = (size_t)(KERN_KB * kv->dim) * size;
    memset((char *)kv->k + (size_t)block * k_bytes, 0, k_bytes);
    memset((char *)kv->v + (size_t)block * v_bytes, 0, v_bytes);
}

void ref_kv_append(struct kern_kv *kv, const float *k, const float *v, int64_t stride, int64_t n)
{
    for (int64_t j = 0; j < n; j++, kv->n++) {
        if (kv->n % KERN_KB == 0)
            clear_block(kv, kv->n / KERN_KB);
        for (int64_t i = 0; i < kv->dim; i++) {
            int64_t at_k = key_at(kv, kv->n, i), at_v = value_at(kv, kv->n, i);
            if (kv->dtype == KERN_F32) {
                ((float *)kv->k)[at_k] = k[j * stride + i];
                ((float *)kv->v)[at_v] = v[j * stride + i];
            } else {
                ref_bf16_from_f32((uint16_t *)kv->k + at_k, k + j * stride + i, 1);
                ref_bf16_from_f32((uint16_t *)kv->v + at_v, v + j * stride + i, 1);
            }
        }
    }
}

static float element(const struct kern_kv *kv, const void *base, int64_t at)
{
    float x;
    if (kv->dtype == KERN_F32)
        return ((const float *)base)[at];
    ref_f32_from_bf16(&x, (const uint16_t *)base + at, 1);
    return x;
}

void ref_kv_keys(const struct kern_kv *kv, int64_t first, int64_t n, float *out)
{
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < kv->dim; i++)
            out[j * kv->dim + i] = element(kv, kv->k, key_at(kv, first + j, i));
}

void ref_kv_values(const struct kern_kv *kv, int64_t first, int64_t n, float *out)
{
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < kv->dim; i++)
            out[j * kv->dim + i] = element(kv, kv->v, value_at(kv, first + j, i));
}
