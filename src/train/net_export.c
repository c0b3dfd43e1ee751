/* What was trained, in forms that others read: gates beside a Hugging Face folder. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "comm/comm.h"
#include "io/file.h"
#include "io/safetensors.h"
#include "model/gates.h"
#include "train/gate_parts.h"
#include "train/net.h"

static int64_t size_of(const struct st_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++)
        n *= t->dim[i];
    return n;
}

/* Every tensor of the original: from the net where it has it, else (masks, tables) as it stands. */
static int write_tensors(const struct net *n, const struct safetensors *st, struct st_writer *w)
{
    int64_t most = 1;
    int rc = ERR_OK;
    for (int64_t i = 0; i < st_count(st); i++)
        most = size_of(st_at(st, i)) > most ? size_of(st_at(st, i)) : most;
    float *x = malloc((size_t)most * sizeof *x);
    if (!x)
        return err_set(ERR_NOMEM, "no memory to write a tensor of %lld numbers", (long long)most);
    for (int64_t i = 0; !rc && i < st_count(st); i++) {
        const struct st_tensor *t = st_at(st, i);
        bool ours = net_tensor(n, t->name, false, x) == ERR_OK;
        err_clear();
        rc = ours ? st_append(w, x, (size_t)size_of(t) * sizeof *x) : st_append(w, t->data, t->bytes);
    }
    free(x);
    return rc;
}

static int write_weights(const struct net *n, const struct safetensors *st, const char *folder)
{
    static const char *const meta[] = {"format", "pt"};
    char path[FILE_PATH];
    struct st_writer *w = NULL;
    struct st_decl *decl = calloc((size_t)st_count(st) + 1, sizeof *decl);
    int rc = decl ? file_join(path, folder, "model.safetensors") : err_set(ERR_NOMEM, "no memory to write %s", folder);
    for (int64_t i = 0; !rc && i < st_count(st); i++) {
        const struct st_tensor *t = st_at(st, i);
        bool ours = net_tensor(n, t->name, false, NULL) == ERR_OK;
        err_clear();
        decl[i] = (struct st_decl){.name = t->name, .dtype = ours ? ST_F32 : t->dtype, .rank = t->rank};
        memcpy(decl[i].dim, t->dim, sizeof decl[i].dim);
    }
    rc = rc ? rc : st_create(&w, path, decl, st_count(st), meta, 1);
    if (!rc) {
        rc = write_tensors(n, st, w);
        if (rc)
            st_abort(w);
        else
            rc = st_commit(w);
    }
    free(decl);
    return rc;
}

/* Where the text value of a key at `at` begins, behind its quote; NULL: the key's value is no text, or it is no key. */
static const char *text_value(const char *at, size_t key)
{
    const char *s = at + key + strspn(at + key, " \t\r\n");
    if (*s++ != ':')
        return NULL;
    s += strspn(s, " \t\r\n");
    return *s == '"' && strchr(s + 1, '"') ? s + 1 : NULL;
}

/* config.json with the type that the weights have now, under either of its names: readers that follow it would round them
 * otherwise. All else as it stands. */
static int write_config(const char *from, const char *to)
{
    static const char *const key[] = {"\"torch_dtype\"", "\"dtype\""};
    struct buf text = {0}, out = {0};
    int rc = file_read_text(&text, from, (size_t)1 << 26);
    const char *s = rc ? "" : buf_text(&text);
    while (!rc && *s) {
        const char *at[2] = {strstr(s, key[0]), strstr(s, key[1])};
        int first = !at[0] || (at[1] && at[1] < at[0]);
        if (!at[first])
            break;
        const char *value = text_value(at[first], strlen(key[first])), *end = value ? strchr(value, '"') : NULL;
        const char *upto = value ? value : at[first] + strlen(key[first]);
        rc = buf_add(&out, s, (size_t)(upto - s));
        rc = rc || !value ? rc : buf_printf(&out, "float32");
        s = value ? end : upto;
    }
    rc = rc ? rc : buf_printf(&out, "%s", s);
    rc = rc ? rc : file_write_durable(to, buf_text(&out), out.len);
    buf_free(&text);
    buf_free(&out);
    return rc;
}

static int copy_rest(const char *from, const char *to)
{
    static const char *const files[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json",
                                        "merges.txt",     "generation_config.json"};
    char a[FILE_PATH], b[FILE_PATH];
    int rc = file_join(a, from, "config.json");
    rc = rc ? rc : file_join(b, to, "config.json");
    rc = rc ? rc : write_config(a, b);
    for (size_t i = 0; !rc && i < sizeof files / sizeof files[0]; i++) {
        rc = file_join(a, from, files[i]);
        rc = rc ? rc : file_join(b, to, files[i]);
        if (!rc && file_exists(a))
            rc = file_copy(a, b);
    }
    return rc;
}

/* Only what was trained or came from a file. base: the fingerprint of the model that they belong to. */
static int write_gates(const struct net *n, const char *folder, const char *base)
{
    char path[FILE_PATH];
    struct attn_params p = n->all_gates;
    snprintf(p.base, sizeof p.base, "%s", base);
    p.layer = malloc((size_t)p.layers * sizeof *p.layer);
    int rc = p.layer ? file_join(path, folder, "gates.safetensors") : err_set(ERR_NOMEM, "no memory to write gates");
    if (!rc) {
        memcpy(p.layer, n->all_gates.layer, (size_t)p.layers * sizeof *p.layer);
        for (int64_t l = 0; l < p.layers; l++)
            for (int i = 0; i < GATE_TENSORS; i++) {
                struct gate_tensor t;
                gate_tensor_at(&p, l, i, &t);
                if (i > 1 && !n->gate_known[l][i]) /* queries and keys are always there */
                    *t.data = NULL;
            }
        rc = gates_save(path, &p);
    }
    free(p.layer);
    return rc;
}

static int export_whole(const struct net *n, const char *folder)
{
    struct safetensors *st = NULL;
    struct model *check = NULL;
    char to[FILE_PATH], base[65];
    const char *from = model_info(n->model)->path;
    bool weights = n->train & (NET_WEIGHTS | NET_NORMS | NET_ADAPTERS);
    int rc = ERR_OK;
    snprintf(base, sizeof base, "%s", model_info(n->model)->sha256);
    if (weights) {
        rc = file_join(to, folder, "model");
        rc = rc ? rc : file_make_folders(to);
        rc = rc ? rc : st_open(&st, from);
        rc = rc ? rc : write_weights(n, st, to);
        rc = rc ? rc : copy_rest(from, to);
        rc = rc ? rc : model_open(&check, &(struct model_open){.path = to, .kern = n->kern, .check_finite = true});
        if (!rc)
            snprintf(base, sizeof base, "%s", model_info(check)->sha256);
        model_close(check);
        st_close(st);
    }
    return rc || !n->gate.layer ? rc : write_gates(n, folder, base);
}

/* ---- a group's net, whole ---- */

struct whole {
    struct net net; /* parts of layers and gates are whole; the rest is the group's */
    struct arena run;
};

static bool is_mlp(int part)
{
    return part >= PART_GATE && part <= PART_UP_B;
}

static bool is_cut(int part)
{
    return (part >= PART_Q && part <= PART_V_B) || part == PART_O || is_mlp(part);
}

/* A part's rows (columns of O and DOWN) in their place among zeros. */
static int place_part(struct whole *w, const struct net *n, int64_t l, int part)
{
    const struct net_part *p = &n->layer[l][part];
    struct net_part *to = &w->net.layer[l][part];
    bool columns = part == PART_O || part == PART_DOWN;
    int64_t own = columns ? p->cols : p->rows, all = is_mlp(part) ? n->model->shape.mlp : own * n->group->size;
    int64_t first = is_mlp(part) ? n->model->cut.mlp.first : own * n->group->rank;
    *to = (struct net_part){.rows = columns ? p->rows : all, .cols = columns ? all : p->cols};
    to->w = ARENA_NEW0(&w->run, to->rows * to->cols, float);
    if (!to->w)
        return ERR_NOMEM;
    for (int64_t r = 0; r < p->rows; r++)
        memcpy(to->w + (columns ? r * all + first : (first + r) * p->cols), p->w + r * p->cols, (size_t)p->cols * sizeof(float));
    return ERR_OK;
}

/* All parts; the sums over the group come after agreement. */
static int place_parts(struct whole *w, const struct net *n)
{
    int64_t L = n->own.layers;
    int rc = arena_open(&w->run, "export", ((size_t)model_info(n->model)->parameters * 2 + ((size_t)1 << 20)) * sizeof(float));
    w->net = *n;
    w->net.shape = &n->model->shape;
    w->net.layer = rc ? NULL : arena_alloc0(&w->run, L, sizeof w->net.layer[0]);
    rc = rc || w->net.layer ? rc : ERR_NOMEM;
    for (int64_t l = 0; !rc && l < L; l++)
        for (int part = 0; !rc && part < PART_COUNT; part++) {
            const struct net_part *p = &n->layer[l][part];
            if (p->w && is_cut(part))
                rc = place_part(w, n, l, part);
            else
                w->net.layer[l][part] = *p;
        }
    return rc;
}

static int export_group(const struct net *n, const char *folder)
{
    struct whole w = {0};
    int rc = comm_agree(n->group, place_parts(&w, n));
    for (int64_t l = 0; !rc && l < n->own.layers; l++)
        for (int part = 0; part < PART_COUNT; part++) {
            const struct net_part *p = &w.net.layer[l][part];
            if (p->w && is_cut(part))
                comm_sum_f32(n->group, p->w, p->rows * p->cols);
        }
    if (!rc && n->gate.layer)
        gate_parts_gather(&n->gate, &n->all_gates, n->group);
    if (!rc && n->group->rank == 0)
        rc = export_whole(&w.net, folder);
    arena_close(&w.run);
    return comm_agree(n->group, rc);
}

int net_export(const struct net *n, const char *folder)
{
    return n->group && n->group->size > 1 ? export_group(n, folder) : export_whole(n, folder);
}
