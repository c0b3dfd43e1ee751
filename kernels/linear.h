/* Linear layers: y = x W^T with W (out, in) kept in the layout that is fastest for its type. The layout is private:
 * write with kern_mat_set, read with kern_mat_row. bf16 weights accumulate in f32. */
#ifndef AST_KERNELS_LINEAR_H
#define AST_KERNELS_LINEAR_H

#include "kernels/kern.h"

struct kern_mat {
    enum kern_dtype dtype;
    int64_t out, in;
    void *data; /* kern_mat_bytes(), 64-byte aligned; owned by whoever allocated it */
};

size_t kern_mat_bytes(enum kern_dtype t, int64_t out, int64_t in);

/* Zeros, each part written by the thread that will multiply with it: before any kern_mat_set, so that on a machine with
 * several memory nodes the pages lie where they are read (first touch). The number of threads must be that of later. */
void kern_mat_touch(struct kern_mat *w);

/* Rows r0 .. r0+n-1 of W from float rows (n, in) with a row stride in floats. Any split into calls, any order of rows
 * gives the same bytes. */
void kern_mat_set(const struct kern_table *k, struct kern_mat *w, int64_t r0, int64_t n, const float *rows, int64_t stride);
void kern_mat_row(const struct kern_table *k, const struct kern_mat *w, int64_t r, float *out); /* (in,): embeddings */

/* y (m, out; stride ldy) = x (m, in; stride ldx) W^T, or += with accumulate. Rows r0 .. r1-1 of W only if r1 > r0 (the
 * result has r1-r0 columns): vocabulary chunks. scratch: kern_linear_scratch() bytes, enough for fewer rows too, 64-byte aligned.
 * The result of a row does not depend on m (batch) beyond rounding. Uses OpenMP threads. */
struct kern_linear {
    const struct kern_mat *w;
    int64_t r0, r1; /* 0, 0: all rows */
    const float *x;
    int64_t m, ldx;
    /* Up to KERN_NARROW rows: x may be made by whoever needs it. Writes the `in` numbers of row r; several threads may ask for the
     * same row at once. NULL: x is there. */
    void (*row)(const void *arg, float *to, int64_t r);
    const void *arg;
    float *y;
    int64_t ldy;
    bool accumulate;
    void *scratch;
};
size_t kern_linear_scratch(const struct kern_mat *w, int64_t m);
void kern_linear(const struct kern_table *k, const struct kern_linear *c);

void kern_threads(int n);         /* threads of OpenMP and BLAS in this process */
const char *kern_blas_info(void); /* "OpenBLAS 0.3.21 openmp SkylakeX, 2 threads" */
/* OPENBLAS_CORETYPE that suits this CPU, where OpenBLAS took it for an old one; NULL: it chose well. */
const char *kern_blas_core(void);

#endif
