/* Memory shared by key: the lock, the search in /proc, the mapping. */
#define _GNU_SOURCE
#include "base/shared.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/timer.h"

/* Newer than some C libraries. */
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

enum { PAGE = 4096, HUGE = 2 << 20, NAME = SHARED_KEY + 32 };

static const char magic[8] = "AST-SHM";

struct header { /* PAGE bytes in front of the data */
    char magic[8], key[SHARED_KEY];
    uint64_t bytes;
    _Atomic uint32_t ready;
};

static int none(struct shared *s, const char *why)
{
    shared_close(s);
    s->why = why;
    return -1;
}

/* ---- the lock ---- */

/* ERR_OK: held; 1: somebody else does; -1: there are no such sockets here. */
static int take_lock(struct shared *s, const char *key)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int n = snprintf(a.sun_path + 1, sizeof a.sun_path - 1, "asterism-%lu-%.*s", (unsigned long)geteuid(), SHARED_KEY, key);
    s->lock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (s->lock < 0)
        return -1;
    if (bind(s->lock, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n)) == 0)
        return ERR_OK;
    int was = errno;
    close(s->lock);
    s->lock = -1;
    return was == EADDRINUSE ? 1 : -1;
}

static void drop_lock(struct shared *s)
{
    if (s->lock >= 0)
        close(s->lock);
    s->lock = -1;
}

/* ---- mapping ---- */

/* Where huge pages begin, so that the file's can be mapped as such. */
static int map(struct shared *s, int protection)
{
    s->reserved = PAGE + s->bytes + HUGE;
    s->room = mmap(NULL, s->reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (s->room == MAP_FAILED) {
        s->room = NULL;
        return -1;
    }
    char *at = (char *)s->room + (HUGE - (uintptr_t)s->room % HUGE) % HUGE;
    s->map = mmap(at, PAGE + s->bytes, protection, MAP_SHARED | MAP_FIXED, s->fd, 0);
    if (s->map == MAP_FAILED) {
        s->map = NULL;
        return -1;
    }
    s->data = (char *)s->map + PAGE;
    return ERR_OK;
}

static void unmap(struct shared *s)
{
    if (s->room)
        munmap(s->room, s->reserved);
    s->room = s->map = s->data = NULL;
}

/* Huge pages whatever /sys/kernel/mm/transparent_hugepage/shmem_enabled says, unless it is "deny": a hint, which older systems
 * refuse. */
static bool collapse(const struct shared *s)
{
    return madvise(s->map, PAGE + s->bytes, MADV_COLLAPSE) == 0;
}

/* ---- finding ---- */

/* What lies at s->fd is ours, whole, cannot shrink under us, and is what its name says. */
static bool fits(struct shared *s, const char *key)
{
    struct stat st;
    int seals = fcntl(s->fd, F_GET_SEALS), want = F_SEAL_SHRINK | F_SEAL_GROW;
    if (seals < 0 || (seals & want) != want || fstat(s->fd, &st) || st.st_uid != geteuid() || st.st_size < PAGE ||
        (uint64_t)st.st_size != PAGE + s->bytes || map(s, PROT_READ))
        return false;
    struct header *h = s->map;
    return !memcmp(h->magic, magic, sizeof magic) && !memcmp(h->key, key, SHARED_KEY) && h->bytes == s->bytes &&
           atomic_load_explicit(&h->ready, memory_order_acquire) == 1;
}

static bool has_name(int folder, const char *file, const char *name)
{
    char link[NAME + 32];
    ssize_t n = readlinkat(folder, file, link, sizeof link - 1);
    if (n < 0)
        return false;
    link[n] = '\0';
    return !strncmp(link, "/memfd:", 7) && !strncmp(link + 7, name, strlen(name)) && !strcmp(link + 7 + strlen(name), " (deleted)");
}

/* The open files of one process. */
static bool look_into(struct shared *s, const char *pid, const char *name, const char *key)
{
    char path[64];
    struct stat st;
    struct dirent *e;
    snprintf(path, sizeof path, "/proc/%.20s/fd", pid);
    if (stat(path, &st) || st.st_uid != geteuid())
        return false;
    DIR *d = opendir(path);
    bool found = false;
    while (d && !found && (e = readdir(d))) {
        if (!has_name(dirfd(d), e->d_name, name))
            continue;
        s->fd = openat(dirfd(d), e->d_name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        found = s->fd >= 0 && fits(s, key);
        if (!found) {
            unmap(s);
            if (s->fd >= 0)
                close(s->fd);
            s->fd = -1;
        }
    }
    if (d)
        closedir(d);
    return found;
}

static bool find(struct shared *s, const char *name, const char *key)
{
    struct dirent *e;
    DIR *d = opendir("/proc");
    bool found = false;
    while (d && !found && (e = readdir(d)))
        found = e->d_name[0] >= '1' && e->d_name[0] <= '9' && look_into(s, e->d_name, name, key);
    if (d)
        closedir(d);
    if (found) {
        s->state = SHARED_READY;
        collapse(s);
    }
    return found;
}

/* ---- the three calls ---- */

static int create(struct shared *s, const char *name, const char *key)
{
    struct rlimit r;
    if (!getrlimit(RLIMIT_FSIZE, &r) && r.rlim_cur != RLIM_INFINITY && r.rlim_cur < PAGE + s->bytes)
        return none(s, "ulimit -f is too small"); /* beyond it a signal would end us */
    s->fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (s->fd < 0)
        return none(s, "the system has no memfd_create");
    if (ftruncate(s->fd, (off_t)(PAGE + s->bytes)) || fcntl(s->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW))
        return none(s, "shared memory of this size is refused");
    if (map(s, PROT_READ | PROT_WRITE))
        return none(s, "shared memory cannot be mapped");
    struct header *h = s->map;
    memcpy(h->magic, magic, sizeof magic);
    memcpy(h->key, key, SHARED_KEY);
    h->bytes = s->bytes;
    s->state = SHARED_MINE;
    return ERR_OK;
}

void shared_open(struct shared *s, const char *key, size_t bytes, double patience_s)
{
    char name[NAME];
    double end = timer_now() + patience_s;
    AST_ASSERT(strlen(key) == SHARED_KEY);
    snprintf(name, sizeof name, "asterism-%s", key);
    *s = (struct shared){.bytes = bytes, .fd = -1, .lock = -1};
    for (long wait_ms = 1; !find(s, name, key); wait_ms = wait_ms < 100 ? 2 * wait_ms : 100) {
        int rc = take_lock(s, key);
        if (rc < 0) {
            none(s, "there are no local sockets");
            return;
        }
        if (rc == 0) { /* somebody may have been done between the look and the lock */
            if (!find(s, name, key))
                create(s, name, key);
            else
                drop_lock(s);
            return;
        }
        if (timer_now() > end) {
            none(s, "another process took too long to fill it");
            return;
        }
        nanosleep(&(struct timespec){0, wait_ms * 1000000}, NULL);
    }
}

void shared_ready(struct shared *s)
{
    struct header *h = s->map;
    AST_ASSERT(s->state == SHARED_MINE);
    atomic_store_explicit(&h->ready, 1, memory_order_release);
    mprotect(s->map, PAGE + s->bytes, PROT_READ);
    (void)!fcntl(s->fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL); /* since Linux 5.1; read-only mappings do without */
    collapse(s);
    s->state = SHARED_READY;
    drop_lock(s);
}

const char *shared_probe(bool *huge)
{
    char key[SHARED_KEY + 1];
    struct shared s;
    snprintf(key, sizeof key, "%0*ld", SHARED_KEY, (long)getpid());
    shared_open(&s, key, HUGE - PAGE, 0);
    const char *why = s.state == SHARED_NONE ? s.why : NULL;
    if (!why)
        memset(s.data, 0, s.bytes);
    *huge = !why && collapse(&s);
    shared_close(&s);
    return why;
}

void shared_close(struct shared *s)
{
    bool opened = s->bytes > 0;
    unmap(s);
    if (opened && s->fd >= 0)
        close(s->fd);
    if (opened)
        drop_lock(s);
    *s = (struct shared){.fd = -1, .lock = -1};
}
