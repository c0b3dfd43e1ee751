/* Which weights are the same. */
#include "model/share.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "io/safetensors.h"
#include "io/sha.h"

/* The layout of a packed matrix is the program's own: another build may have another one. */
static int add_program(struct buf *out, const struct kern_table *k)
{
    struct stat st = {0};
    if (stat("/proc/self/exe", &st))
        return buf_printf(out, "program unknown, %s\n", k->isa);
    return buf_printf(out, "program %llx %llx %lld %lld.%09ld %lld.%09ld, %s\n", (unsigned long long)st.st_dev,
                      (unsigned long long)st.st_ino, (long long)st.st_size, (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec,
                      (long long)st.st_ctim.tv_sec, st.st_ctim.tv_nsec, k->isa);
}

/* All of config.json that says where a number of the files goes. */
static int add_shape(struct buf *out, const struct model *m)
{
    const struct model_shape *s = &m->shape;
    const int64_t n[] = {s->hidden, s->layers, s->heads, s->kv_heads, s->dim, s->mlp, s->vocab, s->context};
    int rc = buf_printf(out, "%s %d %d %d %d %d %d %d %d", m->arch->name, s->pos, s->gated, s->qk_norm, s->qkv_bias, s->o_bias,
                        s->mlp_bias, s->norm_bias, s->tied);
    for (size_t i = 0; i < sizeof n / sizeof *n && !rc; i++)
        rc = buf_printf(out, " %lld", (long long)n[i]);
    return rc ? rc : buf_puts(out, "\n");
}

static int add_cut(struct buf *out, const struct model *m)
{
    const struct model_range r[] = {m->cut.heads, m->cut.kv, m->cut.mlp, m->cut.vocab};
    int rc = buf_puts(out, "cut");
    for (size_t i = 0; i < sizeof r / sizeof *r && !rc; i++)
        rc = buf_printf(out, " %lld+%lld", (long long)r[i].first, (long long)r[i].n);
    return rc ? rc : buf_puts(out, "\n");
}

int model_share_key(const struct model *m, const struct safetensors *st, const struct model_open *how, char out[SHARED_KEY + 1])
{
    struct buf text = {0};
    struct sha *sha = NULL;
    int rc = add_program(&text, m->kern);
    rc = rc ? rc : add_shape(&text, m);
    rc = rc ? rc : add_cut(&text, m);
    rc =
        rc ? rc
           : buf_printf(&text, "type %d, checked %d, nodes %llx\n", how->dtype, how->check_finite, (unsigned long long)mem_nodes());
    rc = rc ? rc : sha_open(&sha);
    if (!rc) {
        sha_add(sha, buf_text(&text), text.len);
        st_identify(st, sha);
        sha_close(sha, out);
    }
    buf_free(&text);
    return rc;
}

int model_share(struct model *m, const struct safetensors *st, const struct model_open *how, size_t bytes)
{
    char key[SHA_HEX];
    int rc = model_share_key(m, st, how, key);
    if (rc)
        return rc;
    /* Long enough for a slow disk; who waited in vain loads for itself. */
    shared_open(&m->shared, key, bytes, 60 + (double)bytes / 50e6);
    if (m->shared.state == SHARED_NONE)
        log_debug("%s: its weights are not shared: %s", m->path, m->shared.why);
    else
        log_debug("%s: its weights are shared, %s", m->path, m->shared.state == SHARED_MINE ? "loaded here" : "found loaded");
    return ERR_OK;
}
