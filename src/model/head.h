/* From the residual stream to the vocabulary: final norm, projection, cross-entropy; in chunks of rows and of the
 * vocabulary, so that no (tokens, vocab) matrix ever exists; each rank has its part of the vocabulary. */
#ifndef AST_MODEL_HEAD_H
#define AST_MODEL_HEAD_H

#include "model/layer.h"

/* nll and top1 of the tokens that have a target. x (tokens, D): the residual stream after the last layer.
 * Collective over the model's group. Takes at most head_bytes() of step. ERR_NOMEM is a bug. */
int head_score(const struct model *m, const float *x, const struct model_batch *b, struct model_out *out, struct arena *step);

/* logits (n, vocab), whole on every rank, of the rows row[0 .. n-1] of x. Collective. */
int head_logits(const struct model *m, const float *x, const int64_t *row, int64_t n, float *logits, struct timer *timer,
                struct arena *step);

size_t head_bytes(const struct model *m);

/* ---- its parts, for comparing two residual streams (agree.c) ---- */

enum { HEAD_ROWS = 128, HEAD_COLS = 2048 }; /* of a chunk: 1 MiB of logits, which stays in the second-level cache */

struct head_side {     /* running values of the rows of a chunk, (HEAD_ROWS,) each, while the vocabulary passes by */
    float *max, *best; /* maximum; logit of the best so far */
    double *sum;       /* of exp(logit - max) */
    double *target;    /* logit of the target, 0 on ranks that do not hold it */
    double *id;        /* the best's token */
};
size_t head_side_bytes(void);
int head_side_open(struct head_side *s, struct arena *step);
void head_side_begin(const struct head_side *s, int64_t n);
struct head_row {
    const float *y; /* (part.n,) logits of the tokens part.first ..., model-wide numbers */
    struct model_range part;
    int64_t target;
};
void head_side_fold(const struct model *m, const struct head_side *s, int64_t i, const struct head_row *row); /* row i */
/* The group's values; collective. Its seconds move from the head's to MPI's phase. */
void head_side_join(const struct model *m, const struct head_side *s, int64_t n, struct timer *timer);
double head_side_nll(const struct head_side *s, int64_t i); /* of the target, in nats */

/* Rows row[0 .. n-1] of x through the final norm; logits (n, HEAD_COLS) of a part of this rank's vocabulary; the next
 * rows with a target from *t on, which is moved. */
void head_norm(const struct model *m, const float *x, const int64_t *row, int64_t n, float *y);
struct head_part {
    const float *xn; /* (n, D) */
    int64_t n;
    struct model_range part; /* numbers of this rank */
    float *y;                /* (n, HEAD_COLS) */
    void *scratch;           /* of a linear layer with HEAD_ROWS rows */
};
void head_chunk(const struct model *m, const struct head_part *p);
int64_t head_pick(const struct model_batch *b, int64_t *t, int64_t row[HEAD_ROWS]);

#endif
