/* asterism show: model folders, tokenizers, safetensors, gate files. */
#include <stdlib.h>
#include <string.h>

#include "app/show.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "io/file.h"
#include "io/safetensors.h"
#include "model/model.h"
#include "text/tok.h"

static bool holds(const char *folder, const char *name)
{
    char file[FILE_PATH];
    return file_is_folder(folder) && !file_join(file, folder, name) && file_exists(file);
}

/* ---- tokenizers ---- */

bool show_is_tokenizer(const char *path)
{
    return show_ends(path, "tokenizer.json") || holds(path, "tokenizer.json") ||
           (holds(path, "vocab.json") && holds(path, "merges.txt"));
}

static int tokenizer_lines(struct buf *out, const struct tok *t)
{
    int32_t bos = tok_bos(t);
    int rc = buf_printf(out, "  tokenizer    %s\n", tok_describe(t));
    if (!rc)
        rc = bos < 0
                 ? buf_puts(out, "               its post-processor puts nothing in front of a text\n")
                 : buf_printf(
                       out,
                       "               its post-processor puts %s (%d) in front of a text, where special tokens are asked for\n",
                       tok_token(t, bos) ? tok_token(t, bos) : "?", (int)bos);
    return rc ? rc : buf_printf(out, "               sha256 %.16s...\n", tok_sha256(t));
}

int show_tokenizer(struct buf *out, const char *path)
{
    struct tok *t = NULL;
    int rc = tok_open(&t, path);
    if (!rc)
        rc = buf_printf(out, "%s: a tokenizer\n", path);
    if (!rc)
        rc = tokenizer_lines(out, t);
    tok_close(t);
    return rc;
}

/* ---- models ---- */

bool show_is_model(const char *path)
{
    return holds(path, "config.json");
}

/* A model without a usable tokenizer can still be scored on token ids: said, not refused. */
int show_model(struct buf *out, const char *path)
{
    struct tok *t = NULL;
    int rc = model_describe(out, path);
    if (rc)
        return rc;
    if (tok_open(&t, path)) {
        rc = buf_printf(out, "  tokenizer    none that is usable: %s\n", err_text());
        err_clear();
    } else {
        rc = tokenizer_lines(out, t);
    }
    tok_close(t);
    return rc;
}

/* ---- tensors ---- */

bool show_is_safetensors(const char *path)
{
    return show_ends(path, ".safetensors") || show_ends(path, ".safetensors.index.json") || holds(path, "model.safetensors") ||
           holds(path, "model.safetensors.index.json");
}

static int tensor_line(struct buf *out, const struct st_tensor *t)
{
    int rc = buf_printf(out, "  %-60s %-5s [", t->name, t->dtype_name);
    for (int i = 0; !rc && i < t->rank; i++)
        rc = buf_printf(out, "%s%lld", i ? ", " : "", (long long)t->dim[i]);
    return rc ? rc : buf_puts(out, "]\n");
}

int show_safetensors(struct buf *out, const char *path)
{
    struct safetensors *st = NULL;
    char size[32];
    int rc = st_open(&st, path);
    if (rc)
        return rc;
    log_bytes((double)st_file_bytes(st), size, sizeof size);
    rc = buf_printf(out, "%s: %lld tensors, %s\n", path, (long long)st_count(st), size);
    for (int64_t i = 0; !rc && i < st_count(st); i++)
        rc = tensor_line(out, st_at(st, i));
    st_close(st);
    return rc;
}

/* ---- gates ---- */

bool show_is_gates(const char *path)
{
    struct safetensors *st = NULL;
    bool is = false;
    if (!show_ends(path, ".safetensors"))
        return false;
    if (st_open(&st, path)) {
        err_clear(); /* said again by who opens it for good */
        return false;
    }
    const char *format = st_metadata(st, "format");
    is = format && !strncmp(format, "asterism-gates-", 15);
    st_close(st);
    return is;
}

static const char *meta(const struct safetensors *st, const char *key)
{
    const char *v = st_metadata(st, key);
    return v && v[0] ? v : "not said";
}

static double elements(const struct safetensors *st)
{
    double n = 0;
    for (int64_t i = 0; i < st_count(st); i++) {
        double one = 1;
        for (int d = 0; d < st_at(st, i)->rank; d++)
            one *= (double)st_at(st, i)->dim[d];
        n += one;
    }
    return n;
}

/* Layers are numbered; the parts of layer 0 stand for all. */
static int64_t count_layers(const struct safetensors *st)
{
    int64_t layers = 0;
    for (int64_t i = 0; i < st_count(st); i++) {
        long long l = strncmp(st_at(st, i)->name, "layers.", 7) ? -1 : strtoll(st_at(st, i)->name + 7, NULL, 10);
        layers = l + 1 > layers ? l + 1 : layers;
    }
    return layers;
}

int show_gates(struct buf *out, const char *path)
{
    static const struct {
        const char *tensor, *about;
    } part[] = {
        {"layers.0.wq", "queries, before rotation, of a unit's heads"},
        {"layers.0.wk", "mean, maximum and minimum of a block's keys"},
        {"layers.0.wc", "global context: causal mean of the layer's input"},
        {"layers.0.dist", "bias by distance"},
        {"layers.0.wr", "learned budget"},
        {"layers.0.beta", "weight of summaries of what is not kept"},
    };
    struct safetensors *st = NULL;
    int rc = st_open(&st, path);
    if (rc)
        return rc;
    const struct st_tensor *wq = st_find(st, "layers.0.wq");
    rc = buf_printf(out, "%s: trained gates of method ast (%s)\n  unit         a set of keys for each %s\n", path,
                    meta(st, "format"),
                    st_metadata(st, "unit") && !strcmp(st_metadata(st, "unit"), "head") ? "query head" : "key/value head");
    if (!rc)
        rc = buf_printf(out, "  trained at   blocks of %s tokens\n  base model   fingerprint %.16s%s\n", meta(st, "block"),
                        meta(st, "base"), st_metadata(st, "base") ? "..." : "");
    if (!rc)
        rc = buf_printf(out, "  size         %lld layers, %.3f million parameters, gate vectors of %lld\n",
                        (long long)count_layers(st), elements(st) / 1e6, (long long)(wq && wq->rank == 3 ? wq->dim[2] : 0));
    for (size_t i = 0; !rc && i < sizeof part / sizeof part[0]; i++)
        rc =
            buf_printf(out, "  %-11s  %s%s\n", part[i].tensor + 9, st_find(st, part[i].tensor) ? "" : "not there: ", part[i].about);
    if (!rc)
        rc = buf_printf(out, "  use it       methods = ( { method = \"ast\"; gate = \"%s\"; } );\n", path);
    st_close(st);
    return rc;
}
