/* The communicator inside a group: for comm and io only (mpi.h stays there). */
#ifndef AST_COMM_COMM_MPI_H
#define AST_COMM_COMM_MPI_H

#include <mpi.h>

#include "comm/comm.h"

MPI_Comm comm_mpi(const struct comm_group *g); /* NULL: MPI_COMM_SELF */

/* A group around a communicator that the group then owns. NULL: out of memory. Local. */
struct comm_group *comm_wrap(MPI_Comm comm);

#endif
