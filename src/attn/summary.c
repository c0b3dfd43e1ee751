/* Multi-scale: what a token has not chosen, seen as averaged keys and values.
 *   source   ../shared/reference/ast_reference.py attend, r > 0 with a hard mask */
#include <math.h>
#include <string.h>

#include "attn/sparse.h"

/* Is summary s made of candidates only, none of them chosen? */
static bool visible(const struct sparse_run *r, const struct sparse_lane *w, const struct select_set *set, int64_t s)
{
    int64_t B = r->o->block, n = r->f.d.summary, J0 = s * n / B, J1 = n > B ? (s + 1) * n / B : J0 + 1;
    for (int64_t J = J0; J < J1; J++)
        if (J < set->lo || J >= set->hi || w->mark[J])
            return false;
    return true;
}

/* Adds exp(s - m) vbar to the row, which holds weight exp(lse - m) in all; returns the new log-sum-exp. */
static float mix_row(const struct sparse_run *r, struct sparse_lane *w, const struct sparse_rows *at, int64_t h, int64_t n)
{
    int64_t d = r->f.d.dim, summary = r->f.d.summary;
    const float *q = w->in->q + (at->row + h) * d;
    float *o = w->in->o + (at->row + h) * d, lse = w->in->lse[at->row + h], s[FEAT_GROUP], sum = 1;
    const struct select_set *set = &w->at->set[at->tok];
    int64_t head = r->c->shape->head0 + at->h0 + h;
    float beta = r->gate && r->gate->beta ? r->gate->beta[head] : (float)r->o->summary_beta, add = logf((float)summary) + beta;
    for (int64_t g = 0; g * FEAT_GROUP < n; g++) {
        struct kern_scores c = {.rows = 1, .width = d, .groups = 1, .u = q, .v = feat_kbar(&r->f, at->kv_head, g), .scale = 1};
        c.s = s;
        c.ld = FEAT_GROUP;
        r->c->kern->block_scores(&c);
        for (int64_t j = 0; j < FEAT_GROUP && g * FEAT_GROUP + j < n; j++) {
            int64_t x = g * FEAT_GROUP + j;
            float logit = s[j] + add, keep = 1;
            if (!visible(r, w, set, x) || !(logit > -INFINITY))
                continue;
            if (logit > lse) { /* the row's weights are relative to lse */
                keep = expf(lse - logit);
                r->c->kern->scale(o, keep, d);
                sum *= keep;
                lse = logit;
            }
            float p = expf(logit - lse);
            r->c->kern->axpy(o, p, feat_vbar(&r->f, at->kv_head, x), d);
            sum += p;
        }
    }
    r->c->kern->scale(o, 1 / sum, d);
    return lse + logf(sum);
}

void sparse_mix(const struct sparse_run *r, struct sparse_lane *w, const struct sparse_rows *at)
{
    const struct select_set *set = &w->at->set[at->tok];
    int64_t B = r->o->block, n = set->hi * B / r->f.d.summary, size = sparse_piece(r->o);
    memset(w->mark, 0, (size_t)(set->own + 1));
    for (int64_t j = w->at->ptr[at->tok]; j < w->at->ptr[at->tok + 1]; j++)
        w->mark[w->at->list[j] * size / B] = 1;
    for (int64_t h = 0; h < at->heads; h++)
        w->in->lse[at->row + h] = mix_row(r, w, at, h, n);
}
