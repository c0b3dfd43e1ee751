/* Signals. The mark is this program's only variable that a handler writes. */
#include "sched/stop.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

static volatile sig_atomic_t came;
static const int caught[] = {SIGTERM, SIGINT, SIGUSR1, SIGUSR2};
enum { N_CAUGHT = sizeof caught / sizeof caught[0] };

static void mark(int sig)
{
    came = sig;
}

static void set(void (*handler)(int))
{
    struct sigaction a;
    memset(&a, 0, sizeof a);
    a.sa_handler = handler;
    sigemptyset(&a.sa_mask);
    for (int i = 0; i < N_CAUGHT; i++) {
        a.sa_flags = SA_RESTART | (caught[i] == SIGINT && handler != SIG_DFL ? (int)SA_RESETHAND : 0);
        sigaction(caught[i], &a, NULL);
    }
}

void stop_catch(void)
{
    came = 0;
    set(mark);
}

void stop_release(void)
{
    set(SIG_DFL);
}

int stop_signal(void)
{
    return came;
}

double stop_deadline(void)
{
    const char *s = getenv("SLURM_JOB_END_TIME");
    double t = s ? strtod(s, NULL) : 0;
    return t > 1e9 ? t : 0;
}
