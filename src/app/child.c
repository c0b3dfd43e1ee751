/* fork, exec, poll: the pipe is drained until the child has closed it or its time is over. */
#include "app/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/timer.h"

enum { OUTPUT_MAX = 65536 };

_Noreturn static void become(const struct child *c, int to)
{
    int null = open("/dev/null", O_RDONLY);
    setpgid(0, 0);
    if (null >= 0)
        dup2(null, 0);
    dup2(to, 1);
    dup2(to, 2);
    for (int i = 0; c->env && c->env[i]; i++)
        if (putenv((char *)(size_t)c->env[i]))
            _exit(126);
    execvp(c->argv[0], (char *const *)(size_t)c->argv);
    _exit(127);
}

/* False when the child has closed its end. */
static bool drain(int from, struct buf *out, double left_s)
{
    char piece[4096];
    struct pollfd p = {.fd = from, .events = POLLIN};
    int ready = poll(&p, 1, left_s < 0.1 ? (int)(left_s * 1000) : 100);
    if (ready == 0 || (ready < 0 && errno == EINTR))
        return true;
    ssize_t n = read(from, piece, sizeof piece);
    if (n > 0 && out->len < OUTPUT_MAX && buf_add(out, piece, (size_t)n))
        err_clear(); /* what it says is lost, how it ends is not */
    return n > 0;
}

/* Waits for the end itself too: a child may close its output and go on. */
static void finish(struct child *c, pid_t pid, double end)
{
    int status = 0;
    pid_t got = 0;
    while (!c->late && got == 0) {
        got = waitpid(pid, &status, WNOHANG);
        c->late = got == 0 && timer_now() >= end;
        if (got == 0 && !c->late)
            poll(NULL, 0, 10);
    }
    if (c->late) {
        kill(-pid, SIGTERM); /* mpirun ends its ranks when it is asked to */
        for (int i = 0; i < 200 && got == 0; i++) {
            got = waitpid(pid, &status, WNOHANG);
            if (got == 0)
                poll(NULL, 0, 10);
        }
        kill(-pid, SIGKILL);
        if (got == 0)
            waitpid(pid, &status, 0);
    }
    c->code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int child_run(struct child *c, struct buf *out)
{
    int ends[2];
    double end = timer_now() + c->limit_s;
    c->late = false;
    if (pipe(ends))
        return err_set(ERR_IO, "%s: no pipe: %s", c->argv[0], strerror(errno));
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        close(ends[0]);
        become(c, ends[1]);
    }
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        return err_set(ERR_IO, "%s: cannot be started: %s", c->argv[0], strerror(errno));
    }
    setpgid(pid, pid);
    while (timer_now() < end && drain(ends[0], out, end - timer_now()))
        ;
    finish(c, pid, end);
    close(ends[0]);
    return ERR_OK;
}

void child_find(const char *name, char *out, int cap)
{
    const char *path = getenv("PATH"), *end;
    struct stat st;
    for (; path && *path; path = *end ? end + 1 : end) {
        end = strchr(path, ':');
        end = end ? end : path + strlen(path);
        int n = snprintf(out, (size_t)cap, "%.*s/%s", (int)(end - path), path, name);
        if (n > 0 && n < cap && !stat(out, &st) && S_ISREG(st.st_mode) && !access(out, X_OK))
            return;
    }
    out[0] = '\0';
}
