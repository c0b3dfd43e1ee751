/* Reformer's definition in double precision: hashes and bucket lists written down once more, token by token. */
#ifndef AST_TESTS_UNIT_TEST_LSH_H
#define AST_TESTS_UNIT_TEST_LSH_H

#include "tests/unit/test_base.h"

enum { LSH_MOST = 16, LSH_LEVELS = 9, LSH_DIRECTIONS = 16, LSH_SEED = 4 };

struct lsh_setting { /* of the method; buckets 0: by the paper */
    int rounds, buckets, chunk;
    bool shared;
};

struct lsh_case { /* one query head */
    struct lsh_setting set;
    double q[B_N][B_D], k[B_N][B_D], v[B_N][B_D], scale;
    double dir[LSH_LEVELS][LSH_MOST][LSH_DIRECTIONS][B_D];            /* orthonormal */
    int hq[LSH_LEVELS][B_N][LSH_MOST], hk[LSH_LEVELS][B_N][LSH_MOST]; /* with 2^level buckets, or the fixed number: level 0 */
};

/* log2 of b(t), the least power of two above t / c, at least 2 */
static inline int lsh_level_of(const struct lsh_setting *s, int64_t t)
{
    int level = 1;
    while (s->buckets == 0 && ((int64_t)1 << level) * s->chunk <= t)
        level++;
    return s->buckets ? 0 : level;
}

static inline void lsh_draw(struct lsh_case *c, int64_t layer, int64_t g, int level, int r)
{
    for (int j = 0; j < LSH_DIRECTIONS; j++) {
        double *x = c->dir[level][r][j], norm = 0;
        for (int i = 0; i < B_D; i++) {
            uint64_t index = (uint64_t)level << 48 | (uint64_t)r << 32 | (uint64_t)j << 16 | (uint64_t)i;
            x[i] = rng_normal(LSH_SEED, (uint64_t)(layer << 32 | g), index);
        }
        for (int k = 0; k < j; k++) {
            double p = 0;
            for (int i = 0; i < B_D; i++)
                p += x[i] * c->dir[level][r][k][i];
            for (int i = 0; i < B_D; i++)
                x[i] -= p * c->dir[level][r][k][i];
        }
        for (int i = 0; i < B_D; i++)
            norm += x[i] * x[i];
        for (int i = 0; i < B_D; i++)
            x[i] /= sqrt(norm);
    }
}

/* Largest of the n directions of a factor, each beside its opposite; *margin: how clear it is. */
static inline int lsh_direction_of(const double *x, double (*dir)[B_D], int n, double *margin)
{
    double best = -HUGE_VAL, second = -HUGE_VAL;
    int at = 0;
    for (int col = 0; col < n; col++) {
        double p = 0;
        for (int i = 0; i < B_D; i++)
            p += x[i] * dir[col % (n / 2)][i];
        p = col < n / 2 ? p : -p;
        if (p > best)
            second = best, best = p, at = col;
        else if (p > second)
            second = p;
    }
    *margin = n > 1 ? fmin(*margin, best - second) : *margin;
    return at;
}

static inline int lsh_bucket_of(struct lsh_case *c, const double *x, int level, int r, double *margin)
{
    int first = level ? 1 << level / 2 : 1, second = level ? 1 << (level - level / 2) : c->set.buckets;
    int high = first > 1 ? lsh_direction_of(x, c->dir[level][r], first, margin) : 0;
    return high * second + lsh_direction_of(x, c->dir[level][r] + first / 2, second, margin);
}

static inline double lsh_load(struct lsh_case *c, const struct base *b, int64_t h)
{
    double margin = HUGE_VAL;
    int64_t g = h / (B_H / B_G);
    int last = lsh_level_of(&c->set, B_N - 1);
    c->scale = (double)b->scale;
    for (int level = c->set.buckets == 0; level <= last; level++)
        for (int r = 0; r < c->set.rounds; r++)
            lsh_draw(c, b->layer, g, level, r);
    for (int64_t t = 0; t < B_N; t++) {
        double norm = 0;
        for (int64_t i = 0; i < B_D; i++) {
            c->q[t][i] = (double)b->q[(t * B_H + h) * B_D + i];
            c->k[t][i] = (double)b->k[(t * B_G + g) * B_D + i];
            c->v[t][i] = (double)b->v[(t * B_G + g) * B_D + i];
            norm += c->q[t][i] * c->q[t][i];
        }
        for (int64_t i = 0; c->set.shared && i < B_D; i++)
            c->k[t][i] = c->q[t][i] / sqrt(norm);
        for (int level = lsh_level_of(&c->set, t); level <= last; level++)
            for (int r = 0; r < c->set.rounds; r++) {
                c->hk[level][t][r] = lsh_bucket_of(c, c->k[t], level, r, &margin);
                if (level == lsh_level_of(&c->set, t))
                    c->hq[level][t][r] = lsh_bucket_of(c, c->q[t], level, r, &margin);
            }
    }
    return margin;
}

/* in[r][j]: is key j among the last 2 c of t's bucket in round r, itself counted where it belongs there */
static inline void lsh_rounds_of(const struct lsh_case *c, int64_t t, int64_t window, bool in[LSH_MOST][B_N])
{
    memset(in, 0, sizeof(bool) * LSH_MOST * B_N);
    int level = lsh_level_of(&c->set, t);
    for (int r = 0; r < c->set.rounds; r++)
        for (int64_t j = t, n = 0; j >= 0 && n < 2 * c->set.chunk; j--)
            if (c->hk[level][j][r] == c->hq[level][t][r]) {
                in[r][j] = window == 0 || j > t - window;
                n++;
            }
}

static inline double lsh_logit(const struct lsh_case *c, int64_t t, int64_t j)
{
    double s = 0;
    for (int i = 0; i < B_D; i++)
        s += c->q[t][i] * c->k[j][i];
    return c->set.shared && j == t ? -1e5 : s * c->scale;
}

static inline void lsh_make(struct base *b, const struct lsh_setting *s, const char *isa)
{
    static char text[3][32];
    base_make(b, "reformer", isa);
    snprintf(text[0], sizeof text[0], "m.rounds=%d", s->rounds);
    snprintf(text[1], sizeof text[1], "m.buckets=%d", s->buckets);
    snprintf(text[2], sizeof text[2], "m.chunk=%d", s->chunk);
    b->set[0] = text[0], b->set[1] = text[1], b->set[2] = text[2], b->set[3] = "m.seed=4";
    b->set[4] = s->shared ? "m.shared_qk=true" : NULL;
}

#endif
