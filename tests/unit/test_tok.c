/* The whole pipeline on tokenizers of our own: added tokens, special ids, decoding, the older pair of files. */
#include "tests/unit/test_tok.h"

#include <unistd.h>

#include "io/file.h"

#define LETTERS "\"a\": 0, \"b\": 1, \"c\": 2, \"ab\": 3, \" \": 4, \"<\": 5, \">\": 6, \"\\n\": 7"
#define MODEL "{\"type\": \"BPE\", \"vocab\": {" LETTERS "}, \"merges\": [\"a b\"]}"
#define ADDED(id, content, flags) "{\"id\": " #id ", \"content\": \"" content "\"" flags "}"

static void added_tokens_are_cut_out_longest_first(void)
{
    struct tok *t = tok_of_parts(&(struct parts){.added = "[" ADDED(10, "<a>", ", \"special\": true") ", " ADDED(
                                                     11, "<a>b", "") ", " ADDED(12, "<b", ", \"normalized\": false") "]",
                                                 .model = MODEL});
    T_STR(tokens(t, "ab<a>ab", false), "ab|<a>|ab");
    T_STR(tokens(t, "<a><b>", false), "<a>|<b|>");
    T_STR(tokens(t, "<a>bc", false), "<a>|b|c");
    T_STR(tokens(t, "c<a>", false), "c|<a>");
    T_EQ(tok_vocab(t), 13);
    T_EQ(tok_id(t, "<a>"), 10);
    T_EQ(tok_id(t, "ab"), 3);
    T_EQ(tok_id(t, "nothing"), -1);
    T_STR(tok_token(t, 12), "<b");
    T_CHECK(tok_token(t, 9) == NULL && tok_token(t, -1) == NULL && tok_token(t, 13) == NULL);
    tok_close(t);
}

/* Above "<a>b" is a normalized token, looked for later in what the others leave: there the shorter "<a>" wins, here not. */
static void tokens_of_one_kind_match_longest_first(void)
{
    struct tok *t = tok_of_parts(&(struct parts){
        .added = "[" ADDED(10, "<a>", ", \"normalized\": false") ", " ADDED(11, "<a>b", ", \"normalized\": false") "]",
        .model = MODEL});
    T_STR(tokens(t, "<a>ab<a>b<a", false), "<a>|ab|<a>b|<|a");
    tok_close(t);
}

static void white_space_goes_to_the_token_that_strips(void)
{
    struct tok *t =
        tok_of_parts(&(struct parts){.added = "[" ADDED(10, "<a>", ", \"normalized\": false, \"lstrip\": true") ", " ADDED(
                                         11, "<b>", ", \"normalized\": false, \"rstrip\": true") "]",
                                     .model = MODEL});
    T_STR(tokens(t, "a <a> b", false), "a|<a>| |b");
    T_STR(tokens(t, "a <b> \n b", false), "a| |<b>|b");
    T_STR(tokens(t, "<b>  <a>", false), "<b>|<a>");
    tok_close(t);
}

static void a_single_word_does_not_match_inside_words(void)
{
    struct tok *t = tok_of_parts(
        &(struct parts){.added = "[" ADDED(10, "ab", ", \"normalized\": false, \"single_word\": true") "]",
                        .model = "{\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"c\": 2, \" \": 4}, \"merges\": []}"});
    T_STR(tokens(t, "ab cab abc ab", false), "ab| |c|a|b| |a|b|c| |ab");
    tok_close(t);
}

static void normalized_tokens_are_found_in_the_normalized_text(void)
{
    struct tok *t = tok_of_parts(&(struct parts){
        .normal = "{\"type\": \"Lowercase\"}",
        .added = "[" ADDED(10, "ABC", ", \"normalized\": true") ", " ADDED(11, "CAB", ", \"normalized\": false") "]",
        .decode = "{\"type\": \"Fuse\"}",
        .model = MODEL});
    T_STR(tokens(t, "aBc CAB cab", false), "ABC| |CAB| |c|ab");
    T_STR(TEXT_OF(t, false, "ABC", "CAB"), "abcCAB"); /* decoding gives what was matched */
    tok_close(t);
}

static void the_post_processor_puts_ids_around(void)
{
    struct tok *t = tok_of_parts(&(struct parts){
        .post =
            "{\"type\": \"Sequence\", \"processors\": [{\"type\": \"ByteLevel\"}, {\"type\": \"TemplateProcessing\", \"single\": "
            "[{\"SpecialToken\": {\"id\": \"<s>\", \"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}, "
            "{\"SpecialToken\": {\"id\": \"<e>\", \"type_id\": 0}}], \"special_tokens\": {\"<s>\": {\"ids\": [10]}, \"<e>\": "
            "{\"ids\": [11]}}}]}",
        .added = "[" ADDED(10, "<s>", ", \"special\": true") ", " ADDED(11, "<e>", ", \"special\": true") "]",
        .decode = "{\"type\": \"Fuse\"}",
        .model = MODEL});
    T_STR(tokens(t, "ab", true), "<s>|ab|<e>");
    T_STR(tokens(t, "ab", false), "ab");
    T_STR(tokens(t, "", true), "<s>|<e>");
    T_EQ(tok_bos(t), 10);
    T_STR(TEXT_OF(t, true, "<s>", "ab", "<e>"), "ab");
    T_STR(TEXT_OF(t, false, "<s>", "ab", "<e>"), "<s>ab<e>");
    T_CHECK(strstr(tok_describe(t), "puts <s> first"));
    tok_close(t);
    t = tok_of_parts(
        &(struct parts){.post = "{\"type\": \"RobertaProcessing\", \"sep\": [\"b\", 1], \"cls\": [\"a\", 0]}", .model = MODEL});
    T_STR(tokens(t, "c", true), "a|c|b");
    tok_close(t);
    t = tok_of_parts(&(struct parts){.model = MODEL});
    T_EQ(tok_bos(t), -1);
    tok_close(t);
}

#define BYTES "\"<0xE2>\": 20, \"<0x82>\": 21, \"<0xAC>\": 22, \"<0xFF>\": 23"
#define SP_MODEL                                                                                                                   \
    "{\"type\": \"BPE\", \"byte_fallback\": true, \"vocab\": {\"\xE2\x96\x81\": 0, \"a\": 1, \"\xE2\x96\x81"                       \
    "a\": 2, " BYTES "}, \"merges\": [\"\xE2\x96\x81 a\"]}"

static void sentencepiece_text_comes_back(void)
{
    struct tok *t = tok_of_parts(&(struct parts){
        .pretok = "{\"type\": \"Metaspace\", \"replacement\": \"\xE2\x96\x81\", \"prepend_scheme\": \"first\", \"split\": false}",
        .decode =
            "{\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", \"pattern\": {\"String\": \"\xE2\x96\x81\"}, "
            "\"content\": \" \"}, {\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}, {\"type\": \"Strip\", \"content\": \" \", "
            "\"start\": 1, \"stop\": 0}]}",
        .added = "[" ADDED(10, "<s>", ", \"special\": true") "]",
        .model = SP_MODEL});
    T_STR(tokens(t, "a a", false), "\xE2\x96\x81"
                                   "a|\xE2\x96\x81"
                                   "a");
    T_STR(tokens(t, "<s>a", false), "<s>|a"); /* "first": only at the very start */
    T_STR(tokens(t, "\xE2\x82\xAC", false), "\xE2\x96\x81|<0xE2>|<0x82>|<0xAC>");
    T_STR(TEXT_OF(t, false,
                  "\xE2\x96\x81"
                  "a",
                  "\xE2\x96\x81"
                  "a"),
          "a a");
    T_STR(TEXT_OF(t, false, "a", "<0xE2>", "<0x82>", "<0xAC>", "a"), "a\xE2\x82\xAC"
                                                                     "a");
    T_STR(TEXT_OF(t, false, "<0xE2>", "<0x82>", "a"), "\xEF\xBF\xBD\xEF\xBF\xBD"
                                                      "a"); /* one U+FFFD a byte */
    T_STR(TEXT_OF(t, false, "<0xFF>"), "\xEF\xBF\xBD");
    tok_close(t);
}

/* Vocabulary of all bytes in the byte alphabet, ids 0 to 255, and a merge. */
static void byte_model(struct buf *b)
{
    char one[5];
    buf_puts(b, "{\"type\": \"BPE\", \"vocab\": {");
    for (int i = 0; i < 256; i++) {
        uint32_t cp = byte_to_char((unsigned char)i);
        if (cp == '"' || cp == '\\')
            buf_printf(b, "\"\\%c\": %d, ", (char)cp, i);
        else if (cp < 128)
            buf_printf(b, "\"%c\": %d, ", (char)cp, i);
        else {
            snprintf(one, sizeof one, "%c%c", (char)(0xC0 | cp >> 6), (char)(0x80 | (cp & 63)));
            buf_printf(b, "\"%s\": %d, ", one, i);
        }
    }
    buf_puts(b, "\"\xC4\xA0"
                "a\": 256}, \"merges\": [[\"\xC4\xA0\", \"a\"]]}");
}

static void byte_level_text_of_any_kind_comes_back(void)
{
    struct buf model = {0}, text = {0}, back = {0};
    struct tok_ids ids = {0};
    byte_model(&model);
    struct tok *t = tok_of_parts(&(struct parts){.pretok = "{\"type\": \"ByteLevel\", \"add_prefix_space\": false}",
                                                 .decode = "{\"type\": \"ByteLevel\"}",
                                                 .model = buf_text(&model)});
    T_STR(tokens(t, "a a", false), "a|\xC4\xA0"
                                   "a");
    for (int i = 0; i < 0x250; i++)
        buf_printf(&text, "%c %s\xE6\x97\xA5\xF0\x9F\x98\x80\n", i % 128, i % 3 ? "\xC3\xA9" : " a");
    T_EQ(tok_encode(t, text.data, text.len, false, &ids), ERR_OK);
    T_EQ(tok_decode(t, ids.v, ids.n, false, &back), ERR_OK);
    T_CHECK(back.len == text.len && memcmp(back.data, text.data, text.len) == 0);
    buf_free(&model);
    buf_free(&text);
    buf_free(&back);
    tok_ids_free(&ids);
    tok_close(t);
}

/* One tokenizer, several threads: encoding changes nothing in it. */
static void threads_share_a_tokenizer(void)
{
    struct buf model = {0};
    int differ = 0;
    byte_model(&model);
    struct tok *t = tok_of_parts(&(struct parts){.pretok = "{\"type\": \"ByteLevel\", \"add_prefix_space\": false}",
                                                 .decode = "{\"type\": \"ByteLevel\"}",
                                                 .model = buf_text(&model)});
#pragma omp parallel for num_threads(4) reduction(+ : differ)
    for (int i = 0; i < 64; i++) {
        struct tok_ids ids = {0};
        struct buf text = {0}, back = {0};
        for (int k = 0; k < 300; k++)
            buf_printf(&text, "%d a %c\n", i * k, 'a' + k % 26);
        int rc = tok_encode(t, text.data, text.len, false, &ids);
        if (rc == ERR_OK)
            rc = tok_decode(t, ids.v, ids.n, false, &back);
        differ += rc || back.len != text.len || memcmp(back.data, text.data, text.len) != 0;
        buf_free(&text);
        buf_free(&back);
        tok_ids_free(&ids);
    }
    T_EQ(differ, 0);
    buf_free(&model);
    tok_close(t);
}

/* Unicode 15, 3.9, table 3-8: U+FFFD for maximal subparts. The ids are the bytes. */
static void broken_utf8_becomes_replacement_characters(void)
{
    static const int32_t ids[] = {0x61, 0xF1, 0x80, 0x80, 0xE1, 0x80, 0xC2, 0x62, 0x80, 0x63, 0x80, 0xBF, 0x64, 0xE2, 0x82};
    /* no prefix of any character: overlong, surrogates, beyond U+10FFFF: a U+FFFD for each byte */
    static const int32_t never[] = {0xC0, 0x80, 0xE0, 0x80, 0xED, 0xA0, 0xF0, 0x8F, 0xF4, 0x90, 0xF5, 0x61};
    struct buf model = {0}, out = {0};
    byte_model(&model);
    struct tok *t = tok_of_parts(&(struct parts){.pretok = "{\"type\": \"ByteLevel\", \"add_prefix_space\": false}",
                                                 .decode = "{\"type\": \"ByteLevel\"}",
                                                 .model = buf_text(&model)});
    T_EQ(tok_decode(t, ids, sizeof ids / sizeof ids[0], false, &out), ERR_OK);
#define FFFD "\xEF\xBF\xBD"
    T_STR(buf_text(&out), "a" FFFD FFFD FFFD "b" FFFD "c" FFFD FFFD "d" FFFD);
    buf_clear(&out);
    T_EQ(tok_decode(t, never, sizeof never / sizeof never[0], false, &out), ERR_OK);
    T_STR(buf_text(&out), FFFD FFFD FFFD FFFD FFFD FFFD FFFD FFFD FFFD FFFD FFFD "a");
    buf_free(&model);
    buf_free(&out);
    tok_close(t);
}

static void other_decoders_do_what_they_say(void)
{
    struct tok *t = tok_of_parts(&(struct parts){.decode = "{\"type\": \"BPEDecoder\", \"suffix\": \"b\"}", .model = MODEL});
    T_STR(TEXT_OF(t, false, "ab", "c", "ab"), "a ca");
    tok_close(t);
    t = tok_of_parts(&(struct parts){.decode = "{\"type\": \"Metaspace\", \"replacement\": \"b\"}", .model = MODEL});
    T_STR(TEXT_OF(t, false, "ab", "c", "ab"), "aca ");
    tok_close(t);
    t = tok_of_parts(&(struct parts){.model = MODEL});
    T_STR(TEXT_OF(t, false, "ab", "c"), "ab c"); /* no decoder: words */
    tok_close(t);
    t = tok_of_parts(&(struct parts){.decode = "{\"type\": \"Sequence\", \"decoders\": []}", .model = MODEL});
    T_STR(TEXT_OF(t, false, "ab", "c"), "abc");
    tok_close(t);
}

static void vocab_json_and_merges_txt_are_read_with_gpt2s_rules(void)
{
    char dir[] = "/tmp/ast_tok_XXXXXX", path[FILE_PATH],
         both[] = "{\"a\": 0, \"b\": 1, \"ab\": 2, \"\xC4\xA0\": 3, "
                  "\"<|endoftext|>\": 4}#version: 0.2\na b\n";
    struct tok *t = NULL;
    char want[65];
    char *merges = strchr(both, '#');
    T_CHECK(mkdtemp(dir) != NULL);
    file_join(path, dir, "vocab.json");
    T_EQ(file_write_durable(path, both, (size_t)(merges - both)), ERR_OK);
    file_join(path, dir, "merges.txt");
    T_EQ(file_write_durable(path, merges, strlen(merges)), ERR_OK);
    if (tok_open(&t, dir))
        T_FAIL("%s", err_text());
    err_clear();
    T_STR(tokens(t, "ab ab<|endoftext|>", false), "ab|\xC4\xA0|ab|<|endoftext|>");
    T_STR(TEXT_OF(t, true, "ab", "\xC4\xA0", "<|endoftext|>", "a"), "ab a");
    T_EQ(tok_vocab(t), 5);
    /* the digest is of both files, one after the other */
    char command[2 * FILE_PATH];
    snprintf(command, sizeof command, "cat %s/vocab.json %s/merges.txt | sha256sum", dir, dir);
    FILE *f = popen(command, "r");
    T_CHECK(f && fread(want, 1, 64, f) == 64);
    want[64] = '\0';
    if (f)
        pclose(f);
    T_STR(tok_sha256(t), want);
    tok_close(t);
    file_join(path, dir, "vocab.json");
    unlink(path);
    file_join(path, dir, "merges.txt");
    unlink(path);
    rmdir(dir);
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    T_RUN(added_tokens_are_cut_out_longest_first);
    T_RUN(tokens_of_one_kind_match_longest_first);
    T_RUN(white_space_goes_to_the_token_that_strips);
    T_RUN(a_single_word_does_not_match_inside_words);
    T_RUN(normalized_tokens_are_found_in_the_normalized_text);
    T_RUN(the_post_processor_puts_ids_around);
    T_RUN(sentencepiece_text_comes_back);
    T_RUN(byte_level_text_of_any_kind_comes_back);
    T_RUN(threads_share_a_tokenizer);
    T_RUN(broken_utf8_becomes_replacement_characters);
    T_RUN(other_decoders_do_what_they_say);
    T_RUN(vocab_json_and_merges_txt_are_read_with_gpt2s_rules);
    return t_done();
}
