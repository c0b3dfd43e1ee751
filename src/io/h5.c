/* HDF5 behind our own door. A failure is sticky: see the header. */
#include "io/h5.h"

#include <hdf5.h>
#include <hdf5_hl.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "comm/comm.h"
#include "comm/comm_mpi.h"
#include "io/file.h"
#include "io/h5_verify.h"

struct h5 {
    hid_t file;
    hid_t collective; /* transfer list */
    const struct comm_group *g;
    bool parallel, compress;
    int rc; /* the first failure */
    char path[FILE_PATH], temp[FILE_PATH];
};

/* Elements of a chunk: 64 Ki of 8 bytes are half a MiB; small datasets are one chunk. */
enum { CHUNK = 65536, DEFLATE = 4 };
/* ROMIO's limit for one write is 2 GiB. */
#define WRITE_MAX ((int64_t)1 << 30)

static herr_t first_text(unsigned n, const H5E_error2_t *e, void *out)
{
    char *text = out;
    if (n == 0 && e->desc)
        snprintf(text, 256, "%s", e->desc);
    return 0;
}

/* Keeps the first failure, with HDF5's own words for its innermost cause. */
static bool ok(struct h5 *f, int64_t result, const char *what, const char *where)
{
    char cause[256] = "";
    if (result >= 0)
        return true;
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, first_text, cause);
    if (!f->rc)
        f->rc = err_set(ERR_IO, "%s: %s %s: %s", f->path, what, where, cause[0] ? cause : "HDF5 does not say why");
    return false;
}

static hid_t access_list(struct h5 *f)
{
    hid_t p = H5Pcreate(H5P_FILE_ACCESS);
    /* Newer libraries write what 1.10 reads, and the same bytes. */
    ok(f, H5Pset_libver_bounds(p, H5F_LIBVER_EARLIEST, H5F_LIBVER_V110), "access to", "the file");
    if (f->parallel && ok(f, p, "access to", "the file")) {
        ok(f, H5Pset_fapl_mpio(p, comm_mpi(f->g), MPI_INFO_NULL), "access to", "the file");
        ok(f, H5Pset_all_coll_metadata_ops(p, true), "access to", "the file");
        ok(f, H5Pset_coll_metadata_write(p, true), "access to", "the file");
    }
    return p;
}

static hid_t creation_list(hid_t class)
{
    hid_t p = H5Pcreate(class);
    H5Pset_obj_track_times(p, false);
    return p;
}

/* What can be found wrong before the collective open: one rank asks the file system. Names the temporary file for all. */
static int prepare(struct h5 *f, const char *path)
{
    char folder[FILE_PATH];
    int rc = ERR_OK;
    snprintf(f->path, sizeof f->path, "%s", path);
    if (!f->g || f->g->rank == 0) {
        rc = strlen(path) < sizeof f->path ? file_folder(folder, path) : err_set(ERR_ARG, "%s: too long", path);
        rc = rc ? rc : file_make_folders(folder);
        rc = rc ? rc : file_folder_writable(folder);
        rc = rc ? rc : file_temp_name(f->temp, path);
    }
    rc = comm_agree(f->g, rc);
    if (!rc)
        comm_bcast(f->g, f->temp, sizeof f->temp, 0);
    return rc;
}

int h5_create(struct h5 **out, const char *path, const struct comm_group *g, bool compress)
{
    struct h5 *f = calloc(1, sizeof *f);
    int rc = comm_agree(g, f ? ERR_OK : err_set(ERR_NOMEM, "%s: no memory to write it", path));
    *out = NULL;
    if (!rc) {
        f->g = g;
        f->compress = compress;
        f->parallel = g && g->size > 1;
        rc = prepare(f, path);
    }
    if (rc) {
        free(f);
        return rc;
    }
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    hid_t access = access_list(f), create = H5Pcreate(H5P_FILE_CREATE);
    H5Pset_link_creation_order(create, H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED);
    f->file = H5Fcreate(f->temp, H5F_ACC_EXCL, create, access);
    ok(f, f->file, "cannot create", f->temp);
    H5Pclose(create);
    H5Pclose(access);
    f->collective = H5Pcreate(H5P_DATASET_XFER);
    if (f->parallel)
        ok(f, H5Pset_dxpl_mpio(f->collective, H5FD_MPIO_COLLECTIVE), "collective writes to", "the file");
    rc = comm_agree(g, f->rc);
    if (rc) {
        h5_abort(f);
        return rc;
    }
    *out = f;
    return ERR_OK;
}

static void close_file(struct h5 *f)
{
    if (f->collective > 0)
        H5Pclose(f->collective);
    if (f->file > 0)
        ok(f, H5Fclose(f->file), "cannot close", "it");
    f->collective = f->file = 0;
}

static int sync_and_publish(const struct h5 *f)
{
    FILE *s = fopen(f->temp, "rb+");
    int rc = s ? file_sync(s, f->temp) : err_set(ERR_IO, "%s: cannot be opened again", f->temp);
    if (s)
        fclose(s);
    rc = rc ? rc : h5_verify(f->temp);
    return rc ? rc : file_publish(f->temp, f->path);
}

int h5_commit(struct h5 *f)
{
    bool first = !f->g || f->g->rank == 0;
    close_file(f);
    int rc = comm_agree(f->g, f->rc);
    if (!rc)
        rc = comm_agree(f->g, first ? sync_and_publish(f) : ERR_OK);
    if (rc && first)
        unlink(f->temp);
    free(f);
    return rc;
}

void h5_abort(struct h5 *f)
{
    if (!f)
        return;
    close_file(f);
    if (!f->g || f->g->rank == 0)
        unlink(f->temp);
    free(f);
}

static void make_group(struct h5 *f, const char *path)
{
    hid_t create = creation_list(H5P_GROUP_CREATE);
    H5Pset_link_creation_order(create, H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED);
    hid_t g = H5Gcreate2(f->file, path, H5P_DEFAULT, create, H5P_DEFAULT);
    if (ok(f, g, "cannot make the group", path))
        H5Gclose(g);
    H5Pclose(create);
}

/* HDF5 would make missing parents itself, but without the order of creation, in which people want to read columns. */
static void make_parents(struct h5 *f, const char *path)
{
    char part[FILE_PATH];
    for (size_t i = 1; path[i] && i < sizeof part; i++) {
        if (path[i] != '/')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (H5Lexists(f->file, part, H5P_DEFAULT) == 0)
            make_group(f, part);
    }
}

void h5_group(struct h5 *f, const char *path)
{
    make_parents(f, path);
    make_group(f, path);
}

static hid_t utf8(size_t bytes)
{
    hid_t t = H5Tcopy(H5T_C_S1);
    H5Tset_size(t, bytes);
    H5Tset_cset(t, H5T_CSET_UTF8);
    H5Tset_strpad(t, H5T_STR_NULLPAD);
    return t;
}

static void attribute(struct h5 *f, const char *object, const char *name, hid_t type, const void *value)
{
    hid_t space = H5Screate(H5S_SCALAR), o = H5Oopen(f->file, object, H5P_DEFAULT);
    if (ok(f, o, "cannot find", object)) {
        hid_t a = H5Acreate2(o, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
        if (ok(f, a, "cannot make the attribute", name)) {
            ok(f, H5Awrite(a, type, value), "cannot write the attribute", name);
            H5Aclose(a);
        }
        H5Oclose(o);
    }
    H5Sclose(space);
}

void h5_attr_text(struct h5 *f, const char *object, const char *name, const char *text)
{
    hid_t t = utf8(H5T_VARIABLE);
    H5Tset_strpad(t, H5T_STR_NULLTERM);
    attribute(f, object, name, t, &text);
    H5Tclose(t);
}

void h5_attr_i64(struct h5 *f, const char *object, const char *name, int64_t v)
{
    attribute(f, object, name, H5T_NATIVE_INT64, &v);
}

void h5_attr_f64(struct h5 *f, const char *object, const char *name, double v)
{
    attribute(f, object, name, H5T_NATIVE_DOUBLE, &v);
}

static hid_t memory_type(enum h5_type t)
{
    switch (t) {
    case H5_I64: return H5T_NATIVE_INT64;
    case H5_I32: return H5T_NATIVE_INT32;
    case H5_U8: return H5T_NATIVE_UINT8;
    case H5_F32: return H5T_NATIVE_FLOAT;
    default: return H5T_NATIVE_DOUBLE;
    }
}

static hid_t create_dataset(struct h5 *f, const char *path, hid_t type, const hsize_t *dims, int rank)
{
    hid_t space = H5Screate_simple(rank, dims, NULL), create = creation_list(H5P_DATASET_CREATE);
    hsize_t chunk[2] = {dims[0], rank > 1 ? dims[1] : 1};
    hsize_t width = chunk[1] > 0 ? chunk[1] : 1;
    make_parents(f, path);
    H5Pset_fill_time(create, H5D_FILL_TIME_NEVER);
    if (dims[0] > 0 && width > 0) {
        hsize_t rows = CHUNK / width > 0 ? CHUNK / width : 1;
        chunk[0] = dims[0] < rows ? dims[0] : rows;
        H5Pset_chunk(create, rank, chunk);
        H5Pset_fletcher32(create); /* what a full disk loses shows when it is read back: h5_verify */
        if (f->compress) {
            H5Pset_shuffle(create);
            H5Pset_deflate(create, DEFLATE);
        }
    }
    hid_t d = H5Dcreate2(f->file, path, type, space, H5P_DEFAULT, create, H5P_DEFAULT);
    ok(f, d, "cannot make the dataset", path);
    H5Pclose(create);
    H5Sclose(space);
    return d;
}

/* One piece of the rows; a rank without rows joins with nothing. Collective. */
static void write_rows(struct h5 *f, hid_t d, const struct h5_column *c, int64_t skip, int64_t n)
{
    hsize_t width = c->width > 0 ? (hsize_t)c->width : 1;
    hsize_t start[2] = {(hsize_t)(c->first + skip), 0}, count[2] = {(hsize_t)n, width};
    int rank = c->width > 0 ? 2 : 1;
    hid_t type = memory_type(c->type), space = H5Dget_space(d), mem = H5Screate_simple(rank, count, NULL);
    const char none = 0;
    const void *from = n > 0 ? (const char *)c->data + (size_t)skip * width * H5Tget_size(type) : &none;
    if (n > 0) {
        ok(f, H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL), "cannot select rows of", c->path);
    } else {
        H5Sselect_none(space);
        H5Sselect_none(mem);
    }
    ok(f, H5Dwrite(d, type, mem, space, f->collective, from), "cannot write", c->path);
    H5Sclose(mem);
    H5Sclose(space);
}

void h5_write(struct h5 *f, const struct h5_column *c)
{
    hsize_t dims[2] = {(hsize_t)c->rows, (hsize_t)c->width};
    hid_t d = create_dataset(f, c->path, memory_type(c->type), dims, c->width > 0 ? 2 : 1);
    if (d < 0)
        return;
    int64_t row = (c->width > 0 ? c->width : 1) * (int64_t)H5Tget_size(memory_type(c->type)), piece = WRITE_MAX / row + 1;
    double rounds = (double)((c->count + piece - 1) / piece);
    /* Every rank takes part as often as the one with most rows. */
    comm_max_f64(f->g, &rounds, 1);
    for (int64_t k = 0; k < (int64_t)rounds && c->rows > 0; k++) {
        int64_t skip = k * piece, left = c->count - skip;
        write_rows(f, d, c, left > 0 ? skip : 0, left > piece ? piece : left > 0 ? left : 0);
    }
    H5Dclose(d);
    if (c->unit)
        h5_attr_text(f, c->path, "units", c->unit);
    if (c->about)
        h5_attr_text(f, c->path, "long_name", c->about);
}

void h5_strings(struct h5 *f, const char *path, const char *const *v, int64_t n, const char *about)
{
    size_t longest = 1;
    bool first = !f->g || f->g->rank == 0;
    for (int64_t i = 0; i < n; i++)
        longest = strlen(v[i]) > longest ? strlen(v[i]) : longest;
    char *all = calloc((size_t)n + 1, longest);
    if (!all && !f->rc)
        f->rc = err_set(ERR_NOMEM, "%s: no memory for %s", f->path, path);
    for (int64_t i = 0; all && i < n; i++)
        memcpy(all + (size_t)i * longest, v[i], strlen(v[i]));
    hsize_t dims[1] = {(hsize_t)n};
    hid_t type = utf8(longest), d = create_dataset(f, path, type, dims, 1);
    if (d >= 0 && n == 0)
        H5Dclose(d);
    if (d >= 0 && n > 0) { /* HDF5 1.10 cannot write nothing at all collectively */
        hid_t space = H5Dget_space(d);
        if (!first || !all)
            H5Sselect_none(space);
        ok(f, H5Dwrite(d, type, space, space, f->collective, all ? all : ""), "cannot write", path);
        H5Sclose(space);
        H5Dclose(d);
    }
    H5Tclose(type);
    free(all);
    h5_attr_text(f, path, "units", "1");
    if (about)
        h5_attr_text(f, path, "long_name", about);
}

void h5_scale(struct h5 *f, const char *dataset, const char *name)
{
    hid_t d = H5Dopen2(f->file, dataset, H5P_DEFAULT);
    if (ok(f, d, "cannot find", dataset)) {
        ok(f, H5DSset_scale(d, name), "cannot make a scale of", dataset);
        H5Dclose(d);
    }
}

void h5_attach(struct h5 *f, const char *dataset, int dim, const char *scale)
{
    hid_t d = H5Dopen2(f->file, dataset, H5P_DEFAULT), s = H5Dopen2(f->file, scale, H5P_DEFAULT);
    if (ok(f, d, "cannot find", dataset) && ok(f, s, "cannot find", scale))
        ok(f, H5DSattach_scale(d, s, (unsigned)dim), "cannot attach the scale to", dataset);
    /* The scale's list of who uses it holds addresses, which differ between files of the same content; readers follow the
     * datasets' own lists. */
    if (s >= 0 && H5Aexists(s, "REFERENCE_LIST") > 0)
        ok(f, H5Adelete(s, "REFERENCE_LIST"), "cannot tidy", scale);
    if (d >= 0)
        H5Dclose(d);
    if (s >= 0)
        H5Dclose(s);
}

const char *h5_version(void)
{
    /* H5_VERS_INFO is "HDF5 library version: 1.10.8" */
    static const char text[] = H5_VERS_INFO;
    const char *number = strstr(text, ": ");
    return number ? number + 2 : text;
}
