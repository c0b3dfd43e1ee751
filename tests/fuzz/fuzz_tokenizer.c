/* libFuzzer target: a tokenizer.json, a NUL byte, and a text. What opens must encode, or say why not, and decode what it
 * encoded. tests/unit/test_tok_seeds.c replays the seeds and mutations of them in every test run. */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "text/tok_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Ids that the tokenizer made itself can be decoded. */
static void round_trip(const struct tok *t, const char *text, size_t n, bool special)
{
    struct tok_ids ids = {0};
    struct buf back = {0};
    int rc = tok_encode(t, text, n, special, &ids);
    for (int64_t i = 0; i < ids.n; i++)
        AST_ASSERT(tok_token(t, ids.v[i]) != NULL && ids.v[i] < tok_vocab(t));
    if (rc == ERR_OK)
        rc = tok_decode(t, ids.v, ids.n, special, &back);
    AST_ASSERT((rc == ERR_OK) == (err_text()[0] == '\0'));
    err_clear();
    tok_ids_free(&ids);
    buf_free(&back);
}

/* Ids that anybody could pass. */
static void decode_bytes(const struct tok *t, const char *text, size_t n)
{
    struct buf back = {0};
    int32_t ids[16] = {0};
    int64_t count = (int64_t)(n < 16 ? n : 16);
    for (int64_t i = 0; i < count; i++)
        ids[i] = text[i];
    tok_decode(t, ids, count, true, &back);
    err_clear();
    buf_free(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    size_t n = nul ? (size_t)(nul - data) : size;
    char *json = malloc(n + 1), *text = malloc(size - n + 1); /* of exact sizes: reading past the end is seen */
    struct tok *t = calloc(1, sizeof *t);
    AST_ASSERT(json && text && t);
    memcpy(json, data, n);
    size_t text_n = nul ? size - n - 1 : 0;
    if (text_n)
        memcpy(text, nul + 1, text_n);
    if (tok_read_json(t, json, n, "fuzz") == ERR_OK) {
        round_trip(t, text, text_n, false);
        round_trip(t, text, text_n, true);
        decode_bytes(t, text, text_n);
    } else
        AST_ASSERT(err_text()[0] != '\0'); /* never a failure without a sentence */
    err_clear();
    tok_close(t);
    free(json);
    free(text);
    return 0;
}
