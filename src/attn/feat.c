/* The state of a selector: layout, rotation tables, running context, summaries. */
#include "attn/feat.h"

#include <math.h>
#include <string.h>

#include "attn/attn.h"
#include "base/err.h"

enum { ALIGN = 16 }; /* floats: 64 bytes */

static int64_t pad(int64_t floats)
{
    return (floats + ALIGN - 1) / ALIGN * ALIGN;
}

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Offsets in floats from the start of the state; the last is where records begin. */
static void layout(const struct feat_dims *d, int64_t at[6])
{
    at[0] = 0;
    at[1] = at[0] + ALIGN;
    at[2] = at[1] + pad(2 * d->hidden);
    at[3] = at[2] + pad(2 * FEAT_ROT * d->half * 2);
    at[4] = at[3] + pad(d->width ? d->kv_heads * 3 * d->dim : 0);
    at[5] = at[4] + pad(d->summary ? d->kv_heads * 2 * d->dim : 0);
}

static void record_sizes(struct feat *f, const struct feat_dims *d)
{
    *f = (struct feat){.d = *d};
    f->rec_tokens = FEAT_GROUP * max64(d->block, d->summary);
    f->rec_groups = d->width ? f->rec_tokens / d->block / FEAT_GROUP : 0;
    f->rec_sums = d->summary ? f->rec_tokens / d->summary / FEAT_GROUP : 0;
    f->rec_floats = f->rec_groups * d->units * d->width * FEAT_GROUP + f->rec_sums * d->kv_heads * d->dim * FEAT_GROUP * 2;
}

void feat_view(struct feat *f, const struct feat_dims *d, void *state)
{
    int64_t at[6];
    float *p = state;
    layout(d, at);
    record_sizes(f, d);
    f->tokens = state;
    f->ctx = (double *)(void *)(p + at[1]);
    f->offs = p + at[2];
    f->pool = p + at[3];
    f->sum = p + at[4];
    f->rec = p + at[5];
}

size_t feat_bytes(const struct feat_dims *d, int64_t max_tokens)
{
    struct feat f;
    int64_t at[6];
    layout(d, at);
    record_sizes(&f, d);
    int64_t records = (max_tokens + f.rec_tokens - 1) / f.rec_tokens;
    return (size_t)(at[5] + records * f.rec_floats) * sizeof(float);
}

float *feat_group(const struct feat *f, int64_t unit, int64_t group)
{
    int64_t r = group / f->rec_groups, i = group % f->rec_groups;
    return f->rec + r * f->rec_floats + (i * f->d.units + unit) * f->d.width * FEAT_GROUP;
}

int64_t feat_stride(const struct feat *f)
{
    return f->rec_groups == 1 ? f->rec_floats : f->d.units * f->d.width * FEAT_GROUP;
}

int64_t feat_run(const struct feat *f, int64_t group)
{
    return f->rec_groups == 1 ? INT64_MAX : f->rec_groups - group % f->rec_groups;
}

static float *summaries(const struct feat *f, int64_t record)
{
    return f->rec + record * f->rec_floats + f->rec_groups * f->d.units * f->d.width * FEAT_GROUP;
}

float *feat_kbar(const struct feat *f, int64_t kv_head, int64_t group)
{
    return summaries(f, group / f->rec_sums) + (group % f->rec_sums * f->d.kv_heads + kv_head) * f->d.dim * FEAT_GROUP;
}

float *feat_vbar(const struct feat *f, int64_t kv_head, int64_t summary)
{
    int64_t group = summary / FEAT_GROUP, i = group % f->rec_sums * FEAT_GROUP + summary % FEAT_GROUP;
    float *v = summaries(f, group / f->rec_sums) + f->rec_sums * f->d.kv_heads * f->d.dim * FEAT_GROUP;
    return v + (i * f->d.kv_heads + kv_head) * f->d.dim;
}

int64_t feat_half(const struct attn_shape *s, int64_t width)
{
    return s->rot == 0 ? 0 : (width == s->dim ? s->rot : width) / 2;
}

double feat_freq(const struct attn_shape *s, int64_t width, int64_t i)
{
    if (width == s->dim && s->rope_freq)
        return (double)s->rope_freq[i];
    int64_t rot = width == s->dim ? s->rot : width;
    return pow(s->rope_theta, -2.0 * (double)i / (double)rot);
}

void feat_angles(const struct attn_shape *s, const struct feat_dims *d, double pos, float *cs, float *sn)
{
    for (int64_t i = 0; i < d->half; i++) {
        double a = pos * feat_freq(s, d->width, i);
        cs[i] = (float)cos(a);
        sn[i] = (float)sin(a);
    }
}

/* table (FEAT_ROT, half, 2): cosine and sine of 0, step, 2 step, ... positions */
static void multiples(const struct attn_shape *s, const struct feat_dims *d, double step, float *table)
{
    for (int64_t i = 0; i < d->half; i++) {
        double a = step * feat_freq(s, d->width, i), c1 = cos(a), s1 = sin(a), c = 1, sn = 0;
        for (int64_t j = 0; j < FEAT_ROT; j++) {
            double next = c * c1 - sn * s1;
            table[(2 * j) * d->half + i] = (float)c;
            table[(2 * j + 1) * d->half + i] = (float)sn;
            sn = sn * c1 + c * s1;
            c = next;
        }
    }
}

/* The sum of two angles: rows (half, 2) */
static void add_angles(const float *restrict a, const float *restrict b, int64_t h, float *restrict cs, float *restrict sn)
{
    const float *ac = a, *as = a + h, *bc = b, *bs = b + h;
    for (int64_t i = 0; i < h; i++) {
        cs[i] = ac[i] * bc[i] - as[i] * bs[i];
        sn[i] = as[i] * bc[i] + ac[i] * bs[i];
    }
}

int64_t feat_base_rows(int64_t n)
{
    return n / FEAT_ROT + 2;
}

void feat_base(const struct attn_shape *s, const struct feat *f, int64_t first, int64_t n, float *base)
{
    int64_t h = f->d.half, last = -1;
    float far[2 * FEAT_MAX_WIDTH];
    for (int64_t i = first; i < first + n; i++, base += 2 * h) {
        if (i / FEAT_ROT != last)
            feat_angles(s, &f->d, (double)(i / FEAT_ROT * FEAT_ROT * FEAT_ROT), far, far + h);
        last = i / FEAT_ROT;
        add_angles(far, f->offs + (FEAT_ROT + i % FEAT_ROT) * 2 * h, h, base, base + h);
    }
}

void feat_bases(const struct attn_shape *s, struct feat *f, int64_t pos, int64_t n, float *base)
{
    if (pos == 0) {
        multiples(s, &f->d, 1, f->offs);
        multiples(s, &f->d, FEAT_ROT, f->offs + FEAT_ROT * 2 * f->d.half);
    }
    feat_base(s, f, pos / FEAT_ROT, (pos + n - 1) / FEAT_ROT - pos / FEAT_ROT + 1, base);
}

void feat_rotation(const struct feat *f, const float *base, int64_t pos, int64_t t, float *cs, float *sn)
{
    int64_t h = f->d.half;
    add_angles(base + (t / FEAT_ROT - pos / FEAT_ROT) * 2 * h, f->offs + t % FEAT_ROT * 2 * h, h, cs, sn);
}

void feat_summaries(struct feat *f, const struct attn_call *c, int64_t g)
{
    int64_t d = f->d.dim, r = f->d.summary, G = f->d.kv_heads;
    float *k = f->sum + g * 2 * d, *v = k + d;
    for (int64_t i = 0; i < c->n; i++) {
        int64_t t = c->pos + i, s = t / r;
        if (t % r == 0)
            memset(k, 0, (size_t)(2 * d) * sizeof *k);
        c->kern->add(k, c->k + (i * G + g) * d, d);
        c->kern->add(v, c->v + (i * G + g) * d, d);
        if (t % r != r - 1)
            continue;
        float *kbar = feat_kbar(f, g, s / FEAT_GROUP) + s % FEAT_GROUP, *vbar = feat_vbar(f, g, s);
        for (int64_t j = 0; j < d; j++) {
            kbar[j * FEAT_GROUP] = k[j] / (float)r;
            vbar[j] = v[j] / (float)r;
        }
    }
}
