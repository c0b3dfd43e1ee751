/* /models: the checkpoints, as they were read. */
#include "sched/merge_out.h"

#include <stdio.h>
#include <stdlib.h>

#include "comm/comm.h"
#include "io/h5.h"
#include "sched/job.h"
#include "sched/work.h"
#include "text/tok.h"

enum { TEXT = 96 };

static const struct {
    const char *name, *unit, *about;
} number[] = {
    {"parameters", "1", "weights, a tied head counted once"},
    {"layers", "1", "transformer layers"},
    {"hidden", "1", "width of the residual stream"},
    {"heads", "1", "query heads"},
    {"kv_heads", "1", "key/value heads"},
    {"head_dim", "1", "width of a head"},
    {"mlp", "1", "width of the MLP"},
    {"vocabulary", "token", "tokens of the vocabulary projection"},
    {"context", "token", "max_position_embeddings"},
    {"window", "token", "the architecture's own sliding window; 0: none"},
    {"bos", "1", "token that begins a text; -1: none"},
};
enum { NUMBERS = sizeof number / sizeof number[0] };

static int64_t number_of(const struct model_info *m, int k)
{
    const int64_t all[NUMBERS] = {m->parameters, m->layers, m->hidden,  m->heads,  m->kv_heads, m->dim,
                                  m->mlp,        m->vocab,  m->context, m->window, m->bos};
    return all[k];
}

static const struct {
    const char *name, *about;
} text[] = {
    {"name", "as the job calls it"},
    {"architecture", "config.json's model_type"},
    {"dtype", "of the weights in memory"},
    {"kv_dtype", "of keys and values in memory"},
    {"weights_sha256", "fingerprint of all weight files"},
    {"tokenizer_sha256", "fingerprint of the tokenizer's files"},
    {"bos_from", "the file that names the token that begins a text; empty: none does"},
    {"bos_tokenizer", "token that the tokenizer's own post-processor puts in front; empty: none"},
    {"eos", "tokens that end a text, commas between; empty: none"},
    {"eos_from", "the file that names them; empty: none does"},
};
enum { TEXTS = sizeof text / sizeof text[0] };

static void eos_of(const struct model_info *m, char out[TEXT])
{
    int at = 0;
    for (int64_t i = 0; i < m->n_eos && at < TEXT - 24; i++)
        at += snprintf(out + at, (size_t)(TEXT - at), "%s%lld", i ? "," : "", (long long)m->eos[i]);
}

static void text_of(const struct job_model *m, int k, char out[TEXT])
{
    static const char *const dtype[] = {[KERN_F32] = "f32", [KERN_BF16] = "bf16"};
    const char *const all[TEXTS] = {m->name,
                                    m->info.arch,
                                    dtype[m->dtype],
                                    dtype[m->kv_dtype],
                                    m->weights_sha256,
                                    tok_sha256(m->tok),
                                    m->info.bos_from,
                                    tok_bos(m->tok) >= 0 ? tok_token(m->tok, tok_bos(m->tok)) : "",
                                    NULL,
                                    m->info.eos_from};
    out[0] = '\0';
    if (all[k])
        snprintf(out, TEXT, "%s", all[k]);
    else
        eos_of(&m->info, out);
}

static void write_texts(struct merge_out *o, int n)
{
    char(*v)[TEXT] = merge_room((int64_t)n * TEXT / 8 + 1);
    const char **at = merge_room(n);
    for (int k = 0; k < TEXTS; k++) {
        char path[64];
        for (int i = 0; i < n; i++) {
            text_of(&o->w->job->model[i], k, v[i]);
            comm_bcast(o->g, v[i], TEXT, 0); /* rank 0 alone has read all weights */
            at[i] = v[i];
        }
        snprintf(path, sizeof path, "/models/%s", text[k].name);
        h5_strings(o->f, path, at, n, text[k].about);
        merge_attach(o, "/models", text[k].name, "/models/model");
    }
    free(v);
    free(at);
}

void merge_models(struct merge_out *o)
{
    int n = o->w->job->n_models;
    int64_t *v = merge_room(n);
    h5_group(o->f, "/models");
    for (int i = 0; i < n; i++)
        v[i] = i;
    merge_numbers(o, "/models/model", H5_I64, v, n, "1", "in the job's order");
    h5_scale(o->f, "/models/model", "model");
    write_texts(o, n);
    for (int k = 0; k < NUMBERS; k++) {
        char path[64];
        for (int i = 0; i < n; i++)
            v[i] = number_of(&o->w->job->model[i].info, k);
        snprintf(path, sizeof path, "/models/%s", number[k].name);
        merge_numbers(o, path, H5_I64, v, n, number[k].unit, number[k].about);
        merge_attach(o, "/models", number[k].name, "/models/model");
    }
    free(v);
}
