/* Arenas: all bulk memory, by lifetime (run, shard, step). No single frees; mark and release instead.
 *
 *     base                used            cap
 *      |XXXXXX|XXXXXXXXXXX|................|      address space is reserved once, pages come when touched
 *             ^ a mark: arena_release(mark) drops all that was allocated after it */
#ifndef AST_BASE_ARENA_H
#define AST_BASE_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct arena {
    const char *name;    /* named in errors: "run", "step", ... */
    unsigned char *base; /* page aligned */
    size_t cap, used, peak;
    size_t reserved; /* address space that arena_close gives back, cap or more */
    bool keep;       /* what lies there is meant: allocations neither fill nor clear, and may be of read-only memory */
    long fail_in;    /* tests: the fail_in-th allocation from now fails; 0: never */
};

enum { ARENA_ALIGN = 64 };

/* Reserves cap bytes of address space (rounded up to pages); memory is used only when touched. ERR_NOMEM. */
int arena_open(struct arena *a, const char *name, size_t cap);
/* The same where most of it is going to be touched: in huge pages from the first byte on, at a quarter more memory at most. */
int arena_open_filled(struct arena *a, const char *name, size_t cap);
void arena_close(struct arena *a); /* a zeroed arena is fine */

/* An arena in memory of somebody else, who gives it back: not for arena_close, nor for arena_trim. */
struct arena arena_over(void *base, size_t cap, const char *name, bool keep);

/* n elements of size bytes, 64-byte aligned, not cleared (0xFF in debug builds: each float a NaN).
 * NULL with the sentence set (ERR_NOMEM) if the product overflows or the arena is full. */
void *arena_alloc(struct arena *a, int64_t n, size_t size);
void *arena_alloc0(struct arena *a, int64_t n, size_t size); /* cleared */
char *arena_strdup(struct arena *a, const char *s);

size_t arena_mark(const struct arena *a);
void arena_release(struct arena *a, size_t mark);

/* Gives the pages above `used` back to the system: after a large step, before a small one. */
void arena_trim(struct arena *a);

/* Bytes that an allocation of n elements really takes: for sums made before a step. */
size_t arena_bytes(int64_t n, size_t size);

#define ARENA_NEW(a, n, type) ((type *)arena_alloc((a), (n), sizeof(type)))
#define ARENA_NEW0(a, n, type) ((type *)arena_alloc0((a), (n), sizeof(type)))

#endif
