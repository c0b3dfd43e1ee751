/* The program starts once more where its libraries read better settings only at their start. */
#ifndef AST_APP_RESTART_H
#define AST_APP_RESTART_H

/* Sets what libgomp and OpenBLAS want and the user has not set (OMP_WAIT_POLICY, GOMP_SPINCOUNT, OPENBLAS_CORETYPE), and runs
 * the program again with the same argv. Returns where nothing is to be set, or it cannot be run again. Before MPI_Init. */
void restart_if_better(char **argv);

#endif
