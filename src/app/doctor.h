/* What the parts of asterism doctor share. Each part looks at one subject and says a line for each thing it finds:
 *
 *     ok    threads     2 cores
 *     WARN  threads     what is wrong with it, and what that costs
 *                       > how to mend it
 */
#ifndef AST_APP_DOCTOR_H
#define AST_APP_DOCTOR_H

#include <stdbool.h>

enum doctor_state { DOCTOR_OK, DOCTOR_WARN, DOCTOR_FAIL, DOCTOR_STATES };

struct doctor {
    const char *folder; /* where files are tried */
    bool quick;         /* starts no other programs */
    int n[DOCTOR_STATES];
};

struct doctor_line {
    enum doctor_state state;
    const char *subject; /* at most 10 letters */
    const char *mend;    /* NULL: nothing to mend */
};
void doctor_say(struct doctor *d, const struct doctor_line *l, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* clang-format off */
#define doctor_ok(d, subject, ...)         doctor_say(d, &(struct doctor_line){DOCTOR_OK, subject, NULL}, __VA_ARGS__)
#define doctor_warn(d, subject, mend, ...) doctor_say(d, &(struct doctor_line){DOCTOR_WARN, subject, mend}, __VA_ARGS__)
#define doctor_fail(d, subject, mend, ...) doctor_say(d, &(struct doctor_line){DOCTOR_FAIL, subject, mend}, __VA_ARGS__)
/* clang-format on */

void doctor_cpu(struct doctor *d);     /* instruction sets, BLAS */
void doctor_threads(struct doctor *d); /* cores, OpenMP's environment, load */
void doctor_memory(struct doctor *d);  /* memory, limits, /dev/shm */
void doctor_mpi(struct doctor *d);     /* library, launcher, two ranks at work */
void doctor_files(struct doctor *d);   /* HDF5, the folder, disk space, locale */
void doctor_slurm(struct doctor *d);

/* What the two ranks that doctor_mpi starts do: `asterism doctor --ping FILE`. Collective over the world. The leader prints
 * "ping ranks=2 threads=multiple allreduce_us=3.1 hdf5=ok". */
int doctor_ping(int argc, char **argv, const char *file);

#endif
