/* Groups of ranks: who is in which, when some are dead; how large groups are for which dataset. */
#include "sched/layout.h"

#include "base/err.h"
#include "sched/job.h"
#include "sched/work.h"
#include "task/task.h"
#include "tests/t.h"

static void rank_0_deals_and_the_others_compute(void)
{
    struct layout l;
    T_EQ(layout_open(&l, 8, 2, NULL), ERR_OK);
    T_EQ(l.groups, 3); /* rank 7 is left over */
    T_EQ(l.group_of[0], -1);
    T_EQ(l.group_of[1], 0);
    T_EQ(l.group_of[2], 0);
    T_EQ(l.group_of[6], 2);
    T_EQ(l.group_of[7], -1);
    T_EQ(layout_leader(&l, 1), 3);
    layout_close(&l);
}

static void one_rank_is_a_group_of_itself(void)
{
    struct layout l;
    T_EQ(layout_open(&l, 1, 1, NULL), ERR_OK);
    T_EQ(l.groups, 1);
    T_EQ(l.group_of[0], 0);
    T_EQ(layout_leader(&l, 0), 0);
    layout_close(&l);
}

static void the_dead_are_left_out_and_the_others_close_ranks(void)
{
    const uint8_t dead[8] = {0, 0, 1, 0, 0, 1, 0, 0};
    struct layout l;
    T_EQ(layout_open(&l, 8, 2, dead), ERR_OK);
    T_EQ(l.groups, 2); /* [1 3] [4 6], 7 is left over */
    T_EQ(l.group_of[2], -1);
    T_EQ(l.group_of[5], -1);
    T_EQ(l.group_of[1], 0);
    T_EQ(l.group_of[3], 0);
    T_EQ(l.group_of[4], 1);
    T_EQ(l.group_of[6], 1);
    T_EQ(l.group_of[7], -1);
    layout_close(&l);
    T_EQ(layout_open(&l, 8, 8, dead), ERR_OK);
    T_EQ(l.groups, 0);
    layout_close(&l);
}

/* A job of one model with 4 heads and 1000 bytes of weights, and datasets of two lengths. */
struct stage {
    struct job job;
    struct job_model model;
    struct job_task task;
    struct task impl;
    struct work work;
    struct work_set set[2];
    int64_t lengths[2], tensor[2], order[1];
};

static void sample(const struct task_set *set, int64_t i, struct task_sample *out)
{
    (void)i;
    *out = (struct task_sample){.tokens = *(const int64_t *)(const void *)set};
}

static void set_stage(struct stage *s, int64_t batches)
{
    *s = (struct stage){.lengths = {10, 1000}};
    s->impl.sample = sample;
    s->model.info = (struct model_info){.heads = 4, .kv_heads = 2, .dim = 1, .hidden = 1, .mlp = 1, .layers = 1, .parameters = 250};
    s->task.impl = &s->impl;
    s->task.lengths = (struct cfg_ints){.v = s->lengths, .n = 2};
    s->job = (struct job){.n_models = 1, .n_methods = 1, .n_tasks = 1, .model = &s->model, .task = &s->task};
    s->job.run.tensor = 0;
    s->work = (struct work){.job = &s->job, .n_sets = 2, .set = s->set};
    for (int i = 0; i < 2; i++)
        s->set[i] = (struct work_set){.length = s->lengths[i],
                                      .set = (struct task_set *)(void *)&s->lengths[i],
                                      .n = 1,
                                      .n_batches = batches,
                                      .order = s->order};
}

static void groups_are_as_large_as_memory_asks_for(void)
{
    struct stage s;
    int phases[2];
    set_stage(&s, 1000);
    layout_choose(&s.work, 9, 1u << 30);
    T_EQ(s.set[0].tensor, 1);
    T_EQ(s.set[1].tensor, 1);
    T_EQ(layout_phases(&s.work, phases), 1);
    set_stage(&s, 1000);
    layout_choose(&s.work, 9, 2300); /* the short one fits into one rank, the long one into none: as many as heads go */
    T_EQ(s.set[0].tensor, 1);
    T_EQ(s.set[1].tensor, 4);
    T_EQ(layout_phases(&s.work, phases), 2);
    T_EQ(phases[0], 4);
    T_EQ(phases[1], 1);
    set_stage(&s, 1000);
    layout_choose(&s.work, 3, 2300); /* two workers: no more than both */
    T_EQ(s.set[1].tensor, 2);
}

static void few_batches_are_shared_by_more_ranks(void)
{
    struct stage s;
    set_stage(&s, 1); /* two batches in all */
    layout_choose(&s.work, 9, 1u << 30);
    T_EQ(s.set[0].tensor, 4);
    set_stage(&s, 4);
    layout_choose(&s.work, 9, 1u << 30);
    T_EQ(s.set[0].tensor, 1);
}

static void a_job_that_says_so_decides(void)
{
    struct stage s;
    set_stage(&s, 1);
    s.tensor[0] = 2;
    s.tensor[1] = 3;
    s.task.tensor = (struct cfg_ints){.v = s.tensor, .n = 2};
    layout_choose(&s.work, 9, 1);
    T_EQ(s.set[0].tensor, 2);
    T_EQ(s.set[1].tensor, 3);
    T_EQ(layout_check(&s.job, 4), ERR_OK);
    T_EQ(layout_check(&s.job, 3), ERR_ARG);
    err_clear();
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    T_RUN(rank_0_deals_and_the_others_compute);
    T_RUN(one_rank_is_a_group_of_itself);
    T_RUN(the_dead_are_left_out_and_the_others_close_ranks);
    T_RUN(groups_are_as_large_as_memory_asks_for);
    T_RUN(few_batches_are_shared_by_more_ranks);
    T_RUN(a_job_that_says_so_decides);
    return t_done();
}
