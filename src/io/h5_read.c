/* Reading HDF5. Each function closes what it opens; nothing stays open between calls but the file. */
#include "io/h5_read.h"

#include <hdf5.h>
#include <hdf5_hl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"
#include "io/file.h"

struct h5_reader {
    hid_t file;
    char path[FILE_PATH];
};

static herr_t innermost(unsigned n, const H5E_error2_t *e, void *out)
{
    if (n == 0 && e->desc)
        snprintf(out, 256, "%s", e->desc);
    return 0;
}

/* One sentence with HDF5's innermost reason. */
static int failed(const struct h5_reader *r, int code, const char *what, const char *where)
{
    char cause[256] = "";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, innermost, cause);
    return err_set(code, "%s: %s %s%s%s", r->path, what, where, *cause ? ": " : "", cause);
}

int h5_open(struct h5_reader **out, const char *path)
{
    *out = NULL;
    int rc = file_readable(path);
    if (rc)
        return rc;
    if (strlen(path) >= FILE_PATH)
        return err_set(ERR_ARG, "%.100s...: the path is too long", path);
    struct h5_reader *r = calloc(1, sizeof *r);
    if (!r)
        return err_set(ERR_NOMEM, "%s: out of memory", path);
    strcpy(r->path, path);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_file_locking(access, true, true); /* file systems without locks are fine */
    htri_t is = H5Fis_hdf5(path);
    r->file = is > 0 ? H5Fopen(path, H5F_ACC_RDONLY, access) : -1;
    if (is <= 0)
        rc = err_set(ERR_FORMAT, "%s: is not an HDF5 file", path);
    else if (r->file < 0)
        rc = failed(r, ERR_FORMAT, "cannot be opened as", "HDF5");
    H5Pclose(access);
    if (rc)
        free(r);
    else
        *out = r;
    return rc;
}

void h5_close(struct h5_reader *r)
{
    if (!r)
        return;
    H5Fclose(r->file);
    free(r);
}

bool h5_exists(const struct h5_reader *r, const char *path)
{
    char part[1024];
    size_t n = strlen(path);
    if (strcmp(path, "/") == 0)
        return true;
    if (n >= sizeof part)
        return false;
    /* H5Lexists asks for the last link only: ask for each. */
    for (size_t i = 1; i <= n; i++)
        if (path[i] == '/' || path[i] == '\0') {
            memcpy(part, path, i);
            part[i] = '\0';
            if (H5Lexists(r->file, part, H5P_DEFAULT) <= 0)
                return false;
        }
    return H5Oexists_by_name(r->file, path, H5P_DEFAULT) > 0;
}

bool h5_has_attr(const struct h5_reader *r, const char *object, const char *name)
{
    return H5Aexists_by_name(r->file, object, name, H5P_DEFAULT) > 0;
}

/* ---- datasets ---- */

bool h5_is_scale(const struct h5_reader *r, const char *path)
{
    hid_t d = H5Dopen2(r->file, path, H5P_DEFAULT);
    bool is = d >= 0 && H5DSis_scale(d) > 0;
    if (d >= 0)
        H5Dclose(d);
    return is;
}

int h5_scales_of(const struct h5_reader *r, const char *path, int dim)
{
    hid_t d = H5Dopen2(r->file, path, H5P_DEFAULT);
    int n = d >= 0 ? H5DSget_num_scales(d, (unsigned)dim) : -1;
    if (d >= 0)
        H5Dclose(d);
    return n;
}

static enum h5_class class_of(hid_t type)
{
    switch (H5Tget_class(type)) {
    case H5T_INTEGER:
    case H5T_ENUM: return H5_IS_INTEGER;
    case H5T_FLOAT: return H5_IS_REAL;
    case H5T_STRING: return H5_IS_TEXT;
    default: return H5_IS_OTHER;
    }
}

static int fill_info(const struct h5_reader *r, const char *path, hid_t d, struct h5_info *out)
{
    hsize_t dims[H5S_MAX_RANK] = {0};
    hid_t type = H5Dget_type(d), space = H5Dget_space(d);
    int rc = ERR_OK, rank = space < 0 ? -1 : H5Sget_simple_extent_ndims(space);
    hssize_t n = space < 0 ? -1 : H5Sget_simple_extent_npoints(space);
    if (type < 0 || rank < 0 || n < 0 || rank > H5_MAX_RANK || H5Sget_simple_extent_dims(space, dims, NULL) < 0) {
        rc = failed(r, ERR_FORMAT, "cannot understand the dataset", path);
    } else {
        *out = (struct h5_info){.class = class_of(type), .rank = rank, .n = n, .bytes = H5Tget_size(type)};
        for (int i = 0; i < rank; i++)
            out->dim[i] = (int64_t)dims[i];
    }
    if (space >= 0)
        H5Sclose(space);
    if (type >= 0)
        H5Tclose(type);
    return rc;
}

int h5_info(const struct h5_reader *r, const char *path, struct h5_info *out)
{
    hid_t o = h5_exists(r, path) ? H5Oopen(r->file, path, H5P_DEFAULT) : -1;
    if (o < 0)
        return err_set(ERR_IO, "%s: has no %s", r->path, path);
    int rc = ERR_OK;
    *out = (struct h5_info){.class = H5_IS_OTHER};
    if (H5Iget_type(o) == H5I_GROUP)
        out->class = H5_IS_GROUP;
    else if (H5Iget_type(o) == H5I_DATASET)
        rc = fill_info(r, path, o, out);
    H5Oclose(o);
    return rc;
}

/* Room for n elements of size bytes; refused if it is more than the machine has. */
static int room(const struct h5_reader *r, const char *path, int64_t n, size_t size, void **out)
{
    size_t have = mem_available();
    *out = NULL;
    if ((uint64_t)n < SIZE_MAX / size && (have == 0 || (size_t)n * size <= have))
        *out = malloc((size_t)n * size + 1);
    return *out ? ERR_OK
                : err_set(ERR_NOMEM, "%s: %s has %lld elements of %zu bytes, more than memory holds", r->path, path, (long long)n,
                          size);
}

/* Reads path as memory type `as` of size bytes into new memory. class: what it must be; H5_IS_REAL takes integers too. */
static int read_as(const struct h5_reader *r, const char *path, enum h5_class class, hid_t as, void **out, int64_t *n)
{
    struct h5_info info = {.class = H5_IS_OTHER};
    *out = NULL;
    int rc = h5_info(r, path, &info);
    if (rc)
        return rc;
    if (info.class != class && !(class == H5_IS_REAL && info.class == H5_IS_INTEGER))
        return err_set(ERR_FORMAT, "%s: %s is not %s", r->path, path,
                       class == H5_IS_TEXT      ? "text"
                       : class == H5_IS_INTEGER ? "integers"
                                                : "numbers");
    size_t size = H5Tget_size(as);
    rc = room(r, path, info.n, size, out);
    if (rc)
        return rc;
    hid_t d = H5Dopen2(r->file, path, H5P_DEFAULT);
    if (d < 0 || (info.n > 0 && H5Dread(d, as, H5S_ALL, H5S_ALL, H5P_DEFAULT, *out) < 0))
        rc = failed(r, ERR_IO, "cannot read", path);
    if (d >= 0)
        H5Dclose(d);
    if (rc) {
        free(*out);
        *out = NULL;
    } else if (n) {
        *n = info.n;
    }
    return rc;
}

int h5_read_i64(const struct h5_reader *r, const char *path, int64_t **out, int64_t *n)
{
    void *p;
    int rc = read_as(r, path, H5_IS_INTEGER, H5T_NATIVE_INT64, &p, n);
    *out = p;
    return rc;
}

int h5_read_f64(const struct h5_reader *r, const char *path, double **out, int64_t *n)
{
    void *p;
    int rc = read_as(r, path, H5_IS_REAL, H5T_NATIVE_DOUBLE, &p, n);
    *out = p;
    return rc;
}

int h5_read_u8(const struct h5_reader *r, const char *path, uint8_t **out, int64_t *n)
{
    void *p;
    int rc = read_as(r, path, H5_IS_INTEGER, H5T_NATIVE_UINT8, &p, n);
    *out = p;
    return rc;
}

/* A terminated UTF-8 or ASCII string type of width bytes: like that of the dataset or attribute, or HDF5 does not convert. */
static hid_t text_type(hid_t like, size_t width)
{
    hid_t t = H5Tcopy(H5T_C_S1);
    H5Tset_size(t, width);
    H5Tset_cset(t, H5Tget_cset(like));
    return t;
}

int h5_read_texts(const struct h5_reader *r, const char *path, struct h5_texts *out)
{
    struct h5_info info = {.class = H5_IS_OTHER};
    void *p = NULL;
    *out = (struct h5_texts){0};
    int rc = h5_info(r, path, &info);
    if (rc)
        return rc;
    if (info.class != H5_IS_TEXT)
        return err_set(ERR_FORMAT, "%s: %s is not text", r->path, path);
    hid_t d = H5Dopen2(r->file, path, H5P_DEFAULT), type = d < 0 ? -1 : H5Dget_type(d);
    if (type < 0)
        rc = failed(r, ERR_IO, "cannot read", path);
    else if (H5Tis_variable_str(type) > 0)
        rc = err_set(ERR_FORMAT, "%s: %s has strings of variable length, which we neither write nor read", r->path, path);
    if (rc == ERR_OK) {
        hid_t as = text_type(type, info.bytes + 1);
        rc = read_as(r, path, H5_IS_TEXT, as, &p, NULL);
        H5Tclose(as);
    }
    if (rc == ERR_OK)
        *out = (struct h5_texts){.at = p, .width = info.bytes + 1, .n = info.n};
    for (int64_t k = 0; k < out->n; k++)
        out->at[(size_t)(k + 1) * out->width - 1] = '\0';
    if (type >= 0)
        H5Tclose(type);
    if (d >= 0)
        H5Dclose(d);
    return rc;
}

const char *h5_text(const struct h5_texts *t, int64_t k)
{
    AST_ASSERT(k >= 0 && k < t->n);
    return t->at + (size_t)k * t->width;
}

void h5_texts_free(struct h5_texts *t)
{
    free(t->at);
    *t = (struct h5_texts){0};
}

/* ---- listings ---- */

/* Bytes of the name of child or attribute i, terminator left out; written to out if that is not NULL. */
static ssize_t name_at(const struct h5_reader *r, const char *object, bool attr, int64_t i, char *out, size_t cap)
{
    const H5_index_t order[] = {H5_INDEX_CRT_ORDER, H5_INDEX_NAME};
    ssize_t n = -1;
    for (int k = 0; k < 2 && n < 0; k++)
        n = attr ? H5Aget_name_by_idx(r->file, object, order[k], H5_ITER_INC, (hsize_t)i, out, cap, H5P_DEFAULT)
                 : H5Lget_name_by_idx(r->file, object, order[k], H5_ITER_INC, (hsize_t)i, out, cap, H5P_DEFAULT);
    return n;
}

static int64_t count_of(const struct h5_reader *r, const char *object, bool attr)
{
    H5O_info_t o;
    H5G_info_t g;
    if (attr)
        return H5Oget_info_by_name2(r->file, object, &o, H5O_INFO_NUM_ATTRS, H5P_DEFAULT) < 0 ? -1 : (int64_t)o.num_attrs;
    return H5Gget_info_by_name(r->file, object, &g, H5P_DEFAULT) < 0 ? -1 : (int64_t)g.nlinks;
}

static int list(const struct h5_reader *r, const char *object, bool attr, struct h5_names *out)
{
    *out = (struct h5_names){0};
    if (!h5_exists(r, object))
        return err_set(ERR_IO, "%s: has no %s", r->path, object);
    int64_t n = count_of(r, object, attr);
    if (n < 0)
        return failed(r, ERR_FORMAT, "cannot list", object);
    out->name = calloc((size_t)n + 1, sizeof *out->name);
    for (int64_t i = 0; out->name && i < n; i++) {
        ssize_t len = name_at(r, object, attr, i, NULL, 0);
        char *name = len < 0 ? NULL : malloc((size_t)len + 1);
        if (!name || name_at(r, object, attr, i, name, (size_t)len + 1) < 0) {
            int rc = failed(r, ERR_FORMAT, "cannot list", object);
            free(name);
            h5_names_free(out);
            return rc;
        }
        out->name[out->n++] = name;
    }
    return out->name ? ERR_OK : err_set(ERR_NOMEM, "%s: out of memory", r->path);
}

int h5_children(const struct h5_reader *r, const char *group, struct h5_names *out)
{
    return list(r, group, false, out);
}

int h5_attributes(const struct h5_reader *r, const char *object, struct h5_names *out)
{
    return list(r, object, true, out);
}

void h5_names_free(struct h5_names *l)
{
    for (int64_t i = 0; i < l->n; i++)
        free(l->name[i]);
    free(l->name);
    *l = (struct h5_names){0};
}

/* ---- attributes ---- */

static hid_t open_attr(const struct h5_reader *r, const char *object, const char *name)
{
    return h5_exists(r, object) && h5_has_attr(r, object, name) ? H5Aopen_by_name(r->file, object, name, H5P_DEFAULT, H5P_DEFAULT)
                                                                : -1;
}

static int absent(const struct h5_reader *r, const char *object, const char *name)
{
    return err_set(ERR_IO, "%s: %s has no attribute %s", r->path, object, name);
}

static int add_number(struct buf *out, bool real, const void *v, int64_t i)
{
    int64_t k;
    double x;
    memcpy(&k, (const char *)v + 8 * i, 8);
    memcpy(&x, (const char *)v + 8 * i, 8);
    return real ? buf_printf(out, "%s%.15g", i ? ", " : "", x) : buf_printf(out, "%s%lld", i ? ", " : "", (long long)k);
}

static int attr_numbers(const struct h5_reader *r, hid_t a, bool real, int64_t n, struct buf *out)
{
    void *v;
    int rc = room(r, "an attribute", n, 8, &v);
    if (rc)
        return rc;
    if (n > 0 && H5Aread(a, real ? H5T_NATIVE_DOUBLE : H5T_NATIVE_INT64, v) < 0)
        rc = failed(r, ERR_IO, "cannot read", "an attribute");
    for (int64_t i = 0; rc == ERR_OK && i < n; i++)
        rc = add_number(out, real, v, i);
    free(v);
    return rc;
}

static int attr_fixed(const struct h5_reader *r, hid_t a, hid_t type, int64_t n, struct buf *out)
{
    size_t width = H5Tget_size(type) + 1;
    void *p;
    int rc = room(r, "an attribute", n, width, &p);
    if (rc)
        return rc;
    char *v = p;
    hid_t as = text_type(type, width);
    if (n > 0 && H5Aread(a, as, v) < 0)
        rc = failed(r, ERR_IO, "cannot read", "an attribute");
    for (int64_t i = 0; rc == ERR_OK && i < n; i++) {
        v[(size_t)(i + 1) * width - 1] = '\0';
        rc = buf_printf(out, "%s%s", i ? ", " : "", v + (size_t)i * width);
    }
    H5Tclose(as);
    free(p);
    return rc;
}

static int attr_variable(const struct h5_reader *r, hid_t a, hid_t type, int64_t n, struct buf *out)
{
    void *p;
    int rc = room(r, "an attribute", n, sizeof(char *), &p);
    if (rc)
        return rc;
    char **v = p;
    memset(v, 0, (size_t)n * sizeof *v);
    hid_t as = text_type(type, H5T_VARIABLE);
    if (n > 0 && H5Aread(a, as, v) < 0)
        rc = failed(r, ERR_IO, "cannot read", "an attribute");
    for (int64_t i = 0; i < n; i++) {
        if (rc == ERR_OK)
            rc = buf_printf(out, "%s%s", i ? ", " : "", v[i] ? v[i] : "");
        H5free_memory(v[i]);
    }
    H5Tclose(as);
    free(p);
    return rc;
}

int h5_read_attr(const struct h5_reader *r, const char *object, const char *name, struct buf *out)
{
    hid_t a = open_attr(r, object, name);
    if (a < 0)
        return absent(r, object, name);
    int rc = ERR_OK;
    hid_t type = H5Aget_type(a), space = H5Aget_space(a);
    hssize_t n = space < 0 ? -1 : H5Sget_simple_extent_npoints(space);
    enum h5_class class = class_of(type);
    if (n < 0)
        rc = failed(r, ERR_FORMAT, "cannot understand the attribute", name);
    else if (class == H5_IS_INTEGER || class == H5_IS_REAL)
        rc = attr_numbers(r, a, class == H5_IS_REAL, n, out);
    else if (class == H5_IS_TEXT)
        rc = H5Tis_variable_str(type) > 0 ? attr_variable(r, a, type, n, out) : attr_fixed(r, a, type, n, out);
    else
        rc = err_set(ERR_FORMAT, "%s: attribute %s of %s is neither numbers nor text", r->path, name, object);
    if (space >= 0)
        H5Sclose(space);
    if (type >= 0)
        H5Tclose(type);
    H5Aclose(a);
    return rc;
}

/* One number, whatever number type the file has. */
static int attr_scalar(const struct h5_reader *r, const char *object, const char *name, hid_t as, void *out)
{
    hid_t a = open_attr(r, object, name);
    if (a < 0)
        return absent(r, object, name);
    hid_t type = H5Aget_type(a), space = H5Aget_space(a);
    enum h5_class class = class_of(type);
    bool one = space >= 0 && H5Sget_simple_extent_npoints(space) == 1 && (class == H5_IS_INTEGER || class == H5_IS_REAL);
    int rc = one && H5Aread(a, as, out) >= 0
                 ? ERR_OK
                 : err_set(ERR_FORMAT, "%s: attribute %s of %s is not one number", r->path, name, object);
    if (space >= 0)
        H5Sclose(space);
    if (type >= 0)
        H5Tclose(type);
    H5Aclose(a);
    return rc;
}

int h5_read_attr_i64(const struct h5_reader *r, const char *object, const char *name, int64_t *out)
{
    return attr_scalar(r, object, name, H5T_NATIVE_INT64, out);
}

int h5_read_attr_f64(const struct h5_reader *r, const char *object, const char *name, double *out)
{
    return attr_scalar(r, object, name, H5T_NATIVE_DOUBLE, out);
}
