/* Files: POSIX, and zlib for .gz and CRC-32. */
#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <zlib.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"

static int io_error(const char *path)
{
    return err_set(ERR_IO, "%s: %s", path, strerror(errno));
}

static int too_long(const char *path)
{
    return err_set(ERR_ARG, "%.200s...: a path of more than %d bytes", path, FILE_PATH - 1);
}

int file_join(char out[FILE_PATH], const char *folder, const char *name)
{
    size_t n = strlen(folder);
    const char *slash = n && folder[n - 1] == '/' ? "" : "/";
    int len = snprintf(out, FILE_PATH, "%s%s%s", folder, slash, name);
    return len < 0 || len >= FILE_PATH ? too_long(folder) : ERR_OK;
}

int file_folder(char out[FILE_PATH], const char *path)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (n >= FILE_PATH)
        return too_long(path);
    if (n == 0)
        strcpy(out, slash ? "/" : ".");
    else
        snprintf(out, FILE_PATH, "%.*s", (int)n, path);
    return ERR_OK;
}

const char *file_base(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

int file_readable(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return io_error(path);
    if (S_ISDIR(st.st_mode))
        return err_set(ERR_IO, "%s: is a folder, a file is needed", path);
    return access(path, R_OK) == 0 ? ERR_OK : io_error(path);
}

int file_folder_writable(const char *folder)
{
    struct stat st;
    if (stat(folder, &st) != 0)
        return err_set(ERR_IO, "%s: %s; make the folder or name another", folder, strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return err_set(ERR_IO, "%s: is a file, a folder is needed", folder);
    return access(folder, W_OK | X_OK) == 0 ? ERR_OK
                                            : err_set(ERR_IO, "%s: cannot create files there: %s", folder, strerror(errno));
}

bool file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

bool file_is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

int64_t file_bytes(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (int64_t)st.st_size : -1;
}

int file_make_folders(const char *folder)
{
    char part[FILE_PATH];
    size_t n = strlen(folder);
    if (n >= sizeof part)
        return too_long(folder);
    for (size_t i = 1; i <= n; i++) {
        if (folder[i] != '/' && folder[i] != '\0')
            continue;
        memcpy(part, folder, i);
        part[i] = '\0';
        if (mkdir(part, 0777) != 0 && !file_is_folder(part))
            return err_set(ERR_IO, "%s: cannot make the folder: %s", part, strerror(errno));
    }
    return ERR_OK;
}

int file_space(const char *folder, double bytes)
{
    struct statvfs v;
    char need[32], left[32];
    if (statvfs(folder, &v) != 0)
        return io_error(folder);
    double free_bytes = (double)v.f_bavail * (double)v.f_frsize;
    if (free_bytes >= bytes)
        return ERR_OK;
    log_bytes(bytes, need, sizeof need);
    log_bytes(free_bytes, left, sizeof left);
    return err_set(ERR_IO, "%s: %s are needed and only %s are free", folder, need, left);
}

int file_temp_name(char out[FILE_PATH], const char *path)
{
    static atomic_uint counter;
    char host[65] = "";
    gethostname(host, sizeof host - 1);
    int n = snprintf(out, FILE_PATH, "%s.tmp-%s-%ld-%u", path, host, (long)getpid(), atomic_fetch_add(&counter, 1));
    return n < 0 || n >= FILE_PATH ? too_long(path) : ERR_OK;
}

int file_sync(FILE *f, const char *path)
{
    return fflush(f) == 0 && fsync(fileno(f)) == 0 ? ERR_OK : io_error(path);
}

int file_sync_folder(const char *folder)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return io_error(folder);
    /* Some file systems cannot sync folders; the rename is as safe there as they make it. */
    int rc = fsync(fd) == 0 || errno == EINVAL || errno == ENOTSUP ? ERR_OK : io_error(folder);
    close(fd);
    return rc;
}

static int sync_folder_of(const char *path)
{
    char folder[FILE_PATH];
    int rc = file_folder(folder, path);
    return rc ? rc : file_sync_folder(folder);
}

int file_publish(const char *temp, const char *path)
{
    if (rename(temp, path) != 0) {
        int rc = err_set(ERR_IO, "%s: cannot be renamed to %s: %s", temp, path, strerror(errno));
        unlink(temp);
        return rc;
    }
    return sync_folder_of(path);
}

/* 0, or the errno of an atomic rename that refuses to replace. */
static int rename_noreplace(const char *temp, const char *path)
{
#ifdef SYS_renameat2
    if (syscall(SYS_renameat2, AT_FDCWD, temp, AT_FDCWD, path, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != ENOSYS && errno != EINVAL && errno != EPERM && errno != ENOTSUP)
        return errno;
#endif
    /* NFS and older kernels: a hard link refuses to replace as well. */
    if (link(temp, path) != 0)
        return errno;
    unlink(temp);
    return 0;
}

int file_publish_noreplace(const char *temp, const char *path, bool *existed)
{
    int no = rename_noreplace(temp, path);
    *existed = no == EEXIST;
    if (no)
        unlink(temp);
    if (no && no != EEXIST)
        return err_set(ERR_IO, "%s: cannot be renamed to %s: %s", temp, path, strerror(no));
    return sync_folder_of(path);
}

int file_write_durable(const char *path, const void *bytes, size_t n)
{
    char temp[FILE_PATH];
    int rc = file_temp_name(temp, path);
    if (rc)
        return rc;
    FILE *f = fopen(temp, "wbx");
    if (!f)
        return io_error(temp);
    if (fwrite(bytes, 1, n, f) != n)
        rc = io_error(temp);
    if (rc == ERR_OK)
        rc = file_sync(f, temp);
    if (fclose(f) != 0 && rc == ERR_OK)
        rc = io_error(temp);
    if (rc == ERR_OK)
        return file_publish(temp, path);
    unlink(temp);
    return rc;
}

int file_copy(const char *from, const char *to)
{
    struct buf b = {0};
    int rc = buf_read_file(&b, from, 0);
    if (rc == ERR_OK)
        rc = file_write_durable(to, buf_text(&b), b.len);
    buf_free(&b);
    return rc;
}

int file_read_text(struct buf *out, const char *path, size_t limit)
{
    enum { STEP = 1 << 18 };
    int rc = file_readable(path), zerr = Z_OK;
    if (rc)
        return rc;
    gzFile z = gzopen(path, "rb");
    if (!z)
        return io_error(path);
    gzbuffer(z, STEP);
    for (;;) {
        rc = buf_reserve(out, STEP);
        if (rc)
            break;
        int got = gzread(z, out->data + out->len, STEP);
        if (got > 0)
            out->len += (size_t)got;
        out->data[out->len] = '\0';
        const char *why = gzerror(z, &zerr);
        if (got < 0 || (zerr != Z_OK && zerr != Z_STREAM_END)) {
            rc = err_set(ERR_FORMAT, "%s: damaged or cut short: %s", path, zerr == Z_ERRNO ? strerror(errno) : why);
            break;
        }
        if (limit && out->len > limit) {
            rc = err_set(ERR_FORMAT, "%s: longer than %zu bytes", path, limit);
            break;
        }
        if (got == 0)
            break;
    }
    gzclose(z);
    return rc;
}

uint32_t file_crc32(uint32_t crc, const void *bytes, size_t n)
{
    return (uint32_t)crc32_z(crc, bytes, n);
}
