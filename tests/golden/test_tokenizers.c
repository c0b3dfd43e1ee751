/* Ids, ids with special tokens and decoded text equal to Hugging Face tokenizers 0.23, case by case. */
#include "tests/t.h"

#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "io/json.h"
#include "text/tok.h"

#define FOLDER "../shared/golden/tokenizers/"
enum { MIN_CASES = 100 }; /* fewer: the file is not what we think it is */

static void same_ids(const struct tok *t, int64_t number, const struct json *text, const struct json *want, bool special)
{
    struct tok_ids ids = {0};
    int64_t id, first = -1;
    if (tok_encode(t, json_str(text), (size_t)json_len(text), special, &ids)) {
        T_FAIL("case %lld: %s", (long long)number, err_text());
        err_clear();
    }
    T_EQ(ids.n, json_len(want));
    for (int64_t i = 0; i < ids.n && i < json_len(want) && first < 0; i++)
        if (!json_as_int(json_at(want, i), &id) || id != ids.v[i])
            first = i;
    if (first >= 0)
        T_FAIL("case %lld (\"%.60s\"): id %lld is %d", (long long)number, json_str(text), (long long)first, ids.v[first]);
    tok_ids_free(&ids);
}

static void same_text(const struct tok *t, int64_t number, const struct json *list, const struct json *want)
{
    struct buf text = {0};
    int64_t n = json_len(list), id = 0;
    int32_t *ids = malloc((size_t)(n + 1) * sizeof *ids);
    for (int64_t i = 0; i < n; i++) {
        T_CHECK(json_as_int(json_at(list, i), &id));
        ids[i] = (int32_t)id;
    }
    if (tok_decode(t, ids, n, false, &text)) {
        T_FAIL("case %lld: %s", (long long)number, err_text());
        err_clear();
    }
    T_EQ(text.len, json_len(want));
    if ((int64_t)text.len == json_len(want) && memcmp(buf_text(&text), json_str(want), text.len))
        T_FAIL("case %lld: decoded \"%.60s\", want \"%.60s\"", (long long)number, buf_text(&text), json_str(want));
    free(ids);
    buf_free(&text);
}

static void compare(const char *name)
{
    char path[256];
    struct tok *t = NULL;
    struct json_doc *d = NULL;
    snprintf(path, sizeof path, FOLDER "%s", name);
    int rc = tok_open(&t, path);
    snprintf(path, sizeof path, FOLDER "%s/cases.json", name);
    if (rc == 0)
        rc = json_read(&d, path);
    if (rc)
        T_FAIL("%s", err_text());
    err_clear();
    const struct json *cases = d ? json_get(json_root(d), "cases") : NULL;
    T_CHECK(json_len(cases) >= MIN_CASES);
    for (int64_t i = 0; rc == 0 && i < json_len(cases); i++) {
        const struct json *c = json_at(cases, i);
        same_ids(t, i, json_get(c, "text"), json_get(c, "ids"), false);
        same_ids(t, i, json_get(c, "text"), json_get(c, "ids_special"), true);
        same_text(t, i, json_get(c, "ids"), json_get(c, "decoded"));
    }
    json_close(d);
    tok_close(t);
}

static void gpt2_is_equal_case_by_case(void)
{
    compare("gpt2");
}

static void gpt_neox_is_equal_case_by_case(void)
{
    compare("gpt-neox");
}

static void starcoder_is_equal_case_by_case(void)
{
    compare("starcoder");
}

static void llama2_is_equal_case_by_case(void)
{
    compare("llama2");
}

static void llama3_style_is_equal_case_by_case(void)
{
    compare("llama3-style");
}

static void qwen2_style_is_equal_case_by_case(void)
{
    compare("qwen2-style");
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    if (access(FOLDER, R_OK)) {
        t_skip("tokenizers equal Hugging Face's", "skipped: " FOLDER " is not here");
        return t_done();
    }
    T_RUN(gpt2_is_equal_case_by_case);
    T_RUN(gpt_neox_is_equal_case_by_case);
    T_RUN(starcoder_is_equal_case_by_case);
    T_RUN(llama2_is_equal_case_by_case);
    T_RUN(llama3_style_is_equal_case_by_case);
    T_RUN(qwen2_style_is_equal_case_by_case);
    return t_done();
}
