/* Reading back, with the serial driver. */
#include "io/h5_verify.h"

#include <hdf5.h>
#include <stdlib.h>

#include "base/err.h"

struct walk {
    const char *path;
    int rc;
};

enum { PIECE = 1 << 22 }; /* bytes read at once, at least a row */

/* Row blocks of a dataset, in its own type. */
static bool read_rows(hid_t d, hid_t type, hid_t space)
{
    hsize_t dims[H5S_MAX_RANK], start[H5S_MAX_RANK] = {0};
    int rank = H5Sget_simple_extent_dims(space, dims, NULL);
    size_t row = H5Tget_size(type);
    bool fine = true;
    if (rank < 1 || H5Sget_simple_extent_npoints(space) < 1)
        return true;
    for (int i = 1; i < rank; i++)
        row *= dims[i];
    hsize_t rows = row < PIECE ? PIECE / row : 1, all = dims[0];
    void *buffer = malloc(row * (rows < all ? rows : all));
    for (start[0] = 0; buffer && fine && start[0] < all; start[0] += dims[0]) {
        dims[0] = all - start[0] < rows ? all - start[0] : rows;
        hid_t mem = H5Screate_simple(rank, dims, NULL);
        fine = H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, dims, NULL) >= 0 && mem >= 0 &&
               H5Dread(d, type, mem, space, H5P_DEFAULT, buffer) >= 0;
        if (fine && H5Tis_variable_str(type) > 0)
            H5Dvlen_reclaim(type, mem, H5P_DEFAULT, buffer);
        H5Sclose(mem);
    }
    fine = fine && buffer;
    free(buffer);
    return fine;
}

/* Attributes: text of any length among them lies elsewhere in the file. */
static herr_t read_attribute(hid_t object, const char *name, const H5A_info_t *info, void *context)
{
    hid_t a = H5Aopen(object, name, H5P_DEFAULT), type = a < 0 ? -1 : H5Aget_type(a), space = a < 0 ? -1 : H5Aget_space(a);
    size_t bytes = a < 0 ? 0 : H5Tget_size(type) * (size_t)H5Sget_simple_extent_npoints(space);
    void *buffer = calloc(bytes + 1, 1);
    bool fine = buffer && a >= 0 && H5Aread(a, type, buffer) >= 0;
    (void)info;
    (void)context;
    if (fine && H5Tdetect_class(type, H5T_VLEN) > 0)
        H5Dvlen_reclaim(type, space, H5P_DEFAULT, buffer);
    else if (fine && H5Tis_variable_str(type) > 0)
        H5Dvlen_reclaim(type, space, H5P_DEFAULT, buffer);
    free(buffer);
    if (space >= 0)
        H5Sclose(space);
    if (type >= 0)
        H5Tclose(type);
    if (a >= 0)
        H5Aclose(a);
    return fine ? 0 : -1;
}

static herr_t visit(hid_t root, const char *name, const H5O_info_t *info, void *context)
{
    struct walk *w = context;
    hid_t o = H5Oopen(root, name, H5P_DEFAULT);
    if (o < 0 || H5Aiterate2(o, H5_INDEX_NAME, H5_ITER_INC, NULL, read_attribute, NULL) < 0)
        w->rc = err_set(ERR_IO, "%s: the attributes of /%s were written but do not read back: is the disk full?", w->path, name);
    if (o >= 0)
        H5Oclose(o);
    if (w->rc)
        return -1;
    if (info->type != H5O_TYPE_DATASET)
        return 0;
    hid_t d = H5Dopen2(root, name, H5P_DEFAULT), type = d < 0 ? -1 : H5Dget_type(d), space = d < 0 ? -1 : H5Dget_space(d);
    if (d < 0 || type < 0 || space < 0 || !read_rows(d, type, space))
        w->rc = err_set(ERR_IO, "%s: /%s was written but does not read back: is the disk full?", w->path, name);
    if (space >= 0)
        H5Sclose(space);
    if (type >= 0)
        H5Tclose(type);
    if (d >= 0)
        H5Dclose(d);
    return w->rc ? -1 : 0;
}

int h5_verify(const char *path)
{
    struct walk w = {.path = path};
    hid_t f = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (f < 0)
        return err_set(ERR_IO, "%s: was written but cannot be opened: is the disk full?", path);
    if (H5Ovisit2(f, H5_INDEX_NAME, H5_ITER_INC, visit, &w, H5O_INFO_BASIC) < 0 && !w.rc)
        w.rc = err_set(ERR_IO, "%s: was written but its list of contents does not read back: is the disk full?", path);
    H5Fclose(f);
    return w.rc;
}
