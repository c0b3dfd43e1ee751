/* Tasks that generate, over a stand-in model whose outputs are known beforehand. */
#include "tests/unit/test_task.h"

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
    err_clear();
    remove(questions);
    buf_free(&first);
    buf_clear(&fed);
}

static void worked_questions_stand_in_front(void)
{
    static const char data[] = "data=\"data/samples/triviaqa/qa/wikipedia-dev.json\"";
    const struct task *t = task_find("triviaqa");
    static struct task_acc acc[1];
    struct task_set *set;
    char from[160], questions[96];
    env.length = 512;
    set_script("x\n");
    snprintf(questions, sizeof questions, "/tmp/ast-shots-%ld.json", (long)getpid());
    FILE *f = fopen(questions, "w");
    T_CHECK(f && fputs("{\"Data\": [{\"Question\": \"Who?\", \"QuestionId\": \"1\", \"Answer\": {\"Value\": \"Ann\"}}]}", f) >= 0 &&
            fclose(f) == 0);
    snprintf(from, sizeof from, "shots_data=\"%s\"", questions);
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
    T_CHECK(t->compare(set, &(struct task_pair){acc, again}, NULL, 1, s + 3) == 3 && s[3].value == 0 && s[3].hi == 0);
    memset(again, 0, sizeof again);
    T_CHECK(t->compare(set, &(struct task_pair){acc, again}, NULL, 1, s + 3) == 3);
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
    if (tests_begin(&argc, &argv))
        return 1;
    T_RUN(answers_are_compared_with_dense_attention);
    T_RUN(worked_examples_stand_in_front);
    T_RUN(worked_questions_stand_in_front);
    T_RUN(a_sequence_ends_at_eos_or_when_it_is_long_enough);
    T_RUN(translations_stop_at_the_newline);
    T_RUN(answers_are_scored_and_truncation_is_recorded);
    T_RUN(probes_fill_the_context_and_hold_their_answer);
    return tests_end();
}
