/* Messages between the master (rank 0) and the leaders of worker groups. All are short, point to point, one way.
 *
 *     master                      leader of a group
 *       | --- WORK: shards ----------> |   as many as fill its look-ahead
 *       | <-- DONE: one shard -------- |   committed to disk, or failed with its sentence
 *       | --- STOP ------------------> |   end after the batch that runs
 *       | <-- STOPPED ---------------- |   what was queued is untouched
 *       | --- END: who is dead ------> |   meet for the next phase, for the merge, or leave
 *       | <-- SIGNAL ----------------- |   a signal came to this rank */
#ifndef AST_SCHED_PROTO_H
#define AST_SCHED_PROTO_H

#include <stdint.h>

#include "comm/comm_msg.h"

enum proto_tag { PROTO_WORK = 1, PROTO_DONE, PROTO_STOP, PROTO_STOPPED, PROTO_END, PROTO_SIGNAL };

struct proto_work {
    int64_t shard, first, count;
    int32_t cell, isolate;
};

enum proto_kind { PROTO_FINISHED, PROTO_ERROR, PROTO_DISK };

struct proto_done {
    int64_t shard, count, tokens, failed; /* count: positions finished */
    double compute_s;
    int32_t kind, code, reach; /* reach: enum exec_reach, of an error */
    char text[512];            /* the sentence, unless finished */
};

enum proto_next { PROTO_LEAVE, PROTO_MERGE, PROTO_PHASE };

struct proto_end {
    int32_t next;   /* enum proto_next */
    uint8_t dead[]; /* a bit a rank of the world; groups follow from it: layout.h */
};

enum { PROTO_WORK_MAX = COMM_MSG_MAX / sizeof(struct proto_work) };

#endif
