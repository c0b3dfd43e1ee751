/* Normal forms and scores of answers: the tables of the metrics reference. */
#include "base/buf.h"
#include "base/err.h"
#include "task/qa.h"
#include "text/lower.h"
#include "tests/t.h"

static struct span span(const char *s)
{
    return (struct span){s, strlen(s)};
}

static void normal_forms_equal_both_scorers(void)
{
    static const char *const row[][3] = {
        {"The U.S.A.", "u s", "usa"},
        {"a-b", "b", "ab"},
        {"state-of-the-art", "state of art", "stateoftheart"},
        {"Rock 'n' Roll", "rock n roll", "rock n roll"},
        {"Hello_World", "hello world", "helloworld"},
        {"O\xe2\x80\x99Neill", "o neill", "o\xe2\x80\x99neill"},
        {"\xe2\x80\x98quoted\xe2\x80\x99", "quoted", "\xe2\x80\x98quoted\xe2\x80\x99"},
        {"`tick\xc2\xb4", "tick", "tick\xc2\xb4"},
        {"$1,000.50", "1 000 50", "100050"},
        {"1990\xe2\x80\x93"
         "1995",
         "1990\xe2\x80\x93"
         "1995",
         "1990\xe2\x80\x93"
         "1995"},
        {"A&E", "e", "ae"},
        {"the", "", ""},
        {"\xc2\xa0the\xc2\xa0"
         "cat",
         "cat", "cat"},
        {"\xc3\x89"
         "COLE",
         "\xc3\xa9"
         "cole",
         "\xc3\xa9"
         "cole"},
        {"\xc4\xb0stanbul", "i\xcc\x87stanbul", "i\xcc\x87stanbul"},
        {"Stra\xc3\x9f"
         "e",
         "stra\xc3\x9f"
         "e",
         "stra\xc3\x9f"
         "e"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        struct buf t = {0}, s = {0};
        T_EQ(qa_normalise_triviaqa(row[i][0], strlen(row[i][0]), &t), ERR_OK);
        T_EQ(qa_normalise_squad(row[i][0], strlen(row[i][0]), &s), ERR_OK);
        T_STR(buf_text(&t), row[i][1]);
        T_STR(buf_text(&s), row[i][2]);
        buf_free(&t);
        buf_free(&s);
    }
}

static void scores_equal_all_scorers(void)
{
    static const struct {
        const char *prediction, *gold[3];
        double em, f1, em_squad, f1_squad, em_harness;
    } row[] = {
        {"the United States of America", {"united states", "usa", "us"}, 0, 2. / 3, 0, 2. / 3, 0},
        {"Sinclair Lewis.", {"sinclair lewis", "(harry) sinclair lewis"}, 1, 1, 1, 1, 1},
        {"state-of-the-art", {"state of the art"}, 1, 1, 0, 0, 0},
        {"Queen Elizabeth II of England", {"elizabeth ii", "queen elizabeth ii"}, 0, .75, 0, .75, 0},
        {"New York, New York", {"new york"}, 0, 2. / 3, 0, 2. / 3, 0},
        {"rock'n'roll", {"rock n roll"}, 1, 1, 0, 0, 0},
        {"mark   twain", {"Mark Twain"}, 1, 1, 1, 1, 0},
        {"the", {"a"}, 1, 0, 1, 0, 0},
        {"", {"x"}, 0, 0, 0, 0, 0},
        {"3.14", {"3.14", "314"}, 1, 1, 1, 1, 1},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        struct span gold[3];
        int n = 0;
        struct qa_score s;
        for (; n < 3 && row[i].gold[n]; n++)
            gold[n] = span(row[i].gold[n]);
        T_EQ(qa_score(&s, span(row[i].prediction), gold, n), ERR_OK);
        T_NEAR(s.em, row[i].em, 0);
        T_NEAR(s.f1, row[i].f1, 1e-6);
        T_NEAR(s.em_squad, row[i].em_squad, 0);
        T_NEAR(s.f1_squad, row[i].f1_squad, 1e-6);
        T_NEAR(s.em_harness, row[i].em_harness, 0);
    }
}

static void answers_are_cut_as_the_protocols_say(void)
{
    static const char *const stops[] = {"\n", ".", ","};
    struct span s = qa_cut(span(" J. R. R. Tolkien\nnext"), stops, 3);
    T_CHECK(s.n == 1 && s.s[0] == 'J');
    s = qa_cut(span(" Paris \nnext"), stops, 1);
    T_CHECK(s.n == 5 && memcmp(s.s, "Paris", 5) == 0);
    s = qa_first_line(span("\n\nParis.\nmore"));
    T_CHECK(s.n == 6 && memcmp(s.s, "Paris.", 6) == 0);
    s = qa_first_line(span(""));
    T_EQ(s.n, 0);
}

static void an_answer_is_found_as_whole_words(void)
{
    struct span a[2] = {span("York"), span("the  Hague")};
    T_EQ(qa_answer_in(span("Newyork and yorkshire"), a, 1), 0);
    T_EQ(qa_answer_in(span("He went to York."), a, 1), 1);
    T_EQ(qa_answer_in(span("in The (Hague), 1899"), a, 2), 1);
    T_EQ(qa_answer_in(span(""), a, 2), 0);
}

static void lower_case_is_pythons(void)
{
    static const char *const row[][2] = {
        {"\xce\x9f\xce\x94\xce\x9f\xce\xa3", "\xce\xbf\xce\xb4\xce\xbf\xcf\x82"}, /* a final sigma */
        {"\xce\xa3", "\xcf\x83"},                                                 /* alone: not final */
        {"\xce\x91\xce\xa3\xce\x91", "\xce\xb1\xcf\x83\xce\xb1"},
        {"\xce\x91\xce\xa3.", "\xce\xb1\xcf\x82."},
        {"\xff\xc3\x84", "\xff\xc3\xa4"}, /* what is not UTF-8 stays */
        {"\xe1\xba\x9e", "\xc3\x9f"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        struct buf b = {0};
        T_EQ(text_lower(row[i][0], strlen(row[i][0]), &b), ERR_OK);
        T_STR(buf_text(&b), row[i][1]);
        buf_free(&b);
    }
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    T_RUN(normal_forms_equal_both_scorers);
    T_RUN(scores_equal_all_scorers);
    T_RUN(answers_are_cut_as_the_protocols_say);
    T_RUN(an_answer_is_found_as_whole_words);
    T_RUN(lower_case_is_pythons);
    return t_done();
}
