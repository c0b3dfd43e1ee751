/* BPE: short, long and cut words give what the plain algorithm gives; vanishing characters, unknown tokens, affixes. */
#include "tests/unit/test_tok.h"

#include "base/rng.h"

enum { TOKEN = 32 }; /* bytes of a token here, terminator included */

/* a, sep and b in out: room for two tokens and a space. */
static void join(char out[2 * TOKEN], const char *a, const char *sep, const char *b)
{
    const char *part[] = {a, sep, b};
    size_t n = 0;
    for (int i = 0; i < 3; i++)
        for (const char *s = part[i]; *s && n < 2 * TOKEN - 1; s++)
            out[n++] = *s;
    out[n] = '\0';
}

/* Algorithm 1 of Sennrich et al., literally: join the best pair, leftmost first, until there is none. Symbols are
 * single letters; rank and result come from the merges, "ab" for a and b. */
static int64_t plain_bpe(const struct words *vocab, const char *const *merges, int n_merges, const char *s, int32_t *out)
{
    char sym[128][TOKEN], both[2 * TOKEN];
    int64_t n = 0;
    for (; s[n]; n++) {
        sym[n][0] = s[n];
        sym[n][1] = '\0';
    }
    for (;;) {
        int best = n_merges;
        int64_t at = -1;
        for (int64_t i = 0; i + 1 < n; i++)
            for (int m = 0; m < best; m++) {
                join(both, sym[i], " ", sym[i + 1]);
                if (strcmp(both, merges[m]) == 0) {
                    best = m;
                    at = i;
                }
            }
        if (at < 0)
            break;
        join(both, sym[at], "", sym[at + 1]);
        memcpy(sym[at], both, TOKEN);
        for (int64_t i = at + 1; i + 1 < n; i++)
            memcpy(sym[i], sym[i + 1], sizeof sym[i]);
        n--;
    }
    for (int64_t i = 0; i < n; i++)
        out[i] = words_find(vocab, sym[i], strlen(sym[i]));
    return n;
}

enum { LETTERS = 3, MERGES = 24 };

struct random_model {
    char merge[MERGES][2 * TOKEN];
    const char *merges[MERGES];
    int n;
    struct buf json;
};

/* Random merges over a, b, c: each joins two tokens that exist. Odd seeds: with an unknown token, so that words are cut
 * where no merge joins, and few merges, so that there are such places. */
static void random_model(struct random_model *m, uint64_t seed)
{
    const int tries = seed % 2 ? 6 : MERGES;
    char token[LETTERS + MERGES][TOKEN] = {"a", "b", "c"};
    int n_tokens = LETTERS;
    m->n = 0;
    buf_clear(&m->json);
    for (uint64_t i = 0; i < (uint64_t)tries; i++) {
        const char *a = token[rng_below(seed, 0, 2 * i, n_tokens)], *b = token[rng_below(seed, 0, 2 * i + 1, n_tokens)];
        char both[2 * TOKEN];
        bool there = strlen(a) + strlen(b) > 12;
        join(both, a, "", b);
        for (int k = 0; k < n_tokens; k++)
            there = there || strcmp(token[k], both) == 0;
        if (there)
            continue;
        join(m->merge[m->n], a, " ", b);
        m->merges[m->n] = m->merge[m->n];
        m->n++;
        memcpy(token[n_tokens++], both, TOKEN); /* at most 12 letters */
    }
    buf_puts(&m->json, "{\"model\": {\"type\": \"BPE\", ");
    buf_printf(&m->json, "%s\"vocab\": {", seed % 2 ? "\"unk_token\": \"a\", " : "");
    for (int k = 0; k < n_tokens; k++)
        buf_printf(&m->json, "%s\"%s\": %d", k ? ", " : "", token[k], k);
    buf_puts(&m->json, "}, \"merges\": [");
    for (int k = 0; k < m->n; k++)
        buf_printf(&m->json, "%s\"%s\"", k ? ", " : "", m->merge[k]);
    buf_puts(&m->json, "]}}");
}

/* Lengths on both sides of the change from scanning to the heap (48 symbols). */
static void random_merges_give_what_the_plain_algorithm_gives(void)
{
    struct random_model m = {.json = {0}};
    for (uint64_t seed = 0; seed < 40 && !t_here; seed++) {
        random_model(&m, seed);
        struct tok *t = tok_of(buf_text(&m.json));
        T_CHECK(t != NULL);
        for (uint64_t r = 0; t && r < 40; r++) {
            char s[101];
            int32_t want[128];
            struct tok_ids got = {0};
            int64_t len = rng_below(seed, 1 + r, 0, 101);
            for (int64_t i = 0; i < len; i++)
                s[i] = (char)('a' + rng_below(seed, 1 + r, (uint64_t)i + 1, LETTERS));
            s[len] = '\0';
            int64_t n = plain_bpe(&t->vocab, m.merges, m.n, s, want);
            T_EQ(tok_encode(t, s, (size_t)len, false, &got), ERR_OK);
            T_EQ(got.n, n);
            T_CHECK(got.n == n && (n == 0 || memcmp(got.v, want, (size_t)n * sizeof *want) == 0));
            tok_ids_free(&got);
        }
        tok_close(t);
    }
    buf_free(&m.json);
}

/* The same text in one call and word by word: the cache and the short cut for whole tokens change nothing. */
static void a_long_text_gives_the_ids_of_its_words(void)
{
    struct random_model m = {.json = {0}};
    struct buf text = {0};
    struct tok_ids all = {0}, single = {0};
    random_model(&m, 5);
    m.json.len--;
    buf_puts(&m.json, ", \"pre_tokenizer\": {\"type\": \"WhitespaceSplit\"}}");
    struct tok *t = tok_of(buf_text(&m.json));
    T_CHECK(t != NULL);
    for (uint64_t i = 0; t && i < 20000; i++) {
        char s[32];
        int64_t len = 1 + rng_below(9, i, 0, 12);
        for (int64_t k = 0; k < len; k++)
            s[k] = (char)('a' + rng_below(9, i, (uint64_t)k + 1, LETTERS));
        buf_add(&text, s, (size_t)len);
        buf_puts(&text, " ");
        T_EQ(tok_encode(t, s, (size_t)len, false, &single), ERR_OK);
    }
    if (t)
        T_EQ(tok_encode(t, text.data, text.len, false, &all), ERR_OK);
    T_EQ(all.n, single.n);
    T_CHECK(all.n == single.n && memcmp(all.v, single.v, (size_t)all.n * sizeof *all.v) == 0);
    tok_ids_free(&all);
    tok_ids_free(&single);
    buf_free(&text);
    buf_free(&m.json);
    tok_close(t);
}

/* Quadratic time would take hours here. */
static void a_million_equal_letters_are_merged_in_pairs(void)
{
    struct tok *t = tok_of("{\"model\": {\"vocab\": {\"a\": 0, \"aa\": 1, \"aaaa\": 2, \"aaaaaaaa\": 3}, "
                           "\"merges\": [\"a a\", \"aa aa\", \"aaaa aaaa\"]}}");
    enum { N = (1 << 20) + 7 };
    struct tok_ids ids = {0};
    char *s = malloc(N);
    memset(s, 'a', N);
    T_EQ(tok_encode(t, s, N, false, &ids), ERR_OK);
    T_EQ(ids.n, N / 8 + 3);
    T_CHECK(ids.n > 4 && ids.v[0] == 3 && ids.v[ids.n - 4] == 3 && ids.v[ids.n - 3] == 2 && ids.v[ids.n - 2] == 1 &&
            ids.v[ids.n - 1] == 0);
    tok_ids_free(&ids);
    tok_close(t);
    free(s);
}

static void a_character_without_a_token_falls_back_waits_or_vanishes(void)
{
    struct tok *t =
        tok_of("{\"model\": {\"unk_token\": \"?\", \"vocab\": {\"?\": 0, \"a\": 1, \"b\": 2, \"ab\": 3}, \"merges\": [\"a b\"]}}");
    T_STR(tokens(t, "axyb", false), "a|?|?|b");
    tok_close(t);
    t = tok_of("{\"model\": {\"unk_token\": \"?\", \"fuse_unk\": true, \"vocab\": {\"?\": 0, \"a\": 1, \"b\": 2, \"ab\": 3}, "
               "\"merges\": [\"a b\"]}}");
    T_STR(tokens(t, "axybx", false), "a|?|b|?");
    tok_close(t);
    t = tok_of("{\"model\": {\"vocab\": {\"a\": 1, \"b\": 2, \"ab\": 3}, \"merges\": [\"a b\"]}}");
    T_STR(tokens(t, "axyb", false), "ab"); /* Hugging Face drops them, and the neighbours meet */
    tok_close(t);
    t = tok_of("{\"model\": {\"unk_token\": \"?\", \"byte_fallback\": true, \"vocab\": {\"?\": 0, \"a\": 1, \"<0xC3>\": 2, "
               "\"<0xA9>\": 3}, "
               "\"merges\": []}}");
    T_STR(tokens(t, "a\xC3\xA9", false), "a|<0xC3>|<0xA9>");
    T_STR(tokens(t, "\xC3\xA8", false), "?"); /* one of its bytes is missing */
    tok_close(t);
}

static void ignore_merges_takes_a_whole_piece_from_the_vocabulary(void)
{
    static const char model[] =
        "{\"pre_tokenizer\": {\"type\": \"WhitespaceSplit\"}, \"model\": {\"ignore_merges\": %s, \"vocab\": "
        "{\"a\": 0, \"b\": 1, \"ab\": 2, \"aba\": 3}, \"merges\": [\"a b\"]}}";
    char json[512];
    snprintf(json, sizeof json, model, "false");
    struct tok *t = tok_of(json);
    T_STR(tokens(t, "aba abab", false), "ab|a|ab|ab");
    tok_close(t);
    snprintf(json, sizeof json, model, "true");
    t = tok_of(json);
    T_STR(tokens(t, "aba abab", false), "aba|ab|ab");
    tok_close(t);
}

static void affixes_mark_the_inside_and_the_end_of_words(void)
{
    struct tok *t =
        tok_of("{\"pre_tokenizer\": {\"type\": \"WhitespaceSplit\"}, \"model\": {\"end_of_word_suffix\": \"</w>\", \"vocab\": "
               "{\"a\": 0, \"b\": 1, \"b</w>\": 2, \"ab</w>\": 3}, \"merges\": [\"a b</w>\"]}}");
    T_STR(tokens(t, "ab ba", false), "ab</w>|b");
    tok_close(t);
    t = tok_of("{\"pre_tokenizer\": {\"type\": \"WhitespaceSplit\"}, \"model\": {\"continuing_subword_prefix\": \"##\", \"vocab\": "
               "{\"a\": 0, \"b\": 1, \"##b\": 2, \"ab\": 3, \"##a\": 4}, \"merges\": [\"a ##b\"]}}");
    T_STR(tokens(t, "abab ba", false), "ab|##a|##b|b|##a");
    tok_close(t);
}

static void of_two_equal_merges_the_later_counts(void)
{
    struct tok *t = tok_of("{\"model\": {\"vocab\": {\"a\": 0, \"b\": 1, \"c\": 2, \"ab\": 3, \"bc\": 4}, "
                           "\"merges\": [[\"a\", \"b\"], [\"b\", \"c\"], [\"a\", \"b\"]]}}");
    T_STR(tokens(t, "abc", false), "a|bc");
    tok_close(t);
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    T_RUN(random_merges_give_what_the_plain_algorithm_gives);
    T_RUN(a_long_text_gives_the_ids_of_its_words);
    T_RUN(a_million_equal_letters_are_merged_in_pairs);
    T_RUN(a_character_without_a_token_falls_back_waits_or_vanishes);
    T_RUN(ignore_merges_takes_a_whole_piece_from_the_vocabulary);
    T_RUN(affixes_mark_the_inside_and_the_end_of_words);
    T_RUN(of_two_equal_merges_the_later_counts);
    return t_done();
}
