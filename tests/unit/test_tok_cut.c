/* Cutting text: GPT-2's rule by hand against the pattern itself in PCRE2; behaviours; character classes. */
#include "tests/unit/test_tok.h"

#include "base/rng.h"
#include "base/utf8.h"

static struct pattern gpt2, unassigned; /* compiled once for all tests here */

/* Unicode versions of utf8proc and PCRE2 may differ: characters that PCRE2 does not know yet are left out. */
static bool unknown_to_pcre2(uint32_t cp)
{
    char one[4];
    struct regex_run *run = NULL;
    struct matches m = {.pattern = &unassigned, .run = &run, .s = one, .n = (size_t)utf8_encode(cp, one)};
    int got = pattern_next(&m);
    regex_run_free(run);
    return got != 0;
}

/* Both ways of cutting s; the first difference is reported with the text. */
static void same_cuts(const char *s, size_t n)
{
    struct pieces p = {0};
    struct regex_run *run = NULL;
    struct matches m = {.pattern = &gpt2, .run = &run, .s = s, .n = n};
    size_t done = 0;
    int64_t i = 0;
    size_t from = 0;
    T_EQ(gpt2_cut(s, &from, n, &p, INT64_MAX), ERR_OK);
    T_EQ(from, n);
    while (pattern_next(&m) > 0) {
        bool same = i < p.n && p.v[i].at == m.at && p.v[i].n == m.end - m.at && m.at == done;
        if (!same) {
            T_FAIL("piece %lld of \"%s\": PCRE2 has [%zu, %zu)", (long long)i, s, m.at, m.end);
            break;
        }
        done = m.end;
        i++;
    }
    T_EQ(i, p.n);
    T_EQ(done, n);
    regex_run_free(run);
    free(p.v);
}

/* Each code point between neighbours of every class, and at both ends of the text. */
static void every_code_point_is_cut_as_pcre2_does(void)
{
    static const char *const around[][2] = {{"", ""}, {" ", "a"}, {"a", " "}, {"1", "!"}, {"' ", "\n"}, {"\n", " \n"}};
    for (uint32_t cp = 1; cp < 0x30000; cp += cp < 0x3400 || cp % 0x100 == 0xFF ? 1 : 7) {
        if ((cp >= 0xD800 && cp < 0xE000) || (cp >= 128 && unknown_to_pcre2(cp)))
            continue;
        for (size_t k = 0; k < sizeof around / sizeof around[0]; k++) {
            char s[32], one[5] = "";
            one[utf8_encode(cp, one)] = '\0';
            int n = snprintf(s, sizeof s, "%s%s%s", around[k][0], one, around[k][1]);
            same_cuts(s, (size_t)n);
        }
        if (t_here)
            return;
    }
}

static void random_texts_are_cut_as_pcre2_does(void)
{
    static const char *const set[] = {"a",
                                      "Z",
                                      " ",
                                      " ",
                                      "  ",
                                      "\n",
                                      "\r",
                                      "\t",
                                      "'",
                                      "'s",
                                      "'t",
                                      "'re",
                                      "'ve",
                                      "'m",
                                      "'ll",
                                      "'d",
                                      "'S",
                                      "1",
                                      "23",
                                      "\xC2\xBD",
                                      "!",
                                      "?!",
                                      "\xC3\xA9",
                                      "\xE6\x97\xA5",
                                      "\xF0\x9F\x98\x80",
                                      "\xC2\xA0",
                                      "\xE3\x80\x80",
                                      "\xC2\x85",
                                      "\xCC\x81",
                                      "\xE2\x80\x8B",
                                      "\xE1\xA0\x8E",
                                      "_",
                                      "l",
                                      "\x1C"};
    for (uint64_t r = 0; r < 20000 && !t_here; r++) {
        char s[256];
        size_t n = 0;
        int64_t parts = rng_below(7, r, 0, 24);
        for (int64_t i = 0; i < parts; i++) {
            const char *part = set[rng_below(7, r, (uint64_t)i + 1, sizeof set / sizeof set[0])];
            memcpy(s + n, part, strlen(part));
            n += strlen(part);
        }
        s[n] = '\0';
        same_cuts(s, n);
    }
}

static void ascii_classes_agree_with_the_general_ones(void)
{
    for (uint32_t cp = 0; cp < 128; cp++) {
        bool letter = (cp >= 'a' && cp <= 'z') || (cp >= 'A' && cp <= 'Z'), digit = cp >= '0' && cp <= '9';
        bool space = cp == ' ' || (cp >= 9 && cp <= 13);
        T_EQ(char_ascii[cp], letter ? CHAR_LETTER : digit ? CHAR_NUMBER : space ? CHAR_SPACE : CHAR_OTHER);
        T_EQ(char_is_space(cp), space);
        T_EQ(char_is_word(cp), letter || digit || cp == '_');
        T_EQ(char_is_punct(cp), cp > 32 && cp < 127 && !letter && !digit);
    }
}

static void the_byte_alphabet_is_a_bijection(void)
{
    for (int b = 0; b < 256; b++)
        T_EQ(char_to_byte(byte_to_char((unsigned char)b)), b);
    T_EQ(byte_to_char(' '), 0x120);
    T_EQ(byte_to_char('\n'), 0x10A);
    T_EQ(byte_to_char(127), 0x121);
    T_EQ(byte_to_char(160), 0x142);
    T_EQ(byte_to_char(173), 0x143);
    for (uint32_t cp = 0; cp < 0x400; cp++)
        if (char_to_byte(cp) >= 0)
            T_EQ(byte_to_char((unsigned char)char_to_byte(cp)), cp);
}

/* The pieces that a pre-tokenizer makes, with | between them. */
static const char *cut(const char *pretok, const char *text)
{
    static char out[512];
    struct json_doc *d = NULL;
    struct steps steps = {0};
    struct regex_run *run = NULL;
    struct split x = {.run = &run, .at_start = true};
    size_t at = 0;
    out[0] = '\0';
    int rc = json_parse(&d, pretok, strlen(pretok), "test");
    if (rc == ERR_OK)
        rc = steps_parse(&steps, &pretok_table, d, json_root(d));
    if (rc == ERR_OK)
        rc = pretok_run(&steps, false, &x, text, strlen(text));
    for (int64_t i = 0; i < x.piece.n && rc == ERR_OK; i++)
        at += (size_t)snprintf(out + at, sizeof out - at, "%s%.*s", i ? "|" : "", (int)x.piece.v[i].n, x.text + x.piece.v[i].at);
    if (rc)
        snprintf(out, sizeof out, "%s", err_text());
    err_clear();
    regex_run_free(run);
    split_free(&x);
    steps_free(&steps);
    json_close(d);
    return out;
}

#define SPLIT(pattern, how) "{\"type\": \"Split\", \"pattern\": " pattern ", \"behavior\": \"" how "\", \"invert\": false}"

static void the_five_behaviours_join_as_they_are_named(void)
{
    T_STR(cut(SPLIT("{\"String\": \"-\"}", "Removed"), "a-b--c"), "a|b|c");
    T_STR(cut(SPLIT("{\"String\": \"-\"}", "Isolated"), "a-b--c"), "a|-|b|-|-|c");
    T_STR(cut(SPLIT("{\"String\": \"-\"}", "MergedWithPrevious"), "a-b--c"), "a-|b-|-|c");
    T_STR(cut(SPLIT("{\"String\": \"-\"}", "MergedWithNext"), "a-b--c"), "a|-b|-|-c");
    T_STR(cut(SPLIT("{\"String\": \"-\"}", "Contiguous"), "a-b--c"), "a|-|b|--|c");
    T_STR(cut(SPLIT("{\"String\": \"-\"}", "MergedWithPrevious"), "-a-"), "-|a-");
    T_STR(cut(SPLIT("{\"String\": \"-\"}", "MergedWithNext"), "-a-"), "-a|-");
    T_STR(cut(SPLIT("{\"String\": \"\"}", "Isolated"), "ab"), "ab");
    T_STR(cut("{\"type\": \"Split\", \"pattern\": {\"Regex\": \"[a-z]+\"}, \"behavior\": \"Removed\", \"invert\": true}", "ab1cd"),
          "ab|cd");
}

static void regexes_mean_what_oniguruma_means(void)
{
    T_STR(cut(SPLIT("{\"Regex\": \"\\\\s\"}", "Removed"), "a\xE1\xA0\x8E"
                                                          "b c"),
          "a\xE1\xA0\x8E"
          "b|c"); /* U+180E is no white space */
    T_STR(cut(SPLIT("{\"Regex\": \"\\\\h+\"}", "Removed"), "xxffzz"), "xx|zz");
    T_STR(cut(SPLIT("{\"Regex\": \"^b\"}", "Removed"), "a\nb"), "a\n");
    T_STR(cut(SPLIT("{\"Regex\": \"(?m:a.)\"}", "Removed"), "a\nb"), "b");
    T_STR(cut(SPLIT("{\"Regex\": \"\\\\w+\"}", "Removed"), "e\xCC\x81-"), "-"); /* marks are of words */
    T_STR(cut(SPLIT("{\"Regex\": \"[[:punct:]]\"}", "Removed"), "a\xE2\x82\xAC"
                                                                "b"),
          "a|b");
    T_STR(cut(SPLIT("{\"Regex\": \"(?i:'s)\"}", "Removed"), "a'\xC5\xBF"
                                                            "b"),
          "a|b"); /* long s is a case of s */
    T_STR(cut(SPLIT("{\"Regex\": \"x*\"}", "Isolated"), "axxb"), "a|xx|b");
    T_STR(cut(SPLIT("{\"Regex\": \"[^a[bc]d]+\"}", "Removed"), "axbyczd"), "a|b|c|d");
    T_CHECK(strstr(cut(SPLIT("{\"Regex\": \"[a[^b]]\"}", "Isolated"), "a"), "not supported"));
    T_CHECK(strstr(cut(SPLIT("{\"Regex\": \"[a&&[b]]\"}", "Isolated"), "a"), "not supported"));
    T_CHECK(strstr(cut(SPLIT("{\"Regex\": \"(a\"}", "Isolated"), "a"), "does not compile"));
}

static void other_pre_tokenizers_cut_by_character(void)
{
    T_STR(cut("{\"type\": \"Digits\", \"individual_digits\": true}", "ab12\xC2\xBD"), "ab|1|2|\xC2\xBD");
    T_STR(cut("{\"type\": \"Digits\", \"individual_digits\": false}", "ab12c3"), "ab|12|c|3");
    T_STR(cut("{\"type\": \"Whitespace\"}", " ab, c_1!? "), "ab|,|c_1|!?");
    T_STR(cut("{\"type\": \"WhitespaceSplit\"}", " ab,\tc "), "ab,|c");
    T_STR(cut("{\"type\": \"Punctuation\"}", "a,b!"), "a|,|b|!");
    T_STR(cut("{\"type\": \"BertPreTokenizer\"}", "a, b"), "a|,|b");
    T_STR(cut("{\"type\": \"CharDelimiterSplit\", \"delimiter\": \"-\"}", "a-b-"), "a|b");
    T_STR(cut("{\"type\": \"ByteLevel\", \"add_prefix_space\": true}", "ab c"), "\xC4\xA0"
                                                                                "ab|\xC4\xA0"
                                                                                "c");
    T_STR(cut("{\"type\": \"Metaspace\", \"replacement\": \"_\"}", "ab c"), "_ab|_c");
    T_STR(cut("{\"type\": \"Metaspace\", \"replacement\": \"_\", \"split\": false, \"prepend_scheme\": \"never\"}", " b c"),
          "_b_c");
    T_STR(cut("{\"type\": \"Metaspace\", \"replacement\": \"_\", \"add_prefix_space\": false}", "b c"), "b|_c");
    T_STR(cut("{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Digits\", \"individual_digits\": true}, {\"type\": "
              "\"ByteLevel\", "
              "\"add_prefix_space\": false}]}",
              "a 12"),
          "a|\xC4\xA0|1|2");
}

/* The number of pieces of a long text, and in *sum a digest of their lengths in bytes of the text. */
static int64_t count_pieces(const struct steps *steps, bool late, const struct buf *text, uint64_t *sum)
{
    struct regex_run *run = NULL;
    struct split x = {.run = &run};
    const struct pieces *p = NULL;
    int64_t n = 0;
    T_EQ(pretok_run(steps, late, &x, text->data, text->len), ERR_OK);
    while (split_batch(&x, &p) > 0)
        for (int64_t i = 0; i < p->n; i++, n++) {
            size_t bytes = p->v[i].n; /* without `late` in the byte alphabet, a character a byte */
            for (size_t k = 0; k < p->v[i].n && !late; k++)
                bytes -= ((unsigned char)x.text[p->v[i].at + k] & 0xC0) == 0x80;
            *sum = *sum * 31 + bytes;
        }
    regex_run_free(run);
    split_free(&x);
    return n;
}

static void cutting_late_cuts_the_same(void)
{
    static const char json[] = "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Digits\", \"individual_digits\": true}, "
                               "{\"type\": \"ByteLevel\", \"add_prefix_space\": true}]}";
    struct json_doc *d = NULL;
    struct steps steps = {0};
    struct buf text = {0};
    uint64_t sums[2] = {0, 0};
    T_EQ(json_parse(&d, json, sizeof json - 1, "test"), ERR_OK);
    T_EQ(steps_parse(&steps, &pretok_table, d, json_root(d)), ERR_OK);
    for (int i = 0; i < 3000; i++)
        buf_printf(&text, "it's %d \xC3\xA9 %s", i * i, i % 100 ? "x, y" : "1234567");
    int64_t now = count_pieces(&steps, false, &text, &sums[0]), late = count_pieces(&steps, true, &text, &sums[1]);
    T_EQ(late, now);
    T_CHECK(now > 5000 && sums[0] == sums[1]);
    buf_free(&text);
    steps_free(&steps);
    json_close(d);
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    if (pattern_set(&gpt2, gpt2_pattern, strlen(gpt2_pattern), true, "test") ||
        pattern_set(&unassigned, "\\p{Cn}", 6, true, "test"))
        return 1;
    T_RUN(ascii_classes_agree_with_the_general_ones);
    T_RUN(the_byte_alphabet_is_a_bijection);
    T_RUN(every_code_point_is_cut_as_pcre2_does);
    T_RUN(random_texts_are_cut_as_pcre2_does);
    T_RUN(the_five_behaviours_join_as_they_are_named);
    T_RUN(regexes_mean_what_oniguruma_means);
    T_RUN(other_pre_tokenizers_cut_by_character);
    T_RUN(cutting_late_cuts_the_same);
    pattern_free(&gpt2);
    pattern_free(&unassigned);
    return t_done();
}
