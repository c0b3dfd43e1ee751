/* results.h5 explained for people: what was run, what came out, what failed, how long it took, where it comes from.
 * The layout is documented in sched/merge.h; a file that lacks a part is described without it. */
#ifndef AST_IO_RESULTS_H
#define AST_IO_RESULTS_H

struct buf;

/* Appends the description to out. ERR_IO, ERR_FORMAT (not HDF5, or not a result file of ours), ERR_NOMEM. Local. */
int results_describe(struct buf *out, const char *path);

#endif
