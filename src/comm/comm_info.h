/* What this MPI is, in words. */
#ifndef AST_COMM_COMM_INFO_H
#define AST_COMM_COMM_INFO_H

#include <stddef.h>

/* "Open MPI v4.1.4, MPI 3.1": may be asked before comm_start. */
void comm_library(char *out, size_t cap);

/* "single", "funneled", "serialized" or "multiple": what comm_start got. */
const char *comm_thread_level(void);

#endif
