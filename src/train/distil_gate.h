/* Loss and gradient of one unit's gate against dense attention, on sampled rows of one sequence. Pure; no threads.
 *
 *     u = Wq q0 + Wc c      v = Wk pool      both rotated      s_rJ = u_r . v_J / sqrt(d) + dist      as in attn/gate.h
 *     p_rJ                  what dense attention gives block J: mass (or the largest weight in it), the mean over the unit's
 *                           heads, over the candidates only and made to sum to 1
 *     KL                    sum_J p ln(p / softmax(s))                              gradient softmax(s) - p
 *     recall                -mean_h ln(forced mass_h + sum_J m_J mass_hJ), m = soft top-k of s within the budget: the KL from
 *                           dense attention to attention over the kept blocks
 *     budget                cross entropy of rho = sigmoid(wr . u + br) against the fraction of candidates, best scores
 *                           first, that covers a mass; moves wr and br alone
 *   source   SeerAttention 2024 sec. 3 (block targets, KL); attn/softtopk.h */
#ifndef AST_TRAIN_DISTIL_GATE_H
#define AST_TRAIN_DISTIL_GATE_H

#include <stddef.h>
#include <stdint.h>

#include "attn/select.h"

struct kern_table;

enum distil_weight { DISTIL_EQUAL, DISTIL_MASS, DISTIL_SHARP };

struct distil_loss {
    double kl, recall; /* factors of the two losses */
    int weight;        /* of rows: all alike; by their mass on candidates; by 1 - entropy / ln(candidates) */
    double budget;     /* mass that a learned budget is to cover; 0: none is trained */
    double temperature;
};

struct distil_rows { /* of a sequence, as every unit of a layer sees them */
    int64_t n, blocks, half;
    const struct select_set *set;       /* (n,) tokens and candidates; set.most: the budget */
    const float *row_cos, *row_sin;     /* (n, half) angles of the rows' tokens */
    const float *block_cos, *block_sin; /* (blocks, half) of the blocks' centres */
};

struct distil_gate { /* weights of one unit, or their gradients; NULL: none (not trained) */
    float *wq, *wk, *wc, *dist, *wr, *br;
};

struct distil_unit {
    int64_t heads, dim, hidden, width, buckets;
    float scale;     /* 1/sqrt(d) */
    const float *q0; /* (n, heads dim; ldq) before rotation */
    int64_t ldq;
    const float *pool; /* (blocks, 3 dim) mean, max, min; zeros where a block is not complete */
    const float *ctx;  /* (n, hidden; ldc) or NULL */
    int64_t ldc;
    const float *mass; /* (n, heads, blocks; ldm a row) dense attention's, of all its keys */
    const float *peak; /* like mass: largest weights, the target instead of mass; NULL: mass is */
    int64_t ldm;
    struct distil_gate w, g; /* g is added to */
    const struct kern_table *kern;
};

/* Sums over rows that have candidates. */
struct distil_sums {
    double weight, loss, kl, recall_loss; /* weight: what loss, kl and gradients are divided by */
    double rows, kept, budget_loss;       /* kept: mass that the best `most` scores and the forced blocks hold */
    double density;                       /* blocks that the learned budget asks for / all of the past */
};

size_t distil_gate_scratch(const struct distil_rows *r, const struct distil_unit *u); /* bytes */
void distil_gate_step(const struct distil_rows *r, const struct distil_unit *u, const struct distil_loss *l,
                      struct distil_sums *out, void *scratch);

#endif
