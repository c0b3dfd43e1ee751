/* Text files read, checked, cut into documents and tokenised: once for each (files, tokenizer, form), however many window
 * lengths are made of it.
 *
 *     files --UTF-8--> text --form--> documents --tokenizer--> ids [ doc 0 | doc 1 | ... ]
 *                                                              at[0]   at[1]         at[docs] */
#ifndef AST_TASK_CORPUS_H
#define AST_TASK_CORPUS_H

#include <stdbool.h>
#include <stdint.h>

#include "cfg/cfg.h"
#include "text/tok.h"

struct task_cache;

enum corpus_cut {
    CORPUS_STREAM, /* all files one after the other, one document */
    CORPUS_PAGES,  /* WikiText articles (pages.h) */
    CORPUS_ROWS    /* one document: rows joined as in the line-level Hugging Face data set (pages_rows) */
};

struct corpus_form {
    struct cfg_strs paths;
    enum corpus_cut cut;
    bool detok;   /* WikiText's detokeniser, document by document */
    bool special; /* the tokenizer's own BOS and friends around each document */
};

struct corpus {
    struct tok_ids ids;
    int64_t docs, *at;      /* (docs + 1,) */
    int64_t *words, *bytes; /* (docs,) of the text before detokenising; pages: words as pages_words() counts them */
    int64_t total_words, total_bytes, file_bytes;
    int64_t spaced;  /* fields between single spaces of the stripped text: Megatron's T_orig */
    char sha256[65]; /* of the files' bytes in order */
    char *key;
    int refs;
};

/* Text that is not UTF-8 (ERR_FORMAT with file, line and byte), nothing but white space (ERR_FORMAT), a missing file
 * (ERR_IO), ids beyond the model's vocabulary (ERR_ARG). A byte-order mark is skipped. .gz is read as well. */
int corpus_open(struct corpus **out, const struct corpus_form *form, const struct tok *tok, int64_t vocab,
                struct task_cache *cache);
void corpus_close(struct corpus *c); /* NULL is fine */

/* A text file: read, gunzipped, its byte-order mark dropped, checked to be UTF-8 (ERR_FORMAT with file, line and byte). */
struct buf;
int corpus_read(struct buf *out, const char *path);

#endif
