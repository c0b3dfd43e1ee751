/* Chooses and merges the kernel tables. The only place that asks what this CPU can run. */
#include "kernels/kern.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <stdlib.h>
#include <string.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "kernels/peak.h"
#include "kernels/tile.h"

#define KERN_ISA(n, b, runs) extern const struct kern_table kern_##n;
#define KERN_PART(n, of, runs) extern const struct kern_table kern_##n;
#include "kernels/isas.def"
#undef KERN_ISA
#undef KERN_PART

enum {
#define KERN_ISA(n, b, runs) ISA_##n,
#include "kernels/isas.def"
#undef KERN_ISA
    N_ISAS
};
#undef KERN_PART

static const struct kern_table *const tables[] = {
#define KERN_ISA(n, b, runs) &kern_##n,
#include "kernels/isas.def"
#undef KERN_ISA
};
#undef KERN_PART

static const int bases[] = {
#define KERN_ISA(n, b, runs) ISA_##b,
#include "kernels/isas.def"
#undef KERN_ISA
};
#undef KERN_PART

enum {
#define KERN_ENTRY(e) ENTRY_##e,
#include "kernels/entries.def"
#undef KERN_ENTRY
    N_ENTRIES
};
_Static_assert(sizeof(struct kern_table) == offsetof(struct kern_table, dot) + N_ENTRIES * sizeof(void (*)(void)),
               "entries.def must name every function of struct kern_table");

int kern_isa_count(void)
{
    return N_ISAS;
}

const char *kern_isa_name(int i)
{
    return i >= 0 && i < N_ISAS ? tables[i]->isa : NULL;
}

#if defined(__x86_64__)
/* clang 14 does not know __builtin_cpu_supports("f16c"). Leaf 1, ECX bit 29; the registers it needs are AVX2's, which is
 * asked for beside it. */
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

/* Leaf 7, EDX bits 24 and 22: tiles, and their products of bf16. Linux gives a process their registers when it asks: all its
 * threads may use them from then on. */
static bool may_use_tiles(void)
{
    enum { BF16 = 1 << 22, TILES = 1 << 24, REQUEST = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA */
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & BF16) || !(d & TILES))
        return false;
#if defined(__linux__)
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
#else
    return false;
#endif
}
#endif

/* What rests on another needs what that one needs. */
bool kern_isa_runs(int i)
{
    switch (i) {
#define KERN_ISA(n, b, runs)                                                                                                       \
    case ISA_##n:                                                                                                                  \
        return (ISA_##b == ISA_##n || kern_isa_runs(ISA_##b)) && (runs);
#include "kernels/isas.def"
#undef KERN_ISA
#undef KERN_PART
    default: return false;
    }
}

static void lay_over(struct kern_table *out, const struct kern_table *t)
{
    out->has_bf16_dot = out->has_bf16_dot || t->has_bf16_dot;
    out->has_tiles = out->has_tiles || t->has_tiles;
#define KERN_ENTRY(e)                                                                                                              \
    if (t->e)                                                                                                                      \
        out->e = t->e;
#include "kernels/entries.def"
#undef KERN_ENTRY
}

/* Is it `base`, or does it rest on it? */
static bool rests_on(int isa, int base)
{
    while (isa != base && isa != bases[isa])
        isa = bases[isa];
    return isa == base;
}

/* In the order of isas.def: an instruction set's parts before the next one, which overrides them. */
static void merge(struct kern_table *out, int isa)
{
    *out = *tables[0];
#define KERN_ISA(n, b, runs)                                                                                                       \
    if (rests_on(isa, ISA_##n))                                                                                                    \
        lay_over(out, &kern_##n);
#define KERN_PART(n, of, runs)                                                                                                     \
    if (rests_on(isa, ISA_##of) && (runs))                                                                                         \
        lay_over(out, &kern_##n);
#include "kernels/isas.def"
#undef KERN_ISA
#undef KERN_PART
    out->isa = tables[isa]->isa;
}

/* Are products of bf16 faster than widening and multiplying? There are CPUs with half the rate, and with twice. In turn, and
 * the best of each, so that what disturbs one moment decides nothing. */
static bool pairs_pay(const struct kern_table *t)
{
    enum { TURNS = 20, ROUNDS = 4000 }; /* some 10 microseconds each */
    double best[2] = {0, 0};
    for (int i = 0; i < 2 * TURNS; i++) {
        enum kern_dtype type = i % 2 ? KERN_BF16 : KERN_F32;
        double begin = kern_now(), done = t->peak(type, ROUNDS), rate = done / (kern_now() - begin);
        best[i % 2] = rate > best[i % 2] ? rate : best[i % 2];
    }
    return best[1] > best[0];
}

int kern_best(void)
{
    int best = 0;
    for (int i = 1; i < N_ISAS; i++) {
        struct kern_table t;
        if (!kern_isa_runs(i))
            continue;
        merge(&t, i);
        if (!kern_has_pairs(&t) || pairs_pay(&t))
            best = i;
    }
    return best;
}

int kern_select(struct kern_table *out, const char *isa)
{
    if (!isa)
        isa = getenv("AST_ISA");
    if (isa && isa[0]) {
        for (int i = 0; i < N_ISAS; i++)
            if (strcmp(isa, tables[i]->isa) == 0) {
                if (!kern_isa_runs(i))
                    return -2;
                merge(out, i);
                return 0;
            }
        return -1;
    }
    merge(out, kern_best());
    return 0;
}

const char *kern_pairs_by(const struct kern_table *k)
{
    return k->has_tiles ? "bf16 tiles" : k->has_bf16_dot ? "bf16 dot products" : NULL;
}

size_t kern_kv_bytes(enum kern_dtype t, int64_t dim, int64_t keys)
{
    size_t blocks = (size_t)((keys + KERN_KB - 1) / KERN_KB);
    size_t even = (size_t)(dim + 1) / 2 * 2;
    return t == KERN_BF16 ? blocks * KERN_KB * even * sizeof(uint16_t) : blocks * KERN_KB * (size_t)dim * sizeof(float);
}

size_t kern_tile_scratch(int64_t rows, int64_t dim)
{
    return (size_t)(TILE_HEAD + rows * (KERN_KB + TILE_LD + dim + 1) + KERN_MAX_ROWS * (dim + 1)) * sizeof(float);
}
