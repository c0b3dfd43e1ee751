/* Training text as windows of tokens. Documents are shuffled anew each epoch, joined with their separator behind each, cut
 * into windows side by side, and the windows shuffled. Window number k is the same on every rank and in every run.
 *
 *     doc doc doc ...  --shuffle-->  | window 0 | window 1 | ... | (tail dropped)  --shuffle-->  numbers */
#ifndef AST_TRAIN_DATA_H
#define AST_TRAIN_DATA_H

#include <stdint.h>

#include "cfg/cfg.h"

struct comm_group;
struct tok;
struct train_data;

struct data_opts {
    struct cfg_strs files;
    const char *separator, *answer_after, *answer_until;
    int64_t length, limit;
};
extern const struct cfg_field data_fields[];

/* Rank 0 reads and tokenises, the others are told. Collective over g. ERR_IO, ERR_FORMAT, ERR_ARG (no such separator,
 * less than a window of text), ERR_NOMEM. */
int data_open(struct train_data **out, const struct data_opts *o, const struct tok *tok, uint64_t seed, const struct comm_group *g);
void data_close(struct train_data *d); /* NULL is fine */

/* token (length,); target (length,): the next token, -1 where it is not to be learned (outside the answers). */
void data_window(struct train_data *d, int64_t number, int32_t *token, int32_t *target);

int64_t data_windows(const struct train_data *d); /* of an epoch */
int64_t data_tokens(const struct train_data *d);  /* separators counted in */
int64_t data_documents(const struct train_data *d);
const char *data_sha256(const struct train_data *d); /* of tokens, documents and what is scored */

#endif
