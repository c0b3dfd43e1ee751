/* Memory that the processes of one user on one machine share: one fills it, all read it.
 *
 *     | page: magic, key, bytes, ready | data |      a memfd called asterism-KEY
 *
 * It has no name in any file system: others find it among the open files in /proc of those who hold it, so that nothing is
 * left behind when they end, however they end. Who fills it holds a socket of the abstract name asterism-UID-KEY meanwhile,
 * a lock that dies with its holder. Whatever is in the way (another container, a hidden /proc, no memory) is no error:
 * the answer then is SHARED_NONE, and the caller does without.
 *   source   memfd_create(2), fcntl(2) on seals, unix(7) on abstract names, madvise(2) on MADV_COLLAPSE */
#ifndef AST_BASE_SHARED_H
#define AST_BASE_SHARED_H

#include <stdbool.h>
#include <stddef.h>

enum shared_state {
    SHARED_NONE, /* no memory here; why says why */
    SHARED_MINE, /* zeros, writable: fill it, then shared_ready, or shared_close if that failed */
    SHARED_READY /* filled, read-only */
};

struct shared {
    enum shared_state state;
    void *data; /* page aligned */
    const char *why;
    /* private */
    void *room, *map; /* addresses reserved, and what is mapped in them */
    size_t bytes, reserved;
    int fd, lock; /* -1: none */
};

enum { SHARED_KEY = 64 }; /* characters of a key: hexadecimal digits, as of a SHA-256 */

/* Looks for memory of this key and of `bytes` bytes; where there is none and nobody fills one, it is ours to fill. Waits for
 * who fills it, patience_s seconds at most, and takes over if that one ends before it is done. From SHARED_MINE until
 * shared_ready or shared_close nobody else gets on with this key: wait for no other process meanwhile. Local. */
void shared_open(struct shared *s, const char *key, size_t bytes, double patience_s);

/* It is filled: read-only from now on, here and everywhere. */
void shared_ready(struct shared *s);

/* What this machine allows: NULL, or why there is no sharing; huge: pages of 2 MiB, without which large products over shared
 * memory are slower than over memory of one's own. */
const char *shared_probe(bool *huge);

void shared_close(struct shared *s); /* the last one to close frees the memory; a zeroed one is fine */

#endif
