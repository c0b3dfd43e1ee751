/* Attention over a tile of query rows, plain: one row and one block at a time.
 *
 * The running maximum is rounded up to a whole power of two, 2^M >= exp(max). Rescaling then multiplies by a power of
 * two, which is exact, so that a row's result does not depend on how its keys are cut into steps. m holds M ln 2. */
#include "kernels/ref/ref.h"

#include <math.h>
#include <string.h>

static const double ln2 = 0.69314718055994530942;

void ref_tile_begin(const struct kern_tile *t)
{
    memset(t->o, 0, (size_t)(t->rows * t->dim) * sizeof(float));
    for (int64_t r = 0; r < t->rows; r++) {
        t->m[r] = -INFINITY;
        t->l[r] = 0;
    }
}

/* Raises row r's exponent to hold a score of top; returns it. */
static int raise_exponent(const struct kern_tile *t, int64_t r, double top)
{
    int now = t->m[r] == -INFINITY ? 0 : (int)lrint((double)t->m[r] / ln2);
    if (!isfinite(top))
        return now;
    int next = (int)ceil(top / ln2);
    if (t->m[r] == -INFINITY || next > now) {
        t->l[r] = ldexpf(t->l[r], now - next);
        for (int64_t i = 0; i < t->dim; i++)
            t->o[r * t->dim + i] = ldexpf(t->o[r * t->dim + i], now - next);
        t->m[r] = (float)(next * ln2);
        now = next;
    }
    return now;
}

/* Row r sees the n given keys and values (n, d). */
static void some_keys(const struct kern_tile *t, int64_t r, const float *k, const float *v, int64_t n)
{
    double s[KERN_KB], top = -HUGE_VAL;
    for (int64_t j = 0; j < n; j++) {
        s[j] = 0;
        for (int64_t i = 0; i < t->dim; i++)
            s[j] += (double)t->q[r * t->dim + i] * (double)k[j * t->dim + i];
        top = s[j] > top ? s[j] : top;
    }
    int exponent = raise_exponent(t, r, top);
    for (int64_t j = 0; j < n; j++) {
        float p = (float)exp(s[j] - exponent * ln2);
        t->l[r] += p;
        for (int64_t i = 0; i < t->dim; i++)
            t->o[r * t->dim + i] += p * v[j * t->dim + i];
    }
}

/* keys first .. first+n-1, n <= KERN_KB, as far as the row sees them */
static void row_and_keys(const struct kern_tile *t, const struct kern_kv *kv, int64_t r, int64_t first, int64_t n)
{
    float k[KERN_KB * KERN_MAX_DIM], v[KERN_KB * KERN_MAX_DIM];
    int64_t last = first + n;
    if (t->begin && t->begin[r] > first)
        first = t->begin[r];
    last = t->end[r] < last ? t->end[r] : last;
    last = kv->n < last ? kv->n : last;
    if (first >= last)
        return;
    ref_kv_keys(kv, first, last - first, k);
    ref_kv_values(kv, first, last - first, v);
    some_keys(t, r, k, v, last - first);
}

static void row_and_block(const struct kern_tile *t, const struct kern_kv *kv, int64_t r, int64_t block)
{
    row_and_keys(t, kv, r, block * KERN_KB, KERN_KB);
}

void ref_tile_dense(const struct kern_tile *t, const struct kern_kv *kv, int64_t block0, int64_t block1)
{
    for (int64_t r = 0; r < t->rows; r++)
        for (int64_t b = block0; b < block1; b++)
            row_and_block(t, kv, r, b);
}

void ref_tile_blocks(const struct kern_tile *t, const struct kern_kv *kv, const int32_t *block, const uint64_t *mask, int64_t n)
{
    for (int64_t r = 0; r < t->rows; r++)
        for (int64_t i = 0; i < n; i++)
            if (!mask || (mask[i] >> r & 1u))
                row_and_block(t, kv, r, block[i]);
}

void ref_tile_gather(const struct kern_tile *t, const struct kern_kv *kv, const int64_t *ptr, const int32_t *block)
{
    int64_t share = t->share > 1 ? t->share : 1;
    for (int64_t r = 0; r < t->rows; r++)
        for (int64_t i = ptr[r / share]; i < ptr[r / share + 1]; i++)
            row_and_block(t, kv, r, block[i]);
}

void ref_tile_halves(const struct kern_tile *t, const struct kern_kv *kv, const int32_t *half, const uint64_t *mask, int64_t n)
{
    for (int64_t r = 0; r < t->rows; r++)
        for (int64_t i = 0; i < n; i++)
            if (!mask || (mask[i] >> r & 1u))
                row_and_keys(t, kv, r, half[i] * (KERN_KB / 2), KERN_KB / 2);
}

void ref_tile_end(const struct kern_tile *t, float *lse)
{
    for (int64_t r = 0; r < t->rows; r++) {
        bool none = t->l[r] == 0;
        const float *o = t->o + r * t->dim;
        float *to = t->to ? t->to[r] : t->o + r * t->dim;
        for (int64_t i = 0; i < t->dim; i++)
            to[i] = none ? 0.0F : o[i] / t->l[r];
        if (lse)
            lse[r] = none ? -INFINITY : t->m[r] + logf(t->l[r]);
    }
}
