/* The schedule: nothing lost, nothing twice, whatever groups do; and the policy at 10,000 groups by simulation. */
#include "sched/board.h"

#include <stdint.h>

#include "base/err.h"
#include "base/rng.h"
#include "base/timer.h"
#include "sched/policy.h"
#include "sched/simulate.h"
#include "tests/t.h"

struct job { /* n_cells cells of batches with given predicted seconds */
    struct board_cell cell[64];
    int n_cells, n_models;
    double total, longest;
};

static void add_cell(struct job *j, int model, int64_t batches, int64_t per_batch, double work, uint64_t seed)
{
    int64_t *at = calloc((size_t)batches + 1, sizeof *at);
    double *w = calloc((size_t)batches, sizeof *w);
    for (int64_t k = 0; k < batches; k++) {
        at[k + 1] = at[k] + per_batch;
        /* log-normal lengths, cut off by the context; cost linear and quadratic: documents under dense attention */
        double len = fmin(8, exp(0.8 * rng_normal(seed, 1, (uint64_t)k)));
        w[k] = seed ? work * (0.5 * len + 0.5 * len * len) : work;
        j->total += w[k];
        j->longest = fmax(j->longest, w[k]);
    }
    j->cell[j->n_cells++] =
        (struct board_cell){.model = model, .n = batches * per_batch, .n_batches = batches, .batch_at = at, .batch_work = w};
    j->n_models = model + 1 > j->n_models ? model + 1 : j->n_models;
}

static void free_job(struct job *j)
{
    for (int i = 0; i < j->n_cells; i++) {
        free((int64_t *)(uintptr_t)j->cell[i].batch_at);
        free((double *)(uintptr_t)j->cell[i].batch_work);
    }
}

static struct board *open_board(const struct job *j, const char *policy, int groups, double shard_s)
{
    struct board *b = NULL;
    struct board_opts o = {
        .policy = policy_find(policy), .n_groups = groups, .n_models = j->n_models, .tries = 3, .shard_s = shard_s};
    T_EQ(board_open(&b, j->cell, j->n_cells, &o), ERR_OK);
    return b;
}

/* Groups that finish, fail, hand back, finish in part and die at random: every position is finished once. */
static void chaos(const char *policy, uint64_t seed)
{
    enum { GROUPS = 7 };
    struct job j = {0};
    uint64_t step = 0;
    int dead = 0;
    add_cell(&j, 0, 100, 3, 1, seed);
    add_cell(&j, 1, 1, 50, 30, 0);
    add_cell(&j, 0, 37, 1, 0.5, seed + 1);
    struct board *b = open_board(&j, policy, GROUPS, 5);
    int64_t have[GROUPS];
    unsigned char *count[3];
    for (int i = 0; i < 3; i++)
        count[i] = calloc((size_t)j.cell[i].n, 1);
    for (int g = 0; g < GROUPS; g++)
        have[g] = -1;
    while (!board_finished(b) && step < 100000) {
        int g = (int)rng_below(seed, 2, step++, GROUPS);
        if (have[g] == -2)
            continue;
        if (have[g] < 0) {
            have[g] = board_next(b, g);
            continue;
        }
        const struct shard *s = board_shard(b, have[g]);
        int64_t what = rng_below(seed, 3, step, 20), n = s->count;
        if (what == 0 && s->tries < 2) {
            board_failed(b, have[g]);
        } else if (what == 1) {
            board_back(b, have[g]);
        } else if (what == 2 && dead < 3 && s->tries < 2) {
            board_lose(b, g, NULL, NULL);
            dead++;
            have[g] = -2;
            continue;
        } else {
            n = what < 6 ? rng_below(seed, 4, step, n + 1) : n;
            for (int64_t p = 0; p < n; p++)
                count[s->cell][s->first + p]++;
            board_done(b, have[g], n, 1);
        }
        have[g] = -1;
    }
    T_CHECK(board_finished(b));
    for (int i = 0; i < 3; i++) {
        for (int64_t p = 0; p < j.cell[i].n; p++)
            if (count[i][p] != 1) {
                T_FAIL("%s: position %lld of cell %d was finished %d times", policy, (long long)p, i, count[i][p]);
                break;
            }
        free(count[i]);
    }
    T_EQ(board_groups(b), GROUPS - dead);
    board_close(b);
    free_job(&j);
}

static void every_position_is_finished_once_whatever_happens(void)
{
    for (int i = 0; policy_at(i); i++)
        for (uint64_t seed = 1; seed < 30; seed++)
            chaos(policy_at(i)->name, seed);
}

static void what_was_finished_before_is_not_handed_out(void)
{
    struct job j = {0};
    bool done[40] = {0};
    int64_t i, left = 0;
    add_cell(&j, 0, 10, 4, 1, 0);
    for (int p = 0; p < 40; p++)
        done[p] = p < 6 || (p > 20 && p < 33) || p == 39;
    j.cell[0].done = done;
    struct board *b = open_board(&j, "longest_first", 2, 2);
    while ((i = board_next(b, 0)) >= 0) {
        const struct shard *s = board_shard(b, i);
        for (int64_t p = s->first; p < s->first + s->count; p++)
            T_CHECK(!done[p]);
        left += s->count;
        board_done(b, i, s->count, 1);
    }
    T_EQ(left, 40 - 6 - 12 - 1);
    board_close(b);
    free_job(&j);
}

static void shards_are_cut_at_batches_only(void)
{
    struct job j = {0};
    int64_t i;
    add_cell(&j, 0, 50, 7, 1, 5);
    struct board *b = open_board(&j, "longest_first", 3, 1e9);
    while ((i = board_next(b, 0)) >= 0) {
        const struct shard *s = board_shard(b, i);
        T_EQ(s->first % 7, 0);
        T_EQ(s->count % 7, 0);
        board_done(b, i, s->count, 1);
    }
    board_close(b);
    free_job(&j);
}

static void a_shard_that_keeps_failing_is_given_up(void)
{
    struct job j = {0};
    struct board_counts c;
    add_cell(&j, 0, 1, 5, 1, 0);
    struct board *b = open_board(&j, "longest_first", 2, 10);
    T_CHECK(board_failed(b, board_next(b, 0)));
    T_CHECK(board_failed(b, board_next(b, 1)));
    T_CHECK(!board_failed(b, board_next(b, 0)));
    board_counts(b, &c);
    T_EQ(c.failed, 1);
    T_CHECK(board_finished(b));
    board_close(b);
    free_job(&j);
}

static void a_failed_shard_goes_to_another_group_if_it_can(void)
{
    struct job j = {0};
    add_cell(&j, 0, 2, 5, 1, 0);
    struct board *b = open_board(&j, "longest_first", 2, 0.5);
    int64_t i = board_next(b, 0);
    board_failed(b, i);
    T_CHECK(board_next(b, 0) != i);
    T_CHECK(board_next(b, 1) == i);
    board_close(b);
    free_job(&j);
}

static void predictions_follow_what_is_measured(void)
{
    struct job j = {0};
    add_cell(&j, 0, 100, 1, 1, 0);
    add_cell(&j, 0, 100, 1, 1, 0);
    struct board *b = open_board(&j, "in_order", 1, 1);
    T_NEAR(board_left_s(b), 200, 1e-9);
    for (int k = 0; k < 50; k++) {
        int64_t i = board_next(b, 0);
        board_done(b, i, board_shard(b, i)->count, 3 * board_shard(b, i)->work); /* three times slower than thought */
    }
    T_NEAR(board_ratio(b, 0), 3, 0.01);
    T_NEAR(board_ratio(b, 1), 3, 0.01); /* the other cell: the best guess there is */
    board_close(b);
    free_job(&j);
}

/* Shards take predicted time times a factor with 20 % spread, which the board does not know. */
static double real_time(void *context, const struct shard *s)
{
    (void)context;
    return s->work * 2.5 * exp(0.2 * rng_normal(9, (uint64_t)s->cell, (uint64_t)s->first));
}

/* Returns makespan / lower bound. */
static double against_bound(const struct job *j, int groups, double shard_s, double *us_per_shard, int64_t *shards)
{
    struct board *b = open_board(j, "longest_first", groups, shard_s);
    struct simulated r;
    double spent = timer_now();
    T_EQ(simulate(b, groups, real_time, NULL, &r), ERR_OK);
    *us_per_shard = (timer_now() - spent) / (double)r.shards * 1e6;
    *shards = r.shards;
    T_CHECK(board_finished(b));
    board_close(b);
    return r.makespan_s / fmax(r.work_s / groups, r.longest_s);
}

static void ten_thousand_groups_and_a_million_shards_end_together(void)
{
    struct job j = {0};
    double us;
    int64_t shards;
    for (int c = 0; c < 40; c++)
        add_cell(&j, 0, 25000, 4, 2 + c % 5, (uint64_t)c + 1);
    double ratio = against_bound(&j, 10000, 0.01, &us, &shards);
    printf("# %lld shards, 10000 groups: makespan %.4f of the lower bound, %.2f us of master time a shard\n", (long long)shards,
           ratio, us);
    T_CHECK(shards >= 1000000);
    T_CHECK(ratio <= 1.03);
    free_job(&j);
}

static void few_shards_on_few_groups_end_within_grahams_bound(void)
{
    double worst = 0, us;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct job j = {0};
        int64_t shards;
        add_cell(&j, 0, 60, 2, 1, seed);
        add_cell(&j, 0, 20, 2, 4, seed + 100);
        worst = fmax(worst, against_bound(&j, 3, 10, &us, &shards));
        free_job(&j);
    }
    printf("# 80 batches on 3 groups, 20 jobs: worst makespan %.3f of the lower bound\n", worst);
    T_CHECK(worst <= 4.0 / 3);
}

static void two_models_are_shared_among_groups(void)
{
    struct job j = {0};
    int switches = 0, model[8], n = 0;
    int64_t i;
    add_cell(&j, 0, 100, 1, 3, 0);
    add_cell(&j, 1, 100, 1, 1, 0);
    struct board *b = open_board(&j, "longest_first", 8, 0.1);
    for (int g = 0; g < 8; g++)
        model[g] = -1;
    for (int k = 0; (i = board_next(b, k % 8)) >= 0; k++, n++) {
        int m = j.cell[board_shard(b, i)->cell].model;
        switches += model[k % 8] >= 0 && model[k % 8] != m;
        model[k % 8] = m;
        board_done(b, i, board_shard(b, i)->count, board_shard(b, i)->work);
        if (k == 7) {
            int zero = 0;
            for (int g = 0; g < 8; g++)
                zero += model[g] == 0;
            T_EQ(zero, 6); /* three quarters of the work is the first model's */
        }
    }
    T_EQ(n, 200);
    T_CHECK(switches <= 8);
    board_close(b);
    free_job(&j);
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    T_RUN(every_position_is_finished_once_whatever_happens);
    T_RUN(what_was_finished_before_is_not_handed_out);
    T_RUN(shards_are_cut_at_batches_only);
    T_RUN(a_shard_that_keeps_failing_is_given_up);
    T_RUN(a_failed_shard_goes_to_another_group_if_it_can);
    T_RUN(predictions_follow_what_is_measured);
    T_RUN(two_models_are_shared_among_groups);
    T_RUN(few_shards_on_few_groups_end_within_grahams_bound);
    T_RUN(ten_thousand_groups_and_a_million_shards_end_together);
    return t_done();
}
