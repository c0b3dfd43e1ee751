/* Damaged tokenizer files and texts: one sentence each that names the place, never a crash. */
#include "tests/unit/test_tok.h"

#define VOCAB "\"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2}"
#define MODEL "\"model\": {\"type\": \"BPE\", " VOCAB ", \"merges\": [\"a b\"]}"

static const struct {
    const char *json, *says; /* part of the sentence */
} bad[] = {
    /* JSON */
    {"", "JSON"},
    {"[1]", "a tokenizer is a JSON object"},
    {"{\"model\": {\"vocab\": {\"a\": 0", "JSON"},
    {"{}", "there is no object \"model\""},
    {"{\"model\": 7}", "there is no object \"model\""},
    /* vocabulary */
    {"{\"model\": {\"type\": \"BPE\", \"merges\": []}}", "the vocabulary must be an object"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": [], \"merges\": []}}", "the vocabulary must be an object"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {}, \"merges\": []}}", "the vocabulary is empty"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": \"0\"}, \"merges\": []}}", "the id of token \"a\" is not an integer"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0.5}, \"merges\": []}}", "is not an integer"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": -1}, \"merges\": []}}", "token \"a\" has the id -1"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 4000000000}, \"merges\": []}}", "token \"a\" has the id 4000000000"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 99999999999999999999999}, \"merges\": []}}", "\"a\""},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 3, \"b\": 3}, \"merges\": []}}",
     "tokens \"a\" and \"b\" have the same id 3"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 3, \"a\": 4}, \"merges\": []}}", "duplicate"},
    /* merges */
    {"{\"model\": {\"type\": \"BPE\", " VOCAB "}}", "model.merges must be a list"},
    {"{\"model\": {\"type\": \"BPE\", " VOCAB ", \"merges\": {}}}", "model.merges must be a list"},
    {"{\"model\": {\"type\": \"BPE\", " VOCAB ", \"merges\": [\"a b\", \"a x\"]}}", "merge 1 names \"x\""},
    {"{\"model\": {\"type\": \"BPE\", " VOCAB ", \"merges\": [[\"b\", \"a\"]]}}", "merge 0 makes \"ba\""},
    {"{\"model\": {\"type\": \"BPE\", " VOCAB ", \"merges\": [\"ab\"]}}", "merge 0 is \"ab\""},
    {"{\"model\": {\"type\": \"BPE\", " VOCAB ", \"merges\": [\"a b \"]}}", "merge 0 is \"a b \""},
    {"{\"model\": {\"type\": \"BPE\", " VOCAB ", \"merges\": [[\"a\"]]}}", "merge 0 is neither"},
    {"{\"model\": {\"type\": \"BPE\", " VOCAB ", \"merges\": [[\"a\", 1]]}}", "merge 0 is neither"},
    {"{\"model\": {\"type\": \"BPE\", " VOCAB ", \"merges\": [null]}}", "merge 0 is neither"},
    {"{\"model\": {\"vocab\": {\"\": 0, \"a\": 1}, \"merges\": [[\"\", \"a\"]]}}", "merge 0 (\"\" \"a\") has an empty part"},
    /* the rest of the model */
    {"{\"model\": {\"type\": \"Unigram\", \"vocab\": []}}", "the model 'Unigram' is not supported; there is BPE"},
    {"{\"model\": {\"type\": 3}}", "type"},
    {"{\"model\": {\"unk_token\": \"?\", " VOCAB ", \"merges\": []}}", "unk_token \"?\" is not in the vocabulary"},
    {"{\"model\": {\"dropout\": 0.1, " VOCAB ", \"merges\": []}}", "model.dropout is 0.1"},
    {"{\"model\": {\"fuse_unk\": 1, " VOCAB ", \"merges\": []}}", "fuse_unk"},
    {"{\"model\": {\"continuing_subword_prefix\": \"####\", " VOCAB ", \"merges\": [\"a b\"]}}", "empty part"},
    /* components */
    {"{\"normalizer\": {\"type\": \"Precompiled\"}, " MODEL "}", "the normalizer 'Precompiled' is not supported; there are NFC"},
    {"{\"pre_tokenizer\": {\"type\": \"UnicodeScripts\"}, " MODEL "}",
     "the pre_tokenizer 'UnicodeScripts' is not supported; there are ByteLevel"},
    {"{\"decoder\": {\"type\": \"CTC\"}, " MODEL "}", "the decoder 'CTC' is not supported; there are ByteLevel"},
    {"{\"post_processor\": {\"type\": \"X\"}, " MODEL "}", "the post_processor 'X' is not supported; there are TemplateProcessing"},
    {"{\"normalizer\": \"NFC\", " MODEL "}", "a normalizer must be an object with a \"type\""},
    {"{\"normalizer\": {\"type\": \"Sequence\"}, " MODEL "}", "needs the list \"normalizers\""},
    {"{\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [null]}, " MODEL "}", "element 0 of \"normalizers\""},
    {"{\"normalizer\": {\"type\": \"Prepend\"}, " MODEL "}", "Prepend needs the string \"prepend\""},
    {"{\"normalizer\": {\"type\": \"Replace\", \"content\": \"\"}, " MODEL "}", "Replace needs \"pattern\""},
    {"{\"normalizer\": {\"type\": \"Replace\", \"pattern\": {\"Regex\": \"(\"}, \"content\": \"\"}, " MODEL "}",
     "does not compile"},
    {"{\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"[\"}, \"behavior\": \"Isolated\"}, " MODEL "}",
     "does not compile"},
    {"{\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"String\": \"a\"}, \"behavior\": \"Kept\"}, " MODEL "}",
     "Split's behavior is 'Kept'"},
    {"{\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"String\": 1}}, " MODEL "}", "Split needs \"pattern\""},
    {"{\"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"ab\"}, " MODEL "}", "one character is needed"},
    {"{\"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"_\", \"prepend_scheme\": \"x\"}, " MODEL "}",
     "prepend_scheme is 'x'"},
    {"{\"pre_tokenizer\": {\"type\": \"Digits\", \"individual_digits\": \"yes\"}, " MODEL "}", "individual_digits"},
    {"{\"decoder\": {\"type\": \"Strip\", \"content\": \" \", \"start\": -1}, " MODEL "}", "start"},
    {"{\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": []}, " MODEL "}", "lacks sequence A"},
    {"{\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"Sequence\": {\"id\": \"B\"}}]}, " MODEL "}",
     "sequence A once"},
    {"{\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"x\"}}]}, " MODEL "}",
     "special token \"x\""},
    {"{\"post_processor\": {\"type\": \"BertProcessing\", \"sep\": [\"a\", 0], \"cls\": [\"a\"]}, " MODEL "}", "\"cls\" must be"},
    {"{\"post_processor\": {\"type\": \"BertProcessing\", \"sep\": [\"a\", 0], \"cls\": [\"a\", 77]}, " MODEL "}",
     "id 77, which is no token"},
    {"{\"post_processor\": {\"type\": \"Sequence\", \"processors\": [{\"type\": \"BertProcessing\", \"sep\": [\"a\", 0], \"cls\": "
     "[\"b\", "
     "1]}, {\"type\": \"BertProcessing\", \"sep\": [\"a\", 0], \"cls\": [\"b\", 1]}]}, " MODEL "}",
     "two processors that add ids"},
    /* added tokens */
    {"{\"added_tokens\": {}, " MODEL "}", "added_tokens is not a list"},
    {"{\"added_tokens\": [7], " MODEL "}", "element 0 of added_tokens"},
    {"{\"added_tokens\": [{\"id\": 5}], " MODEL "}", "needs the string \"content\""},
    {"{\"added_tokens\": [{\"content\": \"x\"}], " MODEL "}", "id"},
    {"{\"added_tokens\": [{\"content\": \"x\", \"id\": -4}], " MODEL "}", "id"},
    {"{\"added_tokens\": [{\"content\": \"a\", \"id\": 5}], " MODEL "}", "the vocabulary has it under 0"},
    {"{\"added_tokens\": [{\"content\": \"x\", \"id\": 1}], " MODEL "}", "the vocabulary has \"b\" under 1"},
    {"{\"added_tokens\": [{\"content\": \"x\", \"id\": 5}, {\"content\": \"y\", \"id\": 5}], " MODEL "}", "have the same id 5"},
    {"{\"added_tokens\": [{\"content\": \"x\", \"id\": 5}, {\"content\": \"x\", \"id\": 6}], " MODEL "}", "has two ids"},
    {"{\"added_tokens\": [{\"content\": \"x\", \"id\": 5, \"special\": \"no\"}], " MODEL "}", "special"},
};

static void each_damage_is_told_in_a_sentence(void)
{
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct tok *t = tok_of(bad[i].json);
        if (t || !strstr(err_text(), bad[i].says) || strncmp(err_text(), "t.json", 6) != 0)
            T_FAIL("%s\n#   says \"%s\", want \"%s\" in it and t.json in front", bad[i].json, t ? "nothing" : err_text(),
                   bad[i].says);
        err_clear();
        tok_close(t);
    }
    struct tok *t = tok_of("{" MODEL "}");
    T_CHECK(t != NULL); /* the frame that all of these damage is sound */
    tok_close(t);
}

static void sequences_nest_only_so_deep(void)
{
    struct buf b = {0};
    buf_puts(&b, "{\"normalizer\": ");
    for (int i = 0; i < 40; i++)
        buf_puts(&b, "{\"type\": \"Sequence\", \"normalizers\": [");
    for (int i = 0; i < 40; i++)
        buf_puts(&b, "]}");
    buf_puts(&b, ", " MODEL "}");
    struct tok *t = tok_of(buf_text(&b));
    T_CHECK(!t && strstr(err_text(), "more than 16 Sequences"));
    err_clear();
    tok_close(t);
    buf_free(&b);
}

static void text_that_is_not_utf8_is_refused_with_its_place(void)
{
    static const char *const texts[] = {"ab\xFF", "ab\xC3", "ab\xED\xA0\x80", "ab\xC0\x80", "ab\xF5\x80\x80\x80"};
    struct tok *t = tok_of("{" MODEL "}");
    struct tok_ids ids = {0};
    T_EQ(tok_encode(t, "ab", 2, false, &ids), ERR_OK);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        T_EQ(tok_encode(t, texts[i], strlen(texts[i]), false, &ids), ERR_FORMAT);
        T_CHECK(strstr(err_text(), "not UTF-8 at byte 2"));
        err_clear();
        T_EQ(ids.n, 1); /* nothing is added */
    }
    T_EQ(tok_encode(t, "", 0, false, &ids), ERR_OK);
    T_EQ(ids.n, 1);
    tok_ids_free(&ids);
    tok_close(t);
}

static void ids_that_are_no_tokens_are_refused(void)
{
    static const int32_t ids[][2] = {{0, 3}, {0, -1}, {0, INT32_MAX}, {0, INT32_MIN}};
    struct tok *t = tok_of("{" MODEL "}");
    struct buf out = {0};
    for (size_t i = 0; i < 4; i++) {
        T_EQ(tok_decode(t, ids[i], 2, false, &out), ERR_ARG);
        T_CHECK(strstr(err_text(), "(number 1) is no token"));
        err_clear();
    }
    T_EQ(out.len, 0);
    buf_free(&out);
    tok_close(t);
}

/* Nested repeats take exponential time; PCRE2's limit ends it, and that must be an error, not a wrong cut. */
static void a_regex_that_reaches_a_limit_is_an_error(void)
{
    struct tok *t =
        tok_of("{\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"(a+)+$|(?=(a|aa)+b)\"}, \"behavior\": "
               "\"Isolated\"}, " MODEL "}");
    struct tok_ids ids = {0};
    char s[61];
    memset(s, 'a', 59);
    s[59] = 'c';
    s[60] = '\0';
    T_EQ(tok_encode(t, s, 60, false, &ids), ERR_FORMAT);
    T_CHECK(strstr(err_text(), "fails at byte 0") && strstr(err_text(), "limit"));
    err_clear();
    T_EQ(ids.n, 0);
    tok_ids_free(&ids);
    tok_close(t);
}

/* Found by fuzzing: thirteen ByteLevels turned 2 KB into 15 MB. */
static void steps_that_blow_a_text_up_are_stopped(void)
{
    struct buf b = {0};
    struct tok_ids ids = {0};
    char s[2000];
    memset(s, ' ', sizeof s);
    buf_puts(&b, "{\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [");
    for (int i = 0; i < 13; i++)
        buf_printf(&b, "%s{\"type\": \"ByteLevel\"}", i ? ", " : "");
    buf_puts(&b, "]}, " MODEL "}");
    struct tok *t = tok_of(buf_text(&b));
    T_EQ(tok_encode(t, s, sizeof s, false, &ids), ERR_FORMAT);
    T_CHECK(strstr(err_text(), "bytes of a text of 2000 bytes"));
    err_clear();
    tok_close(t);
    t = tok_of(
        "{\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, "
        "\"content\": \"                \"}, {\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": "
        "\"                \"}]}, " MODEL "}");
    T_EQ(tok_encode(t, s, sizeof s, false, &ids), ERR_FORMAT);
    err_clear();
    T_EQ(ids.n, 0);
    tok_close(t);
    buf_free(&b);
    tok_ids_free(&ids);
}

static void files_that_are_not_there_are_named(void)
{
    struct tok *t = NULL;
    T_EQ(tok_open(&t, "/tmp/no/such/model"), ERR_IO);
    T_CHECK(strstr(err_text(), "/tmp/no/such/model"));
    err_clear();
    T_EQ(tok_open(&t, "/tmp"), ERR_IO);
    T_CHECK(strstr(err_text(), "there is no tokenizer.json here"));
    err_clear();
    T_CHECK(t == NULL);
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    T_RUN(each_damage_is_told_in_a_sentence);
    T_RUN(sequences_nest_only_so_deep);
    T_RUN(text_that_is_not_utf8_is_refused_with_its_place);
    T_RUN(ids_that_are_no_tokens_are_refused);
    T_RUN(a_regex_that_reaches_a_limit_is_an_error);
    T_RUN(steps_that_blow_a_text_up_are_stopped);
    T_RUN(files_that_are_not_there_are_named);
    return t_done();
}
