/* What `asterism generate` prints of one method's continuation. */
#ifndef AST_APP_GENERATE_PRINT_H
#define AST_APP_GENERATE_PRINT_H

#include <stdint.h>

#include "base/buf.h"
#include "base/timer.h"
#include "task/pairs.h"
#include "text/tok.h"

struct continuation {
    const char *method; /* as asked for */
    struct buf text;
    struct tok_ids ids;
    struct pairs pairs;
    struct timer timer;
    int64_t prompt_tokens, made;
    double seconds, first_s; /* all; until the first token */
    double keys_read;        /* share of the query-key pairs that causality allows */
    double cache_bytes, step_bytes;
    double score; /* of beam search */
    bool beam;
};

int continuation_text(const struct continuation *c, struct buf *out); /* lines for people */
int continuation_json(const struct continuation *c, struct buf *out); /* an object */
void continuation_free(struct continuation *c);

#endif
