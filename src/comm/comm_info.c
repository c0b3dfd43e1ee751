/* What this MPI is, in words. */
#include "comm/comm_info.h"

#include <mpi.h>
#include <stdio.h>
#include <string.h>

void comm_library(char *out, size_t cap)
{
    char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int n = 0, major = 0, minor = 0;
    MPI_Get_library_version(text, &n);
    MPI_Get_version(&major, &minor);
    snprintf(out, cap, "%.*s, MPI %d.%d", (int)strcspn(text, ",\n"), text, major, minor);
}

const char *comm_thread_level(void)
{
    int level = MPI_THREAD_SINGLE;
    MPI_Query_thread(&level);
    switch (level) {
    case MPI_THREAD_MULTIPLE: return "multiple";
    case MPI_THREAD_SERIALIZED: return "serialized";
    case MPI_THREAD_FUNNELED: return "funneled";
    default: return "single";
    }
}
