/* This process's and this machine's memory, in bytes; 0 where the system does not say. */
#ifndef AST_BASE_MEM_H
#define AST_BASE_MEM_H

#include <stddef.h>

size_t mem_peak(void);              /* peak resident set of this process (VmHWM) */
size_t mem_resident(void);          /* resident set now (VmRSS) */
size_t mem_available(void);         /* what the machine can still give, the job's cgroup limit counted in */
unsigned long long mem_nodes(void); /* memory nodes of the cores this thread may run on, a bit each; 0: not known */
int mem_cores(void);                /* cores this process may run on (its affinity mask) */

#endif
