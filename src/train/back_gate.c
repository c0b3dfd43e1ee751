/* The gate's vectors, choices of a tile, and their gradients down to u and v; back_gate_close.c takes those to the weights. */
#include "train/back_gate.h"

#include <math.h>
#include <string.h>

#include "attn/feat.h"
#include "base/arena.h"
#include "base/err.h"
#include "kernels/blas.h"

static int64_t up16(int64_t n)
{
    return (n + 15) / 16;
}

/* ---- memory ---- */

static size_t floats(struct arena *to, float **p, bool want, int64_t n)
{
    *p = NULL;
    if (!want)
        return 0;
    if (to)
        *p = ARENA_NEW(to, n, float);
    return arena_bytes(n, sizeof(float));
}

static void sizes(struct back_gate *g)
{
    g->block = g->rule->select.block;
    g->nb = g->n / g->block;
    g->ng = up16(g->nb);
    g->ns = g->rule->summary > 0 ? g->n / g->rule->summary : 0;
    g->nsg = up16(g->ns);
}

static size_t take(struct back_gate *g, bool backward, struct arena *to)
{
    int64_t d = g->shape->dim, D = g->shape->hidden, G = g->shape->kv_heads, u = g->n * g->units, e = g->width;
    int64_t blocks = g->units * g->ng * 16 * e, sums = G * g->nsg * 16 * d;
    bool s = g->ns > 0;
    size_t n = floats(to, &g->ctx, true, g->n * D) + floats(to, &g->u, true, u * e) + floats(to, &g->rho, true, u);
    n += floats(to, &g->rms, true, g->n);
    n += floats(to, &g->feat, true, G * g->nb * 3 * d) + floats(to, &g->blk, true, blocks) + floats(to, &g->blkt, true, blocks);
    n += floats(to, &g->kbar, s, sums) + floats(to, &g->vbar, s, sums) + floats(to, &g->kbart, s, sums);
    n += floats(to, &g->vbart, s, sums) + floats(to, &g->du, backward, u * e) + floats(to, &g->drho, backward, u);
    n += floats(to, &g->dblk, backward, blocks) + floats(to, &g->dkbar, backward && s, sums);
    n += floats(to, &g->dvbar, backward && s, sums);
    return n;
}

size_t back_gate_bytes(const struct attn_shape *s, const struct back_rule *r, int64_t n, const struct attn_params *p)
{
    struct back_gate g = {.shape = s, .rule = r, .n = n, .units = p->units, .width = p->width};
    float *f;
    sizes(&g);
    /* what close takes: gradients of the context and of the pooled keys */
    return take(&g, true, NULL) + floats(NULL, &f, true, n * s->hidden) + floats(NULL, &f, true, s->kv_heads * g.nb * 3 * s->dim);
}

int back_angles_make(struct back_angles *out, const struct attn_shape *s, const int64_t n_width_block[3], struct arena *step)
{
    int64_t n = n_width_block[0], width = n_width_block[1], block = n_width_block[2], nb = n / block;
    int64_t half = feat_half(s, width);
    struct feat_dims d = {.width = width, .half = half};
    out->half = half;
    out->cs = ARENA_NEW(step, n * half, float);
    out->sn = ARENA_NEW(step, n * half, float);
    out->mid_c = ARENA_NEW(step, nb * half, float);
    out->mid_s = ARENA_NEW(step, nb * half, float);
    if (!out->cs || !out->sn || !out->mid_c || !out->mid_s)
        return ERR_NOMEM;
#pragma omp parallel for if (n * half > 1 << 12)
    for (int64_t t = 0; t < n; t++)
        feat_angles(s, &d, (double)t, out->cs + t * half, out->sn + t * half);
    for (int64_t J = 0; J < nb; J++)
        feat_angles(s, &d, (double)(J * block) + (double)block / 2, out->mid_c + J * half, out->mid_s + J * half);
    return ERR_OK;
}

/* ---- vectors ---- */

/* ctx: running mean of x, divided by its root mean square */
static void context(const struct back_gate *g)
{
    int64_t D = g->shape->hidden;
#pragma omp parallel for if (g->n * D > 1 << 14)
    for (int64_t c = 0; c < D; c += 16) {
        double sum[16] = {0};
        int64_t m = D - c < 16 ? D - c : 16;
        for (int64_t t = 0; t < g->n; t++)
            for (int64_t i = 0; i < m; i++) {
                sum[i] += (double)g->x[t * D + c + i];
                g->ctx[t * D + c + i] = (float)(sum[i] / (double)(t + 1));
            }
    }
#pragma omp parallel for if (g->n * D > 1 << 14)
    for (int64_t t = 0; t < g->n; t++) {
        float *c = g->ctx + t * D, sq = g->kern->dot(c, c, D);
        g->rms[t] = (float)(1 / sqrt((double)sq / (double)D + 1e-6));
        g->kern->scale(c, g->rms[t], D);
    }
}

/* u of every token, rotated and divided by sqrt(d); rho from it before rotation */
static void tokens(const struct back_gate *g)
{
    int64_t d = g->shape->dim, D = g->shape->hidden, H = g->shape->heads, in = H / g->units * d, e = g->width, all = g->units * e;
    float inv = 1 / sqrtf((float)d);
    for (int64_t u = 0; u < g->units; u++) {
        struct blas_gemm q = {.m = g->n, .n = e, .k = in, .alpha = 1, .a = g->q0 + u * in, .lda = H * d};
        q.b = g->w->wq + u * in * e, q.ldb = e, q.c = g->u + u * e, q.ldc = all;
        blas_gemm(&q);
        struct blas_gemm c = {.m = g->n, .n = e, .k = D, .alpha = 1, .beta = 1, .a = g->ctx, .lda = D};
        c.b = g->w->wc + u * D * e, c.ldb = e, c.c = g->u + u * e, c.ldc = all;
        if (g->context)
            blas_gemm(&c);
    }
#pragma omp parallel for if (g->n * all > 1 << 14)
    for (int64_t t = 0; t < g->n; t++)
        for (int64_t u = 0; u < g->units; u++) {
            float *x = g->u + t * all + u * e;
            g->rho[t * g->units + u] = 1 / (1 + expf(-g->kern->dot(x, g->w->wr + u * e, e) - g->w->br[u]));
            if (g->angles->half)
                g->kern->rope(x, g->angles->cs + t * g->angles->half, g->angles->sn + t * g->angles->half, 2 * g->angles->half);
            g->kern->scale(x, inv, e);
        }
}

/* mean, max, min of unrotated keys over block J of KV head h */
static void pool(const struct back_gate *g, int64_t h, int64_t J)
{
    int64_t d = g->shape->dim, row = g->shape->kv_heads * d;
    float *mean = g->feat + (h * g->nb + J) * 3 * d, *hi = mean + d, *lo = hi + d;
    for (int64_t i = 0; i < g->block; i++) {
        const float *k = g->k0 + (J * g->block + i) * row + h * d;
        for (int64_t x = 0; x < d; x++) {
            mean[x] = i ? mean[x] + k[x] : k[x];
            hi[x] = i && hi[x] >= k[x] ? hi[x] : k[x];
            lo[x] = i && lo[x] <= k[x] ? lo[x] : k[x];
        }
    }
    g->kern->scale(mean, 1 / (float)g->block, d);
}

/* rows (16 groups, width) -> (groups, width, 16) */
static void transpose(float *to, const float *rows, int64_t groups, int64_t width)
{
    for (int64_t J = 0; J < 16 * groups; J++)
        for (int64_t x = 0; x < width; x++)
            to[(J / 16 * width + x) * 16 + J % 16] = rows[J * width + x];
}

static void blocks(const struct back_gate *g)
{
    int64_t d = g->shape->dim, G = g->shape->kv_heads, e = g->width, each = 16 * g->ng * e;
#pragma omp parallel for if (g->nb * G > 16)
    for (int64_t i = 0; i < g->nb * G; i++)
        pool(g, i / g->nb, i % g->nb);
    for (int64_t u = 0; u < g->units && g->nb; u++) {
        struct blas_gemm m = {.m = g->nb, .n = e, .k = 3 * d, .alpha = 1, .lda = 3 * d};
        m.a = g->feat + u / (g->units / G) * g->nb * 3 * d;
        m.b = g->w->wk + u * 3 * d * e, m.ldb = e, m.c = g->blk + u * each, m.ldc = e;
        blas_gemm(&m);
    }
#pragma omp parallel for if (g->nb * g->units > 16)
    for (int64_t u = 0; u < g->units; u++) {
        float *v = g->blk + u * each;
        for (int64_t J = 0; J < g->nb && g->angles->half; J++)
            g->kern->rope(v + J * e, g->angles->mid_c + J * g->angles->half, g->angles->mid_s + J * g->angles->half,
                          2 * g->angles->half);
        memset(v + g->nb * e, 0, (size_t)(each - g->nb * e) * sizeof *v);
        transpose(g->blkt + u * each, v, g->ng, e);
    }
}

static void summaries(const struct back_gate *g)
{
    int64_t d = g->shape->dim, G = g->shape->kv_heads, r = g->rule->summary, each = 16 * g->nsg * d;
#pragma omp parallel for collapse(2) if (g->n > 256)
    for (int64_t h = 0; h < G; h++)
        for (int64_t s = 0; s < 16 * g->nsg; s++) {
            float *kb = g->kbar + h * each + s * d, *vb = g->vbar + h * each + s * d;
            memset(kb, 0, (size_t)d * sizeof *kb);
            memset(vb, 0, (size_t)d * sizeof *vb);
            for (int64_t i = s * r; i < (s + 1) * r && s < g->ns; i++) {
                g->kern->axpy(kb, 1 / (float)r, g->k + (i * G + h) * d, d);
                g->kern->axpy(vb, 1 / (float)r, g->v + (i * G + h) * d, d);
            }
        }
    for (int64_t h = 0; h < G; h++) {
        transpose(g->kbart + h * each, g->kbar + h * each, g->nsg, d);
        transpose(g->vbart + h * each, g->vbar + h * each, g->nsg, d);
    }
}

int back_gate_open(struct back_gate *g, bool backward)
{
    sizes(g);
    size_t mark = arena_mark(g->step), need = take(g, backward, g->step);
    if (g->step->used - mark != need)
        return ERR_NOMEM;
    if (g->context)
        context(g);
    tokens(g);
    blocks(g);
    if (g->ns > 0)
        summaries(g);
    if (backward) {
        int64_t each = g->units * g->ng * 16 * g->width, sums = g->shape->kv_heads * g->nsg * 16 * g->shape->dim;
        memset(g->du, 0, (size_t)(g->n * g->units * g->width) * sizeof(float));
        memset(g->drho, 0, (size_t)(g->n * g->units) * sizeof(float));
        memset(g->dblk, 0, (size_t)each * sizeof(float));
        if (g->ns > 0) {
            memset(g->dkbar, 0, (size_t)sums * sizeof(float));
            memset(g->dvbar, 0, (size_t)sums * sizeof(float));
        }
    }
    return ERR_OK;
}

/* ---- choosing ---- */

/* The candidates lo .. hi-1 in runs of one distance bucket, nearest first. */
static int64_t run_of(const struct select_set *set, int64_t J, int64_t buckets, int64_t *bucket)
{
    int64_t b = gate_bucket(set->own - J, buckets), far = b == buckets - 1 ? INT64_MAX : b < 2 ? b : ((int64_t)1 << b) - 1;
    *bucket = b;
    return far > set->own - set->lo ? set->lo : set->own - far;
}

/* Candidates that a token asks for, as a real number. */
static double asked(const struct back_gate *g, const struct select_set *set, int64_t unit, bool *capped)
{
    double k = (double)set->most;
    *capped = true;
    if (g->rule->select.budget == SELECT_LEARNED) {
        double want = (double)g->rho[set->token * g->units + unit] * (double)(set->hi - set->lo);
        *capped = want >= k;
        k = *capped ? k : want;
    }
    return k;
}

/* tau with sum sigmoid((s - tau) / T) = k, 0 < k < n: Newton inside a bracket, as in attn/softtopk.c but for floats. */
static float solve(const struct kern_table *kern, const float *s, int64_t n, double k, double T)
{
    float lo = s[0], hi = s[0], shift = (float)(T * log(k / ((double)n - k)));
    for (int64_t i = 1; i < n; i++) {
        lo = s[i] < lo ? s[i] : lo;
        hi = s[i] > hi ? s[i] : hi;
    }
    lo -= shift, hi -= shift;
    struct kern_soft c = {.n = n, .s = s, .tau = lo + (hi - lo) / 2, .inv_T = (float)(1 / T)};
    for (int i = 0; i < 60; i++) {
        float sum, slope;
        kern->soft_sums(&c, &sum, &slope);
        double e = (double)sum - k;
        if (fabs(e) <= 1e-7 * k || !(lo < hi))
            break;
        *(e > 0 ? &lo : &hi) = c.tau;
        float next = slope > 0 ? (float)((double)c.tau + T * e / (double)slope) : lo;
        if (!(next > lo && next < hi))
            next = lo + (hi - lo) / 2;
        if (next == c.tau)
            break;
        c.tau = next;
    }
    return c.tau;
}

static void fill(float *x, int64_t from, int64_t to, float v)
{
    for (int64_t i = from; i < to; i++)
        x[i] = v;
}

/* ln m and ln(1 - m) of one token's candidates; returns the sum of m. */
static double weigh(const struct back_gate *g, struct back_room *r, const struct back_tile *t, int64_t i, bool again)
{
    const struct select_set *set = &r->set[i];
    const struct back_rule *rule = g->rule;
    float *s = r->s + i * r->ld, *lm = r->lm + i * r->ld, *l1m = r->l1m ? r->l1m + i * r->ld : NULL;
    float *tau = &g->tau[t->unit * g->n + set->token];
    int64_t lo = set->lo, hi = set->hi, n = hi - lo;
    bool capped, hard = rule->mask == BACK_HARD;
    double k = set->all ? (double)n : hard ? 0 : asked(g, set, t->unit, &capped);
    if (hard && !set->all)
        k = (double)select_count(set, &rule->select, s + lo, g->rho[set->token * g->units + t->unit], r->work);
    bool whole = k >= (double)n, none = k <= 0;
    if (whole || none || hard) {
        fill(lm, lo, hi, whole ? 0 : -INFINITY);
        if (l1m)
            fill(l1m, lo, hi, whole ? -INFINITY : 0);
        *tau = whole ? -INFINITY : INFINITY;
        int64_t chosen = whole || none ? 0 : g->kern->topk(s + lo, n, (int64_t)k, r->chosen, r->work, NULL);
        for (int64_t j = 0; j < chosen; j++) {
            lm[lo + r->chosen[j]] = 0;
            if (l1m)
                l1m[lo + r->chosen[j]] = -INFINITY;
        }
        return whole ? (double)n : (double)chosen;
    }
    if (!again)
        *tau = solve(g->kern, s + lo, n, k, rule->temperature);
    struct kern_soft c = {.n = n, .s = s + lo, .tau = *tau, .inv_T = (float)(1 / rule->temperature)};
    g->kern->soft_logs(&c, lm + lo, l1m ? l1m + lo : NULL);
    return k;
}

void back_gate_choose(const struct back_gate *g, struct back_room *r, const struct back_tile *t, bool again, double *kept)
{
    int64_t e = g->width, last = 0;
    *kept = 0;
    for (int64_t i = 0; i < t->count; i++) {
        select_sets(&r->set[i], &g->rule->select, t->t0 + i);
        last = !r->set[i].all && r->set[i].hi > last ? r->set[i].hi : last;
    }
    struct kern_panel p = {.m = t->count, .n = up16(last) * 16, .k = e, .a_row = g->units * e, .a_step = 1, .b_block = 16 * e};
    p.a = g->u + (t->t0 * g->units + t->unit) * e, p.b = g->blkt + t->unit * 16 * g->ng * e, p.b_step = 16;
    p.c = r->s, p.ldc = r->ld;
    g->kern->panel(&p);
    for (int64_t i = 0; i < t->count; i++) {
        const struct select_set *set = &r->set[i];
        float *s = r->s + i * r->ld, *lm = r->lm + i * r->ld;
        const float *dist = g->w->dist + t->unit * g->buckets;
        for (int64_t J = set->all ? -1 : set->hi - 1, b; J >= set->lo;)
            for (int64_t to = run_of(set, J, g->buckets, &b); J >= to; J--)
                s[J] += dist[b];
        fill(lm, 0, set->lo, -INFINITY);
        fill(lm, set->hi, set->own + 1, 0);
        if (set->sink)
            lm[0] = 0;
        double forced = (double)(set->own - set->hi + 1 + set->sink);
        *kept += (forced + weigh(g, r, t, i, again)) / (double)(set->own - set->first + 1);
    }
}

/* ---- the way back ---- */

/* From d ln m, d ln(1 - m) to ds (in r->a) of one token: with v = m (1 - m) and g = dL/dm, v g = a (1 - m) - b m. */
static void soften(const struct back_gate *g, struct back_room *r, const struct back_tile *t, int64_t i)
{
    const struct select_set *set = &r->set[i];
    int64_t lo = set->lo, n = set->hi - lo;
    float *a = r->a + i * r->ld + lo, *m = r->work, tau = g->tau[t->unit * g->n + set->token];
    const float *b = r->b ? r->b + i * r->ld + lo : NULL, *lm = r->lm + i * r->ld + lo;
    bool capped;
    if (!isfinite(tau) || g->rule->mask != BACK_SOFT) {
        fill(a, 0, n, 0);
        return;
    }
    memcpy(m, lm, (size_t)n * sizeof *m);
    fill(m, n, up16(n) * 16, -INFINITY);
    g->kern->biased_exp(m, NULL, up16(n), 0);
    double sum = 0, dot = 0;
    for (int64_t j = 0; j < n; j++) {
        a[j] = a[j] * (1 - m[j]) - (b ? b[j] * m[j] : 0);
        m[j] *= 1 - m[j];
        sum += (double)m[j];
        dot += (double)a[j];
    }
    double mean = sum > 0 ? dot / sum : 0;
    float by = (float)(1 / g->rule->temperature);
    for (int64_t j = 0; j < n; j++)
        a[j] = (a[j] - m[j] * (float)mean) * by;
    /* m depends on T through z = (s - tau) / T alone: dT = -sum ds z, and tau drops out as the ds sum to 0 */
    r->dtemp -= (double)(g->kern->dot(a, r->s + i * r->ld + lo, n) * by);
    asked(g, set, t->unit, &capped);
    if (!capped)
        g->drho[set->token * g->units + t->unit] =
            (float)((mean + g->rule->density_grad / (double)(set->own - set->first + 1)) * (double)n);
}

void back_gate_chosen(const struct back_gate *g, struct back_room *r, const struct back_tile *t)
{
    int64_t e = g->width, last = 0;
    for (int64_t i = 0; i < t->count; i++)
        last = r->set[i].hi > last ? r->set[i].hi : last;
    for (int64_t i = 0; i < t->count; i++) {
        const struct select_set *set = &r->set[i];
        float *a = r->a + i * r->ld, *dist = r->ddist + t->unit * g->buckets;
        soften(g, r, t, i);
        fill(a, 0, set->lo, 0);
        fill(a, set->hi, last, 0);
        for (int64_t J = set->hi - 1, b; J >= set->lo;)
            for (int64_t to = run_of(set, J, g->buckets, &b); J >= to; J--)
                dist[b] += a[J];
    }
    struct kern_panel p = {.m = t->count, .n = e, .k = last, .a = r->a, .a_row = r->ld, .a_step = 1, .b_block = 16, .b_step = e};
    p.b = g->blk + t->unit * 16 * g->ng * e, p.c = g->du + (t->t0 * g->units + t->unit) * e, p.ldc = g->units * e;
    g->kern->panel(&p);
    struct kern_panel v = {.m = last, .n = e, .k = t->count, .a = r->a, .a_row = 1, .a_step = r->ld, .b_block = 16};
    v.b = g->u + (t->t0 * g->units + t->unit) * e, v.b_step = g->units * e;
    v.c = r->dblk + t->unit * 16 * g->ng * e, v.ldc = e, v.accumulate = true;
    g->kern->panel(&v);
}
