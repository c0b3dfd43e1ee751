/* What others make this machine do meanwhile: a figure taken on a busy machine says so. */
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/timer.h"
#include "bench/bench.h"
#include "comm/comm.h"

/* Seconds that all cores have been busy since the start of the system; < 0 where the system does not say. */
static double busy_s(void)
{
    unsigned long long user = 0, nice = 0, sys = 0, idle, wait, irq = 0, soft = 0, steal = 0;
    FILE *f = fopen("/proc/stat", "r");
    int n = f ? fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &sys, &idle, &wait, &irq, &soft, &steal) : 0;
    if (f)
        fclose(f);
    return n < 7 ? -1 : (double)(user + nice + sys + irq + soft + steal) / (double)sysconf(_SC_CLK_TCK);
}

static double seconds_of(const struct timeval *t)
{
    return (double)t->tv_sec + 1e-6 * (double)t->tv_usec;
}

/* What this process and the children it has waited for have used. */
static double own_s(void)
{
    double s = 0;
    struct rusage u;
    for (int i = 0; i < 2; i++)
        if (getrusage(i ? RUSAGE_CHILDREN : RUSAGE_SELF, &u) == 0)
            s += seconds_of(&u.ru_utime) + seconds_of(&u.ru_stime);
    return s;
}

struct bench_load bench_load_start(void)
{
    return (struct bench_load){.wall_s = timer_now(), .busy_s = busy_s(), .own_s = own_s()};
}

/* Ranks on other nodes would be counted as others here: with several nodes nothing is said. */
double bench_load_others(const struct bench *b, const struct bench_load *start)
{
    double own = own_s() - start->own_s, busy = busy_s() - start->busy_s, wall = timer_now() - start->wall_s;
    comm_sum_f64(b->world, &own, 1);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (start->busy_s < 0 || wall <= 0 || cores < 1 || !b->one_node)
        return 0;
    double share = (busy - own) / (wall * (double)cores);
    return share < 0 ? 0 : share;
}
