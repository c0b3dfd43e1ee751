/* Task retrieval: synthetic questions about long contexts of any length, made on the fly, where sparse attention fails
 * first. Every sample is a pure function of (seed, sample, length).
 *
 *     needle      filler ... "The secret number of Anna is 4821973." ... filler, one needle
 *     multi-key   the same with as many needles as `keys` says, for other names; one is asked for
 *     key-value   nothing but "The number of KEY is VALUE." for random keys; one is asked for
 *     variables   a number is given to A, B equals A, C equals B, ... scattered over the filler; the last is asked for
 *
 *   source   the kinds follow RULER (Hsieh et al. 2024) and needle-in-a-haystack tests; the texts are ours */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/rng.h"
#include "cfg/cfg.h"
#include "model/model.h"
#include "task/agree.h"
#include "task/decode.h"
#include "task/generate.h"
#include "task/prompt.h"
#include "task/stats.h"
#include "task/task.h"

enum kind { NEEDLE, MULTI_KEY, KEY_VALUE, VARIABLES };

struct retrieval_opts {
    struct decode_opts decode; /* first: see DECODE_FIELDS */
    int kind;
    int64_t samples, keys, digits, max_new;
    bool bos, compare;
};

static const struct cfg_field fields[] = {
    CFG_ENUM(struct retrieval_opts, kind, NEEDLE, "needle|multi-key|key-value|variables", "what is hidden and asked for"),
    CFG_INT(struct retrieval_opts, samples, 50, 1, 1e6, "questions"),
    CFG_INT(struct retrieval_opts, keys, 4, 1, 24, "multi-key: needles; variables: links of the chain"),
    CFG_INT(struct retrieval_opts, digits, 5, 1, 9, "digits of a number"),
    CFG_INT(struct retrieval_opts, max_new, 16, 1, 1000, "tokens of an answer at most"),
    CFG_BOOL(struct retrieval_opts, bos, true, "put the model's BOS token in front of the prompt"),
    CFG_BOOL(struct retrieval_opts, compare, false,
             "the right answer goes through dense attention and the method: KL, agreement of the most probable token"),
    DECODE_FIELDS,
    CFG_END,
};

static const char *const kind_names[] = {"needle", "multi-key", "key-value", "variables"};
static const char *const count_name[] = {"correct", "prompt_tokens", "new_tokens", "depth_percent", AGREE_COUNTS, NULL};
static const char *const sum_name[] = {AGREE_SUMS, NULL};
enum { N_CORRECT, N_PROMPT, N_NEW, N_DEPTH, N_COMPARED, N_SAME };
static const struct agree_at agree_at = {.tokens = N_COMPARED, .same = N_SAME, .kl = 0, .nll = 1};

static const char *const names[] = {"Anna",  "Boris", "Clara", "David", "Elena",  "Frank", "Greta",  "Henry",
                                    "Irene", "James", "Karin", "Louis", "Maria",  "Nadia", "Oscar",  "Paula",
                                    "Quinn", "Robin", "Sofia", "Tomas", "Ursula", "Vera",  "Walter", "Xenia"};
enum { N_NAMES = sizeof names / sizeof *names };

static const char *const filler[] = {
    " The road runs along the river and crosses it near the old mill.",
    " In the morning the fishermen bring their boats back to the harbour.",
    " Snow lies on the hills from November until the end of March.",
    " The library is open on every day of the week except Monday.",
    " A train leaves for the coast in the afternoon.",
    " Apples and pears are grown in the gardens behind the church.",
    " The market is held in the square in front of the town hall.",
    " On clear days the mountains can be seen from the tower.",
};
enum { N_FILLER = sizeof filler / sizeof *filler };

struct task_set {
    struct retrieval_opts o;
    const struct tok *tok;
    struct task_env env;
};

struct question { /* one sample: facts at their places, in order, and the question */
    char fact[N_NAMES][96], ask[128], answer[16];
    double place[N_NAMES]; /* 0: start of the context, 1: end; ascending */
    int n;
    int asked; /* fact that holds the answer */
};

static void close_set(struct task_set *s)
{
    free(s);
}

static int open_set(struct task_set **out, const void *opts, const struct task_env *env)
{
    struct task_set *s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s)
        return err_set(ERR_NOMEM, "out of memory for a dataset");
    s->o = *(const struct retrieval_opts *)opts;
    s->tok = env->tok;
    s->env = *env;
    int rc = decode_check(&s->o.decode);
    if (rc) {
        close_set(s);
        return err_prefix(rc, "retrieval");
    }
    if (env->length < 256 + s->o.max_new) {
        close_set(s);
        return err_set(ERR_ARG, "retrieval: a context of %lld is too short, %lld is the least", (long long)env->length,
                       (long long)(256 + ((const struct retrieval_opts *)opts)->max_new));
    }
    *out = s;
    return ERR_OK;
}

static int64_t count(const struct task_set *s)
{
    return s->o.samples;
}

static void sample(const struct task_set *s, int64_t i, struct task_sample *out)
{
    /* the prompt is filled up to this by whole sentences */
    *out = (struct task_sample){.id = i, .group = i, .tokens = s->env.length - s->o.max_new, .generate = s->o.max_new};
}

static int signature(const struct task_set *s, struct buf *out)
{
    int rc =
        buf_printf(out, "RETRIEVAL|kind:%s|samples:%lld|keys:%lld|digits:%lld|ctx:%lld|seed:%llu|decode:", kind_names[s->o.kind],
                   (long long)s->o.samples, (long long)s->o.keys, (long long)s->o.digits, (long long)s->env.length,
                   (unsigned long long)s->env.seed);
    rc = rc ? rc : decode_signature(&s->o.decode, out);
    return rc || !s->o.compare ? rc : buf_puts(out, "|compare:dense");
}

/* ---- questions ---- */

struct draw {
    uint64_t seed, sample, i;
};

static int64_t next(struct draw *d, int64_t n)
{
    return rng_below(d->seed, d->sample, d->i++, n);
}

static void number(struct draw *d, int64_t digits, char out[16])
{
    for (int64_t k = 0; k < digits; k++)
        out[k] = (char)('0' + (k == 0 ? 1 + next(d, 9) : next(d, 10)));
    out[digits] = '\0';
}

static void shuffle(struct draw *d, int order[N_NAMES])
{
    for (int i = 0; i < N_NAMES; i++)
        order[i] = i;
    for (int i = N_NAMES - 1; i > 0; i--) {
        int j = (int)next(d, i + 1), t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
}

static void make_chain(const struct task_set *s, struct question *q, const int *order, struct draw *d)
{
    number(d, s->o.digits, q->answer);
    snprintf(q->fact[0], sizeof q->fact[0], " The secret number of %s is %s.", names[order[0]], q->answer);
    for (int k = 1; k < q->n; k++)
        snprintf(q->fact[k], sizeof q->fact[k], " The secret number of %s is the same as that of %s.", names[order[k]],
                 names[order[k - 1]]);
    q->asked = 0;
}

static void make_question(const struct task_set *s, int64_t i, struct question *q)
{
    struct draw d = {s->env.seed, (uint64_t)i, 0};
    int order[N_NAMES];
    shuffle(&d, order);
    q->n = s->o.kind == NEEDLE ? 1 : s->o.kind == KEY_VALUE ? N_NAMES : (int)s->o.keys;
    q->asked = (int)next(&d, q->n);
    for (int k = 0; k < q->n; k++) { /* one place in each of n equal parts */
        double u = (double)next(&d, 1000) / 1000;
        q->place[k] = ((double)k + u) / q->n;
    }
    if (s->o.kind == VARIABLES) {
        make_chain(s, q, order, &d);
    } else {
        for (int k = 0; k < q->n; k++) {
            char value[16];
            number(&d, s->o.digits, value);
            snprintf(q->fact[k], sizeof q->fact[k], " The secret number of %s is %s.", names[order[k]], value);
            if (k == q->asked)
                snprintf(q->answer, sizeof q->answer, "%s", value);
        }
    }
    snprintf(q->ask, sizeof q->ask,
             "\n\nQuestion: What is the secret number of %s?\nAnswer:", names[order[s->o.kind == VARIABLES ? q->n - 1 : q->asked]]);
}

static int encode(const struct task_set *s, const char *text, struct tok_ids *out)
{
    return tok_encode(s->tok, text, strlen(text), false, out);
}

/* Sentences of filler up to `room` tokens, with the facts between them where their places are reached. key-value: random
 * facts about numbered keys instead of the filler. */
static int fill(const struct task_set *s, int64_t i, const struct question *q, int64_t room, struct tok_ids *out)
{
    struct tok_ids fact = {0}, line = {0};
    struct draw d = {s->env.seed ^ 0x66696c6c, (uint64_t)i, 0};
    int64_t facts = 0, begin = out->n;
    int rc = ERR_OK, k = 0;
    for (int f = 0; f < q->n && rc == ERR_OK; f++)
        rc = encode(s, q->fact[f], &fact);
    facts = fact.n;
    for (bool more = true; more && rc == ERR_OK;) {
        char text[96], value[16];
        fact.n = line.n = 0;
        if (k < q->n && (double)(out->n - begin) >= q->place[k] * (double)(room - 32)) {
            rc = encode(s, q->fact[k++], &fact);
            facts -= fact.n;
            rc = rc ? rc : prompt_append(out, fact.v, fact.n);
            continue;
        }
        number(&d, s->o.digits, value);
        snprintf(text, sizeof text, " The secret number of box %lld is %s.", (long long)(1000 + next(&d, 9000)), value);
        rc = encode(s, s->o.kind == KEY_VALUE ? text : filler[next(&d, N_FILLER)], &line);
        more = rc == ERR_OK && out->n - begin + line.n + facts <= room;
        if (more)
            rc = prompt_append(out, line.v, line.n);
    }
    for (; k < q->n && rc == ERR_OK; k++) /* the last ones, if the filler ended before their place */
        rc = encode(s, q->fact[k], out);
    tok_ids_free(&fact);
    tok_ids_free(&line);
    return rc;
}

static int build(const struct task_set *s, int64_t i, const struct question *q, struct tok_ids *out)
{
    struct tok_ids ask = {0};
    int rc = prompt_begin(out, &s->env, s->o.bos);
    if (rc == ERR_OK)
        rc = encode(s, q->ask, &ask);
    int64_t room = s->env.length - s->o.max_new - out->n - ask.n;
    if (rc == ERR_OK)
        rc = fill(s, i, q, room, out);
    if (rc == ERR_OK)
        rc = prompt_append(out, ask.v, ask.n);
    if (rc == ERR_OK && out->n > s->env.length - s->o.max_new)
        rc = err_set(ERR_ARG, "retrieval: the %d facts do not fit a context of %lld: ask for fewer keys or more length", q->n,
                     (long long)s->env.length);
    tok_ids_free(&ask);
    return rc;
}

/* ---- running ---- */

static int agree(const struct task_call *c, const struct tok_ids *prompt, const struct question *q)
{
    size_t mark = arena_mark(c->step);
    struct agree_text *text = ARENA_NEW0(c->step, c->n, struct agree_text);
    struct tok_ids *ids = ARENA_NEW0(c->step, c->n, struct tok_ids);
    int rc = text && ids ? ERR_OK : ERR_NOMEM;
    for (int64_t k = 0; k < c->n && rc == ERR_OK; k++) {
        char answer[20];
        snprintf(answer, sizeof answer, " %s", q[k].answer);
        rc = encode(c->set, answer, &ids[k]);
        text[k] =
            (struct agree_text){prompt[k].v, ids[k].v, prompt[k].n, ids[k].n < c->set->o.max_new ? ids[k].n : c->set->o.max_new};
    }
    if (rc == ERR_OK)
        rc = agree_run(c, text, &agree_at);
    for (int64_t k = 0; ids && k < c->n; k++)
        tok_ids_free(&ids[k]);
    arena_release(c->step, mark);
    return rc;
}

static int run(struct task_call *c)
{
    static const char *const stop[] = {"\n"};
    size_t mark = arena_mark(c->step);
    struct generate_seq *g = ARENA_NEW0(c->step, c->n, struct generate_seq);
    struct tok_ids *prompt = ARENA_NEW0(c->step, c->n, struct tok_ids);
    struct question *q = ARENA_NEW0(c->step, c->n, struct question);
    struct buf *text = ARENA_NEW0(c->step, c->n, struct buf);
    int rc = g && prompt && q && text ? ERR_OK : ERR_NOMEM;
    for (int64_t k = 0; k < c->n && rc == ERR_OK; k++) {
        make_question(c->set, c->sample[k], &q[k]);
        rc = build(c->set, c->sample[k], &q[k], &prompt[k]);
        g[k] = (struct generate_seq){
            .prompt = prompt[k].v, .n = prompt[k].n, .max_new = c->set->o.max_new, .id = c->sample[k], .text = &text[k]};
    }
    struct generate_call call = {.model = c->model,
                                 .tok = c->tok,
                                 .seq = g,
                                 .n_seq = c->n,
                                 .how = &c->set->o.decode,
                                 .seed = c->env->seed,
                                 .stop = stop,
                                 .n_stop = 1,
                                 .eos = c->env->eos,
                                 .n_eos = c->env->n_eos,
                                 .timer = c->timer,
                                 .stats = c->stats,
                                 .step = c->step};
    if (rc == ERR_OK)
        rc = generate_run(&call);
    for (int64_t k = 0; k < c->n && rc == ERR_OK; k++) {
        c->acc[k].n[N_CORRECT] = strstr(buf_text(&text[k]), q[k].answer) != NULL;
        c->acc[k].n[N_PROMPT] = g[k].n;
        c->acc[k].n[N_NEW] = g[k].made;
        c->acc[k].n[N_DEPTH] = (int64_t)(100 * q[k].place[q[k].asked]);
        if (c->text)
            rc = buf_add(&c->text[k], buf_text(&text[k]), text[k].len);
    }
    if (rc == ERR_OK && c->set->o.compare)
        rc = agree(c, prompt, q);
    for (int64_t k = 0; g && prompt && q && text && k < c->n; k++) {
        tok_ids_free(&prompt[k]);
        buf_free(&text[k]);
    }
    arena_release(c->step, mark);
    return rc;
}

static size_t run_bytes(const struct task_set *s, const struct model *m, int64_t n, int64_t tokens, int64_t longest)
{
    size_t decode = generate_bytes(m, &s->o.decode, n, tokens, longest + s->o.max_new), both = 0;
    if (s->o.compare)
        both = arena_bytes(n, sizeof(struct agree_text)) + arena_bytes(n, sizeof(struct tok_ids)) +
               agree_bytes(m, n, tokens + n * s->o.max_new, longest + s->o.max_new);
    return arena_bytes(n, sizeof(struct generate_seq)) + arena_bytes(n, sizeof(struct tok_ids)) +
           arena_bytes(n, sizeof(struct question)) + arena_bytes(n, sizeof(struct buf)) + arena_bytes(tokens, sizeof(int32_t)) +
           (decode > both ? decode : both);
}

static int score_all(const struct task_set *s, const struct task_pair *p, const bool *missing, uint64_t seed,
                     struct task_score *out)
{
    int64_t n = s->o.samples;
    double *memory = malloc(((size_t)n * 3 + 1) * sizeof *memory), *a = memory, *b = memory + n, *den = memory + 2 * n;
    if (!memory)
        return err_set(ERR_NOMEM, "out of memory for the scores of %lld questions", (long long)n);
    for (int64_t i = 0; i < n; i++) {
        bool gone = missing && missing[i];
        a[i] = gone ? 0 : 100 * (double)p->a[i].n[N_CORRECT];
        b[i] = gone || !p->b ? 0 : 100 * (double)p->b[i].n[N_CORRECT];
        den[i] = !gone;
    }
    struct stats_plan plan = {.n = n, .replicates = 1000, .seed = seed};
    struct stats_result r;
    struct stats_pair pair = {{a, den, STATS_PLAIN}, {b, den, STATS_PLAIN}};
    int rc = p->b ? stats_bootstrap(&r, &plan, stats_difference, &pair) : stats_bootstrap(&r, &plan, stats_ratio, &pair.a);
    out[0] =
        (struct task_score){.name = "accuracy", .value = r.value, .lo = r.lo, .hi = r.hi, .higher_is_better = true, .unit = "%"};
    free(memory);
    int more = rc ? rc : agree_score(&(struct agree_of){&agree_at, p, missing, n, seed}, out + 1);
    return more < 0 ? more : 1 + more;
}

static int score(const struct task_set *s, const struct task_acc *acc, const bool *missing, uint64_t seed, struct task_score *out)
{
    return score_all(s, &(struct task_pair){acc, NULL}, missing, seed, out);
}

const struct task task_retrieval = {
    .name = "retrieval",
    .summary = "synthetic long-context probes of any length: needles, many keys, key-value pairs, chains of variables",
    .cite = "after Hsieh et al. 2024 (RULER)",
    .fields = fields,
    .opts_size = sizeof(struct retrieval_opts),
    .count_name = count_name,
    .sum_name = sum_name,
    .open = open_set,
    .close = close_set,
    .count = count,
    .sample = sample,
    .signature = signature,
    .run = run,
    .run_bytes = run_bytes,
    .score = score,
    .compare = score_all,
};
