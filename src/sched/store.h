/* The folder of finished shards beside the result file: OUTPUT.shards/
 *
 *     job.txt   what decides the results: a job that differs is refused      lock   one master at a time
 *     costs.txt   with run.calibrate: what attention's kernels cost where the job first began
 *     c00002-p0000000128-n0000016.shard ...   finished work                  status.json   for people and scripts */
#ifndef AST_SCHED_STORE_H
#define AST_SCHED_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "io/file.h"
#include "io/sha.h"

struct shardfile_lock;
struct work;

struct store {
    char folder[FILE_PATH], job[SHA_HEX]; /* fingerprint of job.txt */
    struct shardfile_lock *lock;          /* rank 0 */
};

/* Rank 0: makes the folder, locks it, compares or writes job.txt. identity: identity_work's text. fresh: what is there is
 * removed. ERR_ARG: another master is at work, or the folder belongs to another job (the difference is named); ERR_IO. */
int store_open(struct store *s, const char *output, const char *identity, bool fresh);
/* Another rank: just the names; job as rank 0 has it. */
int store_join(struct store *s, const char *output, const char *job);
void store_close(struct store *s);

struct store_scan {
    bool **done; /* (cells,) (positions of the cell,) */
    int64_t files, damaged, samples;
    double seconds, work; /* computing time of what is done */
};

/* Reads every shard file: what is whole, of this job and without failures is done. Damaged ones are moved aside, with a
 * warning. Local, rank 0. ERR_NOMEM, ERR_IO. */
int store_scan(struct store *s, const struct work *w, struct store_scan *out);
void store_scan_free(struct store_scan *x, int n_cells);

#endif
