/* Messages and heartbeats between rank 0 and the others. */
#include "comm/comm_msg.h"

#include <stdint.h>
#include <time.h>

#include "base/err.h"
#include "base/timer.h"
#include "comm/comm.h"
#include "tests/t.h"

static struct comm_group *world;

static struct comm_link *open_link(double beat_s)
{
    struct comm_link *l = NULL;
    T_EQ(comm_link_open(&l, world, &(struct comm_link_opts){.beat_s = beat_s}), ERR_OK);
    return l;
}

static void messages_arrive_in_order_and_unharmed(void)
{
    enum { N = 2000 };
    struct comm_link *l = open_link(1);
    struct comm_mail m;
    int64_t v[8], next[64] = {0};
    if (world->rank > 0)
        for (int64_t i = 0; i < N; i++) {
            for (int k = 0; k < 8; k++)
                v[k] = i * 8 + k;
            comm_link_send(l, 0, 7, v, sizeof v);
        }
    for (int64_t i = 0; world->rank == 0 && i < N * (world->size - 1); i++) {
        if (!comm_link_wait(l, &m, 20)) {
            T_FAIL("message %lld did not come", (long long)i);
            break;
        }
        memcpy(v, m.data, sizeof v);
        if (m.tag != 7 || m.n != sizeof v || v[0] != next[m.from] * 8 || v[7] != v[0] + 7)
            T_FAIL("message %lld of rank %d is wrong", (long long)next[m.from], m.from);
        next[m.from]++;
    }
    comm_barrier(world);
    T_CHECK(!comm_link_poll(l, &m));
    comm_link_close(l);
}

static void the_longest_message_does_not_wait_for_its_receiver(void)
{
    struct comm_link *l = open_link(1);
    static char big[COMM_MSG_MAX];
    struct comm_mail m;
    memset(big, 'x', sizeof big);
    if (world->rank > 0)
        comm_link_send(l, 0, 1, big, sizeof big);
    comm_barrier(world); /* nobody has received yet */
    for (int r = 1; world->rank == 0 && r < world->size; r++)
        T_CHECK(comm_link_wait(l, &m, 20) && m.n == COMM_MSG_MAX && m.data[m.n - 1] == 'x');
    comm_barrier(world);
    comm_link_close(l);
}

static void beats_come_while_the_main_thread_computes(void)
{
    struct comm_link *l = open_link(0.05);
    struct timespec busy = {0, 600000000};
    nanosleep(&busy, NULL); /* no MPI call in the main thread */
    for (int r = 0; r < world->size; r++)
        if (world->rank == 0 || r == 0)
            T_CHECK(comm_link_silent_s(l, r) < 0.5);
    comm_barrier(world);
    comm_link_close(l);
}

static void waiting_ends_in_time(void)
{
    struct comm_link *l = open_link(1);
    struct comm_mail m;
    double t = timer_now();
    T_CHECK(!comm_link_wait(l, &m, 0.05));
    T_CHECK(timer_now() - t >= 0.05);
    comm_barrier(world);
    comm_link_close(l);
}

int main(int argc, char **argv)
{
    /* as comm_start does: the harness alone would ask for a single thread */
    MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &(int){0});
    MPI_Comm_rank(MPI_COMM_WORLD, &t_rank);
    if (comm_start(&argc, &argv, &world))
        return 1;
    T_RUN(messages_arrive_in_order_and_unharmed);
    T_RUN(the_longest_message_does_not_wait_for_its_receiver);
    T_RUN(beats_come_while_the_main_thread_computes);
    T_RUN(waiting_ends_in_time);
    comm_free(world);
    return t_done();
}
