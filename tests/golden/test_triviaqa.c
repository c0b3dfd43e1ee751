/* Exact match and F1 against TriviaQA's official scorer on 400 recorded predictions. */
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "io/json.h"
#include "task/qa.h"
#include "tests/t.h"

static struct json_doc *golden;

static struct span text(const struct json *v)
{
    return (struct span){json_str(v), (size_t)json_len(v)};
}

static void every_case_equals_the_official_scorer(void)
{
    const struct json *cases = json_get(json_root(golden), "cases");
    int64_t hits = 0;
    T_CHECK(json_len(cases) >= 400);
    for (int64_t i = 0; i < json_len(cases); i++) {
        const struct json *c = json_at(cases, i), *list = json_get(c, "aliases");
        struct span alias[64], p = text(json_get(c, "prediction"));
        struct qa_score s;
        struct buf norm = {0};
        int64_t n = json_len(list), em = -1;
        double f1 = (double)NAN;
        T_CHECK(n <= 64);
        for (int64_t k = 0; k < n && k < 64; k++)
            alias[k] = text(json_at(list, k));
        T_CHECK(json_as_int(json_get(c, "em"), &em) && json_as_real(json_get(c, "f1"), &f1));
        T_EQ(qa_normalise_triviaqa(p.s, p.n, &norm), ERR_OK);
        T_STR(buf_text(&norm), json_str(json_get(c, "normalized")));
        T_EQ(qa_score(&s, p, alias, n), ERR_OK);
        T_EQ(s.em, em);
        T_NEAR(s.f1, f1, 1e-12);
        hits += s.em;
        buf_free(&norm);
    }
    T_CHECK(hits > 10);
}

int main(int argc, char **argv)
{
    static const char path[] = "../shared/golden/triviaqa/cases.json";
    t_start(&argc, &argv);
    if (access(path, R_OK) != 0) {
        t_skip("every_case_equals_the_official_scorer", "skipped: ../shared is absent");
        return t_done();
    }
    if (json_read(&golden, path)) {
        printf("# %s\n", err_text());
        return 1;
    }
    T_RUN(every_case_equals_the_official_scorer);
    json_close(golden);
    return t_done();
}
