/* Durable files for finished work. The order of the system calls is the whole point: tests/unit/test_shardfile.c kills a
 * writer before each of them. */
#include "io/shardfile.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/timer.h"
#include "io/file.h"

static const char magic_head[8] = {'A', 'S', 'T', 'S', 'H', 'A', 'R', 'D'};
static const char magic_tail[8] = {'D', 'R', 'A', 'H', 'S', 'T', 'S', 'A'};
enum { VERSION = 1, ENTRY = SHARDFILE_NAME + 8, TAIL = 12 };
#define FILE_LIMIT ((size_t)1 << 34)

static int io_error(const char *what, const char *path)
{
    return err_set(ERR_IO, "%s: %s: %s", path, what, strerror(errno));
}

static int pack(struct buf *b, const struct shardfile_section *s, int n)
{
    static const char zero[8];
    uint32_t head[2] = {VERSION, (uint32_t)n}, crc;
    int rc = buf_add(b, magic_head, 8);
    rc = rc ? rc : buf_add(b, head, 8);
    for (int i = 0; i < n && !rc; i++) {
        char name[SHARDFILE_NAME] = "";
        uint64_t bytes = s[i].bytes;
        AST_ASSERT(strlen(s[i].name) < SHARDFILE_NAME);
        snprintf(name, sizeof name, "%s", s[i].name);
        rc = buf_add(b, name, sizeof name);
        rc = rc ? rc : buf_add(b, &bytes, 8);
    }
    for (int i = 0; i < n && !rc; i++) {
        if (s[i].bytes)
            rc = buf_add(b, s[i].data, s[i].bytes);
        rc = rc ? rc : buf_add(b, zero, (8 - s[i].bytes % 8) % 8);
    }
    if (rc)
        return rc;
    crc = file_crc32(0, b->data, b->len);
    rc = buf_add(b, &crc, 4);
    return rc ? rc : buf_add(b, magic_tail, 8);
}

static bool is_whole(const char *path)
{
    struct shardfile *f = NULL;
    int rc = shardfile_read(&f, path);
    shardfile_close(f);
    if (rc)
        err_clear();
    return rc == ERR_OK;
}

/* A whole file under a name nobody else has, on the disk. */
static int write_synced(const char *path, const struct buf *b)
{
    int rc = ERR_OK;
    FILE *f = fopen(path, "wbx");
    if (!f)
        return io_error("cannot create", path);
    if (fwrite(b->data, 1, b->len, f) != b->len)
        rc = io_error("cannot write", path);
    if (!rc)
        rc = file_sync(f, path);
    if (fclose(f) && !rc)
        rc = io_error("cannot close", path);
    if (rc)
        unlink(path);
    return rc;
}

/* Packs, writes, publishes once. */
static int attempt(const char *path, const struct shardfile_section *s, int n, bool *existed)
{
    char temp[FILE_PATH];
    struct buf b = {0};
    int rc = file_temp_name(temp, path);
    if (!rc)
        rc = pack(&b, s, n);
    if (!rc)
        rc = write_synced(temp, &b);
    if (!rc)
        rc = file_publish_noreplace(temp, path, existed);
    buf_free(&b);
    return rc;
}

int shardfile_commit(const char *folder, const char *name, const struct shardfile_section *s, int n, bool *duplicate)
{
    char path[FILE_PATH], aside[FILE_PATH];
    bool existed = false;
    int rc = file_join(path, folder, name);
    AST_ASSERT(n > 0 && n <= SHARDFILE_SECTIONS);
    if (!rc)
        rc = attempt(path, s, n, &existed);
    if (!rc && existed && !is_whole(path)) {
        rc = file_temp_name(aside, path);
        if (!rc && rename(path, aside))
            rc = io_error("cannot move the damaged file aside", path);
        if (!rc)
            rc = attempt(path, s, n, &existed);
    }
    if (duplicate)
        *duplicate = existed;
    return rc;
}

struct shardfile {
    struct buf bytes;
    uint32_t n;
};

static const char *entry(const struct shardfile *f, uint32_t i)
{
    return f->bytes.data + 16 + (size_t)i * ENTRY;
}

static uint64_t entry_bytes(const char *e)
{
    uint64_t n;
    memcpy(&n, e + SHARDFILE_NAME, 8);
    return n;
}

static int check(struct shardfile *f, const char *path)
{
    const struct buf *b = &f->bytes;
    uint32_t head[2], crc;
    size_t need;
    if (b->len < 16 + TAIL || memcmp(b->data, magic_head, 8))
        return err_set(ERR_FORMAT, "%s: not a shard file, or cut off in its first bytes", path);
    memcpy(head, b->data + 8, 8);
    memcpy(&crc, b->data + b->len - TAIL, 4);
    if (memcmp(b->data + b->len - 8, magic_tail, 8) || crc != file_crc32(0, b->data, b->len - TAIL))
        return err_set(ERR_FORMAT, "%s: torn or damaged (checksum of %zu bytes is wrong)", path, b->len);
    if (head[0] != VERSION)
        return err_set(ERR_FORMAT, "%s: shard file version %u, this program reads %d", path, head[0], VERSION);
    need = 16 + TAIL + (size_t)head[1] * ENTRY;
    if (head[1] > SHARDFILE_SECTIONS || need > b->len)
        return err_set(ERR_FORMAT, "%s: its list of sections is impossible", path);
    f->n = head[1];
    for (uint32_t i = 0; i < f->n; i++) {
        uint64_t n = entry_bytes(entry(f, i));
        if (entry(f, i)[SHARDFILE_NAME - 1] != '\0' || n > b->len)
            return err_set(ERR_FORMAT, "%s: section %u is impossible", path, i);
        need += (n + 7) / 8 * 8;
    }
    if (need != b->len)
        return err_set(ERR_FORMAT, "%s: sections of %zu bytes in a file of %zu", path, need, b->len);
    return ERR_OK;
}

int shardfile_read(struct shardfile **out, const char *path)
{
    struct shardfile *f = calloc(1, sizeof *f);
    int rc;
    *out = NULL;
    if (!f)
        return err_set(ERR_NOMEM, "%s: no memory to read it", path);
    rc = buf_read_file(&f->bytes, path, FILE_LIMIT);
    if (!rc)
        rc = check(f, path);
    if (rc) {
        shardfile_close(f);
        return rc;
    }
    *out = f;
    return ERR_OK;
}

void shardfile_close(struct shardfile *f)
{
    if (f)
        buf_free(&f->bytes);
    free(f);
}

const void *shardfile_get(const struct shardfile *f, const char *name, size_t *bytes)
{
    size_t at = 16 + (size_t)f->n * ENTRY;
    *bytes = 0;
    for (uint32_t i = 0; i < f->n; i++) {
        size_t n = (size_t)entry_bytes(entry(f, i));
        if (!strcmp(entry(f, i), name)) {
            *bytes = n;
            return f->bytes.data + at;
        }
        at += (n + 7) / 8 * 8;
    }
    return NULL;
}

static int only_shards(const struct dirent *e)
{
    size_t n = strlen(e->d_name);
    return n > 6 && !strcmp(e->d_name + n - 6, ".shard");
}

static int only_temporary(const struct dirent *e)
{
    return strstr(e->d_name, ".tmp-") != NULL;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

int shardfile_each(const char *folder, shardfile_fn *fn, void *context)
{
    struct dirent **list = NULL;
    char path[FILE_PATH];
    int rc = ERR_OK, n = scandir(folder, &list, only_shards, by_name);
    if (n < 0)
        return errno == ENOENT ? ERR_OK : io_error("cannot list the folder", folder);
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, list[i]->d_name);
        if (!rc)
            rc = fn(context, path, list[i]->d_name);
        free(list[i]);
    }
    free(list);
    return rc;
}

void shardfile_sweep(const char *folder, double older_s)
{
    struct dirent **list = NULL;
    struct stat st;
    char path[FILE_PATH];
    int n = scandir(folder, &list, only_temporary, by_name);
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, list[i]->d_name);
        if (stat(path, &st) == 0 && timer_wall() - (double)st.st_mtime > older_s)
            unlink(path);
        free(list[i]);
    }
    free(list);
}

struct shardfile_lock {
    int fd;
    char path[FILE_PATH], host[64];
    double renewed, every;
};

static int stamp(struct shardfile_lock *l)
{
    char text[256], when[32];
    timer_iso(timer_wall(), when, sizeof when);
    int n = snprintf(text, sizeof text, "%s %ld %.0f %s\n", l->host, (long)getpid(), timer_wall(), when);
    l->renewed = timer_now();
    if (pwrite(l->fd, text, (size_t)n, 0) != n || ftruncate(l->fd, n))
        return io_error("cannot write", l->path);
    return ERR_OK;
}

/* Who holds it, if the stamp is of another host and fresh: there the kernel's lock may not reach. */
static int check_stamp(const struct shardfile_lock *l, double stale_s)
{
    char text[256] = "", host[64] = "";
    long pid = 0;
    double when = 0;
    ssize_t n = pread(l->fd, text, sizeof text - 1, 0);
    if (n <= 0 || sscanf(text, "%63s %ld %lf", host, &pid, &when) != 3 || !strcmp(host, l->host))
        return ERR_OK;
    if (timer_wall() - when > stale_s)
        return ERR_OK;
    return err_set(ERR_ARG, "%s: a master on host %s (process %ld) is at work on this output, last seen %.0f s ago", l->path, host,
                   pid, timer_wall() - when);
}

int shardfile_lock(struct shardfile_lock **out, const char *folder, double stale_s)
{
    struct shardfile_lock *l = calloc(1, sizeof *l);
    char text[256] = "";
    int rc;
    *out = NULL;
    if (!l)
        return err_set(ERR_NOMEM, "no memory for a lock");
    gethostname(l->host, sizeof l->host - 1);
    l->every = stale_s / 4;
    snprintf(l->path, sizeof l->path, "%s/lock", folder);
    l->fd = open(l->path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (l->fd < 0) {
        rc = io_error("cannot open", l->path);
        goto out;
    }
    if (flock(l->fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK) {
        ssize_t n = pread(l->fd, text, sizeof text - 1, 0);
        text[n > 0 ? (size_t)n - 1 : 0] = '\0';
        rc = err_set(ERR_ARG, "%s: another master is at work on this output (host, process: %s)", l->path, text);
        goto out;
    }
    rc = check_stamp(l, stale_s);
    if (!rc)
        rc = stamp(l);
    if (rc)
        goto out;
    *out = l;
    return ERR_OK;
out:
    if (l->fd >= 0)
        close(l->fd);
    free(l);
    return rc;
}

void shardfile_lock_renew(struct shardfile_lock *l)
{
    if (l && timer_now() - l->renewed > l->every && stamp(l))
        err_clear();
}

void shardfile_unlock(struct shardfile_lock *l)
{
    if (!l)
        return;
    /* An empty stamp frees it for other hosts too; the file stays, so that nobody locks an unlinked one. */
    if (ftruncate(l->fd, 0))
        l->renewed = 0;
    close(l->fd);
    free(l);
}
