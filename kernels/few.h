/* Products of few rows, as a step of decoding has them, for all threads of a team: rows are laid out as struct kern_lay says, and
 * each block of weights is read once, from one end to the other, at the speed of memory. Private to kernels/: linear.c and
 * mlp.c. */
#ifndef AST_KERNELS_FEW_H
#define AST_KERNELS_FEW_H

#include "kernels/linear.h"

enum {
    FEW_STREAM = 8,      /* blocks that a thread takes at once, at most */
    FEW_PARTS = 512,     /* threads with a part of their own */
    FEW_OWN = 4,         /* threads up to which each lays out all rows for itself */
    FEW_SERIAL = 1 << 15 /* multiply-adds that do not pay for waking threads */
};

struct few_span { /* blocks begin .. end-1; the thread is likely to go on with block `next` and those after it, `likely` in all */
    int64_t begin, end, next, likely;
};

/* A thread's part of the blocks first .. last-1, in fours. */
struct few_span few_part(int64_t first, int64_t last, int thread, int threads);

/* Of m rows for w: the room of few_input, and of the laid-out rows alone, on any CPU. */
size_t few_scratch(const struct kern_mat *w, int64_t m);
size_t few_bytes(const struct kern_mat *w, int64_t m);

struct few_rows { /* as in struct kern_linear */
    const float *x;
    int64_t ldx;
    void (*row)(const void *arg, float *to, int64_t r);
    const void *arg;
};
/* The rows as the products of w want them, laid out in scratch; called by all threads of a team, and there when it returns. */
const float *few_input(const struct kern_table *k, const struct kern_mat *w, int64_t m, const struct few_rows *in, void *scratch);

/* Blocks of each thread's part that are taken, each number in a cache line of its own. Before the team: few_begin. */
struct few_deal {
    struct {
        _Alignas(64) int64_t n;
    } taken[FEW_PARTS];
};
void few_begin(struct few_deal *d);
int64_t few_pass(int64_t m); /* blocks that a kernel of m rows takes at once */
/* Each thread reads the weights of its own part, which it has touched first, and then helps those that are held up: work() for
 * some blocks after others, `pass` or a multiple unless they are the last. Does not wait for the others. */
void few_share(struct few_deal *d, int64_t first, int64_t last, int64_t pass, void (*work)(void *arg, struct few_span b),
               void *arg);

/* Work: y (m, cols; ldy) (+)= x times the blocks of w; y's column 0 is w's output col0. */
struct few_call {
    const struct kern_table *k;
    const struct kern_mat *w;
    int64_t m;
    const float *x;
    float *y;
    int64_t ldy, col0, cols;
    bool accumulate;
};
void few_multiply(void *call, struct few_span b);

#endif
