/* What this machine can do at most, measured: the limits that kernels and engine are compared with. The best of many
 * short rounds, for a limit that others' work on the machine does not lower. */
#ifndef AST_KERNELS_PEAK_H
#define AST_KERNELS_PEAK_H

#include "kernels/kern.h"

double kern_now(void); /* seconds of a clock that only runs forward */

/* Floating-point operations a second of independent multiply-adds (f32) or dot products (bf16; widened where the CPU
 * has none) in registers, all OpenMP threads together, measured for about so many seconds. One core's: kern_threads(1).
 * kept: the mean of all rounds instead of the best, NULL if not wanted: what others on the machine leave of the limit. */
double kern_peak_flops(const struct kern_table *k, enum kern_dtype t, double seconds, double *kept);

/* Bytes a second read from `bytes` bytes at `at` over and over, all OpenMP threads together, each in its own part: the best
 * round of all threads at once.
 * at: 64-byte aligned, filled with numbers by the caller (untouched pages are all one page). */
double kern_peak_bandwidth(const struct kern_table *k, const float *at, size_t bytes, double seconds);

#endif
