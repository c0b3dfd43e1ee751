/* JSON: strictness, positions in errors, numbers, typed getters, quoting. */
#include "tests/t.h"

#include "base/buf.h"
#include "base/err.h"
#include "io/json.h"

static struct json_doc *parse(const char *text)
{
    struct json_doc *d = NULL;
    err_clear();
    int rc = json_parse(&d, text, strlen(text), "c.json");
    if (rc)
        T_FAIL("%s", err_text());
    return d;
}

/* The text must be refused with ERR_FORMAT and a sentence that contains want. */
static void refused_n(const char *text, size_t n, const char *want)
{
    struct json_doc *d = NULL;
    err_clear();
    T_EQ(json_parse(&d, text, n, "c.json"), ERR_FORMAT);
    T_CHECK(d == NULL);
    if (!strstr(err_text(), want))
        T_FAIL("\"%s\" lacks \"%s\"", err_text(), want);
    err_clear();
}

static void refused(const char *text, const char *want)
{
    refused_n(text, strlen(text), want);
}

static void what_is_not_json_is_refused_with_its_place(void)
{
    refused("", "c.json:1:0");
    refused("{\"a\": 1,\n \"b\": 2,\n}", "c.json:3:1");
    refused("{\"a\": 1, \"a\": 2}", "duplicate");
    refused("[1, 2] 3", "c.json:1:8");
    refused("{'a': 1}", "c.json:1:2");
    refused("[NaN]", "c.json:1");
    refused("[01]", "c.json:1");
    refused("[1e999]", "c.json:1");
    refused("[\"\xc3\x28\"]", "c.json:1");
    refused("[\"\xed\xa0\x80\"]", "c.json:1");
    refused("[\"a\nb\"]", "c.json:1");
    refused("{\"a\":", "c.json:1");
    refused_n("[1]\0", 4, "c.json:1");
    refused("\xef\xbb\xbf{}", "c.json:1");
}

static void deep_nesting_is_refused_and_not_a_crash(void)
{
    size_t n = 1000000;
    char *text = malloc(n);
    memset(text, '[', n);
    refused_n(text, n, "c.json:1");
    memset(text, '{', n);
    refused_n(text, n, "c.json:1");
    free(text);
}

static void numbers_beyond_64_bits_are_reals_and_the_others_stay_exact(void)
{
    struct json_doc *d = parse("{\"s\\\"1\": \"123456789012345678901234567890\", \"big\": 123456789012345678901234567890,"
                               "\"exact\": 9007199254740993, \"max\": 9223372036854775807, \"min\": -9223372036854775808,"
                               "\"r\": 1.5, \"w\": 3.0, \"e\": 1e3}");
    const struct json *o = json_root(d);
    int64_t i = 0;
    double x = 0;
    T_EQ(json_kind(json_get(o, "big")), JSON_REAL);
    T_CHECK(json_as_real(json_get(o, "big"), &x));
    T_NEAR(x / 1e29, 1.2345678901234567890, 1e-15);
    T_CHECK(!json_as_int(json_get(o, "big"), &i));
    T_CHECK(json_as_int(json_get(o, "exact"), &i) && i == 9007199254740993);
    T_STR(json_str(json_get(o, "s\"1")), "123456789012345678901234567890");
    T_CHECK(!json_as_int(json_get(o, "r"), &i));
    T_CHECK(json_as_int(json_get(o, "w"), &i) && i == 3);
    T_CHECK(json_as_int(json_get(o, "e"), &i) && i == 1000);
    json_close(d);
    d = parse("[9223372036854775807, -9223372036854775808, 9223372036854775808]");
    T_EQ(json_kind(json_at(json_root(d), 2)), JSON_REAL);
    T_CHECK(!json_as_int(json_at(json_root(d), 2), &i));
    json_close(d);
    d = parse("[9223372036854775807, -9223372036854775808]");
    T_CHECK(json_as_int(json_at(json_root(d), 0), &i) && i == INT64_MAX);
    T_CHECK(json_as_int(json_at(json_root(d), 1), &i) && i == INT64_MIN);
    json_close(d);
}

static void values_are_reached_by_key_path_index_and_iteration(void)
{
    struct json_doc *d =
        parse("{\"a\": {\"b\": {\"c\": 7}}, \"x.y\": 8, \"n\": null, \"l\": [1, \"two\", null], \"z\": \"a\\u0000b\"}");
    const struct json *o = json_root(d);
    int64_t i = 0;
    T_CHECK(json_as_int(json_path(o, "a.b.c"), &i) && i == 7);
    T_CHECK(json_as_int(json_path(o, "x.y"), &i) && i == 8);
    T_CHECK(!json_path(o, "a.b.d") && !json_path(o, "a.b.c.d") && !json_path(o, "q.r") && !json_path(o, "."));
    T_CHECK(!json_get(o, "n") && !json_get(o, "absent") && !json_get(json_get(o, "l"), "a") && !json_get(NULL, "a"));
    const struct json *l = json_get(o, "l");
    T_EQ(json_len(l), 3);
    T_CHECK(json_str(json_at(l, 0)) == NULL);
    T_STR(json_str(json_at(l, 1)), "two");
    T_EQ(json_kind(json_at(l, 2)), JSON_NULL);
    T_CHECK(!json_at(l, 3) && !json_at(l, -1));
    T_EQ(json_len(json_get(o, "z")), 3);
    T_CHECK(memcmp(json_str(json_get(o, "z")), "a\0b", 3) == 0);
    const char *order[] = {"a", "x.y", "n", "l", "z"};
    int n = 0;
    for (void *it = json_first(o); it && n < 5; it = json_next(o, it), n++)
        T_STR(json_key(it), order[n]);
    T_EQ(n, 5);
    T_CHECK(json_first(l) == NULL);
    json_close(d);
    json_close(NULL);
}

/* The sentence that is set must contain want. */
static void said(const char *want)
{
    if (!strstr(err_text(), want))
        T_FAIL("\"%s\" lacks \"%s\"", err_text(), want);
    err_clear();
}

static void typed_getters_default_and_refuse(void)
{
    struct json_doc *d = parse("{\"n\": null, \"i\": 12, \"s\": \"abc\", \"r\": 0.5, \"b\": true, \"o\": {\"k\": 3}, \"l\": [1]}");
    const struct json *o = json_root(d);
    int64_t i = 0;
    double x = 0;
    bool b = false;
    const char *s = NULL;
    T_CHECK(json_int(d, o, "absent", 5, 0, 9, &i) == 0 && i == 5);
    T_CHECK(json_int(d, o, "n", 6, 0, 9, &i) == 0 && i == 6);
    T_CHECK(json_int(d, o, "o.k", 6, 0, 9, &i) == 0 && i == 3);
    T_EQ(json_int(d, o, "i", 5, 0, 9, &i), ERR_FORMAT);
    said("c.json: i = 12, an integer from 0 to 9 is needed");
    T_EQ(i, 3);
    T_EQ(json_int(d, o, "s", 5, 0, 9, &i), ERR_FORMAT);
    said("c.json: s = \"abc\" is a string, an integer from 0 to 9 is needed");
    T_EQ(json_int(d, o, "r", 5, 0, 9, &i), ERR_FORMAT);
    said("0.5");
    T_EQ(json_int_req(d, o, "n", 0, 9, &i), ERR_FORMAT);
    said("n is missing");
    T_CHECK(json_real(d, o, "i", 0, 0, 100, &x) == 0);
    T_NEAR(x, 12, 0);
    T_CHECK(json_real(d, o, "q", 2.5, 0, 100, &x) == 0);
    T_NEAR(x, 2.5, 0);
    T_EQ(json_real(d, o, "b", 0, 0, 1, &x), ERR_FORMAT);
    said("true is true or false");
    T_EQ(json_real(d, o, "r", 0, 1, 2, &x), ERR_FORMAT);
    said("a number from 1 to 2");
    T_CHECK(json_bool(d, o, "b", false, &b) == 0 && b);
    T_CHECK(json_bool(d, o, "q", true, &b) == 0 && b);
    T_EQ(json_bool(d, o, "l", false, &b), ERR_FORMAT);
    said("an array of 1");
    T_CHECK(json_string(d, o, "s", NULL, &s) == 0);
    T_STR(s, "abc");
    T_CHECK(json_string(d, o, "n", "def", &s) == 0);
    T_STR(s, "def");
    T_EQ(json_string(d, o, "o", NULL, &s), ERR_FORMAT);
    said("an object of 1 keys");
    json_close(d);
}

static void quoted_text_reads_back(void)
{
    const char text[] = "a\"b\\c\n\t\x01\x7f \xc3\xa9 \xf0\x9f\x8c\x9f\0z";
    struct buf q = {0};
    T_EQ(json_quote(&q, text, sizeof text - 1), 0);
    struct json_doc *d = parse(buf_text(&q));
    T_EQ(json_len(json_root(d)), sizeof text - 1);
    T_CHECK(memcmp(json_str(json_root(d)), text, sizeof text) == 0);
    json_close(d);
    buf_clear(&q);
    T_EQ(json_quote(&q, "\xff", 1), 0);
    T_STR(buf_text(&q), "\"\\ufffd\"");
    buf_free(&q);
}

static void a_missing_file_says_which(void)
{
    struct json_doc *d = NULL;
    err_clear();
    T_EQ(json_read(&d, "/nonexistent/x.json"), ERR_IO);
    said("/nonexistent/x.json");
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    T_RUN(what_is_not_json_is_refused_with_its_place);
    T_RUN(deep_nesting_is_refused_and_not_a_crash);
    T_RUN(numbers_beyond_64_bits_are_reals_and_the_others_stay_exact);
    T_RUN(values_are_reached_by_key_path_index_and_iteration);
    T_RUN(typed_getters_default_and_refuse);
    T_RUN(quoted_text_reads_back);
    T_RUN(a_missing_file_says_which);
    return t_done();
}
