/* What decides a job's results, as text, one "key = value" a line. Two jobs with the same text may share finished shards;
 * for two that differ the lines say in what. */
#ifndef AST_SCHED_IDENTITY_H
#define AST_SCHED_IDENTITY_H

struct buf;
struct job;
struct work;

/* Options of models, methods, tasks, and the seed; not threads, ranks or paths. */
int identity_job(const struct job *j, struct buf *out);

/* That, with the digests of weights and data. Every set must be open. Reads all weights. */
int identity_work(const struct work *w, struct buf *out);

/* The first lines in which two identities differ, for people; "" if equal. */
int identity_difference(const char *was, const char *is, struct buf *out);

#endif
