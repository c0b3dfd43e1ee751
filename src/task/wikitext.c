/* Task wikitext: perplexity of a text, by the protocols that people publish. */
#include "task/wikitext.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "io/file.h"
#include "model/model.h"

enum bos_policy { BOS_AUTO, BOS_NONE, BOS_SINGLE, BOS_COMPAT };

struct wikitext_opts {
    struct cfg_strs data;
    int protocol, bos, detokenise;
    int64_t stride, context, limit;
    bool compare;
};

static const struct cfg_field fields[] = {
    CFG_STRS(struct wikitext_opts, data, "", "text files: wiki.test.raw, the tokenised form, any UTF-8 text, .gz too"),
    CFG_ENUM(struct wikitext_opts, protocol, PPL_DISJOINT, "disjoint|strided|lm-eval|hf-strided|gptq|megatron|llamacpp",
             "how the text is cut into windows and which tokens count"),
    CFG_INT(struct wikitext_opts, stride, 0, 0, 1e9,
            "tokens a window moves (strided, hf-strided, megatron); 0: half a window, megatron: a window"),
    CFG_INT(struct wikitext_opts, context, 1, 1, 1e9, "lm-eval's context_len: tokens of the window before that are seen again"),
    CFG_ENUM(struct wikitext_opts, bos, BOS_AUTO, "auto|none|single|lm-eval-compat",
             "BOS in front of a window (lm-eval: of a document); lm-eval-compat: and the tokenizer's own after it; auto: lm-eval "
             "single, "
             "llamacpp and gptq as the tokenizer wants, others none"),
    CFG_ENUM(struct wikitext_opts, detokenise, 0, "auto|yes|no", "WikiText's detokeniser; auto: lm-eval and megatron yes"),
    CFG_INT(struct wikitext_opts, limit, 0, 0, 1e12, "only the first documents (lm-eval) or windows; 0: all"),
    CFG_BOOL(struct wikitext_opts, compare, false,
             "each window goes through dense attention as well: KL and agreement of the most probable token"),
    CFG_END,
};

static const char *const protocol_names[PPL_PROTOCOLS] = {"disjoint", "strided",  "lm-eval-2.0", "hf-strided",
                                                          "gptq",     "megatron", "llamacpp"};
static const char *const bos_names[] = {"auto", "none", "single", "lm-eval-compat"};
static const char *const count_name[] = {"tokens", "top1", "words", "bytes", "documents", "hf_tokens", "same_top1", NULL};
static const char *const sum_name[] = {"nll", "nll_squared", "hf_nll", "kl", NULL};

static void close_set(struct task_set *set)
{
    if (!set)
        return;
    corpus_close(set->corpus);
    windows_free(&set->windows);
    free(set);
}

static enum bos_policy resolve_bos(const struct wikitext_opts *o, const struct tok *tok)
{
    if (o->bos != BOS_AUTO)
        return (enum bos_policy)o->bos;
    if (o->protocol == PPL_LM_EVAL)
        return BOS_SINGLE;
    bool wants = (o->protocol == PPL_LLAMACPP || o->protocol == PPL_GPTQ) && tok_bos(tok) >= 0;
    return wants ? BOS_SINGLE : BOS_NONE;
}

/* The token in front: BOS, else (as lm-evaluation-harness has it) EOS. */
static int find_bos(struct task_set *s, enum bos_policy bos, const struct task_env *env)
{
    s->bos = bos_names[bos];
    s->bos_id = (int32_t)(env->bos >= 0 ? env->bos : env->n_eos > 0 ? env->eos[0] : -1);
    if (bos == BOS_NONE || s->bos_id >= 0)
        return ERR_OK;
    return err_set(ERR_ARG, "the model names neither a BOS nor an EOS token to put in front: set bos = \"none\"");
}

static int cut(struct task_set *s, const struct wikitext_opts *o, enum bos_policy bos)
{
    const struct corpus *c = s->corpus;
    int rc = ERR_OK;
    int64_t docs = s->protocol == PPL_LM_EVAL && o->limit > 0 && o->limit < c->docs ? o->limit : c->docs;
    struct window_rule r = {.length = s->length, .stride = s->stride, .context = o->context, .bos = bos != BOS_NONE};
    for (int64_t d = 0; d < docs && rc == ERR_OK; d++) {
        int64_t at = c->at[d], n = c->at[d + 1] - at;
        r.doc = (int32_t)d;
        switch (s->protocol) {
        case PPL_DISJOINT: rc = windows_disjoint(&s->windows, at, n, &r, false); break;
        case PPL_STRIDED:
        case PPL_HF_STRIDED: rc = windows_strided(&s->windows, at, n, &r); break;
        case PPL_LM_EVAL: rc = windows_rolling(&s->windows, at, n, &r); break;
        case PPL_GPTQ:
            r.bos = false; /* the one in front of the text is in the stream */
            rc = windows_disjoint(&s->windows, at, n, &r, true);
            break;
        case PPL_MEGATRON: rc = windows_overlap(&s->windows, at, n, &r); break;
        case PPL_LLAMACPP: rc = windows_second_half(&s->windows, at, n, &r); break;
        case PPL_PROTOCOLS: break;
        }
    }
    if (rc == ERR_OK && s->protocol != PPL_LM_EVAL && o->limit > 0 && o->limit < s->windows.n)
        s->windows.n = o->limit;
    for (int64_t i = 0; i < s->windows.n && s->protocol != PPL_LM_EVAL; i++)
        s->windows.v[i].doc = (int32_t)i; /* the window is the unit of the bootstrap */
    if (rc == ERR_OK && s->windows.n == 0)
        rc = err_set(ERR_FORMAT, "%s: its %lld tokens do not make one window of %lld", s->data, (long long)c->ids.n,
                     (long long)s->length);
    return rc;
}

static int64_t resolve_stride(const struct wikitext_opts *o, int64_t length)
{
    if (o->protocol != PPL_STRIDED && o->protocol != PPL_HF_STRIDED && o->protocol != PPL_MEGATRON)
        return o->protocol == PPL_LM_EVAL ? length - o->context + 1 : length;
    return o->stride ? o->stride : o->protocol == PPL_MEGATRON || length < 2 ? length : length / 2;
}

static int check(const struct wikitext_opts *o, const struct task_env *env)
{
    bool streams = o->protocol == PPL_STRIDED || o->protocol == PPL_HF_STRIDED || o->protocol == PPL_MEGATRON;
    if (env->length < 2)
        return err_set(ERR_ARG, "wikitext: a length of %lld is too small, 2 is the least", (long long)env->length);
    if (streams && (o->bos == BOS_SINGLE || o->bos == BOS_COMPAT))
        return err_set(ERR_ARG, "wikitext: bos = \"%s\" has no meaning for protocol \"%s\", whose windows overlap: use \"none\"",
                       bos_names[o->bos], protocol_names[o->protocol]);
    return ERR_OK;
}

static void name_data(struct task_set *s, const struct cfg_strs *paths)
{
    size_t at = 0;
    for (int64_t i = 0; i < paths->n && at < sizeof s->data; i++)
        at += (size_t)snprintf(s->data + at, sizeof s->data - at, "%s%s", i ? "+" : "", file_base(paths->v[i]));
}

static int open_set(struct task_set **out, const void *opts, const struct task_env *env)
{
    const struct wikitext_opts *o = opts;
    enum bos_policy bos = resolve_bos(o, env->tok);
    bool rows = o->protocol == PPL_HF_STRIDED || o->protocol == PPL_GPTQ;
    *out = NULL;
    int rc = check(o, env);
    struct task_set *s = rc ? NULL : calloc(1, sizeof *s);
    if (!s)
        return rc ? rc : err_set(ERR_NOMEM, "out of memory for a dataset");
    s->protocol = (enum ppl_protocol)o->protocol;
    s->name = protocol_names[o->protocol];
    s->length = env->length;
    s->stride = resolve_stride(o, env->length);
    s->limit = o->limit;
    s->compare = o->compare;
    s->detok = o->detokenise ? o->detokenise == 1 : o->protocol == PPL_LM_EVAL || o->protocol == PPL_MEGATRON;
    snprintf(s->tok_sha, sizeof s->tok_sha, "%s", tok_sha256(env->tok));
    name_data(s, &o->data);
    struct corpus_form form = {.paths = o->data,
                               .cut = s->protocol == PPL_LM_EVAL ? CORPUS_PAGES
                                      : rows                     ? CORPUS_ROWS
                                                                 : CORPUS_STREAM,
                               .detok = s->detok,
                               .special = bos == BOS_COMPAT || (bos == BOS_SINGLE && s->protocol == PPL_GPTQ)};
    rc = find_bos(s, bos, env);
    if (rc == ERR_OK)
        rc = corpus_open(&s->corpus, &form, env->tok, env->vocab, env->cache);
    if (rc == ERR_OK)
        rc = cut(s, o, bos);
    if (rc) {
        close_set(s);
        return err_prefix(rc, "wikitext");
    }
    *out = s;
    return ERR_OK;
}

static int64_t count(const struct task_set *set)
{
    return set->windows.n;
}

static void sample(const struct task_set *set, int64_t i, struct task_sample *out)
{
    const struct window *w = &set->windows.v[i];
    *out = (struct task_sample){.id = i, .group = w->doc, .tokens = w->len, .scored = w->scored};
}

static int signature(const struct task_set *set, struct buf *out)
{
    const struct corpus *c = set->corpus;
    int rc = buf_printf(
        out,
        "PPL|proto:%s|data:%s|sha:%.8s|docs:%lld|words:%lld|bytes:%lld|tokens:%lld|ctx:%lld|stride:%lld|bos:%s|detok:%s|tok:%.8s",
        set->name, set->data, c->sha256, (long long)c->docs, (long long)c->total_words, (long long)c->total_bytes,
        (long long)c->ids.n, (long long)set->length, (long long)set->stride, set->bos, set->detok ? "yes" : "no", set->tok_sha);
    if (rc == ERR_OK && set->limit > 0)
        rc = buf_printf(out, "|limit:%lld", (long long)set->limit);
    if (rc == ERR_OK && set->compare)
        rc = buf_puts(out, "|compare:dense");
    return rc;
}

/* ---- running ---- */

struct batch {
    int64_t *at;
    int32_t *token, *target, *top1, *dense_top1;
    float *nll, *dense_nll, *kl; /* the last two and dense_top1: comparing */
};

static int64_t batch_tokens(const struct task_call *c)
{
    int64_t tokens = 0;
    for (int64_t i = 0; i < c->n; i++)
        tokens += c->set->windows.v[c->sample[i]].len;
    return tokens;
}

static size_t batch_bytes(int64_t n, int64_t tokens)
{
    return arena_bytes(n + 1, sizeof(int64_t)) + 7 * arena_bytes(tokens, sizeof(int32_t));
}

static int batch_open(struct batch *b, int64_t n, int64_t tokens, struct arena *step)
{
    b->at = ARENA_NEW(step, n + 1, int64_t);
    b->token = ARENA_NEW(step, tokens, int32_t);
    b->target = ARENA_NEW(step, tokens, int32_t);
    b->top1 = ARENA_NEW(step, tokens, int32_t);
    b->dense_top1 = ARENA_NEW(step, tokens, int32_t);
    b->nll = ARENA_NEW(step, tokens, float);
    b->dense_nll = ARENA_NEW(step, tokens, float);
    b->kl = ARENA_NEW(step, tokens, float);
    return b->at && b->token && b->target && b->top1 && b->dense_top1 && b->nll && b->dense_nll && b->kl ? ERR_OK : ERR_NOMEM;
}

static void fill(const struct task_set *set, const struct window *w, int32_t *token, int32_t *target)
{
    const int32_t *x = set->corpus->ids.v;
    for (int64_t i = 0; i < w->len; i++) {
        bool scored = i >= w->first && i < w->first + w->scored;
        token[i] = i == 0 && w->bos ? set->bos_id : x[w->at + i];
        target[i] = scored ? x[w->at + i + 1] : -1;
    }
}

/* Doubles, added in the order of the tokens. */
static void add_up(const struct task_set *set, int64_t i, const struct batch *b, int64_t at, struct task_acc *acc)
{
    const struct window *w = &set->windows.v[i];
    for (int64_t t = at + w->first; t < at + w->first + w->scored; t++) {
        double nll = (double)b->nll[t];
        acc->s[PPL_NLL] += nll;
        acc->s[PPL_NLL2] += nll * nll;
        acc->n[PPL_TOP1] += b->top1[t] == b->target[t];
        if (set->compare) {
            acc->n[PPL_SAME] += b->top1[t] == b->dense_top1[t];
            acc->s[PPL_KL] += (double)b->kl[t];
        }
    }
    acc->n[PPL_TOKENS] = w->scored;
    if (set->protocol == PPL_HF_STRIDED) {
        /* The recipe takes the mean over the losses and weighs it with the labels less one: one less than the losses where
         * the label before the first is not masked. */
        int64_t weight = set->stride < set->length && i > 0 ? w->scored - 1 : w->scored;
        acc->n[PPL_HF_TOKENS] = weight;
        acc->s[PPL_HF_NLL] = acc->s[PPL_NLL] / (double)w->scored * (double)weight;
    }
    bool first_of_doc = i == 0 || set->windows.v[i - 1].doc != w->doc;
    if (set->protocol == PPL_LM_EVAL && first_of_doc) {
        acc->n[PPL_DOCUMENTS] = 1;
        acc->n[PPL_WORDS] = set->corpus->words[w->doc];
        acc->n[PPL_BYTES] = set->corpus->bytes[w->doc];
    }
}

static int score_batch(const struct task_call *c, const struct batch *b)
{
    struct model_batch in = {.n_seq = c->n, .at = b->at, .token = b->token, .target = b->target};
    struct model_out out = {.nll = b->nll, .top1 = b->top1, .timer = c->timer, .stats = c->stats};
    struct model_agree both = {.nll = b->nll,
                               .dense_nll = b->dense_nll,
                               .top1 = b->top1,
                               .dense_top1 = b->dense_top1,
                               .kl = b->kl,
                               .timer = c->timer,
                               .stats = c->stats};
    return c->set->compare ? model_compare(c->model, &in, &both, c->step) : model_score(c->model, &in, &out, c->step);
}

static int run(struct task_call *c)
{
    struct batch b;
    size_t mark = arena_mark(c->step);
    int64_t tokens = batch_tokens(c);
    int rc = batch_open(&b, c->n, tokens, c->step);
    if (rc)
        goto out;
    b.at[0] = 0;
    for (int64_t i = 0; i < c->n; i++) {
        const struct window *w = &c->set->windows.v[c->sample[i]];
        fill(c->set, w, b.token + b.at[i], b.target + b.at[i]);
        b.at[i + 1] = b.at[i] + w->len;
    }
    rc = score_batch(c, &b);
    for (int64_t i = 0; i < c->n && rc == ERR_OK; i++)
        add_up(c->set, c->sample[i], &b, b.at[i], &c->acc[i]);
out:
    arena_release(c->step, mark);
    return rc;
}

static size_t run_bytes(const struct task_set *set, const struct model *m, int64_t n, int64_t tokens, int64_t longest)
{
    return batch_bytes(n, tokens) +
           (set->compare ? model_compare_bytes(m, tokens, longest, n) : model_score_bytes(m, tokens, longest, n));
}

const struct task task_wikitext = {
    .name = "wikitext",
    .summary = "perplexity of a text: token, word and byte denominators, by the protocol of your choice",
    .cite = "Merity et al. 2016 (WikiText); protocols: lm-evaluation-harness, transformers, GPTQ, Megatron-LM, llama.cpp",
    .fields = fields,
    .opts_size = sizeof(struct wikitext_opts),
    .count_name = count_name,
    .sum_name = sum_name,
    .open = open_set,
    .close = close_set,
    .count = count,
    .sample = sample,
    .signature = signature,
    .run = run,
    .run_bytes = run_bytes,
    .score = ppl_score,
    .compare = ppl_compare,
};
