/* Orderly stop: signals (TERM, INT, USR1, USR2) and the end of the Slurm job. */
#ifndef AST_SCHED_STOP_H
#define AST_SCHED_STOP_H

#include <stdbool.h>

void stop_catch(void);      /* from now on signals only set a mark; a second INT ends the process as usual */
void stop_release(void);    /* signals do again what they did */
int stop_signal(void);      /* the signal that came; 0: none */
double stop_deadline(void); /* SLURM_JOB_END_TIME, seconds since 1970; 0: none known */

#endif
