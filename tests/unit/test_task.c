/* The list of tasks, and perplexity from outside: cutting, signatures, errors, scores of hand-made counts. */
#include "tests/unit/test_task.h"

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

int main(int argc, char **argv)
{
    if (tests_begin(&argc, &argv))
        return 1;
    T_RUN(every_task_is_complete);
    T_RUN(the_sample_text_is_cut_side_by_side);
    T_RUN(articles_are_the_documents_of_the_harness);
    T_RUN(scores_follow_their_definitions);
    T_RUN(bad_texts_are_refused_in_one_sentence);
    T_RUN(a_cached_text_is_the_same_text);
    T_RUN(every_token_is_scored_against_itself);
    T_RUN(windows_are_compared_with_dense_attention);
    return tests_end();
}
