/* What this HDF5 library can do. */
#ifndef AST_IO_H5_ABOUT_H
#define AST_IO_H5_ABOUT_H

#include <stdbool.h>

struct h5_about {
    unsigned version[3]; /* of the library that runs */
    unsigned built[3];   /* of the headers it was compiled with */
    bool parallel, deflate, shuffle;
};

void h5_about(struct h5_about *out);

#endif
