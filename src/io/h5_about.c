/* What this HDF5 library can do. */
#include "io/h5_about.h"

#include <hdf5.h>

void h5_about(struct h5_about *out)
{
    *out = (struct h5_about){.built = {H5_VERS_MAJOR, H5_VERS_MINOR, H5_VERS_RELEASE}};
    H5get_libversion(&out->version[0], &out->version[1], &out->version[2]);
#ifdef H5_HAVE_PARALLEL
    out->parallel = true;
#endif
    out->deflate = H5Zfilter_avail(H5Z_FILTER_DEFLATE) > 0;
    out->shuffle = H5Zfilter_avail(H5Z_FILTER_SHUFFLE) > 0;
}
