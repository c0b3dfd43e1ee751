/* Gate files. */
#include "model/gates.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/err.h"
#include "io/safetensors.h"
#include "model/model.h"

static const char format[] = "asterism-gates-1";
enum { NAME = 48, REQUIRED = 2 }; /* of GATE_TENSORS: wq, wk */

struct gates {
    struct attn_params p;
    struct arena mem;
};

const struct attn_params *gates_params(const struct gates *g)
{
    return g ? &g->p : NULL;
}

void gates_close(struct gates *g)
{
    if (g)
        arena_close(&g->mem);
    free(g);
}

static void name_of(char out[NAME], int64_t layer, const char *tensor)
{
    snprintf(out, NAME, "layers.%lld.%s", (long long)layer, tensor);
}

/* Sizes that the file alone knows, and whether it is for this model. */
static int read_head(struct attn_params *p, const struct safetensors *st, const char *path, const struct model_info *base)
{
    const char *kind = st_metadata(st, "format"), *of = st_metadata(st, "base"), *unit = st_metadata(st, "unit");
    const char *block = st_metadata(st, "block");
    const struct st_tensor *wq = st_find(st, "layers.0.wq"), *dist = st_find(st, "layers.0.dist");
    if (!kind || strcmp(kind, format))
        return err_set(ERR_FORMAT, "%s: not a gate file: its metadata 'format' is %s, not %s", path, kind ? kind : "missing",
                       format);
    if (of && of[0] && base->sha256[0] && strcmp(of, base->sha256))
        return err_set(ERR_ARG, "%s: these gates were trained for a model with fingerprint %.16s, %s has %.16s", path, of,
                       base->path, base->sha256);
    if (!wq || wq->rank != 3 || wq->dim[2] < 1 || wq->dim[2] > 512)
        return err_set(ERR_FORMAT, "%s: layers.0.wq is missing or not (units, in, 1 to 512)", path);
    if (!unit || (strcmp(unit, "kv-head") && strcmp(unit, "head")))
        return err_set(ERR_FORMAT, "%s: metadata 'unit' is %s, not kv-head or head", path, unit ? unit : "missing");
    *p = (struct attn_params){.layers = base->layers, .heads = base->heads, .kv_heads = base->kv_heads, .dim = base->dim};
    p->hidden = base->hidden;
    p->units = strcmp(unit, "head") ? base->kv_heads : base->heads;
    p->width = wq->dim[2];
    p->buckets = dist && dist->rank == 2 && dist->dim[1] > 0 && dist->dim[1] <= 64 ? dist->dim[1] : GATE_BUCKETS;
    p->block = block ? strtoll(block, NULL, 10) : 0;
    snprintf(p->base, sizeof p->base, "%s", of ? of : "");
    return ERR_OK;
}

static int read_tensor(struct attn_params *p, const struct safetensors *st, const char *path, int64_t layer, int i)
{
    struct gate_tensor t;
    char name[NAME];
    gate_tensor_at(p, layer, i, &t);
    name_of(name, layer, t.name);
    const struct st_tensor *from = st_find(st, name);
    if (!from && i >= REQUIRED) {
        *t.data = NULL;
        return ERR_OK;
    }
    if (!from)
        return err_set(ERR_FORMAT, "%s: tensor %s is missing", path, name);
    bool fits = from->dtype == ST_F32 && from->rank == t.rank;
    for (int d = 0; d < t.rank && fits; d++)
        fits = from->dim[d] == t.dim[d];
    if (!fits)
        return err_set(ERR_FORMAT, "%s: tensor %s must be F32 of shape (%lld, %lld, %lld)[0:%d] for this model and unit", path,
                       name, (long long)t.dim[0], (long long)t.dim[1], (long long)t.dim[2], t.rank);
    memcpy(*t.data, from->data, from->bytes);
    for (int64_t x = 0; x < gate_tensor_size(&t); x++)
        if (!isfinite((*t.data)[x]))
            return err_set(ERR_FORMAT, "%s: tensor %s holds a number that is not finite at element %lld", path, name, (long long)x);
    return ERR_OK;
}

/* A learned budget needs both of its tensors. */
static int check_pairs(const struct attn_params *p, const char *path)
{
    for (int64_t l = 0; l < p->layers; l++)
        if (!p->layer[l].wr != !p->layer[l].br)
            return err_set(ERR_FORMAT, "%s: layer %lld has one of wr and br; a learned budget needs both", path, (long long)l);
    return ERR_OK;
}

int gates_open(struct gates **out, const char *path, const struct model_info *base)
{
    struct safetensors *st = NULL;
    struct gates *g = calloc(1, sizeof *g);
    *out = NULL;
    if (!g)
        return err_set(ERR_NOMEM, "no memory for %s", path);
    int rc = st_open(&st, path);
    rc = rc ? rc : read_head(&g->p, st, path, base);
    /* at most twice the file where optional tensors are missing; address space only */
    rc = rc ? rc
            : arena_open(&g->mem, "gates",
                         8 * st_file_bytes(st) + ((size_t)base->layers * (size_t)(base->heads + 2) * (size_t)(base->hidden + 64) *
                                                  512 * sizeof(float)));
    rc = rc ? rc : gate_alloc(&g->p, &g->mem);
    for (int64_t l = 0; !rc && l < g->p.layers; l++)
        for (int i = 0; !rc && i < GATE_TENSORS; i++)
            rc = read_tensor(&g->p, st, path, l, i);
    rc = rc ? rc : check_pairs(&g->p, path);
    st_close(st);
    if (rc) {
        gates_close(g);
        return rc;
    }
    gate_seal(&g->p);
    *out = g;
    return ERR_OK;
}

/* Calls for every tensor that is there: declares it, or appends it when w is given. */
static int write_tensors(const struct attn_params *p, struct st_writer *w, struct st_decl *decl, char (*name)[NAME], int64_t *n)
{
    int rc = ERR_OK;
    *n = 0;
    for (int64_t l = 0; l < p->layers && !rc; l++)
        for (int i = 0; i < GATE_TENSORS && !rc; i++) {
            struct gate_tensor t;
            gate_tensor_at(p, l, i, &t);
            if (!*t.data)
                continue;
            if (w) {
                rc = st_append(w, *t.data, (size_t)gate_tensor_size(&t) * sizeof(float));
            } else if (decl) {
                name_of(name[*n], l, t.name);
                decl[*n] = (struct st_decl){.name = name[*n], .dtype = ST_F32, .rank = t.rank};
                memcpy(decl[*n].dim, t.dim, sizeof t.dim);
            }
            ++*n;
        }
    return rc;
}

int gates_save(const char *path, const struct attn_params *p)
{
    char block[24];
    int64_t most = p->layers * GATE_TENSORS, n = 0;
    const char *meta[] = {"format", format, "base", p->base, "unit", p->units == p->kv_heads ? "kv-head" : "head", "block", block};
    struct st_decl *decl = calloc((size_t)most, sizeof *decl);
    char(*name)[NAME] = calloc((size_t)most, NAME);
    struct st_writer *w = NULL;
    int rc = decl && name ? ERR_OK : err_set(ERR_NOMEM, "no memory to write %s", path);
    snprintf(block, sizeof block, "%lld", (long long)p->block);
    if (!rc)
        rc = write_tensors(p, NULL, decl, name, &n);
    rc = rc ? rc : st_create(&w, path, decl, n, meta, 4);
    if (!rc) {
        rc = write_tensors(p, w, NULL, NULL, &n);
        if (rc)
            st_abort(w);
        else
            rc = st_commit(w);
    }
    free(decl);
    free(name);
    return rc;
}
