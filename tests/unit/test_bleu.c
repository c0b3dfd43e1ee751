/* BLEU and chrF: the vectors of sacreBLEU's own tests. */
#include "base/buf.h"
#include "base/err.h"
#include "task/bleu.h"
#include "task/chrf.h"
#include "tests/t.h"

static struct span span(const char *s)
{
    return (struct span){s, strlen(s)};
}

static void the_tokenizer_is_13a(void)
{
    static const char *const row[][2] = {
        {"Hello, world!", "Hello , world !"},
        {"1,000.50 U.S. dollars", "1,000.50 U . S . dollars"},
        {"e.g. this...", "e . g . this . . ."},
        {"it's 'quoted'", "it's 'quoted'"},
        {"A-B 3-4 x-5 5-", "A-B 3 - 4 x-5 5 -"},
        {"&quot;a&quot; &amp;lt; &lt;b&gt;", "\" a \" < < b >"},
        {"a/b @-@ c@d.e", "a / b @ - @ c @ d . e"},
        {"$5.00, 10% #1 (a+b)=c*d", "$ 5.00 , 10 % # 1 ( a + b ) = c * d"},
        {"\xe2\x80\x9eHallo\xe2\x80\x9c, sagte er \xe2\x80\x93 3,5 %.",
         "\xe2\x80\x9eHallo\xe2\x80\x9c , sagte er \xe2\x80\x93 3,5 % ."},
        {"..,,1.,2", ". . , ,1 . , 2"},
        {"50,-- Euro", "50 , -- Euro"},
        {"https://a.b/c?d=1&e=2", "https : / / a . b / c ? d = 1 & e = 2"},
        {"10.", "10 ."},
        {"x.5", "x . 5"},
        {"5.x", "5 . x"},
        {".5", ". 5"},
        {"caf\xc3\xa9.\xc3\xa9,\xc3\xa9", "caf\xc3\xa9 . \xc3\xa9 , \xc3\xa9"},
        {"foo-\nbar baz\nqux", "foobar baz qux"},
        {"<skipped>x", "x"},
        {"\xc2\xa0nbsp\xc2\xa0x\xe2\x80\x89y\xe3\x80\x80z", "nbsp x y z"},
        {"\x1c\xc2\x85x", "x"},
        {"a\xe2\x80\x8b"
         "b",
         "a\xe2\x80\x8b"
         "b"},
        {"", ""},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        struct buf b = {0};
        struct bleu_opts o = {0};
        T_EQ(bleu_tokenise(&b, row[i][0], strlen(row[i][0]), &o), ERR_OK);
        T_STR(buf_text(&b), row[i][1]);
        buf_free(&b);
    }
}

struct set {
    const char *hyp[3], *ref[3][2];
    int n, refs;
};

static struct bleu_stat count(const struct set *x, const struct bleu_opts *o)
{
    struct bleu_stat s = {{0}, {0}, 0, 0};
    for (int i = 0; i < x->n; i++) {
        struct span r[2];
        for (int k = 0; k < x->refs; k++)
            r[k] = span(x->ref[i][k]);
        T_EQ(bleu_add(&s, span(x->hyp[i]), r, x->refs, o), ERR_OK);
    }
    return s;
}

static double bleu(const struct set *x, struct bleu_opts o)
{
    struct bleu_stat s = count(x, &o);
    struct bleu b;
    bleu_score(&b, &s, &o);
    return b.score;
}

static double chrf(const struct set *x, struct chrf_opts o)
{
    struct chrf_stat s = {{0}, {0}, {0}};
    for (int i = 0; i < x->n; i++) {
        struct span r[2];
        for (int k = 0; k < x->refs; k++)
            r[k] = span(x->ref[i][k]);
        T_EQ(chrf_add(&s, span(x->hyp[i]), r, x->refs, &o), ERR_OK);
    }
    return chrf_score(&s, &o);
}

static const struct set readme = {{"The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."},
                                  {{"The dog bit the man.", "The dog had bit the man."},
                                   {"It was not unexpected.", "No one was surprised."},
                                   {"The man bit him first.", "The man had bitten the dog."}},
                                  3,
                                  2};

static void corpus_scores_equal_sacrebleu(void)
{
    static const double by_order[] = {77.65, 60.50, 53.93, 48.53, 46.14, 43.28};
    struct set one_ref = readme, empty = readme;
    T_NEAR(bleu(&readme, (struct bleu_opts){0}), 48.530827, 1e-8);
    T_NEAR(bleu(&readme, (struct bleu_opts){.tok = BLEU_TOK_NONE}), 49.1919566, 1e-8);
    T_NEAR(bleu(&readme, (struct bleu_opts){.smooth = BLEU_SMOOTH_NONE}), 48.530827, 1e-8);
    for (int k = 0; k < 6; k++)
        T_NEAR(bleu(&readme, (struct bleu_opts){.order = k + 1}), by_order[k], 1.1e-4);
    one_ref.refs = 1;
    T_NEAR(bleu(&one_ref, (struct bleu_opts){0}), 45.067506, 1e-8);
    for (int i = 0; i < 3; i++)
        empty.hyp[i] = "";
    T_NEAR(bleu(&empty, (struct bleu_opts){0}), 0, 0);
    struct bleu_opts o = {0};
    struct bleu_stat s = count(&readme, &o);
    static const int64_t correct[] = {14, 7, 5, 3}, total[] = {17, 14, 11, 8};
    for (int k = 0; k < 4; k++) {
        T_EQ(s.correct[k], correct[k]);
        T_EQ(s.total[k], total[k]);
    }
    T_NEAR(chrf(&readme, (struct chrf_opts){0}), 59.727518, 1e-8);
    T_NEAR(chrf(&readme, (struct chrf_opts){.word_order = 2}), 59.153104, 1e-8);
}

static void raw_scores_equal_sacrebleu(void)
{
    static const struct bleu_opts raw = {.tok = BLEU_TOK_NONE, .smooth = BLEU_FLOOR, .smooth_value = 0.01, .effective = true};
    static const struct {
        struct set x;
        double want;
    } row[] = {
        {{{"this is a test", "another test"}, {{"ref1"}, {"ref2"}}, 2, 1}, 0},
        {{{"this is a test"}, {{"this is a test"}}, 1, 1}, 100},
        {{{"this is a fest"}, {{"this is a test"}}, 1, 1}, 22.3606797749979},
        {{{"test"}, {{"a test"}}, 1, 1}, 36.78794411714425},
        {{{"a test"}, {{"a test"}}, 1, 1}, 100},
        {{{"a little test"}, {{"a test"}}, 1, 1}, 3.218297948685433},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++)
        T_NEAR(bleu(&row[i].x, raw), row[i].want, 1e-8);
    static const struct set am = {{"am I am a character sequence"}, {{"I am a symbol string sequence a a"}}, 1, 1};
    static const int64_t correct[] = {4, 2, 1, 0}, total[] = {6, 5, 4, 3};
    struct bleu_opts o = raw;
    struct bleu_stat s = count(&am, &o);
    for (int k = 0; k < 4; k++) {
        T_EQ(s.correct[k], correct[k]);
        T_EQ(s.total[k], total[k]);
    }
    o.smooth_value = 0.1;
    T_NEAR(bleu(&am, o), 15.55722182, 1e-8);
    o.smooth_value = -1; /* none at all */
    T_NEAR(bleu(&am, o), 0, 0);
}

static void statistics_alone_give_the_score(void)
{
    struct bleu_opts o = {.smooth = BLEU_FLOOR, .smooth_value = -1};
    struct bleu b;
    bleu_score(&b, &(struct bleu_stat){{9, 7, 5, 3}, {10, 8, 6, 4}, 11, 11}, &o);
    T_NEAR(b.score, 83.75922397, 1e-8);
    bleu_score(&b, &(struct bleu_stat){{6, 5, 4, 0}, {6, 5, 4, 3}, 6, 6}, &o);
    T_NEAR(b.score, 0, 0);
    bleu_score(&b, &(struct bleu_stat){{0}, {10, 11, 12, 0}, 14, 10}, &o);
    T_NEAR(b.score, 0, 0);
}

static void smoothing_of_sentences_equals_sacrebleu(void)
{
    static const struct set x = {{"Produc\xc8\x9bia de zah\xc4\x83r prim\xc4\x83 va fi exprimat\xc4\x83 \xc3\xaen ceea ce "
                                  "prive\xc8\x99te zah\xc4\x83rul alb;"},
                                 {{"produc\xc5\xa3ia de zah\xc4\x83r brut se exprim\xc4\x83 \xc3\xaen zah\xc4\x83r alb;"}},
                                 1,
                                 1};
    static const struct {
        struct bleu_opts o;
        double want;
    } row[] = {
        {{.effective = true}, 8.493},
        {{.effective = true, .smooth = BLEU_SMOOTH_NONE}, 0},
        {{.effective = true, .smooth = BLEU_FLOOR}, 4.51688},
        {{.effective = true, .smooth = BLEU_FLOOR, .smooth_value = 0.5}, 10.10},
        {{.effective = true, .smooth = BLEU_ADD_K}, 14.882},
        {{.effective = true, .smooth = BLEU_ADD_K, .smooth_value = 2}, 21.389},
        {{.effective = true, .tok = BLEU_TOK_NONE}, 7.347},
        {{.effective = true, .tok = BLEU_CHAR}, 40.8759},
        {{.effective = true, .tok = BLEU_CHAR, .lowercase = true}, 42.0267},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++)
        T_CHECK(fabs(bleu(&x, row[i].o) - row[i].want) < 2e-3);
    static const struct set none = {{"this is a cat"}, {{"okay thanks"}}, 1, 1};
    for (int smooth = BLEU_EXP; smooth <= BLEU_SMOOTH_NONE; smooth++)
        T_NEAR(bleu(&none, (struct bleu_opts){.effective = true, .smooth = (enum bleu_smooth)smooth}), 0, 0);
}

static void more_segments_equal_sacrebleu(void)
{
    static const struct {
        struct set x;
        double bleu, chrf, chrfpp;
        int64_t correct[4], total[4];
    } row[] = {
        {{{"Er sagte: \xe2\x80\x9e"
           "Das ist gut.\xe2\x80\x9c"},
          {{"Er sagte: \"Das ist gut.\""}},
          1,
          1},
         30.509752,
         73.068312,
         65.295779,
         {6, 4, 2, 0},
         {8, 7, 6, 5}},
        {{{"Das kostet 1.000,50 Euro."}, {{"Das kostet 1000,50 Euro."}}, 1, 1},
         30.213754,
         84.593292,
         79.700810,
         {4, 2, 0, 0},
         {5, 4, 3, 2}},
        {{{"the the the the the the the"}, {{"the cat is on the mat"}}, 1, 1},
         7.809850,
         14.232427,
         14.715329,
         {2, 0, 0, 0},
         {7, 6, 5, 4}},
        {{{"Hallo"}, {{"Hallo Welt"}}, 1, 1}, 0, 45.815010, 47.467976, {1, 0, 0, 0}, {1, 0, 0, 0}},
        {{{"a b c"}, {{"a b c"}}, 1, 1}, 0, 100, 100, {3, 2, 1, 0}, {3, 2, 1, 0}},
        {{{""}, {{"nicht leer"}}, 1, 1}, 0, 0, 0, {0}, {0}},
        {{{"Wiederaufnahme der Sitzungsperiode", "Ich bitte Sie, sich zu einer Schweigeminute zu erheben."},
          {{"Wiederaufnahme der Sitzungsperiode"}, {"Wir sollten nun eine Schweigeminute einlegen."}},
          2,
          1},
         13.888095,
         66.076251,
         58.273208,
         {5, 2, 1, 0},
         {14, 12, 10, 8}},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        struct bleu_opts o = {0};
        struct bleu_stat s = count(&row[i].x, &o);
        T_NEAR(bleu(&row[i].x, o), row[i].bleu, 1e-7);
        T_NEAR(chrf(&row[i].x, (struct chrf_opts){0}), row[i].chrf, 1e-7);
        T_NEAR(chrf(&row[i].x, (struct chrf_opts){.word_order = 2}), row[i].chrfpp, 1e-7);
        for (int k = 0; k < 4; k++) {
            T_EQ(s.correct[k], row[i].correct[k]);
            T_EQ(s.total[k], row[i].total[k]);
        }
    }
}

static void chrf_settings_equal_sacrebleu(void)
{
    static const struct set die = {{" Die    Beziehung zwischen  Obama und Netanjahu ist nicht gerade  freundlich. "},
                                   {{"Das Verh\xc3\xa4ltnis zwischen Obama und Netanyahu ist nicht gerade freundschaftlich."}},
                                   1,
                                   1};
    static const struct set small[] = {
        {{"a"}, {{"a"}}, 1, 1}, {{"a b c"}, {{"abc"}}, 1, 1}, {{"a", "b"}, {{"a"}, {"c"}}, 2, 1}, {{"aa"}, {{"ab"}}, 1, 1}};
    static const double eps[] = {16.6667, 50, 8.3333, 8.3333}, effective[] = {100, 100, 50, 25};
    T_NEAR(chrf(&die, (struct chrf_opts){.beta = 3, .eps_smoothing = true}), 64.130222, 1e-6);
    for (int i = 0; i < 4; i++) {
        T_NEAR(chrf(&small[i], (struct chrf_opts){.beta = 3, .eps_smoothing = true}), eps[i], 1e-5);
        T_NEAR(chrf(&small[i], (struct chrf_opts){.beta = 3}), effective[i], 1e-5);
    }
    struct set keep = die;
    keep.hyp[0] = "Die Beziehung zwischen Obama und Netanjahu ist nicht gerade freundlich.";
    T_NEAR(chrf(&keep, (struct chrf_opts){.beta = 3, .keep_space = true}), 67.3481606, 1e-6);
    static const struct set cz = {
        {"Lapali po dechu, jejich \xc5\xbeivoty skon\xc4\x8dily d\xc5\x99\xc3\xadv, ne\xc5\xbe skute\xc4\x8dn\xc4\x9b "
         "za\xc4\x8d"
         "aly."},
        {{"Lapali po dechu a pak jejich \xc5\xbeivot skon\xc4\x8dil - d\xc5\x99\xc3\xadv, ne\xc5\xbe skute\xc4\x8dn\xc4\x9b "
          "mohl za\xc4\x8d\xc3\xadt, p\xc5\x99ipomn\xc4\x9bli."}},
        1,
        1};
    T_NEAR(chrf(&cz, (struct chrf_opts){.eps_smoothing = true}), 57.15704367, 1e-7);
}

static void the_long_line_is_sacrebleus(void)
{
    struct bleu_opts o = {0};
    struct buf b = {0};
    struct bleu_stat online_a = {{34213, 15909, 8450, 4691}, {62880, 62880 - 3004, 62880 - 6008, 62880 - 9012}, 62880, 61287};
    T_EQ(bleu_line(&b, &online_a, &o), ERR_OK);
    T_STR(buf_text(&b), "= 20.8 54.4/26.6/14.9/8.7 (BP = 1.000 ratio = 1.026 hyp_len = 62880 ref_len = 61287)");
    struct bleu x;
    bleu_score(&x, &online_a, &o);
    T_NEAR(x.score, 20.796506, 1e-3);
    buf_free(&b);
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    T_RUN(the_tokenizer_is_13a);
    T_RUN(corpus_scores_equal_sacrebleu);
    T_RUN(raw_scores_equal_sacrebleu);
    T_RUN(statistics_alone_give_the_score);
    T_RUN(smoothing_of_sentences_equals_sacrebleu);
    T_RUN(more_segments_equal_sacrebleu);
    T_RUN(chrf_settings_equal_sacrebleu);
    T_RUN(the_long_line_is_sacrebleus);
    return t_done();
}
