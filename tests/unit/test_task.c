/* Tasks from outside: opening, cutting, signatures, errors, scores of hand-made counts, and runs over a stand-in model that
 * stands in this file, whose outputs are known beforehand. */
#include <unistd.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "cfg/cfg.h"
#include "model/model.h"
#include "task/generate.h"
#include "task/columns.h"
#include "task/task.h"
#include "text/tok.h"
#include "tests/t.h"

static struct tok *tok;
static struct task_env env;

/* ---- the stand-in: scores by a formula, continues by a script ---- */

struct model_cache {
    int64_t n, max, place;
};
static struct model_info info = {.context = 4096};
static int64_t feeds, largest_feed, caches;
static struct buf fed;          /* text of the tokens fed to single sequences since it was cleared */
static const char *script = ""; /* what every prompt is continued with: tokens of this text */
static struct tok_ids script_ids;

const struct model_info *model_info(const struct model *m)
{
    (void)m;
    return &info;
}

/* nll = id of the target / 1000, or 0 where not scored; the best next token is right for even targets */
int model_score(struct model *m, const struct model_batch *b, struct model_out *out, struct arena *step)
{
    (void)m;
    (void)step;
    for (int64_t t = 0; t < b->at[b->n_seq]; t++) {
        out->nll[t] = b->target[t] < 0 ? 0 : (float)b->target[t] / 1000;
        out->top1[t] = b->target[t] % 2 ? -1 : b->target[t];
    }
    return ERR_OK;
}

/* nll as above, dense attention's twice that; kl 0.25; both agree on tokens that three divides */
int model_compare(struct model *m, const struct model_batch *b, struct model_agree *out, struct arena *step)
{
    (void)m;
    (void)step;
    for (int64_t t = 0; t < b->at[b->n_seq]; t++)
        if (b->target[t] >= 0) {
            out->nll[t] = (float)b->target[t] / 1000;
            out->dense_nll[t] = (float)b->target[t] / 500;
            out->kl[t] = 0.25f;
            out->top1[t] = b->target[t] % 2 ? -1 : b->target[t];
            out->dense_top1[t] = b->target[t] % 3 ? -2 : out->top1[t];
        }
    return ERR_OK;
}

size_t model_compare_bytes(const struct model *m, int64_t tokens, int64_t longest, int64_t n_seq)
{
    (void)m;
    return (size_t)(tokens + longest + n_seq);
}

size_t model_score_bytes(const struct model *m, int64_t tokens, int64_t longest, int64_t n_seq)
{
    (void)m;
    return (size_t)(tokens + longest + n_seq);
}

int model_cache_open(struct model_cache **out, struct model *m, int64_t max_tokens)
{
    (void)m;
    *out = calloc(1, sizeof **out);
    (*out)->max = max_tokens;
    caches++;
    return ERR_OK;
}

int model_cache_copy(struct model_cache *to, const struct model_cache *from, int64_t same)
{
    (void)same;
    int64_t max = to->max;
    *to = *from;
    to->max = max;
    return ERR_OK;
}

void model_cache_close(struct model_cache *c)
{
    caches -= c != NULL;
    free(c);
}

size_t model_cache_bytes(const struct model *m, int64_t max_tokens)
{
    (void)m;
    return (size_t)max_tokens;
}

size_t model_feed_bytes(const struct model *m, int64_t tokens, int64_t longest, int64_t n_seq)
{
    return model_score_bytes(m, tokens, longest, n_seq);
}

/* Whatever the prompt, it is continued with the script and then EOS. */
int model_advance(struct model *m, struct model_cache *const *cache, const struct model_batch *b, struct model_out *out,
                  struct arena *step)
{
    float *logits = out->logits;
    (void)m;
    (void)step;
    feeds++;
    if (b->n_seq == 1)
        T_EQ(tok_decode(tok, b->token, b->at[1], true, &fed), ERR_OK);
    largest_feed = b->at[b->n_seq] > largest_feed ? b->at[b->n_seq] : largest_feed;
    for (int64_t s = 0; s < b->n_seq; s++) {
        int32_t last = b->token[b->at[s + 1] - 1], next;
        cache[s]->n += b->at[s + 1] - b->at[s];
        T_CHECK(cache[s]->n <= cache[s]->max);
        int64_t *place = &cache[s]->place; /* how much of the script this sequence has been given */
        bool follows = *place > 0 && b->at[s + 1] - b->at[s] == 1 && *place <= script_ids.n && script_ids.v[*place - 1] == last;
        *place = follows ? *place : 0;
        next = *place < script_ids.n ? script_ids.v[*place] : 0;
        *place += 1;
        for (int64_t v = 0; v < info.vocab; v++)
            logits[s * info.vocab + v] = v == next ? 1 : 0;
    }
    return ERR_OK;
}

static void set_script(const char *text)
{
    script = text;
    script_ids.n = 0;
    T_EQ(tok_encode(tok, script, strlen(script), false, &script_ids), ERR_OK);
}

static int open_with(struct task_set **set, const struct task *t, const char *const *overrides, int n)
{
    static max_align_t opts[64];
    struct cfg *c = NULL;
    *set = NULL;
    err_clear();
    T_CHECK(t->opts_size <= sizeof opts);
    int rc = cfg_open(&c, NULL, overrides, n);
    if (rc == ERR_OK)
        rc = cfg_load(c, "", t->fields, opts);
    if (rc == ERR_OK)
        rc = cfg_finish(c);
    if (rc == ERR_OK)
        rc = t->open(set, opts, &env);
    cfg_close(c);
    return rc;
}

#define OPEN(set, task, ...)                                                                                                       \
    open_with(&(set), task, (const char *const[]){__VA_ARGS__}, (int)(sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)))

static const char *write_temp(const char *text, size_t n)
{
    static char path[64];
    snprintf(path, sizeof path, "/tmp/ast-task-%ld.txt", (long)getpid());
    FILE *f = fopen(path, "wb");
    T_CHECK(f && fwrite(text, 1, n, f) == n);
    if (f)
        fclose(f);
    return path;
}

/* Columns of the results say what they are. */
static void explained(const char *task, const char *column)
{
    const struct task_column *c = task_column(column);
    if (!c || !c->unit[0] || !c->about[0])
        T_FAIL("column %s of task %s is not in task/columns.c", column, task);
}

static void every_task_is_complete(void)
{
    for (int i = 0; task_at(i); i++) {
        const struct task *t = task_at(i);
        int counts = 0, sums = 0;
        T_CHECK(t->name && t->summary && t->cite && t->fields && t->opts_size);
        T_CHECK(t->open && t->close && t->count && t->sample && t->signature && t->run && t->run_bytes && t->score);
        T_CHECK(task_find(t->name) == t);
        while (t->count_name[counts])
            explained(t->name, t->count_name[counts++]);
        while (t->sum_name[sums])
            explained(t->name, t->sum_name[sums++]);
        T_CHECK(counts > 0 && counts <= TASK_COUNTS && sums <= TASK_SUMS);
    }
    T_CHECK(!task_find("wikitest"));
    T_EQ(task_unknown("wikitest"), ERR_ARG);
    T_CHECK(strstr(err_text(), "wikitext") != NULL);
    err_clear();
}

static void the_sample_text_is_cut_side_by_side(void)
{
    const struct task *t = task_find("wikitext");
    struct task_set *set;
    struct buf sig = {0};
    env.length = 512;
    T_EQ(OPEN(set, t, "data=[\"data/samples/english.txt\"]"), ERR_OK);
    if (!set)
        return;
    int64_t n = t->count(set), tokens = 0;
    T_CHECK(n > 10);
    for (int64_t i = 0; i < n; i++) {
        struct task_sample s;
        t->sample(set, i, &s);
        T_EQ(s.id, i);
        T_EQ(s.scored, s.tokens - 1);
        T_CHECK(s.tokens == 512 || i == n - 1);
        tokens += s.tokens;
    }
    T_EQ(t->signature(set, &sig), ERR_OK);
    char want[64];
    snprintf(want, sizeof want, "|tokens:%lld|ctx:512|stride:512|", (long long)tokens);
    T_CHECK(strncmp(buf_text(&sig), "PPL|proto:disjoint|data:english.txt|sha:", 40) == 0);
    T_CHECK(strstr(buf_text(&sig), want) != NULL);
    t->close(set);
    buf_free(&sig);
}

static void articles_are_the_documents_of_the_harness(void)
{
    const struct task *t = task_find("wikitext");
    struct task_set *set;
    env.length = 128;
    T_EQ(OPEN(set, t, "data=[\"data/samples/english.txt\"]", "protocol=\"lm-eval\""), ERR_OK);
    if (!set)
        return;
    struct task_sample s, last = {.group = -1};
    int64_t scored = 0;
    for (int64_t i = 0; i < t->count(set); i++) {
        t->sample(set, i, &s);
        T_CHECK(s.group == last.group || s.group == last.group + 1);
        T_CHECK(s.tokens <= 128 && s.scored <= s.tokens);
        scored += s.scored;
        last = s;
    }
    T_EQ(last.group, 13); /* 14 articles */
    T_CHECK(scored > 6000);
    t->close(set);
    T_EQ(OPEN(set, t, "data=[\"data/samples/english.txt\"]", "protocol=\"lm-eval\"", "limit=2"), ERR_OK);
    t->sample(set, t->count(set) - 1, &s);
    T_EQ(s.group, 1);
    t->close(set);
}

static double value(const struct task_score *s, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (strcmp(s[i].name, name) == 0)
            return s[i].value;
    return (double)NAN;
}

static void scores_follow_their_definitions(void)
{
    /* Three articles of known words and bytes; every token costs ln 8 = 3 bits. */
    static const char text[] = "= A =\none two\n= B =\nthree four five\n= C =\nsix\n";
    const struct task *t = task_find("wikitext");
    struct task_set *set;
    struct task_score s[TASK_SCORES];
    struct task_acc acc[3] = {{{0}, {0}}};
    bool missing[3] = {false, false, true};
    char data[128];
    snprintf(data, sizeof data, "data=[\"%s\"]", write_temp(text, sizeof text - 1));
    env.length = 512;
    T_EQ(OPEN(set, t, data, "protocol=\"lm-eval\""), ERR_OK);
    if (!set)
        return;
    T_EQ(t->count(set), 3);
    for (int i = 0; i < 3; i++) {
        acc[i].n[0] = 10;          /* tokens */
        acc[i].n[1] = i;           /* top1 */
        acc[i].n[2] = i ? 6 : 5;   /* words */
        acc[i].n[3] = i ? 21 : 13; /* bytes */
        acc[i].n[4] = 1;
        acc[i].s[0] = 10 * log(8);
    }
    int n = t->score(set, acc, NULL, 1, s);
    T_CHECK(n >= 6 && n <= TASK_SCORES);
    T_NEAR(value(s, n, "token_perplexity"), 8, 1e-12);
    T_NEAR(value(s, n, "word_perplexity"), exp(30 * log(8) / 17), 1e-12);
    T_NEAR(value(s, n, "byte_perplexity"), exp(30 * log(8) / 55), 1e-12);
    T_NEAR(value(s, n, "bits_per_byte"), 90. / 55, 1e-12);
    T_NEAR(value(s, n, "top1_accuracy"), .1, 1e-12);
    n = t->score(set, acc, missing, 1, s); /* the third article is not there */
    T_NEAR(value(s, n, "word_perplexity"), exp(20 * log(8) / 11), 1e-12);
    T_CHECK(s[0].lo <= s[0].value && s[0].value <= s[0].hi);
    t->close(set);
}

static void bad_texts_are_refused_in_one_sentence(void)
{
    const struct task *t = task_find("wikitext");
    struct task_set *set;
    char data[128];
    env.length = 128;
    T_EQ(OPEN(set, t, "data=[\"no/such/file.txt\"]"), ERR_IO);
    T_CHECK(strstr(err_text(), "no/such/file.txt") != NULL);
    T_EQ(OPEN(set, t, "limit=1"), ERR_ARG);
    snprintf(data, sizeof data, "data=[\"%s\"]", write_temp("good\nLatin-1: caf\xe9\n", 18));
    T_EQ(OPEN(set, t, data), ERR_FORMAT);
    T_CHECK(strstr(err_text(), ".txt:2: byte 17 (0xe9) is not UTF-8") != NULL);
    write_temp(" \n\xc2\xa0\n", 5);
    T_EQ(OPEN(set, t, data), ERR_FORMAT);
    T_CHECK(strstr(err_text(), "no text") != NULL);
    write_temp("x", 1); /* one token predicts nothing */
    T_EQ(OPEN(set, t, data), ERR_FORMAT);
    write_temp("\xef\xbb\xbfone two three", 16);
    T_EQ(OPEN(set, t, data), ERR_OK);
    t->close(set);
    T_EQ(OPEN(set, t, data, "protocol=\"llamacpp\""), ERR_ARG);
    T_EQ(OPEN(set, t, data, "protocol=\"strided\"", "stride=129"), ERR_ARG);
    T_EQ(OPEN(set, t, data, "protocol=\"strided\"", "bos=\"single\""), ERR_ARG);
    env.vocab = 3;
    T_EQ(OPEN(set, t, data), ERR_ARG);
    T_CHECK(strstr(err_text(), "do not belong together") != NULL);
    env.vocab = tok_vocab(tok);
    env.length = 1;
    T_EQ(OPEN(set, t, data), ERR_ARG);
    err_clear();
    remove(write_temp("", 0));
}

static void a_cached_text_is_the_same_text(void)
{
    const struct task *t = task_find("wikitext");
    struct task_set *a, *b;
    struct buf sa = {0}, sb = {0};
    env.length = 256;
    T_EQ(OPEN(a, t, "data=[\"data/samples/english.txt\"]"), ERR_OK);
    T_EQ(task_cache_open(&env.cache), ERR_OK);
    T_EQ(OPEN(b, t, "data=[\"data/samples/english.txt\"]"), ERR_OK);
    T_EQ(t->signature(a, &sa), ERR_OK);
    T_EQ(t->signature(b, &sb), ERR_OK);
    T_STR(buf_text(&sa), buf_text(&sb));
    t->close(a);
    T_EQ(OPEN(a, t, "data=[\"data/samples/english.txt\"]"), ERR_OK);
    task_cache_close(env.cache);
    env.cache = NULL;
    buf_clear(&sb);
    T_EQ(t->signature(b, &sb), ERR_OK); /* a set keeps its text when the cache is gone */
    T_STR(buf_text(&sa), buf_text(&sb));
    t->close(a);
    t->close(b);
    buf_free(&sa);
    buf_free(&sb);
}

/* ---- runs over the stand-in ---- */

static int run_all(const struct task *t, struct task_set *set, struct task_acc *acc, struct buf *text, int64_t at_once)
{
    struct arena step;
    int64_t n = t->count(set), sample[512];
    int rc = arena_open(&step, "step", (size_t)1 << 30);
    T_CHECK(n <= 512);
    for (int64_t i = 0; i < n; i++)
        sample[i] = i;
    for (int64_t i = 0; i < n && rc == ERR_OK; i += at_once) {
        struct task_call c = {.set = set,
                              .tok = tok,
                              .env = &env,
                              .sample = sample + i,
                              .acc = acc + i,
                              .text = text ? text + i : NULL,
                              .step = &step};
        c.n = n - i < at_once ? n - i : at_once;
        rc = t->run(&c);
        T_EQ(step.used, 0);
    }
    arena_close(&step);
    T_EQ(caches, 0);
    return rc;
}

/* With nll = target / 1000 the sum over all windows is the sum of the scored ids, whatever the windows. */
static void every_token_is_scored_against_itself(void)
{
    static const char *const protocol[] = {"protocol=\"lm-eval\"", "protocol=\"strided\"", "protocol=\"megatron\"",
                                           "protocol=\"disjoint\""};
    const struct task *t = task_find("wikitext");
    static struct task_acc acc[512];
    struct buf text = {0};
    struct tok_ids ids = {0};
    double want = 0;
    env.length = 100;
    T_EQ(buf_read_file(&text, "data/samples/english.txt", 0), ERR_OK);
    T_EQ(tok_encode(tok, buf_text(&text), text.len, false, &ids), ERR_OK);
    for (int64_t i = 0; i < ids.n; i++)
        want += (double)((float)ids.v[i] / 1000);
    for (int k = 0; k < 4; k++) {
        struct task_set *set;
        double nll = 0;
        int64_t tokens = 0;
        memset(acc, 0, sizeof acc);
        T_EQ(OPEN(set, t, "data=[\"data/samples/english.txt\"]", protocol[k], k == 3 ? "bos=\"single\"" : "bos=\"auto\"",
                  "detokenise=\"no\""),
             ERR_OK);
        if (!set)
            continue;
        T_EQ(run_all(t, set, acc, NULL, 3), ERR_OK);
        for (int64_t i = 0; i < t->count(set); i++) {
            nll += acc[i].s[0];
            tokens += acc[i].n[0];
        }
        double first = k == 1 || k == 2 ? (double)((float)ids.v[0] / 1000) : 0; /* predicted by nothing */
        if (k > 0) { /* articles lose the newline between them: lm-eval has tokens of its own */
            T_EQ(tokens, ids.n - (first > 0));
            T_NEAR(nll, want - first, 1e-12);
        } else {
            T_CHECK(tokens > ids.n - 30 && tokens <= ids.n + 30);
        }
        t->close(set);
    }
    tok_ids_free(&ids);
    buf_free(&text);
}

/* Counts of a method against dense attention; the other counts stay what they are without. */
static void windows_are_compared_with_dense_attention(void)
{
    const struct task *t = task_find("wikitext");
    static struct task_acc acc[512], plain[512];
    struct task_score s[TASK_SCORES];
    struct task_set *set;
    struct tok_ids ids = {0};
    struct buf text = {0};
    int64_t same = 0, tokens = 0;
    env.length = 100;
    T_EQ(OPEN(set, t, "data=[\"data/samples/english.txt\"]"), ERR_OK);
    T_EQ(run_all(t, set, plain, NULL, 3), ERR_OK);
    T_CHECK(isnan(value(s, t->score(set, plain, NULL, 1, s), "kl_to_dense")));
    t->close(set);
    T_EQ(OPEN(set, t, "data=[\"data/samples/english.txt\"]", "compare=true"), ERR_OK);
    T_EQ(t->signature(set, &text), ERR_OK);
    T_CHECK(strstr(buf_text(&text), "|compare:dense") != NULL);
    T_EQ(run_all(t, set, acc, NULL, 5), ERR_OK);
    for (int64_t i = 0; i < t->count(set); i++) {
        T_EQ(acc[i].n[0], plain[i].n[0]);
        T_EQ(acc[i].n[1], plain[i].n[1]);
        T_NEAR(acc[i].s[0], plain[i].s[0], 0);
        T_NEAR(acc[i].s[3], 0.25 * (double)acc[i].n[0], 0);
        same += acc[i].n[6];
        tokens += acc[i].n[0];
    }
    int n = t->score(set, acc, NULL, 1, s);
    T_NEAR(value(s, n, "kl_to_dense"), 0.25, 1e-12);
    T_NEAR(value(s, n, "top1_agreement"), 100. * (double)same / (double)tokens, 1e-12);
    T_CHECK(same > tokens / 5 && same < tokens / 2); /* about a third */
    t->close(set);
    tok_ids_free(&ids);
    buf_free(&text);
}

/* What a prompt is followed by is compared, token by token: sums of ids of the right answers. */
static void answers_are_compared_with_dense_attention(void)
{
    static const char source[] = "data=\"data/samples/triviaqa/qa/wikipedia-dev.json\"", en[] = "source=\"data/samples/en-de.en\"",
                      de[] = "reference=\"data/samples/en-de.de\"";
    static struct task_acc acc[128];
    struct task_score s[TASK_SCORES];
    const struct task *t = task_find("wmt14");
    struct task_set *set;
    struct tok_ids ids = {0};
    struct buf b = {0};
    env.length = 512;
    set_script("x\n");
    T_EQ(OPEN(set, t, en, de, "compare=true"), ERR_OK);
    T_EQ(run_all(t, set, acc, NULL, 7), ERR_OK);
    T_EQ(buf_read_file(&b, "data/samples/en-de.de", 0), ERR_OK);
    const char *line = buf_text(&b);
    for (int i = 0; i < 68; i++, line += strcspn(line, "\n") + 1) {
        double nll = 0;
        ids.n = 0;
        T_EQ(tok_encode(tok, line, strcspn(line, "\n"), false, &ids), ERR_OK);
        for (int64_t k = 0; k < ids.n; k++)
            nll += (double)((float)ids.v[k] / 1000);
        T_EQ(acc[i].n[30], ids.n);
        T_NEAR(acc[i].s[0], 0.25 * (double)ids.n, 1e-12);
        T_NEAR(acc[i].s[1], nll, 1e-12);
    }
    int n = t->score(set, acc, NULL, 1, s);
    T_NEAR(value(s, n, "kl_to_dense"), 0.25, 1e-12);
    T_CHECK(value(s, n, "top1_agreement") > 20 && value(s, n, "top1_agreement") < 50);
    T_CHECK(value(s, n, "answer_perplexity") > 1);
    n = t->compare(set, &(struct task_pair){acc, acc}, NULL, 1, s);
    T_NEAR(value(s, n, "answer_perplexity"), 0, 0);
    t->close(set);
    for (int k = 0; k < 2; k++) {
        t = task_find(k ? "retrieval" : "triviaqa");
        env.length = 600;
        memset(acc, 0, sizeof acc);
        T_EQ(k ? OPEN(set, t, "compare=true", "samples=30") : OPEN(set, t, source, "compare=true"), ERR_OK);
        T_EQ(run_all(t, set, acc, NULL, 4), ERR_OK);
        for (int64_t i = 0; i < t->count(set); i++)
            T_CHECK(acc[i].n[k ? 4 : 8] >= 1 && acc[i].n[k ? 4 : 8] <= 32);
        n = t->score(set, acc, NULL, 1, s);
        T_CHECK(n <= TASK_SCORES);
        T_NEAR(value(s, n, "kl_to_dense"), 0.25, 1e-12);
        t->close(set);
    }
    tok_ids_free(&ids);
    buf_free(&b);
}

/* Examples are the same on every opening, come from the other set, and stand in front of the prompt. */
static void worked_examples_stand_in_front(void)
{
    static const char en[] = "source=\"data/samples/en-de.en\"", de[] = "reference=\"data/samples/en-de.de\"";
    const struct task *t = task_find("wmt14");
    static struct task_acc acc[128];
    char from[160], to[160], questions[96];
    struct task_set *set;
    struct buf first = {0};
    env.length = 512;
    set_script("x\n");
    snprintf(from, sizeof from, "shots_source=\"/tmp/ast-shots-%ld.en\"", (long)getpid());
    snprintf(to, sizeof to, "shots_reference=\"/tmp/ast-shots-%ld.en\"", (long)getpid());
    snprintf(questions, sizeof questions, "/tmp/ast-shots-%ld.en", (long)getpid());
    FILE *f = fopen(questions, "w");
    T_CHECK(f && fputs("one\ntwo\nthree\nfour\n", f) >= 0 && fclose(f) == 0);
    for (int round = 0; round < 2; round++) {
        struct arena step;
        int64_t one = 3;
        T_EQ(OPEN(set, t, en, de, "shots=2", from, to), ERR_OK);
        if (!set)
            return;
        struct task_call c = {.set = set, .tok = tok, .env = &env, .sample = &one, .n = 1, .acc = acc, .step = &step};
        T_EQ(arena_open(&step, "step", (size_t)1 << 28), ERR_OK);
        buf_clear(&fed);
        T_EQ(t->run(&c), ERR_OK);
        arena_close(&step);
        t->close(set);
        const char *p = buf_text(&fed), *second = strstr(p + 1, "Translate"),
                   *third = second ? strstr(second + 1, "Translate") : NULL;
        T_CHECK(second && third && !strstr(third + 1, "Translate"));
        T_CHECK(strstr(p, "'\nthree\n\n") || strstr(p, "'\none\n\n") || strstr(p, "'\ntwo\n\n") || strstr(p, "'\nfour\n\n"));
        if (round == 0)
            T_EQ(buf_puts(&first, p), ERR_OK);
        else
            T_STR(p, buf_text(&first));
    }
    T_EQ(OPEN(set, t, en, de, "shots=5", from, to), ERR_ARG);
    T_CHECK(strstr(err_text(), "4 examples") != NULL);
    T_EQ(OPEN(set, t, en, de, "shots=1"), ERR_ARG);
    T_EQ(OPEN(set, t, en, de, "shots=1", "shots_source=\"data/samples/en-de.en\"", "shots_reference=\"data/samples/en-de.de\""),
         ERR_ARG);
    T_CHECK(strstr(err_text(), "the set that is scored") != NULL);
    t = task_find("triviaqa");
    f = fopen(questions, "w");
    T_CHECK(f && fputs("{\"Data\": [{\"Question\": \"Who?\", \"QuestionId\": \"1\", \"Answer\": {\"Value\": \"Ann\"}}]}", f) >= 0 &&
            fclose(f) == 0);
    snprintf(from, sizeof from, "shots_data=\"%s\"", questions);
    static const char data[] = "data=\"data/samples/triviaqa/qa/wikipedia-dev.json\"";
    T_EQ(OPEN(set, t, data, "shots=1", from), ERR_ARG); /* with documents */
    T_EQ(OPEN(set, t, data, "prompt=\"closed-book\"", "shots=1", from), ERR_OK);
    if (set) {
        struct arena step;
        int64_t one = 0;
        struct task_call c = {.set = set, .tok = tok, .env = &env, .sample = &one, .n = 1, .acc = acc, .step = &step};
        T_EQ(arena_open(&step, "step", (size_t)1 << 28), ERR_OK);
        buf_clear(&fed);
        T_EQ(t->run(&c), ERR_OK);
        T_CHECK(strncmp(buf_text(&fed), "Question: Who?\nAnswer: Ann\n\nQuestion: ", 38) == 0);
        arena_close(&step);
        t->close(set);
    }
    err_clear();
    remove(questions);
    buf_free(&first);
    buf_clear(&fed);
}

static void translations_stop_at_the_newline(void)
{
    const struct task *t = task_find("wmt14");
    static struct task_acc acc[128], again[128];
    static struct buf text[128];
    struct task_set *set;
    struct task_score s[TASK_SCORES];
    env.length = 512;
    set_script("Das Haus ist alt.\nQuestion");
    T_EQ(OPEN(set, t, "source=\"data/samples/en-de.en\"", "reference=\"data/samples/en-de.de\""), ERR_OK);
    if (!set)
        return;
    T_EQ(t->count(set), 68);
    T_EQ(run_all(t, set, acc, text, 16), ERR_OK);
    T_EQ(run_all(t, set, again, NULL, 1), ERR_OK);
    T_CHECK(memcmp(acc, again, 68 * sizeof *acc) == 0); /* the batch changes nothing */
    for (int i = 0; i < 68; i++) {
        T_STR(buf_text(&text[i]), "Das Haus ist alt.");
        buf_free(&text[i]);
    }
    T_EQ(acc[0].n[0], 5); /* the first sentence is right: 5 words */
    T_EQ(acc[0].n[3], 2);
    int n = t->score(set, acc, NULL, 1, s);
    T_CHECK(t->compare(set, &(struct task_pair){acc, again}, NULL, 1, s + 3) == 2 && s[3].value == 0 && s[3].hi == 0);
    memset(again, 0, sizeof again);
    T_CHECK(t->compare(set, &(struct task_pair){acc, again}, NULL, 1, s + 3) == 2);
    T_NEAR(s[3].value, -s[0].value, 1e-12);
    T_CHECK(n == 3 && s[0].value > 0 && s[0].value < 100 && s[0].lo <= s[0].value && s[0].value <= s[0].hi);
    t->close(set);
    T_EQ(OPEN(set, t, "source=\"data/samples/en-de.en\"", "reference=\"data/samples/english.txt\""), ERR_FORMAT);
    T_EQ(OPEN(set, t, "source=\"data/samples/en-de.en\"", "reference=\"data/samples/en-de.de\"", "template=\"{sauce}\""), ERR_ARG);
    T_CHECK(strstr(err_text(), "{source}") != NULL);
    err_clear();
}

static void a_sequence_ends_at_eos_or_when_it_is_long_enough(void)
{
    struct arena step;
    struct buf text[3] = {{0}, {0}, {0}};
    int32_t prompt[3000];
    static const int64_t eos[] = {0};
    for (int i = 0; i < 3000; i++)
        prompt[i] = 20;
    set_script("one two three");
    struct generate_seq q[3] = {{.prompt = prompt, .n = 3000, .max_new = 50, .text = &text[0]},
                                {.prompt = prompt, .n = 2500, .max_new = 2, .text = &text[1]},
                                {.prompt = prompt, .n = 7, .max_new = 0, .text = &text[2]}};
    struct generate_call c = {.tok = tok, .seq = q, .n_seq = 3, .eos = eos, .n_eos = 1, .step = &step};
    T_EQ(arena_open(&step, "step", (size_t)1 << 28), ERR_OK);
    feeds = largest_feed = 0;
    T_EQ(generate_run(&c), ERR_OK);
    T_STR(buf_text(&text[0]), "one two three");
    T_EQ(q[0].made, script_ids.n + 1); /* EOS counts */
    T_EQ(q[1].made, 2);
    T_EQ(q[2].made, 0);
    T_CHECK(feeds >= 3 && largest_feed <= GENERATE_CHUNK + 3); /* 3000 tokens go in chunks */
    q[1].n = 0;
    T_EQ(generate_run(&c), ERR_ARG);
    err_clear();
    T_EQ(caches, 0);
    for (int i = 0; i < 3; i++)
        buf_free(&text[i]);
    arena_close(&step);
}

static void answers_are_scored_and_truncation_is_recorded(void)
{
    const struct task *t = task_find("triviaqa");
    static struct task_acc acc[64];
    static struct buf text[64];
    struct task_set *set;
    struct task_score s[TASK_SCORES];
    struct buf sig = {0};
    int64_t truncated = 0, kept = 0, n;
    env.length = 16384;
    set_script(" the Eddystone\n");
    T_EQ(OPEN(set, t, "data=\"data/samples/triviaqa/qa/wikipedia-dev.json\""), ERR_OK);
    if (!set)
        return;
    n = t->count(set);
    T_CHECK(n >= 20 && n <= 64);
    T_EQ(run_all(t, set, acc, text, 4), ERR_OK);
    for (int64_t i = 0; i < n; i++) {
        struct task_sample x;
        t->sample(set, i, &x);
        T_EQ(acc[i].n[5], x.tokens);
        T_EQ(acc[i].n[6], 0);
        T_EQ(acc[i].n[4], 1); /* every answer stands in its document */
        T_STR(buf_text(&text[i]), " the Eddystone");
        buf_free(&text[i]);
    }
    int scores = t->score(set, acc, NULL, 1, s);
    T_CHECK(scores >= 9 && scores <= TASK_SCORES && s[0].value >= 0 && s[0].value < 100);
    T_CHECK(t->compare(set, &(struct task_pair){acc, acc}, NULL, 1, s) >= 9);
    T_CHECK(s[0].value == 0 && s[0].lo == 0 && s[1].hi == 0); /* a method against itself */
    t->close(set);
    env.length = 400;
    for (int cut = 0; cut < 3; cut++) {
        static const char *const how[] = {"truncate=\"middle\"", "truncate=\"start\"", "truncate=\"end\""};
        memset(acc, 0, sizeof acc);
        T_EQ(OPEN(set, t, "data=\"data/samples/triviaqa/qa/wikipedia-dev.json\"", how[cut]), ERR_OK);
        T_EQ(run_all(t, set, acc, NULL, 8), ERR_OK);
        for (int64_t i = 0; i < n; i++) {
            T_CHECK(acc[i].n[5] <= 400 - 32);
            truncated += acc[i].n[6] > 0;
            kept += acc[i].n[4];
        }
        t->close(set);
    }
    T_CHECK(truncated == 3 * n && kept > 0 && kept < 3 * n);
    T_EQ(OPEN(set, t, "data=\"data/samples/triviaqa/qa/wikipedia-dev.json\"", "prompt=\"closed-book\""), ERR_OK);
    T_EQ(t->signature(set, &sig), ERR_OK);
    T_CHECK(strstr(buf_text(&sig), "prompt:closed-book") != NULL);
    buf_free(&sig);
    t->close(set);
    T_EQ(OPEN(set, t, "data=\"data/asterism-S/config.json\""), ERR_FORMAT);
    T_EQ(OPEN(set, t, "data=\"data/samples/triviaqa/qa/wikipedia-dev.json\"", "evidence=\"/nowhere\""), ERR_IO);
    err_clear();
}

static void probes_fill_the_context_and_hold_their_answer(void)
{
    static const char *const kind[] = {"kind=\"needle\"", "kind=\"multi-key\"", "kind=\"key-value\"", "kind=\"variables\""};
    const struct task *t = task_find("retrieval");
    static struct task_acc acc[40], again[40];
    struct task_score s[TASK_SCORES];
    for (int k = 0; k < 4; k++) {
        struct task_set *set;
        env.length = 1500;
        set_script(" 12345\n");
        T_EQ(OPEN(set, t, kind[k], "samples=40"), ERR_OK);
        if (!set)
            continue;
        T_EQ(run_all(t, set, acc, NULL, 8), ERR_OK);
        T_EQ(run_all(t, set, again, NULL, 3), ERR_OK);
        T_CHECK(memcmp(acc, again, sizeof acc) == 0);
        int64_t depth = 0;
        for (int i = 0; i < 40; i++) {
            struct task_sample x;
            t->sample(set, i, &x);
            T_CHECK(acc[i].n[1] <= x.tokens && acc[i].n[1] > x.tokens - 60);
            depth += acc[i].n[3];
        }
        T_CHECK(depth > 0 && depth < 40 * 100);
        T_EQ(t->score(set, acc, NULL, 1, s), 1);
        T_NEAR(s[0].value, 0, 0);
        t->close(set);
    }
    struct task_set *set;
    env.length = 1500;
    T_EQ(OPEN(set, t, "samples=40"), ERR_OK);
    for (int i = 0; i < 40; i++) { /* the needle stands where the record says, once, and its number is what is right */
        static const char fact[] = " The secret number of ";
        struct arena step;
        int64_t one = i;
        struct task_call c = {.set = set, .tok = tok, .env = &env, .sample = &one, .n = 1, .acc = acc, .step = &step};
        T_EQ(arena_open(&step, "step", (size_t)1 << 28), ERR_OK);
        memset(acc, 0, sizeof *acc);
        set_script("");
        buf_clear(&fed);
        T_EQ(t->run(&c), ERR_OK);
        const char *at = strstr(buf_text(&fed), fact), *is = at ? strstr(at, " is ") : NULL;
        T_CHECK(at && is && !strstr(at + 1, fact));
        if (at && is) {
            char value[16];
            snprintf(value, sizeof value, "%.5s\n", is + 4);
            T_CHECK(fabs(100. * (double)(at - fed.data) / (double)fed.len - (double)acc[0].n[3]) < 8);
            set_script(value);
            memset(acc, 0, sizeof *acc);
            T_EQ(t->run(&c), ERR_OK);
            T_EQ(acc[0].n[0], 1);
        }
        arena_close(&step);
    }
    t->close(set);
    buf_free(&fed);
    env.length = 200;
    T_EQ(OPEN(set, t, kind[0]), ERR_ARG);
    err_clear();
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    if (tok_open(&tok, "data/asterism-S")) {
        printf("# %s\n", err_text());
        return 1;
    }
    env = (struct task_env){.tok = tok, .length = 512, .bos = 0, .vocab = tok_vocab(tok), .eos = {0}, .n_eos = 1, .seed = 1};
    T_RUN(every_task_is_complete);
    T_RUN(the_sample_text_is_cut_side_by_side);
    T_RUN(articles_are_the_documents_of_the_harness);
    T_RUN(scores_follow_their_definitions);
    T_RUN(bad_texts_are_refused_in_one_sentence);
    T_RUN(a_cached_text_is_the_same_text);
    info.vocab = tok_vocab(tok);
    T_RUN(every_token_is_scored_against_itself);
    T_RUN(windows_are_compared_with_dense_attention);
    T_RUN(answers_are_compared_with_dense_attention);
    T_RUN(worked_examples_stand_in_front);
    T_RUN(a_sequence_ends_at_eos_or_when_it_is_long_enough);
    T_RUN(translations_stop_at_the_newline);
    T_RUN(answers_are_scored_and_truncation_is_recorded);
    T_RUN(probes_fill_the_context_and_hold_their_answer);
    tok_ids_free(&script_ids);
    tok_close(tok);
    return t_done();
}
