/* BLEU, chrF and chrF++ against sacreBLEU 2.6.0 on its recorded sets: counts exactly, scores to 1e-9. */
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "io/json.h"
#include "task/bleu.h"
#include "task/chrf.h"
#include "tests/t.h"

static struct json_doc *golden;

static double real(const struct json *o, const char *key)
{
    double x = (double)NAN;
    T_CHECK(json_as_real(json_get(o, key), &x));
    return x;
}

static int64_t whole(const struct json *v)
{
    int64_t x = -1;
    T_CHECK(json_as_int(v, &x));
    return x;
}

static struct span text(const struct json *list, int64_t i)
{
    const struct json *v = json_at(list, i);
    return (struct span){json_str(v), (size_t)json_len(v)};
}

static void one_set(const char *name, const struct json *set)
{
    const struct json *hyp = json_get(set, "hyp"), *ref = json_get(set, "ref"), *sentence = json_get(set, "sentence_bleu");
    struct bleu_opts o = {0}, so = {.effective = true};
    struct chrf_opts co = {0}, po = {.word_order = 2};
    struct bleu_stat s = {{0}, {0}, 0, 0};
    struct chrf_stat c = {{0}, {0}, {0}}, p = {{0}, {0}, {0}};
    struct bleu b;
    struct buf sig = {0};
    printf("# %s\n", name);
    for (int64_t i = 0; i < json_len(hyp); i++) {
        struct span r = text(ref, i);
        T_EQ(bleu_add(&s, text(hyp, i), &r, 1, &o), ERR_OK);
        T_EQ(chrf_add(&c, text(hyp, i), &r, 1, &co), ERR_OK);
        T_EQ(chrf_add(&p, text(hyp, i), &r, 1, &po), ERR_OK);
        if (i < json_len(sentence)) {
            struct bleu_stat one = {{0}, {0}, 0, 0};
            double want = (double)NAN;
            json_as_real(json_at(sentence, i), &want);
            T_EQ(bleu_add(&one, text(hyp, i), &r, 1, &so), ERR_OK);
            bleu_score(&b, &one, &so);
            T_NEAR(b.score, want, 1e-9);
        }
    }
    bleu_score(&b, &s, &o);
    T_NEAR(b.score, real(set, "bleu"), 1e-9);
    T_NEAR(b.bp, real(set, "bp"), 1e-9);
    for (int k = 0; k < 4; k++) {
        T_EQ(s.correct[k], whole(json_at(json_get(set, "counts"), k)));
        T_EQ(s.total[k], whole(json_at(json_get(set, "totals"), k)));
    }
    T_EQ(s.sys_len, whole(json_get(set, "sys_len")));
    T_EQ(s.ref_len, whole(json_get(set, "ref_len")));
    T_NEAR(chrf_score(&c, &co), real(set, "chrf"), 1e-9);
    T_NEAR(chrf_score(&p, &po), real(set, "chrfpp"), 1e-9);
    T_EQ(bleu_signature(&sig, 1, &o), ERR_OK);
    T_STR(buf_text(&sig), json_str(json_get(set, "signature")));
    buf_clear(&sig);
    T_EQ(chrf_signature(&sig, 1, &co), ERR_OK);
    T_STR(buf_text(&sig), json_str(json_get(set, "chrf_signature")));
    buf_free(&sig);
}

static void every_set_equals_sacrebleu(void)
{
    const struct json *sets = json_get(json_root(golden), "sets");
    T_CHECK(json_len(sets) >= 9);
    for (void *it = json_first(sets); it; it = json_next(sets, it))
        one_set(json_key(it), json_value(it));
}

int main(int argc, char **argv)
{
    static const char path[] = "../shared/golden/bleu/sacrebleu.json";
    t_start(&argc, &argv);
    if (access(path, R_OK) != 0) {
        t_skip("every_set_equals_sacrebleu", "skipped: ../shared is absent");
        return t_done();
    }
    if (json_read(&golden, path)) {
        printf("# %s\n", err_text());
        return 1;
    }
    T_RUN(every_set_equals_sacrebleu);
    json_close(golden);
    return t_done();
}
