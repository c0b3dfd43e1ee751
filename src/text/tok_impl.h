/* The parts of a tokenizer, private to this folder.
 *
 *     tok.c      the pipeline and the public calls          open.c     tokenizer.json, or vocab.json + merges.txt
 *     added.c    tokens cut out of the text before all      steps.c    lists of components: name -> parse function
 *     normal.c   text -> text                               pretok.c   text -> pieces (bytelevel.c: the GPT-2 rule)
 *     bpe.c      piece -> ids                               post.c     ids before and after
 *     decode.c   tokens -> text                             regex.c words.c chars.c   what they stand on
 *
 *     "A B<|end|>" --added--> "A B" | 50256 --normal--> "A B" --pretok--> "A" " B" --bpe--> 32, 347 --post--> ids
 *
 * Offsets are bytes. Text inside is UTF-8 that has been checked. */
#ifndef AST_TEXT_TOK_IMPL_H
#define AST_TEXT_TOK_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "io/json.h"
#include "text/tok.h"

enum {
    TOK_ID_MAX = (1 << 22) - 1, /* larger ids are taken for damage: the largest vocabularies have 2^18 */
    TOK_DEPTH = 16,             /* Sequences in Sequences */
    TOK_FILE_MAX = 256 << 20    /* bytes of a tokenizer file */
};

/* ---- words.c: strings <-> ids ------------------------------------------------------------------------------------- */

/* id -> string and string -> id. Filled by words_put, then words_index, then read only. */
struct words {
    char *text; /* all strings, each with a terminator */
    size_t text_n, text_cap;
    struct word { /* [size] */
        uint32_t at, n;
        bool used;
    } * word;
    int64_t size, cap, count; /* highest id + 1; ids in use */
    struct word_slot {        /* [mask + 1], open addressing */
        uint32_t hash;
        int32_t id; /* -1: free */
    } * slot;
    uint32_t mask, longest; /* longest: bytes of the longest string */
};

void words_free(struct words *w);
/* ERR_NOMEM; ERR_FORMAT if the id is taken, negative or beyond TOK_ID_MAX (the sentence lacks the file's name). */
int words_put(struct words *w, int64_t id, const char *s, size_t n);
int words_index(struct words *w); /* ERR_FORMAT if a string has two ids */
int32_t words_find(const struct words *w, const char *s, size_t n);
int32_t words_find_hashed(const struct words *w, const char *s, size_t n, uint32_t hash);
uint32_t words_hash(const char *s, size_t n);
static inline const char *words_text(const struct words *w, int64_t id, size_t *n)
{
    if (id < 0 || id >= w->size || !w->word[id].used)
        return NULL;
    *n = w->word[id].n;
    return w->text + w->word[id].at;
}

/* Room for `need` elements of `size` bytes at *v, doubled; ERR_NOMEM. */
int tok_grow(void *v, int64_t *cap, int64_t need, size_t size);
int tok_ids_push(struct tok_ids *ids, int32_t id);

/* ERR_FORMAT if a step has made much more text (now) of a text (from) than steps of real tokenizers do: a few ByteLevels
 * or Replaces in a row grow it without bound. */
int tok_growth(size_t from, size_t now);

/* ---- chars.c: Unicode classes (utf8proc) ---------------------------------------------------------------------------- */

enum char_class { CHAR_OTHER, CHAR_LETTER, CHAR_NUMBER, CHAR_SPACE }; /* not (\s \p{L} \p{N}); \p{L}; \p{N}; \s */
extern const uint8_t char_ascii[128];                                 /* enum char_class */
enum char_class char_class(uint32_t cp);                              /* any code point */
bool char_is_space(uint32_t cp);                                      /* White_Space */
bool char_is_word(uint32_t cp);                                       /* \w: Alphabetic, Mark, Nd, Pc, Join_Control */
bool char_is_punct(uint32_t cp);                                      /* \p{P} or ASCII punctuation */
/* utf8_decode for checked text; returns its bytes. */
int char_next(const char *s, uint32_t *cp);
size_t char_last(const char *s, size_t n, uint32_t *cp); /* the code point before s + n; its offset */

/* The byte alphabet of GPT-2: printable bytes are themselves, the others 256, 257, ... in increasing order. */
uint32_t byte_to_char(unsigned char b);
int char_to_byte(uint32_t cp); /* -1: not of the alphabet */

/* ---- regex.c ---------------------------------------------------------------------------------------------------- */

/* A pattern: a string or a regular expression of Oniguruma's default syntax, translated to PCRE2's. */
struct pattern {
    char *text; /* as written */
    size_t n;
    struct regex *re; /* NULL: the string itself */
};
struct regex_run; /* the mutable part: one for each encode call, made when first needed */

/* o: {"String": s} or {"Regex": s} (or a plain string). who: named in errors. */
int pattern_parse(struct pattern *p, const struct json_doc *d, const struct json *o, const char *who);
int pattern_set(struct pattern *p, const char *text, size_t n, bool regex, const char *who);
void pattern_free(struct pattern *p);
void regex_run_free(struct regex_run *r); /* NULL is fine */

/* A walk over the matches in s[0 .. n-1]. */
struct matches {
    const struct pattern *pattern;
    struct regex_run **run;
    const char *s;
    size_t n;
    size_t at, end; /* out: the match is [at, end) */
    size_t from;    /* where to look on; start with 0 */
    bool any;       /* there was a match, it ended at `from` */
};
/* 1 and the next match, 0 if there is none, negative: ERR_FORMAT (a limit of PCRE2), ERR_NOMEM.
 * An empty match directly after a match does not count. */
int pattern_next(struct matches *m);

/* ---- steps.c: components ---------------------------------------------------------------------------------------- */

enum split_behaviour { SPLIT_REMOVED, SPLIT_ISOLATED, SPLIT_MERGED_WITH_PREVIOUS, SPLIT_MERGED_WITH_NEXT, SPLIT_CONTIGUOUS };
enum metaspace_prepend { PREPEND_ALWAYS, PREPEND_NEVER, PREPEND_FIRST };

/* One component with its parameters; which are used is said where it is parsed. */
struct step {
    const struct step_kind *kind;
    struct pattern find;
    char *text; /* what is put in, or looked for */
    size_t text_n;
    enum split_behaviour behaviour;
    enum metaspace_prepend prepend;
    int64_t start, stop;
    uint32_t cp;
    bool invert, each, prefix_space, use_regex, split, left, right;
};
struct steps {
    struct step *v;
    int64_t n, cap;
};
struct split;
struct strings;
struct step_kind {
    const char *name;
    int (*parse)(const struct json_doc *d, const struct json *o, struct step *s); /* NULL: no parameters */
    /* one of these, by the table it stands in */
    int (*normal)(const struct step *s, struct regex_run **run, const char *text, size_t n, struct buf *out);
    int (*pretok)(const struct step *s, struct split *x);
    int (*decode)(const struct step *s, struct strings *x);
};
struct step_table {
    const char *what;     /* "normalizer" */
    const char *children; /* key of the list in a Sequence */
    const struct step_kind *kind;
    int n;
};
extern const struct step_table normal_table, pretok_table, decode_table;

/* o: a component, or NULL / null for none. Sequences are flattened. Errors name the component and those we have. */
int steps_parse(struct steps *out, const struct step_table *t, const struct json_doc *d, const struct json *o);
void steps_free(struct steps *s);
int steps_names(const struct steps *s, struct buf *out); /* "NFC, ByteLevel" or "none" */
/* A string parameter that must be there. */
int step_text(const struct json_doc *d, const struct json *o, const char *key, struct step *s);
/* The same, one character long. */
int step_char(const struct json_doc *d, const struct json *o, const char *key, struct step *s);
/* Adds the names of a table to a text: "A, B, C". */
int step_list(struct buf *out, const struct step_table *t);

/* ---- added.c ---------------------------------------------------------------------------------------------------- */

struct added_token {
    int32_t id;
    bool special, lstrip, rstrip, single_word, normalized;
};
struct added {
    struct words words;
    struct words decoded;      /* not indexed: what decoding gives for "normalized" tokens */
    struct added_token *token; /* [n] */
    int64_t n, cap;
    int32_t *by_id;                /* [words.size] index into token, -1 */
    struct trie *raw, *normalized; /* NULL: no such tokens */
};
struct segment { /* a part of a text: an added token (id >= 0) or text to go on with (-1) */
    size_t at, n;
    int32_t id;
};
struct segments {
    struct segment *v;
    int64_t n, cap;
};
int added_parse(struct added *a, const struct json_doc *d, const struct json *list, const struct words *vocab);
int added_put(struct added *a, const struct added_token *t, const char *s, size_t n);
/* After the last token; normal: the normalizer, which tokens with "normalized" go through. */
int added_index(struct added *a, const struct steps *normal);
void added_free(struct added *a);
/* Appends the segments of s, in order; all of s is covered but for white space before a token that is inside another one's. */
int added_split(const struct added *a, const struct trie *t, const char *s, size_t n, struct segments *out);
const struct added_token *added_by_id(const struct added *a, int32_t id);

/* ---- normal.c ----------------------------------------------------------------------------------------------------- */

/* Runs all steps. *out is s itself or text in one of the two buffers. */
struct normal_work {
    struct buf buf[2];
};
bool normal_is_inert(uint32_t cp); /* NFC leaves it as it is, whatever stands around it */
int normal_run(const struct steps *steps, struct regex_run **run, struct normal_work *w, const char **s, size_t *n);

/* ---- pretok.c ----------------------------------------------------------------------------------------------------- */

struct piece {
    size_t at, n;
    bool match; /* between finding and joining */
};
struct pieces {
    struct piece *v;
    int64_t n, cap;
};
struct split { /* a text being cut */
    const char *text;
    size_t n, n_first; /* n_first: before any step */
    bool at_start;     /* the text starts where the whole input starts */
    struct pieces piece, next;
    struct buf buf[2]; /* text that a step has changed */
    int turn;
    bool cut_late; /* the last step's cuts by GPT-2's pattern are made batch by batch: long texts need no long lists */
    int64_t late;  /* next piece to be cut, and from where */
    size_t late_from;
    struct regex_run **run;
};
/* skip_map: leave bytes as they are where the last step is ByteLevel (the model then maps them). Then split_batch gives
 * the pieces, in order: 1 and some of them, 0 after the last, or an error. */
int pretok_run(const struct steps *steps, bool skip_map, struct split *x, const char *s, size_t n);
int split_batch(struct split *x, const struct pieces **out);
bool pretok_ends_in_bytes(const struct steps *steps);
void split_free(struct split *x);
int split_push(struct pieces *p, size_t at, size_t n, bool match);
int bytelevel_parse(const struct json_doc *d, const struct json *o, struct step *s);
int bytelevel_map(const char *s, size_t n, struct buf *out); /* appends bytes as characters of the byte alphabet */
int metaspace_parse(const struct json_doc *d, const struct json *o, struct step *s);

/* bytelevel.c: cuts s[*from .. n-1] by GPT-2's pattern, without a regex engine; appends pieces until there are `limit`
 * of them, and moves *from behind the last. */
extern const char gpt2_pattern[];
int gpt2_cut(const char *s, size_t *from, size_t n, struct pieces *out, int64_t limit);

/* ---- bpe.c -------------------------------------------------------------------------------------------------------- */

struct bpe;
struct bpe_work; /* scratch and word cache of one encode call */
struct bpe_options {
    const struct words *vocab;         /* kept */
    const char *unk, *prefix, *suffix; /* NULL: none */
    bool fuse_unk, byte_fallback, ignore_merges;
    bool spaced; /* there is no decoder: decoded tokens are words with spaces between them */
    bool bytes;  /* pieces are raw bytes, tokens are written in the byte alphabet */
    int64_t n_merges;
};
int bpe_open(struct bpe **out, const struct bpe_options *o);
/* Merges in order of rank. ERR_FORMAT if a part or the result is not in the vocabulary. */
int bpe_merge(struct bpe *m, const char *a, size_t an, const char *b, size_t bn);
int bpe_finish(struct bpe *m); /* after the last merge */
void bpe_close(struct bpe *m);
int64_t bpe_merges(const struct bpe *m);
int bpe_encode(const struct bpe *m, struct bpe_work **w, const char *s, size_t n, struct tok_ids *out);
void bpe_work_free(struct bpe_work *w);

/* ---- post.c ------------------------------------------------------------------------------------------------------- */

struct post { /* ids put around the text's */
    struct tok_ids before, after;
};
int post_parse(struct post *p, const struct json_doc *d, const struct json *o);
void post_free(struct post *p);

/* ---- decode.c ----------------------------------------------------------------------------------------------------- */

struct strings { /* token texts on their way to one text */
    struct buf text, next;
    size_t *end, *next_end; /* [n] ends of the strings in text */
    int64_t n, cap, next_n, next_cap;
};
int strings_push(struct strings *x, const char *s, size_t n); /* to the current list */
int decode_run(const struct steps *steps, struct strings *x, struct buf *out);
void strings_free(struct strings *x);

/* ---- the whole ---------------------------------------------------------------------------------------------------- */

struct tok {
    struct words vocab;
    struct added added;
    struct steps normal, pretok, decode;
    struct post post;
    struct bpe *bpe;
    bool spaced;  /* there is no decoder: decoded tokens are words with spaces between them */
    bool bytes;   /* the model maps the bytes of pieces itself */
    int64_t size; /* highest id + 1 of vocabulary and added tokens */
    char *describe, sha256[65];
};
int tok_read(struct tok *t, const char *path);                                  /* open.c: fills a zeroed tok */
int tok_read_json(struct tok *t, const char *text, size_t n, const char *name); /* the same from memory */

#endif
