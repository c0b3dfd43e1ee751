/* Training text: reading, shuffling, cutting. */
#include "train/data.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/rng.h"
#include "comm/comm.h"
#include "io/file.h"
#include "io/sha.h"
#include "text/tok.h"

/* clang-format off */
const struct cfg_field data_fields[] = {
    {.name = "files", .type = CFG_T_STRS, .at = offsetof(struct data_opts, files), .required = true, .help = "text files (plain or .gz) of documents"},
    CFG_STR(struct data_opts, separator, "<|endoftext|>", "what stands between documents: a token of the tokenizer"),
    CFG_INT(struct data_opts, length, 1024, 2, 1e9, "tokens of a sequence"),
    CFG_INT(struct data_opts, limit, 0, 0, 1e15, "read no more than so many tokens; 0: all"),
    CFG_STR(struct data_opts, answer_after, "", "learn only what stands behind this text in a document (each time it comes); empty: learn all"),
    CFG_STR(struct data_opts, answer_until, "", "... up to and with this text; empty: to the end of the document"),
    CFG_END,
};
/* clang-format on */

struct counts { /* what rank 0 tells first */
    int64_t tokens, docs;
};

struct train_data {
    int64_t length, docs, tokens, windows;
    int32_t *token;  /* (tokens,) documents end to end, each with its separator */
    uint8_t *scored; /* (tokens,) 1: is to be predicted */
    int64_t *doc;    /* (docs + 1,) first token */
    int64_t *order;  /* (docs,) of this epoch */
    int64_t *start;  /* (docs + 1,) of the ordered documents in the stream */
    int64_t *window; /* (windows,) of this epoch */
    int64_t epoch;   /* -1: none yet */
    uint64_t seed;
    char sha[SHA_HEX];
};

/* ---- reading ---- */

struct reader {
    const struct data_opts *o;
    const struct tok *tok;
    struct tok_ids ids;
    struct buf scored, docs; /* bytes; int64_t */
    int32_t separator;
};

/* Tokens of text[0 .. n-1], to be learned or not. */
static int add_text(struct reader *r, const char *text, size_t n, bool learn)
{
    int64_t before = r->ids.n;
    int rc = n ? tok_encode(r->tok, text, n, false, &r->ids) : ERR_OK;
    for (int64_t i = before; !rc && i < r->ids.n; i++)
        rc = buf_add(&r->scored, learn ? "\1" : "\0", 1);
    return rc;
}

static const char *find(const char *text, const char *end, const char *word)
{
    size_t n = strlen(word);
    for (const char *at = text; n && at + n <= end; at++) {
        at = memchr(at, word[0], (size_t)(end - at) - n + 1);
        if (!at)
            return NULL;
        if (!memcmp(at, word, n))
            return at;
    }
    return NULL;
}

/* One document: question, answer, question, ... cut where tokens begin anew anyway. */
static int add_document(struct reader *r, const char *text, const char *end)
{
    const char *after = r->o->answer_after, *until = r->o->answer_until;
    bool learn = !after[0], last = learn;
    int64_t first = r->ids.n;
    int rc = buf_add(&r->docs, (const char *)&first, sizeof first);
    while (!rc && text < end) {
        const char *mark = learn ? until : after, *at = after[0] ? find(text, end, mark) : NULL;
        const char *stop = at ? at + strlen(mark) : end;
        rc = add_text(r, text, (size_t)(stop - text), learn);
        last = learn;
        learn = at ? !learn : learn;
        text = stop;
    }
    rc = rc ? rc : buf_add(&r->scored, last ? "\1" : "\0", 1);
    if (rc)
        return rc;
    struct tok_ids *ids = &r->ids;
    if (ids->n == ids->cap) {
        int64_t cap = ids->cap * 2 + 16;
        int32_t *v = realloc(ids->v, (size_t)cap * sizeof *v);
        if (!v)
            return err_set(ERR_NOMEM, "no memory for %lld tokens", (long long)cap);
        ids->v = v;
        ids->cap = cap;
    }
    ids->v[ids->n++] = r->separator;
    return ERR_OK;
}

static int read_file(struct reader *r, const char *path)
{
    struct buf text = {0};
    int rc = file_read_text(&text, path, 0);
    const char *at = buf_text(&text), *end = at + text.len;
    while (!rc && at < end && (r->o->limit == 0 || r->ids.n < r->o->limit)) {
        const char *stop = find(at, end, r->o->separator);
        if (!stop)
            stop = end;
        if (stop > at)
            rc = add_document(r, at, stop);
        if (rc)
            err_prefix(rc, "%s: byte %lld", path, (long long)(at - text.data));
        at = stop < end ? stop + strlen(r->o->separator) : end;
    }
    buf_free(&text);
    return rc;
}

static int digest(struct train_data *d)
{
    struct sha *s = NULL;
    int rc = sha_open(&s);
    if (rc)
        return rc;
    sha_add(s, d->token, (size_t)d->tokens * sizeof *d->token);
    sha_add(s, d->scored, (size_t)d->tokens);
    sha_add(s, d->doc, (size_t)d->docs * sizeof *d->doc);
    sha_close(s, d->sha);
    return ERR_OK;
}

static int allocate(struct train_data *d, const struct counts *n)
{
    d->tokens = n->tokens;
    d->docs = n->docs;
    d->windows = (n->tokens - 1) / d->length; /* the last token of a window has a next one */
    if (d->windows < 1)
        return err_set(ERR_ARG, "data: %lld tokens of text are less than one sequence of %lld and its next token",
                       (long long)n->tokens, (long long)d->length);
    d->token = malloc((size_t)n->tokens * sizeof *d->token);
    d->scored = malloc((size_t)n->tokens);
    d->doc = malloc((size_t)(n->docs + 1) * sizeof *d->doc);
    d->order = malloc((size_t)n->docs * sizeof *d->order);
    d->start = malloc((size_t)(n->docs + 1) * sizeof *d->start);
    d->window = malloc((size_t)d->windows * sizeof *d->window);
    if (!d->token || !d->scored || !d->doc || !d->order || !d->start || !d->window)
        return err_set(ERR_NOMEM, "no memory for %lld tokens of training text", (long long)n->tokens);
    return ERR_OK;
}

static int read_all(struct reader *r)
{
    int rc = ERR_OK;
    r->separator = tok_id(r->tok, r->o->separator);
    if (r->separator < 0)
        return err_set(ERR_ARG, "data.separator = \"%s\" is not a token of the model's tokenizer", r->o->separator);
    for (int64_t i = 0; i < r->o->files.n && !rc; i++)
        rc = read_file(r, r->o->files.v[i]);
    return rc;
}

int data_open(struct train_data **out, const struct data_opts *o, const struct tok *tok, uint64_t seed, const struct comm_group *g)
{
    struct train_data *d = calloc(1, sizeof *d);
    struct reader r = {.o = o, .tok = tok};
    struct counts n = {0};
    bool first = !g || g->rank == 0;
    *out = NULL;
    int rc = d ? ERR_OK : err_set(ERR_NOMEM, "no memory for training text");
    if (!rc && first)
        rc = read_all(&r);
    rc = comm_agree(g, rc);
    n = (struct counts){r.ids.n, (int64_t)(r.docs.len / sizeof(int64_t))};
    if (!rc) {
        comm_bcast(g, &n, sizeof n, 0);
        d->length = o->length;
        d->seed = seed;
        d->epoch = -1;
        rc = comm_agree(g, allocate(d, &n));
    }
    if (!rc && first) {
        memcpy(d->token, r.ids.v, (size_t)n.tokens * sizeof *d->token);
        memcpy(d->scored, r.scored.data, (size_t)n.tokens);
        memcpy(d->doc, r.docs.data, (size_t)n.docs * sizeof *d->doc);
    }
    if (!rc) {
        comm_bcast(g, d->token, (size_t)n.tokens * sizeof *d->token, 0);
        comm_bcast(g, d->scored, (size_t)n.tokens, 0);
        comm_bcast(g, d->doc, (size_t)n.docs * sizeof *d->doc, 0);
        d->doc[n.docs] = n.tokens;
        rc = comm_agree(g, digest(d));
    }
    tok_ids_free(&r.ids);
    buf_free(&r.scored);
    buf_free(&r.docs);
    if (rc)
        data_close(d);
    else
        *out = d;
    return rc;
}

void data_close(struct train_data *d)
{
    if (d) {
        free(d->token);
        free(d->scored);
        free(d->doc);
        free(d->order);
        free(d->start);
        free(d->window);
    }
    free(d);
}

/* ---- windows ---- */

/* Fisher and Yates. */
static void shuffle(int64_t *v, int64_t n, uint64_t seed, uint64_t stream)
{
    for (int64_t i = 0; i < n; i++)
        v[i] = i;
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t j = rng_below(seed, stream, (uint64_t)i, i + 1), x = v[i];
        v[i] = v[j];
        v[j] = x;
    }
}

static void new_epoch(struct train_data *d, int64_t epoch)
{
    shuffle(d->order, d->docs, d->seed, (uint64_t)epoch * 2);
    shuffle(d->window, d->windows, d->seed, (uint64_t)epoch * 2 + 1);
    d->start[0] = 0;
    for (int64_t i = 0; i < d->docs; i++)
        d->start[i + 1] = d->start[i] + d->doc[d->order[i] + 1] - d->doc[d->order[i]];
    d->epoch = epoch;
}

/* The ordered document that holds position at of the stream. */
static int64_t document_at(const struct train_data *d, int64_t at)
{
    int64_t lo = 0, hi = d->docs;
    while (hi - lo > 1) {
        int64_t mid = (lo + hi) / 2;
        if (d->start[mid] <= at)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

void data_window(struct train_data *d, int64_t number, int32_t *token, int32_t *target)
{
    int64_t epoch = number / d->windows;
    if (epoch != d->epoch)
        new_epoch(d, epoch);
    int64_t at = d->window[number % d->windows] * d->length, i = document_at(d, at);
    for (int64_t x = 0; x <= d->length; x++, at++) {
        while (at >= d->start[i + 1])
            i++;
        int64_t from = d->doc[d->order[i]] + at - d->start[i];
        if (x < d->length)
            token[x] = d->token[from];
        if (x > 0)
            target[x - 1] = d->scored[from] ? d->token[from] : -1;
    }
}

int64_t data_windows(const struct train_data *d)
{
    return d->windows;
}

int64_t data_tokens(const struct train_data *d)
{
    return d->tokens;
}

int64_t data_documents(const struct train_data *d)
{
    return d->docs;
}

const char *data_sha256(const struct train_data *d)
{
    return d->sha;
}
