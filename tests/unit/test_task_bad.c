/* Questions, documents and sentences that are not as they should be: handled, or refused with name and line; what is wrong
 * with one sample stays with that sample. */
#include <sys/stat.h>

#include "tests/unit/test_task.h"

static char folder[64];

static void write_file(const char *name, const char *text, size_t n)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    T_CHECK(f && fwrite(text, 1, n, f) == n && fclose(f) == 0);
}

static void write_text(const char *name, const char *text)
{
    write_file(name, text, strlen(text));
}

static int open_questions(struct task_set **set, const char *more)
{
    char data[128];
    snprintf(data, sizeof data, "data=\"%s/q.json\"", folder);
    return open_with(set, task_find("triviaqa"), (const char *const[]){data, more}, more ? 2 : 1);
}

/* Runs one sample; its text goes to *out. */
static int run_one(const char *task, struct task_set *set, int64_t i, struct task_acc *acc, struct buf *out)
{
    struct arena step;
    struct task_call c = {.set = set, .tok = tok, .env = &env, .sample = &i, .n = 1, .acc = acc, .text = out, .step = &step};
    err_clear();
    memset(acc, 0, sizeof *acc);
    buf_clear(out);
    T_EQ(arena_open(&step, "step", (size_t)1 << 30), ERR_OK);
    int rc = task_find(task)->run(&c);
    T_EQ(step.used, 0);
    T_EQ(caches, 0);
    arena_close(&step);
    return rc;
}

#define QUESTION(id, text, file, answer)                                                                                           \
    "{\"Question\": \"" text "\", \"QuestionId\": \"" id "\", \"EntityPages\": [{\"Filename\": \"" file                            \
    "\"}], \"Answer\": {\"Value\": \"" answer "\"}}"

static void a_bad_document_fails_its_own_question(void)
{
    struct task_set *set;
    struct task_acc acc;
    struct buf out = {0};
    write_text("q.json",
               "{\"Data\": [" QUESTION("q0", "Who?", "good.txt", "Ann") "," QUESTION("q1", "Who?", "latin.txt", "Ann") "," QUESTION(
                   "q2", "Who?", "none.txt", "Ann") "," QUESTION("q3", "Who?", "empty.txt",
                                                                 "Ann") "," QUESTION("q4", "Who?", "bom.txt", "Ann") "]}");
    write_text("evidence/wikipedia/good.txt", "Ann was here.");
    write_text("evidence/wikipedia/latin.txt", "one\ntwo\ncaf\xe9\n");
    write_text("evidence/wikipedia/empty.txt", " \n\n");
    write_text("evidence/wikipedia/bom.txt", "\xef\xbb\xbf"
                                             "Ann was here.");
    set_script(" Ann\n");
    T_EQ(open_questions(&set, NULL), ERR_OK);
    if (!set)
        return;
    T_EQ(run_one("triviaqa", set, 0, &acc, &out), ERR_OK);
    T_EQ(acc.n[0], 1);
    T_EQ(run_one("triviaqa", set, 1, &acc, &out), ERR_FORMAT);
    T_CHECK(strstr(err_text(), "question q1: ") && strstr(err_text(), "latin.txt:3: byte 11 (0xe9) is not UTF-8"));
    T_CHECK(run_one("triviaqa", set, 2, &acc, &out) != ERR_OK && strstr(err_text(), "none.txt"));
    T_CHECK(run_one("triviaqa", set, 3, &acc, &out) != ERR_OK && strstr(err_text(), "empty.txt"));
    buf_clear(&fed);
    T_EQ(run_one("triviaqa", set, 4, &acc, &out), ERR_OK);
    T_CHECK(strstr(buf_text(&fed), "Ann was here.\n\nQuestion: Who?") == buf_text(&fed)); /* the mark is gone */
    T_STR(buf_text(&out), " Ann");
    task_find("triviaqa")->close(set);
    buf_free(&out);
}

static void an_empty_question_is_named_and_fails_alone(void)
{
    struct task_set *set;
    struct task_acc acc;
    struct buf out = {0};
    write_text("q.json",
               "{\"Data\": [" QUESTION("blank", " ", "good.txt", "Ann") "," QUESTION("q1", "Who?", "good.txt", "Ann") "]}");
    T_EQ(open_questions(&set, NULL), ERR_OK);
    if (!set)
        return;
    T_EQ(run_one("triviaqa", set, 0, &acc, &out), ERR_FORMAT);
    T_CHECK(strstr(err_text(), "question blank is empty") != NULL);
    T_EQ(run_one("triviaqa", set, 1, &acc, &out), ERR_OK);
    task_find("triviaqa")->close(set);
    buf_free(&out);
}

static void question_files_are_refused_with_their_place(void)
{
    static const char item[] = QUESTION("q0", "Who?", "good.txt", "Ann");
    struct task_set *set;
    struct buf b = {0};
    write_text("q.json", "{\"Data\": [\n{\"Question\": \"caf\xe9\"}]}");
    T_EQ(open_questions(&set, NULL), ERR_FORMAT);
    T_CHECK(strstr(err_text(), "q.json:2") != NULL);
    write_text("q.json", "{\"Data\": [{\"QuestionId\": \"x\", \"Answer\": {\"Value\": \"y\"}}]}");
    T_EQ(open_questions(&set, NULL), ERR_FORMAT);
    T_CHECK(strstr(err_text(), "question 1 has no \"Question\"") != NULL);
    write_text("q.json", "{\"Data\": [{\"Question\": \"Who?\", \"QuestionId\": \"x\"}]}");
    T_EQ(open_questions(&set, NULL), ERR_FORMAT);
    T_CHECK(strstr(err_text(), "question x has no answer") != NULL);
    write_text("q.json", "{\"Data\": [" QUESTION("q0", "Who?", "../../etc/passwd", "Ann") "]}");
    T_EQ(open_questions(&set, NULL), ERR_FORMAT);
    T_CHECK(strstr(err_text(), "leads out of the evidence folder") != NULL);
    T_EQ(buf_printf(&b, "\xef\xbb\xbf{\"Data\": [%s]}", item), ERR_OK); /* a byte-order mark is passed over */
    write_file("q.json", buf_text(&b), b.len);
    T_EQ(open_questions(&set, NULL), ERR_OK);
    if (set)
        task_find("triviaqa")->close(set);
    buf_free(&b);
}

static void the_last_of_500_aliases_counts(void)
{
    struct task_set *set;
    struct task_acc acc;
    struct buf b = {0}, out = {0};
    T_EQ(buf_puts(&b,
                  "{\"Data\": [{\"Question\": \"Who?\", \"QuestionId\": \"q\", \"EntityPages\": [{\"Filename\": \"good.txt\"}], "
                  "\"Answer\": {\"NormalizedAliases\": ["),
         ERR_OK);
    for (int i = 0; i < 500; i++)
        T_EQ(buf_printf(&b, "%s\"name %d\"", i ? ", " : "", i), ERR_OK);
    T_EQ(buf_puts(&b, "]}}]}"), ERR_OK);
    write_file("q.json", buf_text(&b), b.len);
    T_EQ(open_questions(&set, NULL), ERR_OK);
    if (!set)
        return;
    set_script(" The Name 499.\n");
    T_EQ(run_one("triviaqa", set, 0, &acc, &out), ERR_OK);
    T_EQ(acc.n[0], 1);
    set_script(" name 500\n");
    T_EQ(run_one("triviaqa", set, 0, &acc, &out), ERR_OK);
    T_EQ(acc.n[0], 0);
    T_NEAR(acc.s[0], 0.5, 1e-12);
    task_find("triviaqa")->close(set);
    buf_free(&b);
    buf_free(&out);
}

/* A million tokens: read, cut to the context, the answer at its end found where the end is kept. */
static void a_million_tokens_are_cut_to_the_context(void)
{
    static const char *const cut[] = {"truncate=\"middle\"", "truncate=\"end\"", "truncate=\"start\""};
    enum { LINES = 130000 };
    static const char line[] = "The road runs along the river. ";
    struct task_set *set;
    struct task_acc acc;
    struct buf b = {0}, out = {0};
    for (int i = 0; i < LINES; i++)
        T_EQ(buf_puts(&b, line), ERR_OK);
    T_EQ(buf_puts(&b, "It was Zebulon."), ERR_OK);
    write_file("evidence/wikipedia/long.txt", buf_text(&b), b.len);
    write_text("q.json", "{\"Data\": [" QUESTION("q", "Who?", "long.txt", "Zebulon") "]}");
    set_script(" Zebulon\n");
    for (int k = 0; k < 3; k++) {
        struct task_sample x;
        T_EQ(open_questions(&set, cut[k]), ERR_OK);
        if (!set)
            continue;
        task_find("triviaqa")->sample(set, 0, &x);
        T_EQ(x.tokens + x.generate, env.length);
        T_EQ(run_one("triviaqa", set, 0, &acc, &out), ERR_OK);
        T_EQ(acc.n[0], 1);
        T_EQ(acc.n[4], k != 1); /* answer_kept */
        T_CHECK(acc.n[6] > 900000 && acc.n[5] == x.tokens);
        task_find("triviaqa")->close(set);
    }
    buf_free(&b);
    buf_free(&out);
}

static int open_pair(struct task_set **set)
{
    char source[128], reference[128];
    snprintf(source, sizeof source, "source=\"%s/a.en\"", folder);
    snprintf(reference, sizeof reference, "reference=\"%s/a.de\"", folder);
    return open_with(set, task_find("wmt14"), (const char *const[]){source, reference}, 2);
}

static void sentences_of_all_kinds(void)
{
    struct task_set *set;
    struct task_acc acc;
    struct buf b = {0}, out = {0};
    set_script("Ja.\n");
    write_text("a.en", "\xef\xbb\xbfYes.\n\nNo.\n");
    write_text("a.de", "Ja.\n\nNein.\n");
    T_EQ(open_pair(&set), ERR_OK);
    if (set) {
        buf_clear(&fed);
        T_EQ(run_one("wmt14", set, 0, &acc, &out), ERR_OK);
        T_CHECK(strstr(buf_text(&fed), "'Yes.'") != NULL);
        T_EQ(acc.n[8], 2); /* "Ja" and "." */
        T_EQ(acc.n[0], 2);
        T_EQ(run_one("wmt14", set, 1, &acc, &out), ERR_OK); /* an empty line is a sentence, as for sacreBLEU */
        T_EQ(acc.n[9], 0);
        task_find("wmt14")->close(set);
    }
    write_text("a.en", "Yes.\ncaf\xe9\nNo.\n");
    T_EQ(open_pair(&set), ERR_FORMAT);
    T_CHECK(strstr(err_text(), "a.en:2: byte 8 (0xe9) is not UTF-8") != NULL);
    write_text("a.en", "Yes.\nNo.\n");
    T_EQ(open_pair(&set), ERR_FORMAT);
    T_CHECK(strstr(err_text(), "2 sentences") && strstr(err_text(), "3: they must be"));
    T_EQ(buf_puts(&b, "Yes.\n"), ERR_OK);
    for (int i = 0; i < 1000; i++)
        T_EQ(buf_puts(&b, "and so on "), ERR_OK);
    T_EQ(buf_puts(&b, "\nNo.\n"), ERR_OK);
    write_file("a.en", buf_text(&b), b.len);
    T_EQ(open_pair(&set), ERR_OK);
    if (set) { /* too long for the context: only this one */
        T_EQ(run_one("wmt14", set, 0, &acc, &out), ERR_OK);
        T_EQ(run_one("wmt14", set, 1, &acc, &out), ERR_ARG);
        T_CHECK(strstr(err_text(), "sentence 2 has") && strstr(err_text(), "context of 512"));
        T_EQ(run_one("wmt14", set, 2, &acc, &out), ERR_OK);
        task_find("wmt14")->close(set);
    }
    err_clear();
    buf_free(&b);
    buf_free(&out);
}

int main(int argc, char **argv)
{
    char command[128], path[128];
    if (tests_begin(&argc, &argv))
        return 1;
    snprintf(folder, sizeof folder, "/tmp/ast-bad-%ld", (long)getpid());
    for (int k = 0; k < 3; k++) {
        snprintf(path, sizeof path, "%s%s", folder, k == 0 ? "" : k == 1 ? "/evidence" : "/evidence/wikipedia");
        T_CHECK(mkdir(path, 0700) == 0);
    }
    T_RUN(a_bad_document_fails_its_own_question);
    T_RUN(an_empty_question_is_named_and_fails_alone);
    T_RUN(question_files_are_refused_with_their_place);
    T_RUN(the_last_of_500_aliases_counts);
    T_RUN(a_million_tokens_are_cut_to_the_context);
    T_RUN(sentences_of_all_kinds);
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    T_CHECK(system(command) == 0);
    return tests_end();
}
