/* Normalizers: what each does to a text; and that the blocks which NFC is not asked about really are inert. */
#include "tests/unit/test_tok.h"

#include <utf8proc.h>

#include "base/utf8.h"

/* A text through a normalizer; borrowed until the next call. */
static const char *normal(const char *json, const char *text)
{
    static char out[512];
    struct json_doc *d = NULL;
    struct steps steps = {0};
    struct regex_run *run = NULL;
    struct normal_work w = {0};
    size_t n = strlen(text);
    int rc = json_parse(&d, json, strlen(json), "test");
    if (rc == ERR_OK)
        rc = steps_parse(&steps, &normal_table, d, json_root(d));
    if (rc == ERR_OK)
        rc = normal_run(&steps, &run, &w, &text, &n);
    snprintf(out, sizeof out, "%.*s", rc ? 400 : (int)n, rc ? err_text() : text);
    err_clear();
    regex_run_free(run);
    buf_free(&w.buf[0]);
    buf_free(&w.buf[1]);
    steps_free(&steps);
    json_close(d);
    return out;
}

#define TYPE(name) "{\"type\": \"" name "\"}"

static void unicode_forms_compose_and_decompose(void)
{
    T_STR(normal(TYPE("NFC"), "e\xCC\x81 \xE2\x84\xAB"), "\xC3\xA9 \xC3\x85"); /* e + acute, Angstrom sign */
    T_STR(normal(TYPE("NFC"), "\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8"), "\xEA\xB0\x81");
    T_STR(normal(TYPE("NFC"), "\xEF\xAC\x81 \xC2\xBD"), "\xEF\xAC\x81 \xC2\xBD");
    T_STR(normal(TYPE("NFD"), "\xC3\xA9"), "e\xCC\x81");
    T_STR(normal(TYPE("NFKC"), "\xEF\xAC\x81 \xEF\xBC\x91"), "fi 1");
    T_STR(normal(TYPE("NFKD"), "\xEF\xAC\x81\xC3\xA9"), "fie\xCC\x81");
    T_STR(normal(TYPE("NFC"), ""), "");
}

static void letters_are_lowered_and_accents_stripped(void)
{
    T_STR(normal(TYPE("Lowercase"), "A\xC3\x84 \xC4\xB0"), "a\xC3\xA4 i\xCC\x87");
    T_STR(normal(TYPE("StripAccents"), "e\xCC\x81"), "e");
    T_STR(normal("{\"type\": \"Strip\", \"strip_left\": true, \"strip_right\": false}", " \xC2\xA0 a "), "a ");
    T_STR(normal("{\"type\": \"Strip\", \"strip_left\": false, \"strip_right\": true}", " a \n"), " a");
    T_STR(normal(TYPE("Strip"), " \n "), "");
}

static void text_is_replaced_and_prepended(void)
{
    T_STR(normal("{\"type\": \"Prepend\", \"prepend\": \"_\"}", "ab"), "_ab");
    T_STR(normal("{\"type\": \"Prepend\", \"prepend\": \"_\"}", ""), "");
    T_STR(normal("{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"_\"}", " a b"), "_a_b");
    T_STR(normal("{\"type\": \"Replace\", \"pattern\": {\"String\": \"\"}, \"content\": \"_\"}", "ab"), "ab");
    T_STR(normal("{\"type\": \"Replace\", \"pattern\": {\"Regex\": \"[0-9]+\"}, \"content\": \"#\"}", "a12b3"), "a#b#");
    T_STR(normal("{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Prepend\", \"prepend\": \"_\"}, {\"type\": \"Replace\", "
                 "\"pattern\": {\"String\": \" \"}, \"content\": \"_\"}, {\"type\": \"Sequence\", \"normalizers\": []}]}",
                 "a b"),
          "_a_b");
    T_STR(normal(TYPE("ByteLevel"), " \xC3\xA9"), "\xC4\xA0\xC3\x83\xC2\xA9");
}

static void add(uint8_t *is_second, utf8proc_int32_t cp)
{
    utf8proc_int32_t to[8];
    int boundary = 0;
    utf8proc_ssize_t n = utf8proc_decompose_char(cp, to, 8, UTF8PROC_DECOMPOSE, &boundary);
    for (utf8proc_ssize_t i = 1; i < n && i < 8; i++)
        is_second[to[i]] = 1;
}

/* An inert character has combining class 0, is its own composition, and is never the second half of one. */
static void the_inert_blocks_are_inert(void)
{
    uint8_t *is_second = calloc(0x110000, 1);
    int64_t count = 0;
    for (utf8proc_int32_t cp = 0; cp < 0x110000; cp++)
        if (cp < 0xD800 || cp > 0xDFFF)
            add(is_second, cp);
    for (uint32_t cp = 0; cp < 0x110000 && !t_here; cp++) {
        char s[5] = "";
        utf8proc_uint8_t *form = NULL;
        if (!normal_is_inert(cp) || cp == 0)
            continue;
        s[utf8_encode(cp, s)] = '\0';
        form = utf8proc_NFC((const utf8proc_uint8_t *)s);
        if (utf8proc_get_property((utf8proc_int32_t)cp)->combining_class != 0 || is_second[cp] || !form || strcmp((char *)form, s))
            T_FAIL("U+%04X is not inert", cp);
        free(form);
        count++;
    }
    T_CHECK(count > 40000); /* Han and Hangul alone */
    T_CHECK(!normal_is_inert(0x300) && !normal_is_inert(0x3099) && !normal_is_inert(0x212B) && !normal_is_inert(0x11A8));
    free(is_second);
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    T_RUN(unicode_forms_compose_and_decompose);
    T_RUN(letters_are_lowered_and_accents_stripped);
    T_RUN(text_is_replaced_and_prepended);
    T_RUN(the_inert_blocks_are_inert);
    return t_done();
}
