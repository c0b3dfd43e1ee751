/* SIGALRM as a watchdog. Only calls that are safe in a handler. */
#include "sched/watch.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

static const char *volatile watched;

static void say(const char *s)
{
    if (write(STDERR_FILENO, s, strlen(s)) < 0)
        return;
}

static void too_late(int sig)
{
    (void)sig;
    say("asterism: ");
    say(watched ? watched : "a collective call");
    say(" takes too long, a rank may have died; what was finished is kept, the same command goes on\n");
    _exit(75);
}

void watch_begin(unsigned seconds, const char *what)
{
    struct sigaction a;
    memset(&a, 0, sizeof a);
    a.sa_handler = too_late;
    sigemptyset(&a.sa_mask);
    watched = what;
    sigaction(SIGALRM, &a, NULL);
    alarm(seconds);
}

void watch_end(void)
{
    alarm(0);
    signal(SIGALRM, SIG_DFL);
}
