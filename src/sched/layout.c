/* Groups of ranks, and their sizes. */
#include "sched/layout.h"

#include <math.h>
#include <stdlib.h>

#include "base/err.h"
#include "sched/job.h"
#include "sched/work.h"

int layout_open(struct layout *l, int ranks, int tensor, const uint8_t *dead)
{
    int n = 0;
    *l = (struct layout){.ranks = ranks, .tensor = tensor};
    l->group_of = calloc((size_t)ranks, sizeof *l->group_of);
    l->member = calloc((size_t)ranks, sizeof *l->member);
    if (!l->group_of || !l->member) {
        layout_close(l);
        return err_set(ERR_NOMEM, "no memory for groups of %d ranks", ranks);
    }
    for (int r = 0; r < ranks; r++) {
        l->group_of[r] = -1;
        if ((r > 0 || ranks == 1) && !(dead && dead[r]))
            l->member[n++] = r;
    }
    l->groups = n / tensor;
    for (int i = 0; i < l->groups * tensor; i++)
        l->group_of[l->member[i]] = i / tensor;
    return ERR_OK;
}

void layout_close(struct layout *l)
{
    free(l->group_of);
    free(l->member);
    *l = (struct layout){0};
}

int layout_leader(const struct layout *l, int group)
{
    return l->member[group * l->tensor];
}

static int64_t asked(const struct job *j, int task, int64_t length_index)
{
    const struct cfg_ints *t = &j->task[task].tensor;
    int64_t one = t->n > 1 ? t->v[length_index] : t->n == 1 ? t->v[0] : 0;
    return one > 0 ? one : j->run.tensor;
}

int layout_check(const struct job *j, int ranks)
{
    int64_t most = 1;
    for (int t = 0; t < j->n_tasks; t++)
        for (int64_t k = 0; k < j->task[t].lengths.n; k++)
            most = asked(j, t, k) > most ? asked(j, t, k) : most;
    if (most > 1 && ranks < most + 1)
        return err_set(ERR_ARG, "groups of %lld ranks (tensor) need at least %lld ranks (one deals out the work), there %s %d",
                       (long long)most, (long long)most + 1, ranks == 1 ? "is" : "are", ranks);
    return ERR_OK;
}

/* Weights and the activations of the longest sample on one of T ranks, roughly: what is admitted in the end is decided by
 * the engine's own figures (exec.h). */
static double rank_bytes(const struct work *w, const struct work_set *s, int T)
{
    const struct model_info *m = &w->job->model[s->model].info;
    const struct task *task = w->job->task[s->task].impl;
    struct task_sample x;
    task->sample(s->set, s->order[0], &x); /* the longest comes first */
    double tokens = (double)(x.tokens + x.generate), layers = x.generate > 0 ? (double)m->layers : 1;
    double row = 8.0 * (double)m->hidden + (3.0 * (double)m->mlp + 4.0 * (double)(m->heads * m->dim)) / T;
    double kv = 2.0 * (double)(m->kv_heads * m->dim) * layers / T;
    return job_weight_bytes(&w->job->model[s->model]) / T + 4 * tokens * (row + kv);
}

static int widest(const struct work *w, const struct work_set *s, int workers)
{
    int64_t heads = w->job->model[s->model].info.heads;
    int T = 1;
    while (2 * T <= workers && heads % (2 * T) == 0)
        T *= 2;
    return T;
}

void layout_choose(struct work *w, int ranks, size_t memory)
{
    int workers = ranks > 1 ? ranks - 1 : 1;
    double batches = 0;
    for (int i = 0; i < w->n_sets; i++)
        batches += (double)w->set[i].n_batches * w->job->n_methods;
    for (int i = 0, k = 0; i < w->n_sets; i++) {
        struct work_set *s = &w->set[i];
        int T = 1;
        k = i > 0 && w->set[i - 1].model == s->model && w->set[i - 1].task == s->task ? k + 1 : 0;
        s->tensor = (int)asked(w->job, s->task, k);
        if (s->tensor > 0)
            continue;
        while (T < widest(w, s, workers) && (rank_bytes(w, s, T) > (double)memory || 2 * T * batches <= workers))
            T *= 2;
        s->tensor = T;
    }
}

int layout_phases(const struct work *w, int *tensor)
{
    int n = 0, below = INT32_MAX;
    for (;;) {
        int next = 0;
        for (int i = 0; i < w->n_sets; i++)
            if (w->set[i].tensor < below && w->set[i].tensor > next)
                next = w->set[i].tensor;
        if (next == 0)
            return n;
        tensor[n++] = below = next;
    }
}
