/* Groups, agreement and sums; every rank checks. */
#include "comm/comm.h"

#include <stdint.h>

#include "base/err.h"
#include "tests/t.h"

static struct comm_group *world;

static void the_world_knows_its_ranks(void)
{
    T_EQ(world->rank, t_rank);
    T_CHECK(world->size >= 1);
}

static void all_go_on_when_nobody_failed(void)
{
    T_EQ(comm_agree(world, ERR_OK), ERR_OK);
    T_EQ(comm_agree(NULL, ERR_OK), ERR_OK);
}

static void one_failure_reaches_everybody_with_its_sentence(void)
{
    int last = world->size - 1, rc = ERR_OK;
    err_clear();
    if (world->rank == last)
        rc = err_set(ERR_FORMAT, "weights.bin: %d bytes are missing", 7);
    rc = comm_agree(world, rc);
    T_EQ(rc, world->rank == last ? ERR_FORMAT : ERR_PEER);
    T_CHECK(strstr(err_text(), "weights.bin: 7 bytes are missing") != NULL);
    err_clear();
}

static void sums_run_over_the_group(void)
{
    int64_t i[3] = {1, world->rank, 1LL << 40};
    double d = world->rank + 0.5;
    float f = (float)world->rank;
    int n = world->size;
    comm_sum_i64(world, i, 3);
    T_EQ(i[0], n);
    T_EQ(i[1], n * (n - 1) / 2);
    T_EQ(i[2], (int64_t)n << 40);
    comm_sum_f64(world, &d, 1);
    T_NEAR(d, n * (n - 1) / 2.0 + 0.5 * n, 1e-12);
    comm_max_f32(world, &f, 1);
    T_NEAR(f, n - 1, 0);
    d = 3;
    comm_sum_f64(NULL, &d, 1);
    T_NEAR(d, 3, 0);
}

static void a_split_group_works_alone(void)
{
    struct comm_group *half = NULL;
    int64_t one = 1;
    int color = world->rank % 2;
    T_EQ(comm_split(world, color, world->rank, &half), ERR_OK);
    T_CHECK(half != NULL);
    if (half) {
        comm_sum_i64(half, &one, 1);
        T_EQ(one, (world->size + 1 - color) / 2);
        comm_free(half);
    }
    T_EQ(comm_split(world, world->rank == 0 ? 0 : -1, 0, &half), ERR_OK);
    T_CHECK((half != NULL) == (world->rank == 0));
    comm_free(half);
}

static void a_broadcast_reaches_every_rank(void)
{
    char text[64] = "";
    if (world->rank == world->size - 1)
        snprintf(text, sizeof text, "from the last rank");
    comm_bcast(world, text, sizeof text, world->size - 1);
    T_STR(text, "from the last rank");
}

static void gathering_joins_unequal_parts_in_rank_order(void)
{
    char mine[32] = "", *all = NULL, want[256] = "";
    size_t n = 0, m = (size_t)world->rank % 3;
    memset(mine, 'a' + world->rank % 26, m);
    for (int r = 0; r < world->size; r++)
        for (int k = 0; k < r % 3; k++)
            want[strlen(want)] = (char)('a' + r % 26);
    T_EQ(comm_allgatherv(world, mine, m, &all, &n), ERR_OK);
    T_EQ(n, strlen(want));
    T_STR(all, want);
    free(all);
    T_EQ(comm_allgatherv(NULL, "xy", 2, &all, &n), ERR_OK);
    T_STR(all, "xy");
    free(all);
}

static void ranks_of_one_machine_share_a_node(void)
{
    int r = -1, n = -1;
    comm_node(world, &r, &n);
    T_EQ(r, world->rank);
    T_EQ(n, world->size);
    comm_node(NULL, &r, &n);
    T_EQ(r, 0);
    T_EQ(n, 1);
}

static void singletons_under_slurm_are_refused(void)
{
    struct comm_group *w = NULL;
    char *was = getenv("OMPI_COMM_WORLD_SIZE"), keep[32] = "";
    snprintf(keep, sizeof keep, "%s", was ? was : "");
    unsetenv("OMPI_COMM_WORLD_SIZE");
    setenv("SLURM_STEP_NUM_TASKS", "4", 1);
    err_clear();
    T_EQ(comm_start(NULL, NULL, &w), world->size == 1 ? ERR_ARG : ERR_OK);
    comm_free(w);
    unsetenv("SLURM_STEP_NUM_TASKS");
    if (was)
        setenv("OMPI_COMM_WORLD_SIZE", keep, 1);
    err_clear();
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    if (comm_start(&argc, &argv, &world))
        return 1;
    T_RUN(the_world_knows_its_ranks);
    T_RUN(all_go_on_when_nobody_failed);
    T_RUN(one_failure_reaches_everybody_with_its_sentence);
    T_RUN(sums_run_over_the_group);
    T_RUN(a_split_group_works_alone);
    T_RUN(a_broadcast_reaches_every_rank);
    T_RUN(gathering_joins_unequal_parts_in_rank_order);
    T_RUN(ranks_of_one_machine_share_a_node);
    T_RUN(singletons_under_slurm_are_refused);
    comm_free(world);
    return t_done();
}
