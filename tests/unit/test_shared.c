/* Shared memory: found by key, read-only, taken over from who dies while filling it; what only looks like it is left alone. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/shared.h"
#include "base/timer.h"
#include "tests/t.h"

enum { BYTES = 5 << 20, HEAD = 4096 }; /* HEAD: the page in front of the data */

static char key[SHARED_KEY + 1], other[SHARED_KEY + 1];

static unsigned char pattern(size_t i)
{
    return (unsigned char)(i * 31 >> 3);
}

static void fill(struct shared *s)
{
    for (size_t i = 0; i < BYTES; i++)
        ((unsigned char *)s->data)[i] = pattern(i);
    shared_ready(s);
}

static bool is_whole(const struct shared *s)
{
    for (size_t i = 0; i < BYTES; i++)
        if (((const unsigned char *)s->data)[i] != pattern(i))
            return false;
    return true;
}

/* A process that opens the memory, fills it if fill_it and it is its own, says so, and waits until it is killed. */
static pid_t holder(bool fill_it, enum shared_state *state)
{
    int line[2];
    char c = -1;
    T_EQ(pipe(line), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct shared s;
        shared_open(&s, key, BYTES, 20);
        c = (char)s.state;
        if (s.state == SHARED_READY && !is_whole(&s))
            c = -1;
        if (fill_it && s.state == SHARED_MINE)
            fill(&s);
        if (write(line[1], &c, 1) == 1)
            pause();
        _exit(0);
    }
    close(line[1]);
    T_EQ(read(line[0], &c, 1), 1);
    close(line[0]);
    *state = (enum shared_state)c;
    return pid;
}

static void end(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void one_fills_and_others_find_it(void)
{
    enum shared_state state;
    struct shared s;
    pid_t first = holder(true, &state);
    T_EQ(state, SHARED_MINE);
    shared_open(&s, key, BYTES, 0);
    T_EQ(s.state, SHARED_READY);
    T_CHECK(s.state == SHARED_READY && is_whole(&s));
    end(first);
    pid_t second = holder(false, &state); /* through us: the first is gone */
    T_EQ(state, SHARED_READY);
    T_CHECK(s.state == SHARED_READY && is_whole(&s));
    shared_close(&s);
    shared_open(&s, other, BYTES, 0);
    T_EQ(s.state, SHARED_MINE);
    shared_close(&s);
    end(second);
    shared_open(&s, key, BYTES, 0); /* nobody is left, and so is nothing */
    T_EQ(s.state, SHARED_MINE);
    shared_close(&s);
}

static void nobody_writes_what_is_ready(void)
{
    struct shared s, again;
    char path[64];
    shared_open(&s, key, BYTES, 0);
    T_EQ(s.state, SHARED_MINE);
    fill(&s);
    shared_open(&again, key, BYTES, 0);
    T_EQ(again.state, SHARED_READY);
    T_CHECK(mprotect(again.data, HEAD, PROT_READ | PROT_WRITE) != 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", s.fd);
    int fd = open(path, O_RDWR);
    T_CHECK(fd < 0 || mmap(NULL, HEAD, PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
    T_CHECK(fd < 0 || (ftruncate(fd, 0) != 0 && write(fd, "x", 1) < 0));
    if (fd >= 0)
        close(fd);
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGSEGV, SIG_DFL);
        *(volatile char *)s.data = 1;
        _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    T_CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    shared_close(&again);
    shared_close(&s);
}

static void a_holder_that_dies_while_filling_is_replaced(void)
{
    enum shared_state state;
    struct shared s;
    double t0 = timer_now();
    pid_t first = holder(false, &state), killer;
    T_EQ(state, SHARED_MINE);
    killer = fork();
    if (killer == 0) {
        usleep(300000);
        kill(first, SIGKILL);
        _exit(0);
    }
    shared_open(&s, key, BYTES, 20);
    T_EQ(s.state, SHARED_MINE);
    T_CHECK(timer_now() - t0 >= 0.25 && timer_now() - t0 < 15);
    waitpid(first, NULL, 0);
    waitpid(killer, NULL, 0);
    if (s.state == SHARED_MINE)
        fill(&s);
    shared_close(&s);
}

static void patience_ends(void)
{
    enum shared_state state;
    struct shared s;
    pid_t first = holder(false, &state);
    shared_open(&s, key, BYTES, 0.2);
    T_EQ(s.state, SHARED_NONE);
    T_CHECK(s.why && strstr(s.why, "too long"));
    shared_close(&s);
    end(first);
}

/* What an attacker or an older program could leave: the right name, and one thing wrong. */
struct fake {
    char magic[8], key[SHARED_KEY];
    uint64_t bytes;
    uint32_t ready;
};

static int forge(const struct fake *f, size_t bytes, int seals)
{
    char name[SHARED_KEY + 16];
    snprintf(name, sizeof name, "asterism-%s", key);
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    T_CHECK(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0);
    T_CHECK(pwrite(fd, f, sizeof *f, 0) == sizeof *f);
    T_EQ(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

static void refused(const char *what, const struct fake *f, size_t bytes, int seals, enum shared_state want)
{
    struct shared s;
    int fd = forge(f, bytes, seals);
    shared_open(&s, key, BYTES, 0);
    if (s.state != want)
        T_FAIL("%s: state %d", what, s.state);
    shared_close(&s);
    close(fd);
}

static void what_only_looks_like_it_is_not_taken(void)
{
    const int seals = F_SEAL_SHRINK | F_SEAL_GROW;
    struct fake good = {.magic = {'A', 'S', 'T', '-', 'S', 'H', 'M', '\0'}, .bytes = BYTES, .ready = 1}, f;
    memcpy(good.key, key, SHARED_KEY);
    refused("a good one is taken", &good, HEAD + BYTES, seals, SHARED_READY);
    f = good, f.magic[0] = 'B';
    refused("another magic", &f, HEAD + BYTES, seals, SHARED_MINE);
    f = good, f.key[5] ^= 1;
    refused("another key in the header", &f, HEAD + BYTES, seals, SHARED_MINE);
    f = good, f.bytes++;
    refused("another size in the header", &f, HEAD + BYTES, seals, SHARED_MINE);
    f = good, f.ready = 0;
    refused("not ready", &f, HEAD + BYTES, seals, SHARED_MINE);
    refused("shorter than it says", &good, HEAD + BYTES - 1, seals, SHARED_MINE);
    refused("one that can shrink", &good, HEAD + BYTES, F_SEAL_GROW, SHARED_MINE);
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    snprintf(key, sizeof key, "%0*lx", SHARED_KEY, (long)getpid());
    snprintf(other, sizeof other, "%0*lx", SHARED_KEY, (long)getpid() | 1L << 40);
    T_RUN(one_fills_and_others_find_it);
    T_RUN(nobody_writes_what_is_ready);
    T_RUN(a_holder_that_dies_while_filling_is_replaced);
    T_RUN(patience_ends);
    T_RUN(what_only_looks_like_it_is_not_taken);
    return t_done();
}
