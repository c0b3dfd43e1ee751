/* How the rows of a pass are cut, and the memory of its activations. */
#include "model/work.h"

#include <omp.h>

#include "kernels/mlp.h"
#include "model/cache.h"

/* Rows of a chunk: enough for the products to run at full speed, few enough that a chunk's activations stay in cache. Threads
 * take slices of the chunk and do all but attention for one alone: a slice's activations stay in the core's cache, and nobody
 * waits between products. Where slices would be thin, all threads work on one product after the other. */
enum {
    CHUNK = 256,
    SLICE = 64,    /* rows of a slice, or a few more; eight slices a thread and chunk, so that nobody waits long for the last ... */
    SLICES = 2048, /* ... of so many rows at most */
    THIN = 32,     /* rows a thread below which there are no slices */
    FIT = 5 << 18, /* bytes of a slice's MLP above which it does not stay in a core's cache, and there are no slices either */
};

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t max_threads(void)
{
    return omp_get_max_threads();
}

int64_t work_slices(const struct model *m, int64_t rows)
{
    int64_t threads = max_threads();
    if (rows < threads * THIN || kern_mlp_scratch(&m->layer[0].up, &m->layer[0].down, SLICE) > FIT)
        return 0;
    return max64(1, rows / (threads * SLICE)) * threads;
}

int64_t work_rows(void)
{
    return max64(CHUNK, min64(SLICES, max_threads() * 8 * SLICE));
}

int64_t work_chunk(const struct model *m, int64_t tokens)
{
    int64_t most = work_rows();
    return min64(tokens, work_slices(m, most) ? most : CHUNK);
}

static size_t floats(struct arena *to, float **p, bool want, int64_t n)
{
    *p = NULL;
    if (!want)
        return 0;
    if (to)
        *p = ARENA_NEW(to, n, float);
    return arena_bytes(n, sizeof(float));
}

static size_t linear_scratch(const struct model *m, int64_t rows)
{
    const struct model_layer *l = &m->layer[0];
    const struct kern_mat *w[] = {&l->qkv, &l->o, &l->up, &l->down};
    size_t most = kern_mlp_scratch(&l->up, &l->down, min64(rows, KERN_NARROW));
    for (int i = 0; i < 4; i++) {
        size_t n = kern_linear_scratch(w[i], rows);
        most = n > most ? n : most;
    }
    return most;
}

/* A slice is never longer. */
static int64_t longest_slice(int64_t rows)
{
    return min64(rows, (int64_t)2 * SLICE);
}

/* Rows of what a slice alone uses: each thread's own, which stay in its cache, and at least those of a last and thin chunk. */
static int64_t slice_rows(const struct model *m, struct work *w, int64_t rows)
{
    w->slice_rows = longest_slice(rows);
    return work_slices(m, rows) > 0 ? max_threads() * max64(w->slice_rows, THIN) : rows;
}

/* Room of the products: for each thread's slices, or for all rows where threads share them, as in a last and thin chunk. */
static size_t take_scratch(struct arena *to, const struct model *m, struct work *w, int64_t rows)
{
    const struct model_layer *l = &m->layer[0];
    int64_t threads = max_threads(), most = longest_slice(rows);
    bool slices = work_slices(m, rows) > 0;
    size_t all = linear_scratch(m, slices ? min64(rows, threads * THIN) : rows), each = 0;
    if (slices) {
        size_t one = linear_scratch(m, most), mlp = kern_mlp_scratch(&l->up, &l->down, most);
        each = arena_bytes((int64_t)(one > mlp ? one : mlp), 1);
    }
    all = all > each * (size_t)threads ? all : each * (size_t)threads;
    w->scratch = to ? arena_alloc(to, (int64_t)all, 1) : NULL;
    w->scratch_each = each;
    return arena_bytes((int64_t)all, 1);
}

/* Rows of the hidden layer that are kept whole: slices make it part by part where they can. */
static int64_t wide_rows(const struct model *m, int64_t rows)
{
    bool parts = work_slices(m, rows) > 0 && kern_mlp_fits(&m->layer[0].up, &m->layer[0].down, THIN);
    return parts ? min64(rows, max_threads() * THIN) : rows;
}

size_t work_take(struct arena *to, const struct model *m, struct work *w, int64_t tokens, bool own_kv, int64_t longest)
{
    const struct model_shape *s = &m->shape;
    int64_t rows = work_chunk(m, tokens), q = m->cut.heads.n * s->dim, kv = m->cut.kv.n * s->dim, half = s->rope.rot / 2;
    bool raw = m->method->caps & ATTN_NEEDS_RAW;
    size_t layer = 0;
    size_t n = floats(to, &w->cs, half > 0, tokens * half) + floats(to, &w->sn, half > 0, tokens * half);
    n += floats(to, &w->xn, true, rows * s->hidden) + floats(to, &w->xn2, s->parallel, rows * s->hidden);
    n += floats(to, &w->qkv, true, slice_rows(m, w, rows) * (q + 2 * kv));
    n += floats(to, &w->q, true, rows * q) + floats(to, &w->q0, raw, rows * q);
    n += floats(to, &w->k, true, rows * kv) + floats(to, &w->k0, raw, rows * kv) + floats(to, &w->v, true, rows * kv);
    n += floats(to, &w->att, true, rows * q) + floats(to, &w->up, true, wide_rows(m, rows) * m->layer[0].up.out);
    n += floats(to, &w->sum, m->cut.sums, rows * s->hidden);
    n += take_scratch(to, m, w, rows);
    if (own_kv) {
        cache_layer(to, m, longest, &w->kv, &w->state, &layer);
        n += layer;
    }
    return n;
}
