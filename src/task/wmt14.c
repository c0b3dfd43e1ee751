/* Task wmt14: translation of aligned files, scored with BLEU and chrF. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "cfg/cfg.h"
#include "io/file.h"
#include "model/model.h"
#include "task/bleu.h"
#include "task/chrf.h"
#include "task/generate.h"
#include "task/prompt.h"
#include "task/shots.h"
#include "task/wmt14.h"
#include "task/ws.h"

struct wmt14_opts {
    struct decode_opts decode; /* first: see DECODE_FIELDS */
    const char *source, *reference, *template, *shots_source, *shots_reference, *shots_end;
    int64_t max_new, limit, shots;
    bool bos, compare;
};

static const struct cfg_field fields[] = {
    CFG_STR_REQ(struct wmt14_opts, source, "sentences to translate, one a line (plain, .gz, .sgm)"),
    CFG_STR_REQ(struct wmt14_opts, reference, "their translations, line by line"),
    CFG_STR(struct wmt14_opts, template, "Translate the following English sentence to German: '{source}'\n",
            "the prompt; {source} is the sentence"),
    CFG_INT(struct wmt14_opts, max_new, 128, 1, 1e6, "tokens of a translation at most; it ends at a newline or EOS"),
    CFG_BOOL(struct wmt14_opts, bos, true, "put the model's BOS token in front of the prompt"),
    CFG_INT(struct wmt14_opts, limit, 0, 0, 1e12, "only the first sentences; 0: all"),
    CFG_INT(struct wmt14_opts, shots, 0, 0, 1000, "worked examples in front of each prompt, drawn once with the job's seed"),
    CFG_STR(struct wmt14_opts, shots_source, "", "sentences that examples are drawn from: another set, a dev set"),
    CFG_STR(struct wmt14_opts, shots_reference, "", "their translations"),
    CFG_STR(struct wmt14_opts, shots_end, "\n\n", "what stands after the translation of an example"),
    CFG_BOOL(struct wmt14_opts, compare, false,
             "the reference goes through dense attention and the method: KL, agreement of the most probable token"),
    DECODE_FIELDS,
    CFG_END,
};

static const char *const count_name[] = {
    "correct1",    "correct2",    "correct3",      "correct4",    "total1",      "total2",      "total3",     "total4",
    "hyp_len",     "ref_len",     "prompt_tokens", "new_tokens",  "chrf_hyp1",   "chrf_hyp2",   "chrf_hyp3",  "chrf_hyp4",
    "chrf_hyp5",   "chrf_hyp6",   "chrf_ref1",     "chrf_ref2",   "chrf_ref3",   "chrf_ref4",   "chrf_ref5",  "chrf_ref6",
    "chrf_match1", "chrf_match2", "chrf_match3",   "chrf_match4", "chrf_match5", "chrf_match6", AGREE_COUNTS, NULL};
static const char *const sum_name[] = {AGREE_SUMS, NULL};
const struct agree_at wmt14_agree = {.tokens = N_COMPARED, .same = N_SAME, .kl = 0, .nll = 1};

static void close_set(struct task_set *s)
{
    if (!s)
        return;
    lines_free(&s->source);
    lines_free(&s->reference);
    tok_ids_free(&s->ids);
    for (int64_t i = 0; s->answer && i < s->n; i++)
        tok_ids_free(&s->answer[i]);
    free(s->answer);
    free(s->at);
    free(s);
}

static int add_sentence(struct buf *b, const struct wmt14_opts *o, struct span sentence)
{
    struct prompt_slot slot = {"source", sentence};
    ws_strip(&slot.value.s, &slot.value.n);
    return prompt_fill(b, (struct span){o->template, strlen(o->template)}, &slot, 1);
}

/* Two files that are translations line by line. */
static int read_pair(struct lines *source, struct lines *reference, const char *source_path, const char *reference_path)
{
    int rc = lines_read(source, source_path);
    if (rc == ERR_OK)
        rc = lines_read(reference, reference_path);
    if (rc)
        return rc;
    if (source->line.n != reference->line.n)
        return err_set(ERR_FORMAT, "%s has %lld sentences, %s has %lld: they must be translations line by line", source_path,
                       (long long)source->line.n, reference_path, (long long)reference->line.n);
    return source->line.n == 0 ? err_set(ERR_FORMAT, "%s is empty", source_path) : ERR_OK;
}

/* The worked examples as text; they must not come from the sentences that are scored. */
static int make_shots(struct task_set *s, const struct wmt14_opts *o, const struct task_env *env, struct buf *out)
{
    struct lines source = {0}, reference = {0};
    int64_t *pick = malloc((size_t)o->shots * sizeof *pick + 1);
    int rc = pick ? ERR_OK : err_set(ERR_NOMEM, "out of memory for examples");
    if (rc == ERR_OK && (!o->shots_source[0] || !o->shots_reference[0]))
        rc = err_set(ERR_ARG, "shots = %lld needs shots_source and shots_reference", (long long)o->shots);
    if (rc == ERR_OK)
        rc = read_pair(&source, &reference, o->shots_source, o->shots_reference);
    if (rc == ERR_OK && !strcmp(source.sha256, s->source.sha256))
        rc = err_set(ERR_ARG, "shots_source is the set that is scored: take examples from another, such as newstest2013");
    if (rc == ERR_OK)
        rc = shots_pick(pick, o->shots, source.line.n, env->seed, o->shots_source);
    for (int64_t k = 0; k < o->shots && rc == ERR_OK; k++) {
        struct span target = reference.line.v[pick[k]];
        ws_strip(&target.s, &target.n);
        rc = add_sentence(out, o, source.line.v[pick[k]]);
        rc = rc ? rc : buf_add(out, target.s, target.n);
        rc = rc ? rc : buf_puts(out, o->shots_end);
    }
    snprintf(s->shots_sha[0], sizeof s->shots_sha[0], "%.8s", source.sha256);
    snprintf(s->shots_sha[1], sizeof s->shots_sha[1], "%.8s", reference.sha256);
    lines_free(&source);
    lines_free(&reference);
    free(pick);
    return rc;
}

static int make_prompts(struct task_set *s, const struct wmt14_opts *o, const struct task_env *env)
{
    struct buf b = {0}, shots = {0};
    int rc = o->shots > 0 ? make_shots(s, o, env, &shots) : ERR_OK;
    s->at = calloc((size_t)s->n + 1, sizeof *s->at);
    if (!s->at)
        return err_set(ERR_NOMEM, "out of memory for %lld prompts", (long long)s->n);
    for (int64_t i = 0; i < s->n && rc == ERR_OK; i++) {
        buf_clear(&b);
        rc = buf_add(&b, buf_text(&shots), shots.len);
        rc = rc ? rc : add_sentence(&b, o, s->source.line.v[i]);
        if (rc == ERR_OK)
            rc = prompt_begin(&s->ids, env, o->bos);
        if (rc == ERR_OK)
            rc = tok_encode(env->tok, buf_text(&b), b.len, false, &s->ids);
        s->at[i + 1] = s->ids.n;
        if (rc == ERR_OK && s->at[i + 1] == s->at[i])
            rc = err_set(ERR_ARG, "the prompt of sentence %lld is empty: see template", (long long)i + 1);
    }
    buf_free(&b);
    buf_free(&shots);
    return rc;
}

static int encode_answers(struct task_set *s, const struct task_env *env)
{
    int rc = ERR_OK;
    s->answer = calloc((size_t)s->n, sizeof *s->answer);
    if (!s->answer)
        return err_set(ERR_NOMEM, "out of memory for %lld references", (long long)s->n);
    for (int64_t i = 0; i < s->n && rc == ERR_OK; i++) {
        struct span ref = s->reference.line.v[i];
        ws_strip(&ref.s, &ref.n);
        rc = tok_encode(env->tok, ref.s, ref.n, false, &s->answer[i]);
        s->longest_answer = s->answer[i].n > s->longest_answer ? s->answer[i].n : s->longest_answer;
    }
    return rc;
}

static int read_files(struct task_set *s, const struct wmt14_opts *o)
{
    int rc = read_pair(&s->source, &s->reference, o->source, o->reference);
    if (rc)
        return rc;
    s->n = o->limit > 0 && o->limit < s->source.line.n ? o->limit : s->source.line.n;
    return ERR_OK;
}

static int open_set(struct task_set **out, const void *opts, const struct task_env *env)
{
    const struct wmt14_opts *o = opts;
    struct task_set *s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s)
        return err_set(ERR_NOMEM, "out of memory for a dataset");
    s->decode = o->decode;
    s->compare = o->compare;
    s->shots = o->shots;
    s->max_new = o->max_new;
    s->context = env->length;
    snprintf(s->name, sizeof s->name, "%s", file_base(o->reference));
    int rc = decode_check(&o->decode);
    if (rc == ERR_OK)
        rc = read_files(s, o);
    if (rc == ERR_OK)
        rc = make_prompts(s, o, env);
    if (rc == ERR_OK && s->compare)
        rc = encode_answers(s, env);
    if (rc) {
        close_set(s);
        return err_prefix(rc, "wmt14");
    }
    *out = s;
    return ERR_OK;
}

static int64_t count(const struct task_set *s)
{
    return s->n;
}

/* New tokens that fit behind the prompt. */
static int64_t room(const struct task_set *s, int64_t i)
{
    int64_t left = s->context - (s->at[i + 1] - s->at[i]);
    return left < 0 ? 0 : left < s->max_new ? left : s->max_new;
}

static void sample(const struct task_set *s, int64_t i, struct task_sample *out)
{
    *out = (struct task_sample){.id = i, .group = i, .tokens = s->at[i + 1] - s->at[i], .generate = room(s, i)};
}

static int signature(const struct task_set *s, struct buf *out)
{
    int rc = buf_printf(out, "BLEU|data:%s|segments:%lld|sha:%.8s/%.8s|decode:", s->name, (long long)s->n, s->source.sha256,
                        s->reference.sha256);
    rc = rc ? rc : decode_signature(&s->decode, out);
    if (rc == ERR_OK && s->shots > 0)
        rc = buf_printf(out, "|shots:%lld|shots_sha:%s/%s", (long long)s->shots, s->shots_sha[0], s->shots_sha[1]);
    if (rc == ERR_OK && s->compare)
        rc = buf_puts(out, "|compare:dense");
    rc = rc ? rc : buf_printf(out, "|max_new:%lld|stop:newline|post:strip|", (long long)s->max_new);
    return rc ? rc : bleu_signature(out, 1, &(struct bleu_opts){0});
}

static int tally(const struct task_set *s, int64_t i, struct span hyp, struct task_acc *acc)
{
    struct bleu_stat b = {{0}, {0}, 0, 0};
    struct chrf_stat c = {{0}, {0}, {0}};
    struct span ref = s->reference.line.v[i];
    int rc = bleu_add(&b, hyp, &ref, 1, &(struct bleu_opts){0});
    if (rc == ERR_OK)
        rc = chrf_add(&c, hyp, &ref, 1, &(struct chrf_opts){0});
    for (int k = 0; k < 4; k++) {
        acc->n[N_CORRECT + k] = b.correct[k];
        acc->n[N_TOTAL + k] = b.total[k];
    }
    acc->n[N_HYP] = b.sys_len;
    acc->n[N_REF] = b.ref_len;
    for (int k = 0; k < CHRF_N; k++) {
        acc->n[N_CHRF + k] = c.hyp[k];
        acc->n[N_CHRF + CHRF_N + k] = c.ref[k];
        acc->n[N_CHRF + 2 * CHRF_N + k] = c.match[k];
    }
    return rc;
}

/* The references, as far as the context takes them, through dense attention and the method. */
static int agree(const struct task_call *c)
{
    const struct task_set *s = c->set;
    size_t mark = arena_mark(c->step);
    struct agree_text *text = ARENA_NEW0(c->step, c->n, struct agree_text);
    for (int64_t k = 0; text && k < c->n; k++) {
        int64_t i = c->sample[k], n = s->at[i + 1] - s->at[i], left = s->context - n;
        const struct tok_ids *a = &s->answer[i];
        text[k] = (struct agree_text){s->ids.v + s->at[i], a->v, n, a->n < left ? a->n : left};
    }
    int rc = text ? agree_run(c, text, &wmt14_agree) : ERR_NOMEM;
    arena_release(c->step, mark);
    return rc;
}

static int run(struct task_call *c)
{
    static const char *const stop[] = {"\n"};
    const struct task_set *s = c->set;
    size_t mark = arena_mark(c->step);
    struct generate_seq *q = ARENA_NEW0(c->step, c->n, struct generate_seq);
    struct buf *text = ARENA_NEW0(c->step, c->n, struct buf);
    int rc = q && text ? ERR_OK : ERR_NOMEM;
    for (int64_t k = 0; k < c->n && rc == ERR_OK; k++) {
        int64_t i = c->sample[k];
        q[k] = (struct generate_seq){
            .prompt = s->ids.v + s->at[i], .n = s->at[i + 1] - s->at[i], .max_new = room(s, i), .id = i, .text = &text[k]};
        if (q[k].max_new == 0)
            rc = err_set(ERR_ARG, "wmt14: the prompt of sentence %lld has %lld tokens and leaves no room in a context of %lld",
                         (long long)i + 1, (long long)q[k].n, (long long)s->context);
    }
    struct generate_call g = {.model = c->model,
                              .tok = c->tok,
                              .seq = q,
                              .n_seq = c->n,
                              .how = &c->set->decode,
                              .seed = c->env->seed,
                              .stop = stop,
                              .n_stop = 1,
                              .eos = c->env->eos,
                              .n_eos = c->env->n_eos,
                              .timer = c->timer,
                              .stats = c->stats,
                              .step = c->step};
    if (rc == ERR_OK)
        rc = generate_run(&g);
    for (int64_t k = 0; k < c->n && rc == ERR_OK; k++) {
        struct span hyp = {buf_text(&text[k]), text[k].len};
        ws_strip(&hyp.s, &hyp.n);
        rc = tally(s, c->sample[k], hyp, &c->acc[k]);
        c->acc[k].n[N_PROMPT] = q[k].n;
        c->acc[k].n[N_NEW] = q[k].made;
        if (rc == ERR_OK && c->text)
            rc = buf_add(&c->text[k], hyp.s, hyp.n);
    }
    if (rc == ERR_OK && s->compare)
        rc = agree(c);
    for (int64_t k = 0; text && k < c->n; k++)
        buf_free(&text[k]);
    arena_release(c->step, mark);
    return rc;
}

static size_t run_bytes(const struct task_set *s, const struct model *m, int64_t n, int64_t tokens, int64_t longest)
{
    size_t decode = generate_bytes(m, &s->decode, n, tokens, longest + s->max_new), both = 0;
    if (s->compare)
        both = arena_bytes(n, sizeof(struct agree_text)) +
               agree_bytes(m, n, tokens + n * s->longest_answer, longest + s->longest_answer);
    return arena_bytes(n, sizeof(struct generate_seq)) + arena_bytes(n, sizeof(struct buf)) + (decode > both ? decode : both);
}

const struct task task_wmt14 = {
    .name = "wmt14",
    .summary = "translation of aligned files by greedy decoding: BLEU (13a) and chrF2 as sacreBLEU 2.6 computes them",
    .cite = "Bojar et al. 2014 (WMT14); Papineni et al. 2002; Post 2018; Popovic 2015",
    .fields = fields,
    .opts_size = sizeof(struct wmt14_opts),
    .count_name = count_name,
    .sum_name = sum_name,
    .open = open_set,
    .close = close_set,
    .count = count,
    .sample = sample,
    .signature = signature,
    .run = run,
    .run_bytes = run_bytes,
    .score = wmt14_score,
    .compare = wmt14_compare,
};
