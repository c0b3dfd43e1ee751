/* Control messages between the master (rank 0) and the others: point to point, short, never collective; and heartbeats,
 * so that a dead or frozen process is noticed. Nothing here waits for a peer that has died.
 *
 *     main thread        send, poll, wait  <------ messages ------>  the same on the other side
 *     beat thread        a beat a second    ------ beats ---------->  rank 0 keeps when each rank was last heard
 *                        last heard 0      <------ beats, orders ---  and answers, or orders a rank to end at once
 *
 * The thread needs MPI_THREAD_MULTIPLE; without it beats go out whenever the main thread polls. */
#ifndef AST_COMM_COMM_MSG_H
#define AST_COMM_COMM_MSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct comm_group;
struct comm_link;

enum { COMM_MSG_MAX = 3800 }; /* bytes: below every transport's eager limit, so that a send never waits for the receiver */

struct comm_mail {
    int from, tag;
    size_t n;
    char data[COMM_MSG_MAX] __attribute__((aligned(16)));
};

/* beat_s: seconds between beats. orphan_s: a rank other than 0 that has not heard from rank 0 for so long ends itself with
 * exit code orphan_status, even inside a collective (0: never). Collective over world. */
struct comm_link_opts {
    double beat_s, orphan_s;
    int orphan_status;
};
int comm_link_open(struct comm_link **out, const struct comm_group *world, const struct comm_link_opts *o);
void comm_link_tune(struct comm_link *l, const struct comm_link_opts *o); /* other times from now on. Local */
void comm_link_close(struct comm_link *l);                                /* local; NULL is fine */

/* Returns at once; the bytes are copied. Messages from one rank to another arrive in order. n <= COMM_MSG_MAX. */
void comm_link_send(struct comm_link *l, int to, int tag, const void *data, size_t n);

/* The next message if one is there. */
bool comm_link_poll(struct comm_link *l, struct comm_mail *mail);

/* The next message, waiting at most max_s without burning a core. */
bool comm_link_wait(struct comm_link *l, struct comm_mail *mail, double max_s);

/* Seconds since this rank last heard from rank (rank 0: of any; others: of rank 0). */
double comm_link_silent_s(const struct comm_link *l, int rank);

/* Around collectives of all ranks that live (the start, the merge), which a dead rank would make wait for ever: if one of
 * them is silent for silent_s seconds, rank 0 says so (what: "the start"; must stay), orders all to end and ends itself,
 * with exit code orphan_status. silent_s 0: no more. Local; only rank 0's call counts. Without MPI_THREAD_MULTIPLE nobody
 * watches. */
void comm_link_guard(struct comm_link *l, double silent_s, const char *what);

/* Rank 0: this rank counts as dead: no more beats to it, and an order to end at once should it still live. */
void comm_link_bury(struct comm_link *l, int rank, int status);

#endif
