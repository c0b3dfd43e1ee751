/* HDF5, and the folder where results will be written: its file system, space, and whether what durable files need works. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "app/doctor.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "base/timer.h"
#include "io/file.h"
#include "io/h5.h"
#include "io/h5_about.h"
#include "io/h5_read.h"

static void hdf5(struct doctor *d)
{
    struct h5_about a;
    h5_about(&a);
    if (a.version[0] != a.built[0] || a.version[1] != a.built[1])
        doctor_fail(d, "HDF5", "build again against the library that is loaded (make clean all)",
                    "compiled with HDF5 %u.%u, but %u.%u is loaded", a.built[0], a.built[1], a.version[0], a.version[1]);
    else if (!a.parallel)
        doctor_fail(d, "HDF5", "install libhdf5-openmpi-dev (or load a parallel HDF5 module) and build again",
                    "HDF5 %u.%u.%u without parallel support: several ranks cannot write one file", a.version[0], a.version[1],
                    a.version[2]);
    else if (!a.deflate || !a.shuffle)
        doctor_warn(d, "HDF5", "set run.compress=false, or use an HDF5 built with zlib",
                    "HDF5 %u.%u.%u, parallel, but without the filters deflate and shuffle: results cannot be compressed",
                    a.version[0], a.version[1], a.version[2]);
    else
        doctor_ok(d, "HDF5", "%u.%u.%u, parallel, filters deflate and shuffle", a.version[0], a.version[1], a.version[2]);
}

/* Type of the file system that holds a folder: of the longest mount point its real path begins with. */
static void fs_type(const char *folder, char *out, size_t cap)
{
    char line[4096], mount[1024], type[64], *real = realpath(folder, NULL);
    size_t best = 0;
    FILE *f = fopen("/proc/mounts", "r");
    snprintf(out, cap, "unknown");
    while (real && f && fgets(line, sizeof line, f)) {
        if (sscanf(line, "%*s %1023s %63s", mount, type) != 2)
            continue;
        size_t n = strlen(mount);
        bool inside = !strncmp(real, mount, n) && (real[n] == '/' || real[n] == '\0' || n == 1);
        if (inside && n >= best) {
            best = n;
            snprintf(out, cap, "%s", type);
        }
    }
    if (f)
        fclose(f);
    free(real);
}

static bool network(const char *type)
{
    static const char *const known[] = {"nfs", "nfs4", "lustre", "gpfs", "beegfs", "cifs", "smb3", "afs", "fuse.sshfs", "9p", NULL};
    for (int i = 0; known[i]; i++)
        if (!strcmp(type, known[i]))
            return true;
    return false;
}

/* Locks that a network file system refuses make every serial open fail unless HDF5 is told to do without. */
static void locking(struct doctor *d, const char *type)
{
    const char *s = getenv("HDF5_USE_FILE_LOCKING");
    if (s && (!strcmp(s, "TRUE") || !strcmp(s, "1")) && network(type))
        doctor_warn(d, "locking", "export HDF5_USE_FILE_LOCKING=FALSE or leave it unset",
                    "HDF5_USE_FILE_LOCKING=%s: where %s refuses locks, results cannot be opened", s, type);
    else if (s)
        doctor_ok(d, "locking", "HDF5_USE_FILE_LOCKING=%s; asterism needs no locks of HDF5", s);
}

/* What finishing a shard takes: write, sync, name without replacing, sync the folder; twice, the second loses. */
static int try_durable(const char *folder)
{
    char path[FILE_PATH], temp[FILE_PATH], name[64];
    bool existed = false;
    snprintf(name, sizeof name, "asterism-doctor-%ld", (long)getpid());
    int rc = file_join(path, folder, name);
    rc = rc ? rc : file_write_durable(path, "shard", 5);
    rc = rc ? rc : file_temp_name(temp, path);
    rc = rc ? rc : file_write_durable(temp, "again", 5);
    rc = rc ? rc : file_publish_noreplace(temp, path, &existed);
    if (!rc && !existed)
        rc = err_set(ERR_IO, "%s: a file was replaced where it must not be", path);
    unlink(temp);
    unlink(path);
    return rc;
}

static int try_h5(const char *folder)
{
    static const double wrote[] = {1, 2, 3};
    char path[FILE_PATH], name[64];
    struct h5 *f = NULL;
    struct h5_reader *r = NULL;
    double *v = NULL;
    int64_t n = 0;
    snprintf(name, sizeof name, "asterism-doctor-%ld.h5", (long)getpid());
    int rc = file_join(path, folder, name);
    rc = rc ? rc : h5_create(&f, path, NULL, true);
    if (!rc) {
        h5_write(f, &(struct h5_column){.path = "/x", .type = H5_F64, .rows = 3, .count = 3, .data = wrote});
        rc = h5_commit(f);
    }
    rc = rc ? rc : h5_open(&r, path);
    rc = rc ? rc : h5_read_f64(r, "/x", &v, &n);
    if (!rc && (n != 3 || v[2] != wrote[2]))
        rc = err_set(ERR_IO, "%s: what was written is not what is read", path);
    free(v);
    h5_close(r);
    unlink(path);
    return rc;
}

static void folder(struct doctor *d)
{
    char type[64], left[32];
    struct statvfs v;
    double start = timer_now(), free_bytes = 0;
    int rc = file_folder_writable(d->folder);
    rc = rc ? rc : try_durable(d->folder);
    rc = rc ? rc : try_h5(d->folder);
    if (rc) {
        doctor_fail(d, "files", "choose another folder: --folder DIR here, output=DIR/x.h5 for a run", "%s", err_text());
        err_clear();
        return;
    }
    double took = timer_now() - start;
    fs_type(d->folder, type, sizeof type);
    if (!statvfs(d->folder, &v))
        free_bytes = (double)v.f_frsize * (double)v.f_bavail;
    log_bytes(free_bytes, left, sizeof left);
    locking(d, type);
    if (took > 2)
        doctor_warn(d, "files", "raise run.shard_s, so that fewer shards are written",
                    "%s (%s, %s free): a durable file and an HDF5 file took %.1f s", d->folder, type, left, took);
    else if (free_bytes < 1e9)
        doctor_warn(d, "files", "free some space, or choose another folder with output=DIR/x.h5", "%s (%s): only %s are free",
                    d->folder, type, left);
    else
        doctor_ok(d, "files", "%s (%s, %s free): durable files and HDF5 written and read back in %.0f ms", d->folder, type, left,
                  took * 1e3);
}

/* Numbers in jobs and JSON are written with a point, whatever the language of the machine. */
static void locale(struct doctor *d)
{
    char number[16];
    const char *lang = getenv("LC_ALL") && getenv("LC_ALL")[0] ? getenv("LC_ALL") : getenv("LANG");
    snprintf(number, sizeof number, "%.1f", 1.5);
    if (strcmp(number, "1.5") || strtod("1.5", NULL) < 1.4)
        doctor_fail(d, "locale", "export LC_NUMERIC=C", "this process prints 1.5 as %s", number);
    else
        doctor_ok(d, "locale", "%s; numbers and UTF-8 texts are read and written the same way in all",
                  lang && lang[0] ? lang : "C");
}

void doctor_files(struct doctor *d)
{
    hdf5(d);
    folder(d);
    locale(d);
}
