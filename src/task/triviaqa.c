/* Task triviaqa: questions about long documents, answered by greedy decoding. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "cfg/cfg.h"
#include "io/file.h"
#include "model/model.h"
#include "task/decode.h"
#include "task/generate.h"
#include "task/prompt.h"
#include "task/shots.h"
#include "task/qa.h"
#include "task/triviaqa.h"
#include "task/ws.h"

enum form { FORM_DOCUMENT, FORM_LONGBENCH, FORM_CLOSED, FORM_OWN };

struct triviaqa_opts {
    struct decode_opts decode; /* first: see DECODE_FIELDS */
    const char *data, *evidence, *template, *shots_data;
    int domain, truncate, prompt;
    int64_t max_new, limit, shots;
    bool bos, compare;
};

static const struct cfg_field fields[] = {
    CFG_STR_REQ(struct triviaqa_opts, data, "questions: TriviaQA's qa/*.json"),
    CFG_STR(struct triviaqa_opts, evidence, "",
            "folder with wikipedia/ and web/; empty: evidence beside the questions or their folder"),
    CFG_ENUM(struct triviaqa_opts, domain, QA_WIKIPEDIA, "wikipedia|web",
             "wikipedia: all pages of a question at once; web: each document by itself"),
    CFG_ENUM(struct triviaqa_opts, prompt, FORM_DOCUMENT, "document|longbench|closed-book", "prompt template"),
    CFG_STR(struct triviaqa_opts, template, "", "a template of your own; {document} and {question} stand for what they say"),
    CFG_ENUM(struct triviaqa_opts, truncate, CUT_MIDDLE, "middle|end|start",
             "what goes when the document is longer than the context"),
    CFG_INT(struct triviaqa_opts, max_new, 32, 1, 1e6, "tokens of an answer at most; it ends at a newline or EOS"),
    CFG_BOOL(struct triviaqa_opts, bos, true, "put the model's BOS token in front of the prompt"),
    CFG_INT(struct triviaqa_opts, limit, 0, 0, 1e12, "only the first questions; 0: all"),
    CFG_INT(struct triviaqa_opts, shots, 0, 0, 1000,
            "closed-book: worked examples in front of each question, drawn once with the job's seed"),
    CFG_STR(struct triviaqa_opts, shots_data, "", "questions that examples are drawn from: qa/*-train.json"),
    CFG_BOOL(struct triviaqa_opts, compare, false,
             "the right answer goes through dense attention and the method: KL, agreement of the most probable token"),
    DECODE_FIELDS,
    CFG_END,
};

static const char *const templates[] = {
    "{document}\n\nQuestion: {question}\nAnswer:",
    "Answer the question based on the given passage. Only give me the answer and do not output any other "
    "words.\n\nPassage:\n{document}\n"
    "Question: {question}\nAnswer:",
    "Question: {question}\nAnswer:",
};
static const char *const template_names[] = {"document", "longbench", "closed-book", "own"};
static const char *const cut_names[] = {"middle", "end", "start"};

static const char *const count_name[] = {
    "em", "em_squad", "em_lmeval", "sub_em", "answer_kept", "prompt_tokens", "truncated_tokens", "new_tokens", AGREE_COUNTS, NULL};
static const char *const sum_name[] = {"f1", "f1_squad", "f1_longbench", AGREE_SUMS, NULL};
const struct agree_at triviaqa_agree = {.tokens = TQA_COMPARED, .same = TQA_SAME, .kl = TQA_KL, .nll = TQA_ANSWER_NLL};
static void close_set(struct task_set *s)
{
    if (!s)
        return;
    qa_set_close(s->qa);
    free(s->plan);
    free(s->before);
    free(s->after);
    buf_free(&s->examples);
    free(s);
}

static int split_template(struct task_set *s, const struct triviaqa_opts *o)
{
    static const char slot[] = "{document}";
    const char *t = o->template[0] ? o->template : templates[o->prompt], *at = strstr(t, slot);
    s->form = o->template[0] ? FORM_OWN : o->prompt;
    s->document = at != NULL;
    s->before = at ? strndup(t, (size_t)(at - t)) : strdup("");
    s->after = strdup(at ? at + strlen(slot) : t);
    return s->before && s->after ? ERR_OK : err_set(ERR_NOMEM, "out of memory for a template");
}

/* BOS and what stands before the document go to `before`, the rest to `after`. */
static int encode_around(const struct task_set *s, const struct qa_question *q, struct tok_ids *before, struct tok_ids *after)
{
    struct prompt_slot slot = {"question", q->text};
    struct buf b = {0};
    int rc = prompt_begin(before, &s->env, s->bos);
    if (rc == ERR_OK)
        rc = prompt_fill(&b, (struct span){s->before, strlen(s->before)}, &slot, 1);
    if (rc == ERR_OK)
        rc = tok_encode(s->tok, buf_text(&b), b.len, false, before);
    buf_clear(&b);
    if (rc == ERR_OK) /* one text with the question: tokens do not end where examples do */
        rc = buf_add(&b, buf_text(&s->examples), s->examples.len);
    if (rc == ERR_OK)
        rc = prompt_fill(&b, (struct span){s->after, strlen(s->after)}, &slot, 1);
    if (rc == ERR_OK)
        rc = tok_encode(s->tok, buf_text(&b), b.len, false, after);
    buf_free(&b);
    return rc;
}

/* "Question: ...\nAnswer: ...\n\n" for each, as lm-evaluation-harness sets them. */
static int make_examples(struct task_set *s, const struct triviaqa_opts *o)
{
    struct qa_set *from = NULL;
    int64_t *pick = malloc((size_t)o->shots * sizeof *pick + 1);
    int rc = pick ? ERR_OK : err_set(ERR_NOMEM, "out of memory for examples");
    if (rc == ERR_OK && s->document)
        rc = err_set(ERR_ARG, "shots = %lld: worked examples are for prompts without a document: prompt = \"closed-book\"",
                     (long long)o->shots);
    if (rc == ERR_OK && !o->shots_data[0])
        rc = err_set(ERR_ARG, "shots = %lld needs shots_data, a question file such as wikipedia-train.json", (long long)o->shots);
    if (rc == ERR_OK)
        rc = qa_set_open(&from, &(struct qa_files){.data = o->shots_data, .evidence = ""}, NULL);
    if (rc == ERR_OK && !strcmp(from->sha256, s->qa->sha256))
        rc = err_set(ERR_ARG, "shots_data is the file whose questions are asked: take examples from the train set");
    if (rc == ERR_OK)
        rc = shots_pick(pick, o->shots, from->n, s->env.seed, o->shots_data);
    for (int64_t k = 0; k < o->shots && rc == ERR_OK; k++) {
        const struct qa_question *q = &from->q[pick[k]];
        struct prompt_slot slot = {"question", q->text};
        rc = prompt_fill(&s->examples, (struct span){s->after, strlen(s->after)}, &slot, 1);
        rc = rc ? rc : buf_printf(&s->examples, " %.*s\n\n", (int)q->answer.n, q->answer.s);
    }
    if (from)
        snprintf(s->shots_sha, sizeof s->shots_sha, "%.8s", from->sha256);
    qa_set_close(from);
    free(pick);
    return rc;
}

static int64_t document_tokens(const struct task_set *s, const struct qa_question *q)
{
    int64_t n = 0;
    for (int64_t i = 0; s->document && i < q->n_docs; i++)
        n += s->qa->doc[s->qa->doc_of[q->doc0 + i]].ids.n;
    return n;
}

static int make_plans(struct task_set *s)
{
    s->plan = calloc((size_t)s->qa->n, sizeof *s->plan);
    if (!s->plan)
        return err_set(ERR_NOMEM, "out of memory for %lld questions", (long long)s->qa->n);
    for (int64_t i = 0; i < s->qa->n; i++) {
        struct tok_ids before = {0}, after = {0};
        struct triviaqa_plan *p = &s->plan[i];
        int rc = encode_around(s, &s->qa->q[i], &before, &after);
        p->question = before.n + after.n;
        p->document = document_tokens(s, &s->qa->q[i]);
        int64_t room = s->context - s->max_new - p->question;
        p->kept = p->document < room ? p->document : room < 0 ? 0 : room;
        tok_ids_free(&before);
        tok_ids_free(&after);
        if (rc)
            return rc;
    }
    return ERR_OK;
}

static int open_set(struct task_set **out, const void *opts, const struct task_env *env)
{
    const struct triviaqa_opts *o = opts;
    struct task_set *s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s)
        return err_set(ERR_NOMEM, "out of memory for a dataset");
    s->tok = env->tok;
    s->env = *env;
    s->cut = (enum triviaqa_cut)o->truncate;
    s->decode = o->decode;
    s->bos = o->bos;
    s->compare = o->compare;
    s->shots = o->shots;
    s->max_new = o->max_new;
    s->context = env->length;
    snprintf(s->name, sizeof s->name, "%s", file_base(o->data));
    snprintf(s->domain, sizeof s->domain, "%s", o->domain == QA_WEB ? "web" : "wikipedia");
    struct qa_files f = {o->data, o->evidence, (enum qa_domain)o->domain, o->limit};
    int rc = decode_check(&o->decode);
    if (rc == ERR_OK)
        rc = split_template(s, o);
    if (rc == ERR_OK)
        rc = qa_set_open(&s->qa, &f, env->tok);
    if (rc == ERR_OK && o->shots > 0)
        rc = make_examples(s, o);
    if (rc == ERR_OK)
        rc = make_plans(s);
    if (rc) {
        close_set(s);
        return err_prefix(rc, "triviaqa");
    }
    *out = s;
    return ERR_OK;
}

static int64_t count(const struct task_set *s)
{
    return s->qa->n;
}

static void sample(const struct task_set *s, int64_t i, struct task_sample *out)
{
    *out = (struct task_sample){.id = i, .group = i, .tokens = s->plan[i].question + s->plan[i].kept, .generate = s->max_new};
}

static int signature(const struct task_set *s, struct buf *out)
{
    int rc = buf_printf(out, "TRIVIAQA|data:%s|sha:%.8s|domain:%s|samples:%lld|ctx:%lld|prompt:%s|truncate:%s|decode:", s->name,
                        s->qa->sha256, s->domain, (long long)s->qa->n, (long long)s->context, template_names[s->form],
                        cut_names[s->cut]);
    rc = rc ? rc : decode_signature(&s->decode, out);
    if (rc == ERR_OK && s->shots > 0)
        rc = buf_printf(out, "|shots:%lld|shots_sha:%s", (long long)s->shots, s->shots_sha);
    if (rc == ERR_OK && s->compare)
        rc = buf_puts(out, "|compare:dense");
    return rc ? rc : buf_printf(out, "|max_new:%lld|stop:newline", (long long)s->max_new);
}

/* ---- prompts ---- */

/* Tokens of the document that are kept: from the front, from the back. */
static void cut_sizes(const struct task_set *s, int64_t i, int64_t *front, int64_t *back)
{
    const struct triviaqa_plan *p = &s->plan[i];
    *front = s->cut == CUT_END || p->kept == p->document ? p->kept : s->cut == CUT_START ? 0 : p->kept / 2;
    *back = p->kept - *front;
}

/* The document's tokens, truncated; pages follow each other. */
static int add_document(const struct task_set *s, int64_t i, struct tok_ids *out)
{
    const struct qa_question *q = &s->qa->q[i];
    int64_t front, back, at = 0, total = s->plan[i].document;
    int rc = ERR_OK;
    cut_sizes(s, i, &front, &back);
    for (int64_t d = 0; d < q->n_docs && rc == ERR_OK && total > 0; d++) {
        const struct qa_doc *doc = &s->qa->doc[s->qa->doc_of[q->doc0 + d]];
        int64_t n = doc->ids.n, head = front - at, tail = at + n - (total - back);
        head = head < 0 ? 0 : head < n ? head : n;
        tail = tail < 0 ? 0 : tail < n - head ? tail : n - head;
        rc = prompt_append(out, doc->ids.v, head);
        if (rc == ERR_OK)
            rc = prompt_append(out, doc->ids.v + n - tail, tail);
        at += n;
    }
    return rc;
}

static int check_sample(const struct task_set *s, int64_t i)
{
    const struct qa_question *q = &s->qa->q[i];
    struct span text = q->text;
    ws_strip(&text.s, &text.n);
    if (text.n == 0)
        return err_set(ERR_FORMAT, "question %s is empty", q->id);
    for (int64_t d = 0; s->document && d < q->n_docs; d++) {
        const struct qa_doc *doc = &s->qa->doc[s->qa->doc_of[q->doc0 + d]];
        if (doc->error)
            return err_set(ERR_FORMAT, "question %s: %s", q->id, doc->error);
    }
    if (s->document && q->n_docs == 0)
        return err_set(ERR_FORMAT, "question %s has no document", q->id);
    if (s->plan[i].question + s->max_new > s->context)
        return err_set(ERR_ARG, "question %s: its %lld tokens and %lld of an answer exceed the context of %lld", q->id,
                       (long long)s->plan[i].question, (long long)s->max_new, (long long)s->context);
    return ERR_OK;
}

static int build(const struct task_set *s, int64_t i, struct tok_ids *prompt, struct task_acc *acc)
{
    struct tok_ids after = {0}, doc = {0};
    const struct qa_question *q = &s->qa->q[i];
    struct buf text = {0};
    int rc = check_sample(s, i);
    if (rc == ERR_OK)
        rc = encode_around(s, q, prompt, &after);
    if (rc == ERR_OK)
        rc = add_document(s, i, &doc);
    if (rc == ERR_OK)
        rc = prompt_append(prompt, doc.v, doc.n);
    if (rc == ERR_OK)
        rc = prompt_append(prompt, after.v, after.n);
    if (rc == ERR_OK)
        rc = tok_decode(s->tok, doc.v, doc.n, true, &text);
    if (rc == ERR_OK) {
        int kept = qa_answer_in((struct span){buf_text(&text), text.len}, s->qa->aliases.v + q->alias0, q->n_aliases);
        rc = kept < 0 ? kept : ERR_OK;
        acc->n[TQA_KEPT] = kept > 0;
        acc->n[TQA_PROMPT] = prompt->n;
        acc->n[TQA_TRUNCATED] = s->plan[i].document - s->plan[i].kept;
    }
    tok_ids_free(&after);
    tok_ids_free(&doc);
    buf_free(&text);
    return rc;
}

static int tally(const struct task_set *s, int64_t i, struct span text, struct task_acc *acc)
{
    static const char *const stops[] = {"\n", ".", ","}, *const newline[] = {"\n"};
    const struct qa_question *q = &s->qa->q[i];
    const struct span *alias = s->qa->aliases.v + q->alias0;
    struct qa_score x, first, cut;
    int rc = qa_score(&x, qa_cut(text, newline, 1), alias, q->n_aliases);
    if (rc == ERR_OK)
        rc = qa_score(&first, qa_first_line(text), alias, q->n_aliases);
    if (rc == ERR_OK)
        rc = qa_score(&cut, qa_cut(text, stops, 3), alias, q->n_aliases);
    if (rc)
        return rc;
    acc->n[TQA_EM] = x.em;
    acc->n[TQA_EM_SQUAD] = x.em_squad;
    acc->n[TQA_EM_LMEVAL] = cut.em_harness;
    acc->n[TQA_SUB_EM] = x.contains;
    acc->s[TQA_F1] = x.f1;
    acc->s[TQA_F1_SQUAD] = x.f1_squad;
    acc->s[TQA_F1_LONGBENCH] = first.f1_squad;
    return ERR_OK;
}

/* The right answers after their prompts, at most max_new tokens of each, through dense attention and the method. */
static int agree(const struct task_call *c, const struct tok_ids *prompt)
{
    const struct task_set *s = c->set;
    size_t mark = arena_mark(c->step);
    struct agree_text *text = ARENA_NEW0(c->step, c->n, struct agree_text);
    struct tok_ids *ids = ARENA_NEW0(c->step, c->n, struct tok_ids);
    struct buf b = {0};
    int rc = text && ids ? ERR_OK : ERR_NOMEM;
    for (int64_t k = 0; k < c->n && rc == ERR_OK; k++) {
        struct span answer = s->qa->q[c->sample[k]].answer;
        buf_clear(&b);
        rc = buf_printf(&b, " %.*s", (int)answer.n, answer.s);
        rc = rc ? rc : tok_encode(s->tok, buf_text(&b), b.len, false, &ids[k]);
        text[k] = (struct agree_text){prompt[k].v, ids[k].v, prompt[k].n, ids[k].n < s->max_new ? ids[k].n : s->max_new};
    }
    if (rc == ERR_OK)
        rc = agree_run(c, text, &triviaqa_agree);
    for (int64_t k = 0; ids && k < c->n; k++)
        tok_ids_free(&ids[k]);
    buf_free(&b);
    arena_release(c->step, mark);
    return rc;
}

static int run(struct task_call *c)
{
    static const char *const stop[] = {"\n"};
    size_t mark = arena_mark(c->step);
    struct generate_seq *q = ARENA_NEW0(c->step, c->n, struct generate_seq);
    struct tok_ids *prompt = ARENA_NEW0(c->step, c->n, struct tok_ids);
    struct buf *text = ARENA_NEW0(c->step, c->n, struct buf);
    int rc = q && prompt && text ? ERR_OK : ERR_NOMEM;
    for (int64_t k = 0; k < c->n && rc == ERR_OK; k++) {
        rc = build(c->set, c->sample[k], &prompt[k], &c->acc[k]);
        q[k] = (struct generate_seq){
            .prompt = prompt[k].v, .n = prompt[k].n, .max_new = c->set->max_new, .id = c->sample[k], .text = &text[k]};
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
        struct span t = {buf_text(&text[k]), text[k].len};
        c->acc[k].n[TQA_NEW] = q[k].made;
        rc = tally(c->set, c->sample[k], t, &c->acc[k]);
        if (rc == ERR_OK && c->text)
            rc = buf_add(&c->text[k], t.s, t.n);
    }
    if (rc == ERR_OK && c->set->compare)
        rc = agree(c, prompt);
    for (int64_t k = 0; q && prompt && text && k < c->n; k++) {
        tok_ids_free(&prompt[k]);
        buf_free(&text[k]);
    }
    arena_release(c->step, mark);
    return rc;
}

static size_t run_bytes(const struct task_set *s, const struct model *m, int64_t n, int64_t tokens, int64_t longest)
{
    size_t decode = generate_bytes(m, &s->decode, n, tokens, longest + s->max_new), both = 0;
    if (s->compare)
        both = arena_bytes(n, sizeof(struct agree_text)) + arena_bytes(n, sizeof(struct tok_ids)) +
               agree_bytes(m, n, tokens + n * s->max_new, longest + s->max_new);
    return arena_bytes(n, sizeof(struct generate_seq)) + arena_bytes(n, sizeof(struct tok_ids)) +
           arena_bytes(n, sizeof(struct buf)) + 2 * arena_bytes(tokens, sizeof(int32_t)) + (decode > both ? decode : both);
}

const struct task task_triviaqa = {
    .name = "triviaqa",
    .summary = "questions about long documents: exact match and F1 as TriviaQA's official scorer, and the variants beside it",
    .cite = "Joshi et al. 2017 (TriviaQA); Bai et al. 2023 (LongBench)",
    .fields = fields,
    .opts_size = sizeof(struct triviaqa_opts),
    .count_name = count_name,
    .sum_name = sum_name,
    .open = open_set,
    .close = close_set,
    .count = count,
    .sample = sample,
    .signature = signature,
    .run = run,
    .run_bytes = run_bytes,
    .score = triviaqa_score,
    .compare = triviaqa_compare,
};
