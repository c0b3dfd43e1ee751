/* What is trained: a list of named float arrays, each with its gradient. The owner (an objective) keeps the memory; the
 * loop walks the list to sum gradients over ranks, to clip, to update, to save and to load. */
#ifndef AST_TRAIN_PARAMS_H
#define AST_TRAIN_PARAMS_H

#include <stdbool.h>
#include <stdint.h>

struct arena;

enum { TRAIN_NAME = 96 };

struct train_param {
    char name[TRAIN_NAME]; /* unique in the list, as in the file that it goes to: "layers.3.wq" */
    int rank;
    int64_t dim[3]; /* row major; past rank: 1 */
    int64_t n;      /* product of dim */
    float *w, *g;   /* (n,) value; gradient, added to by every step */
    bool decay;     /* weight decay applies */
    bool shared;    /* tensor parallelism: the same whole array on every rank of the group, counted once in the norm */
    float lr;       /* factor of the schedule's learning rate: 1 */
};

struct train_params {
    struct train_param *at; /* (n,) in an order that is the same on every rank and in every run */
    int64_t n;
    double *state;    /* (n_state,) what else an objective must remember (multipliers), saved bit for bit */
    int64_t n_state;  /* 0: nothing */
    const char *base; /* fingerprint of the model that the training started from; borrowed */
};

/* Room for the list itself; ERR_NOMEM. */
int train_params_alloc(struct train_params *p, int64_t n, struct arena *run);

/* Fills the next free entry (p->n is raised) from a name and a shape; value w is the caller's, the gradient (zeros) comes
 * from run. ERR_NOMEM. */
struct train_shape {
    int rank;
    int64_t dim[3];
};
int train_params_add(struct train_params *p, const char *name, const struct train_shape *shape, float *w, struct arena *run);

int64_t train_params_total(const struct train_params *p); /* elements of all */
void train_params_zero_grad(struct train_params *p);
const struct train_param *train_params_find(const struct train_params *p, const char *name); /* NULL: none */

#endif
