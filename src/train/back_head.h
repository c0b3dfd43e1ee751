/* The head: last norm, vocabulary projection, cross-entropy and the divergence from a teacher, forward and backward in chunks of
 * rows, so that no (tokens, vocab) matrix ever exists. */
#ifndef AST_TRAIN_BACK_HEAD_H
#define AST_TRAIN_BACK_HEAD_H

#include "train/net.h"

struct back_head {
    struct net *net;
    struct net_step *s;   /* count, loss, divergence and flops are added to */
    const float *x;       /* (N, D) after the last layer */
    const float *teacher; /* (N, D) the same of the teacher, or NULL */
    float *dx;            /* (N, D) overwritten; NULL: forward only */
};
int back_head(const struct back_head *h, struct arena *step);
size_t back_head_bytes(const struct net *n, bool teacher);

#endif
