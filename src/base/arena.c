/* Arenas over reserved address space: growing is free, addresses never move. */
#include "base/arena.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/err.h"

#if defined(__SANITIZE_ADDRESS__)
#define ARENA_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_ASAN 1
#endif
#endif

#ifdef ARENA_ASAN
#include <sanitizer/asan_interface.h>
#define POISON(p, n) __asan_poison_memory_region((p), (n))
#define UNPOISON(p, n) __asan_unpoison_memory_region((p), (n))
#else
#define POISON(p, n) ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
#endif

#if defined(ARENA_ASAN) || !defined(NDEBUG)
enum { ARENA_FILL = 1 };
#else
enum { ARENA_FILL = 0 };
#endif

enum { HUGE = 2 << 20 };

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

static int reserve(struct arena *a, const char *name, size_t cap, bool filled)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    *a = (struct arena){.name = name};
    if (cap > (size_t)1 << 46)
        return err_set(ERR_NOMEM, "arena %s: %zu bytes is beyond any machine", name, cap);
    cap = round_up(cap ? cap : 1, page);
    /* The system begins at a huge page's boundary where whole ones are asked for. */
    size_t whole = round_up(cap, HUGE), reserved = filled && whole - cap <= cap / 4 ? whole : cap;
    void *p = mmap(NULL, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return err_set(ERR_NOMEM, "arena %s: cannot reserve %zu bytes: %s", name, cap, strerror(errno));
    madvise(p, reserved, MADV_HUGEPAGE); /* a hint; refusal costs only speed */
    a->base = p;
    a->cap = cap;
    a->reserved = reserved;
    POISON(p, cap);
    return ERR_OK;
}

int arena_open(struct arena *a, const char *name, size_t cap)
{
    return reserve(a, name, cap, false);
}

int arena_open_filled(struct arena *a, const char *name, size_t cap)
{
    return reserve(a, name, cap, true);
}

void arena_close(struct arena *a)
{
    if (a->base) {
        UNPOISON(a->base, a->cap);
        munmap(a->base, a->reserved);
    }
    *a = (struct arena){0};
}

struct arena arena_over(void *base, size_t cap, const char *name, bool keep)
{
    return (struct arena){.name = name, .base = base, .cap = cap, .keep = keep};
}

size_t arena_bytes(int64_t n, size_t size)
{
    size_t bytes;
    AST_ASSERT(n >= 0);
    if (__builtin_mul_overflow((size_t)n, size, &bytes) || bytes > (size_t)-1 - ARENA_ALIGN)
        return (size_t)-1;
    return round_up(bytes ? bytes : 1, ARENA_ALIGN);
}

static void *take(struct arena *a, int64_t n, size_t size)
{
    size_t bytes = arena_bytes(n, size);
    if (a->fail_in > 0 && --a->fail_in == 0) {
        err_set(ERR_NOMEM, "arena %s: allocation failed on purpose (test)", a->name);
        return NULL;
    }
    if (bytes > a->cap - a->used) {
        err_set(ERR_NOMEM, "arena %s: %lld x %zu bytes do not fit: %zu of %zu bytes are used", a->name, (long long)n, size, a->used,
                a->cap);
        return NULL;
    }
    unsigned char *p = a->base + a->used;
    a->used += bytes;
    if (a->used > a->peak)
        a->peak = a->used;
    UNPOISON(p, (size_t)n * size);
    return p;
}

void *arena_alloc(struct arena *a, int64_t n, size_t size)
{
    void *p = take(a, n, size);
    if (p && ARENA_FILL && !a->keep)
        memset(p, 0xFF, (size_t)n * size);
    return p;
}

void *arena_alloc0(struct arena *a, int64_t n, size_t size)
{
    void *p = take(a, n, size);
    if (p && !a->keep)
        memset(p, 0, (size_t)n * size);
    return p;
}

char *arena_strdup(struct arena *a, const char *s)
{
    size_t n = strlen(s) + 1;
    char *p = arena_alloc(a, (int64_t)n, 1);
    if (p)
        memcpy(p, s, n);
    return p;
}

size_t arena_mark(const struct arena *a)
{
    return a->used;
}

void arena_release(struct arena *a, size_t mark)
{
    AST_ASSERT(mark <= a->used);
    POISON(a->base + mark, a->used - mark);
    a->used = mark;
}

void arena_trim(struct arena *a)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), from = round_up(a->used, page);
    if (from < a->cap) {
        UNPOISON(a->base + from, a->cap - from);
        madvise(a->base + from, a->cap - from, MADV_DONTNEED);
        POISON(a->base + from, a->cap - from);
    }
}
