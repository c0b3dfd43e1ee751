/* Tokenizers: text to ids and back, exactly as Hugging Face's tokenizer.json says.
 *
 *     text -> added tokens cut out -> normalizer -> pre-tokenizer -> model (BPE) -> post-processor -> ids
 *
 * A tokenizer is opened once and shared; encode and decode are pure and may run in several threads. */
#ifndef AST_TEXT_TOK_H
#define AST_TEXT_TOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct tok;

/* dir: a model folder with tokenizer.json (or vocab.json + merges.txt), or the path of a tokenizer.json.
 * ERR_IO, ERR_FORMAT: components that we do not have are named with those we have. Local. */
int tok_open(struct tok **out, const char *dir);
void tok_close(struct tok *t); /* NULL is fine */

struct tok_ids { /* growing list of ids; a zeroed struct is empty */
    int32_t *v;
    int64_t n, cap;
};
void tok_ids_free(struct tok_ids *ids);

/* Appends the ids of s[0 .. n-1] (UTF-8; invalid bytes are ERR_FORMAT with their offset). special: also run the
 * post-processor (BOS and friends). Tokens such as <|endoftext|> inside the text become their id, as in Hugging Face. */
int tok_encode(const struct tok *t, const char *s, size_t n, bool special, struct tok_ids *out);

/* Appends the text. skip_special: leave out special tokens. Incomplete UTF-8 becomes U+FFFD. Ids outside the
 * vocabulary are ERR_ARG. */
int tok_decode(const struct tok *t, const int32_t *ids, int64_t n, bool skip_special, struct buf *out);

int64_t tok_vocab(const struct tok *t);                 /* highest id + 1 */
int32_t tok_id(const struct tok *t, const char *token); /* -1 if absent */
const char *tok_token(const struct tok *t, int32_t id); /* as written in the vocabulary; NULL if absent */
int32_t tok_bos(const struct tok *t);                   /* what special=true puts first; -1 if nothing */
const char *tok_describe(const struct tok *t);          /* one line: "byte-level BPE, 50257 tokens, ..." */
const char *tok_sha256(const struct tok *t);            /* hex digest of the file(s) it was read from */

#endif
