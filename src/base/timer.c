/* Wall clock and phase names. */
#include "base/timer.h"

#include <time.h>

#include "base/err.h"

static double clock_s(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double timer_now(void)
{
    return clock_s(CLOCK_MONOTONIC);
}

double timer_wall(void)
{
    return clock_s(CLOCK_REALTIME);
}

const char *timer_phase_name(enum timer_phase p)
{
    static const char *const name[TIMER_PHASES] = {"load", "linear", "attn", "select", "head", "other", "comm", "io", "wait"};
    AST_ASSERT((int)p >= 0 && p < TIMER_PHASES);
    return name[p];
}

void timer_iso(double wall, char *out, size_t cap)
{
    time_t t = (time_t)wall;
    struct tm tm;
    gmtime_r(&t, &tm);
    if (strftime(out, cap, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0 && cap)
        out[0] = '\0';
}
