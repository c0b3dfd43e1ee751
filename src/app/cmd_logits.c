/* asterism logits: the logits of a model for given token ids, for anyone who compares engines. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/app.h"
#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"
#include "cfg/cfg.h"
#include "comm/comm.h"
#include "io/safetensors.h"
#include "kernels/kern.h"
#include "model/model.h"

static int run(int argc, char **argv);

const struct app_command app_logits = {
    .name = "logits",
    .brief = "the logits of a model for given token ids, as safetensors",
    .usage = "usage: asterism logits -m DIR --ids FILE -o OUT.safetensors [options]\n"
             "       mpirun -np T asterism logits ...      tensor parallel over T ranks\n\n"
             "  -m DIR         Hugging Face model folder\n"
             "  --ids FILE     token ids separated by white space\n"
             "  -o OUT         the result: tensor logits, F32 [n, vocabulary]\n"
             "  --method M     attention method with its default options (default: dense)\n"
             "  --dtype T      weights in memory: f32 (default) or bf16\n"
             "  --rope T       rotary frequencies: dtype (default): rounded to the checkpoint's type, as a PyTorch module has\n"
             "                 them that was cast as a whole; or f32: as from_pretrained leaves them, and as `run` takes them\n"
             "  --kv T         keys and values: f32 (default) or bf16\n"
             "  --isa I        instruction set: ref, avx2, avx512, avx512bf16, amx (default: $AST_ISA, else the best)\n",
    .run = run,
};

struct options {
    const char *model, *ids, *out, *method, *isa;
    enum kern_dtype dtype, kv;
    bool rope_in_dtype;
};

static int read_dtype(const char *option, const char *word, enum kern_dtype *out)
{
    if (strcmp(word, "f32") && strcmp(word, "bf16"))
        return app_usage(&app_logits, "%s is f32 or bf16, not '%s'", option, word);
    *out = !strcmp(word, "f32") ? KERN_F32 : KERN_BF16;
    return APP_OK;
}

static int read_options(struct options *o, int argc, char **argv)
{
    *o = (struct options){.method = "dense", .rope_in_dtype = true};
    for (int i = 1; i < argc; i += 2) {
        const char *a = argv[i], *v = i + 1 < argc ? argv[i + 1] : NULL;
        if (!v)
            return app_usage(&app_logits, "option '%s' needs a value", a);
        int bad = APP_OK;
        if (!strcmp(a, "-m") || !strcmp(a, "--model"))
            o->model = v;
        else if (!strcmp(a, "--ids"))
            o->ids = v;
        else if (!strcmp(a, "-o") || !strcmp(a, "--output"))
            o->out = v;
        else if (!strcmp(a, "--method"))
            o->method = v;
        else if (!strcmp(a, "--rope") && (!strcmp(v, "f32") || !strcmp(v, "dtype")))
            o->rope_in_dtype = !strcmp(v, "dtype");
        else if (!strcmp(a, "--rope"))
            return app_usage(&app_logits, "--rope is f32 or dtype, not '%s'", v);
        else if (!strcmp(a, "--isa"))
            o->isa = v;
        else if (!strcmp(a, "--dtype"))
            bad = read_dtype(a, v, &o->dtype);
        else if (!strcmp(a, "--kv"))
            bad = read_dtype(a, v, &o->kv);
        else
            return app_usage(&app_logits, "unknown option '%s'", a);
        if (bad)
            return bad;
    }
    if (!o->model || !o->ids || !o->out)
        return app_usage(&app_logits, "-m, --ids and -o are needed");
    return APP_OK;
}

/* White-space separated integers; *ids is the caller's to free. */
static int read_ids(const char *path, int32_t **ids, int64_t *n)
{
    struct buf text = {0};
    int64_t cap = 0;
    *ids = NULL;
    *n = 0;
    int rc = buf_read_file(&text, path, (size_t)1 << 30);
    for (const char *s = buf_text(&text); !rc; ++*n) {
        s += strspn(s, " \t\r\n\f\v");
        if (!*s)
            break;
        char *end;
        errno = 0;
        long long v = strtoll(s, &end, 10);
        if (end == s || errno || v < 0 || v > INT32_MAX || (*end && !strchr(" \t\r\n\f\v", *end)))
            rc = err_set(ERR_FORMAT, "%s: item %lld, \"%.20s\", is not a token id", path, (long long)*n + 1, s);
        if (!rc && *n == cap) {
            cap = cap ? 2 * cap : 1024;
            int32_t *more = realloc(*ids, (size_t)cap * sizeof *more);
            if (!more)
                rc = err_set(ERR_NOMEM, "no memory for %lld token ids", (long long)cap);
            else
                *ids = more;
        }
        if (rc)
            break;
        (*ids)[*n] = (int32_t)v;
        s = end;
    }
    if (!rc && *n == 0)
        rc = err_set(ERR_FORMAT, "%s: no token ids", path);
    buf_free(&text);
    return rc;
}

static int write_logits(const char *path, const float *logits, int64_t n, int64_t vocab, const char *const *meta, int n_meta)
{
    struct st_decl d = {.name = "logits", .dtype = ST_F32, .rank = 2, .dim = {n, vocab}};
    struct st_writer *w = NULL;
    int rc = st_create(&w, path, &d, 1, meta, n_meta);
    if (rc)
        return rc;
    rc = st_append(w, logits, (size_t)(n * vocab) * sizeof(float));
    if (rc) {
        st_abort(w);
        return rc;
    }
    return st_commit(w);
}

static int choose_method(struct model *m, const char *name, struct arena *a)
{
    const struct attn_method *method = attn_find(name);
    if (!method)
        return attn_unknown(name);
    void *opts = method->opts_size ? arena_alloc0(a, 1, method->opts_size) : NULL;
    if (method->opts_size && !opts)
        return ERR_NOMEM;
    int rc = method->fields ? cfg_defaults(method->fields, opts) : ERR_OK;
    return rc ? rc : model_set_attention(m, method, opts, NULL);
}

/* Collective over world; rank 0 writes. */
static int compute(const struct options *o, struct model *m, const int32_t *ids, int64_t n, const struct comm_group *world)
{
    int64_t vocab = model_info(m)->vocab, at[2] = {0, n};
    struct arena step = {0}, run_arena = {0};
    struct model_out out = {.n_logit_rows = n};
    int rc = arena_open(&run_arena, "options", 1 << 20);
    if (!rc)
        rc = choose_method(m, o->method, &run_arena);
    if (!rc)
        rc = arena_open(&step, "step", model_score_bytes(m, n, n, 1) + arena_bytes(n, 8) + arena_bytes(n * vocab, sizeof(float)));
    int64_t *row = rc ? NULL : ARENA_NEW(&step, n, int64_t);
    out.logits = row ? ARENA_NEW(&step, n * vocab, float) : NULL;
    if (!rc && !out.logits)
        rc = ERR_NOMEM;
    for (int64_t i = 0; !rc && i < n; i++)
        row[i] = i;
    out.logit_row = row;
    rc = comm_agree(world, rc);
    if (!rc)
        rc = model_score(m, &(struct model_batch){.n_seq = 1, .at = at, .token = ids}, &out, &step);
    const char *meta[] = {"model", model_info(m)->sha256, "method", o->method, "dtype", o->dtype == KERN_F32 ? "f32" : "bf16"};
    if (!rc && world->rank == 0)
        rc = write_logits(o->out, out.logits, n, vocab, meta, 3);
    rc = comm_agree(world, rc);
    arena_close(&step);
    arena_close(&run_arena);
    return rc;
}

static int run(int argc, char **argv)
{
    struct options o;
    struct comm_group *world = NULL;
    struct kern_table kern;
    struct model *m = NULL;
    int32_t *ids = NULL;
    int64_t n = 0;
    int bad = read_options(&o, argc, argv);
    if (bad)
        return bad;
    int rc = comm_start(&argc, &argv, &world);
    if (rc)
        return app_fail(rc);
    int isa = kern_select(&kern, o.isa);
    if (isa)
        rc = err_set(ERR_ARG, "instruction set '%s' %s", o.isa ? o.isa : "of AST_ISA",
                     isa == -1 ? "is not known" : "cannot run on this CPU");
    if (!rc)
        rc = read_ids(o.ids, &ids, &n);
    rc = comm_agree(world, rc);
    if (!rc)
        rc = model_open(&m, &(struct model_open){.path = o.model,
                                                 .dtype = o.dtype,
                                                 .kv_dtype = o.kv,
                                                 .group = world,
                                                 .kern = &kern,
                                                 .rope_in_dtype = o.rope_in_dtype,
                                                 .check_finite = true});
    if (!rc)
        rc = compute(&o, m, ids, n, world);
    model_close(m);
    free(ids);
    int code = app_fail(rc);
    comm_stop();
    return code;
}
