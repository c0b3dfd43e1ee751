/* A pattern's parts, one after the other, into bits. */
#include "train/back_pattern.h"

#include <string.h>

#include "base/err.h"

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static struct pattern pattern_of(const struct back_rule *r, const struct attn_shape *s, int64_t head)
{
    struct pattern p = {0};
    r->pattern->of(r->opts, s, s->head0 + head, 0, &p);
    return p;
}

int back_pattern_check(const struct back_rule *r, const struct attn_shape *s)
{
    if (!r->pattern || r->pattern->variants != 1 || r->pattern->pick_row)
        return err_set(ERR_ARG, "this method chooses its keys by scores: its mask is not fixed, and it has no backward pass");
    if (pattern_of(r, s, 0).turn)
        return err_set(ERR_ARG, "positions within the cache (pos = cache) have no backward pass: use pos = \"orig\"");
    return ERR_OK;
}

int64_t back_pattern_heads(const struct back_rule *r, const struct attn_shape *s)
{
    struct pattern first = pattern_of(r, s, 0);
    for (int64_t h = 1; h < s->heads; h++) {
        struct pattern p = pattern_of(r, s, h);
        if (memcmp(&p, &first, sizeof p) != 0)
            return 1;
    }
    return s->heads / s->kv_heads;
}

int64_t back_pattern_picks(const struct back_rule *r, const struct attn_shape *s)
{
    int64_t most = 1;
    for (int64_t h = 0; h < s->heads; h++) {
        struct pattern p = pattern_of(r, s, h);
        most = max64(most, p.picks * p.pick_block / KERN_KB);
    }
    return most;
}

/* keys from .. to-1 */
static void set(uint16_t *bits, int64_t from, int64_t to)
{
    for (int64_t b = from / KERN_KB; from < to; b++) {
        int64_t end = min64(to, (b + 1) * KERN_KB);
        unsigned upto = end % KERN_KB ? (1U << end % KERN_KB) - 1 : 0xFFFFU;
        bits[b] = (uint16_t)(bits[b] | (upto & ~((1U << from % KERN_KB) - 1)));
        from = end;
    }
}

static void columns(const struct pattern *p, uint16_t *bits, int64_t first, int64_t begin)
{
    if (p->period > 0)
        for (int64_t k = first / p->period; k * p->period < begin; k++)
            set(bits, max64(first, k * p->period + p->from), min64(begin, k * p->period + p->to));
    for (int64_t k = 0; p->period <= 0 && k < p->n_col && p->col[k] < begin; k++)
        if (p->col[k] >= first)
            set(bits, p->col[k], p->col[k] + 1);
}

void back_pattern_token(const struct back_rule *r, const struct attn_shape *s, const int64_t head_token[2], uint16_t *bits,
                        int32_t *picked)
{
    int64_t t = head_token[1], first = pattern_first(s, t);
    struct pattern p = pattern_of(r, s, head_token[0]);
    int64_t begin = pattern_begin(&p, first, t);
    memset(bits, 0, (size_t)(t / KERN_KB + 1) * sizeof *bits);
    set(bits, begin, t + 1);
    set(bits, first, min64(p.sink, begin));
    columns(&p, bits, first, begin);
    for (int64_t j = t, m = 0; p.stride > 0 && j >= first && m <= p.reach; j -= p.stride, m++)
        set(bits, j, j + 1);
    int64_t n = p.picks > 0 && r->pattern->pick ? r->pattern->pick(r->opts, s, &p, t, picked) : 0;
    for (int64_t i = 0; i < n; i++)
        set(bits, max64(first, picked[i] * (int64_t)KERN_KB), min64(begin, (picked[i] + (int64_t)1) * KERN_KB));
}
