/* Pre-tokenizers: a text cut into pieces, each later a word of its own for the model. One row of the table each.
 * A step first marks the matches in each piece, then joins neighbours as its behaviour says. */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/utf8.h"
#include "text/tok_impl.h"

int split_push(struct pieces *p, size_t at, size_t n, bool match)
{
    if (p->n >= p->cap) {
        int rc = tok_grow(&p->v, &p->cap, p->n + 1, sizeof *p->v);
        if (rc)
            return rc;
    }
    p->v[p->n++] = (struct piece){at, n, match};
    return ERR_OK;
}

void split_free(struct split *x)
{
    free(x->piece.v);
    free(x->next.v);
    buf_free(&x->buf[0]);
    buf_free(&x->buf[1]);
    *x = (struct split){0};
}

/* Whether neighbours a, b become one piece. */
static bool joined(enum split_behaviour how, const struct piece *a, const struct piece *b)
{
    switch (how) {
    case SPLIT_MERGED_WITH_PREVIOUS: return b->match && !a->match;
    case SPLIT_MERGED_WITH_NEXT: return a->match && !b->match;
    case SPLIT_CONTIGUOUS: return a->match == b->match;
    case SPLIT_REMOVED:
    case SPLIT_ISOLATED: break;
    }
    return false;
}

/* x->next[from ..] are the marks of one old piece: joins them in place, drops empty ones and what is to be removed. */
static void join(struct split *x, int64_t from, enum split_behaviour how)
{
    struct pieces *p = &x->next;
    int64_t to = from;
    for (int64_t i = from; i < p->n;) {
        struct piece whole = p->v[i++];
        bool remove = how == SPLIT_REMOVED && whole.match;
        while (i < p->n && joined(how, &p->v[i - 1], &p->v[i]))
            whole.n += p->v[i++].n;
        if (!remove && whole.n > 0)
            p->v[to++] = whole;
    }
    p->n = to;
}

/* The pieces in next become the current ones. */
static void turn_pieces(struct split *x)
{
    struct pieces old = x->piece;
    x->piece = x->next;
    x->next = old;
    x->next.n = 0;
}

/* ---- marks by pattern, by kind of character -------------------------------------------------------------------------- */

static int mark_pattern(struct split *x, const struct step *s, struct piece o)
{
    struct matches m = {.pattern = &s->find, .run = x->run, .s = x->text + o.at, .n = o.n};
    size_t done = 0;
    int got, rc = ERR_OK;
    while ((got = pattern_next(&m)) > 0) {
        if (m.at > done)
            rc = split_push(&x->next, o.at + done, m.at - done, s->invert);
        if (rc == ERR_OK)
            rc = split_push(&x->next, o.at + m.at, m.end - m.at, !s->invert);
        if (rc)
            return rc;
        done = m.end;
    }
    if (got < 0)
        return got;
    return done < o.n ? split_push(&x->next, o.at + done, o.n - done, s->invert) : ERR_OK;
}

static int split(const struct step *s, struct split *x)
{
    for (int64_t i = 0; i < x->piece.n; i++) {
        int64_t from = x->next.n;
        int rc = mark_pattern(x, s, x->piece.v[i]);
        if (rc)
            return rc;
        join(x, from, s->behaviour);
    }
    turn_pieces(x);
    return ERR_OK;
}

typedef bool (*char_fn)(uint32_t cp, const struct step *s);

/* Each character that `is` says is a match of its own. */
static int split_chars(const struct step *s, struct split *x, char_fn is, enum split_behaviour how)
{
    for (int64_t i = 0; i < x->piece.n; i++) {
        struct piece o = x->piece.v[i];
        size_t done = o.at, stop = o.at + o.n;
        int64_t from = x->next.n;
        int rc = ERR_OK;
        for (size_t at = o.at; at < stop && rc == ERR_OK;) {
            uint32_t cp;
            size_t w = (size_t)char_next(x->text + at, &cp);
            if (is(cp, s)) {
                if (at > done)
                    rc = split_push(&x->next, done, at - done, false);
                if (rc == ERR_OK)
                    rc = split_push(&x->next, at, w, true);
                done = at + w;
            }
            at += w;
        }
        if (rc == ERR_OK && done < stop)
            rc = split_push(&x->next, done, stop - done, false);
        if (rc)
            return rc;
        join(x, from, how);
    }
    turn_pieces(x);
    return ERR_OK;
}

static bool is_number(uint32_t cp, const struct step *s)
{
    (void)s;
    return char_class(cp) == CHAR_NUMBER;
}

static bool is_space(uint32_t cp, const struct step *s)
{
    (void)s;
    return char_is_space(cp);
}

static bool is_punct(uint32_t cp, const struct step *s)
{
    (void)s;
    return char_is_punct(cp);
}

static bool is_cp(uint32_t cp, const struct step *s)
{
    return cp == s->cp;
}

static int digits(const struct step *s, struct split *x)
{
    return split_chars(s, x, is_number, s->each ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS);
}

static int whitespace_split(const struct step *s, struct split *x)
{
    return split_chars(s, x, is_space, SPLIT_REMOVED);
}

static int punctuation(const struct step *s, struct split *x)
{
    return split_chars(s, x, is_punct, s->behaviour);
}

static int delimiter(const struct step *s, struct split *x)
{
    return split_chars(s, x, is_cp, SPLIT_REMOVED);
}

static int bert(const struct step *s, struct split *x)
{
    int rc = split_chars(s, x, is_space, SPLIT_REMOVED);
    return rc ? rc : split_chars(s, x, is_punct, SPLIT_ISOLATED);
}

/* \w+|[^\w\s]+ : runs of word characters and runs of others, white space dropped. */
static int whitespace(const struct step *s, struct split *x)
{
    (void)s;
    for (int64_t i = 0; i < x->piece.n; i++) {
        struct piece o = x->piece.v[i];
        size_t start = o.at, stop = o.at + o.n;
        int last = 0, rc = ERR_OK; /* 0 space, 1 word, 2 other */
        for (size_t at = o.at; at < stop && rc == ERR_OK;) {
            uint32_t cp;
            size_t w = (size_t)char_next(x->text + at, &cp);
            int now = char_is_space(cp) ? 0 : char_is_word(cp) ? 1 : 2;
            if (now != last) {
                if (last)
                    rc = split_push(&x->next, start, at - start, false);
                start = at;
                last = now;
            }
            at += w;
        }
        if (rc == ERR_OK && last)
            rc = split_push(&x->next, start, stop - start, false);
        if (rc)
            return rc;
    }
    turn_pieces(x);
    return ERR_OK;
}

/* ---- steps that change the text -------------------------------------------------------------------------------------- */

/* Writes a new text, piece by piece, with `edit`; the pieces keep their order. */
typedef int (*edit_fn)(const struct step *s, const char *text, size_t n, bool first, struct buf *out);

static int rewrite(const struct step *s, struct split *x, edit_fn edit)
{
    struct buf *out = &x->buf[x->turn ^= 1];
    buf_clear(out);
    for (int64_t i = 0; i < x->piece.n; i++) {
        size_t from = out->len, at = x->piece.v[i].at;
        int rc = edit(s, x->text + at, x->piece.v[i].n, x->at_start && at == 0, out);
        if (rc == ERR_OK)
            rc = tok_growth(x->n_first, out->len);
        if (rc)
            return rc;
        x->piece.v[i] = (struct piece){.at = from, .n = out->len - from};
    }
    x->text = buf_text(out);
    x->n = out->len;
    return ERR_OK;
}

int bytelevel_map(const char *s, size_t n, struct buf *out)
{
    int rc = buf_reserve(out, 2 * n);
    if (rc)
        return rc;
    for (size_t i = 0; i < n; i++)
        out->len += (size_t)utf8_encode(byte_to_char((unsigned char)s[i]), out->data + out->len);
    out->data[out->len] = '\0';
    return ERR_OK;
}

static int edit_prefix(const struct step *s, const char *text, size_t n, bool first, struct buf *out)
{
    int rc = n > 0 && text[0] != ' ' ? buf_puts(out, " ") : ERR_OK;
    (void)s, (void)first;
    return rc ? rc : buf_add(out, text, n);
}

static int edit_map(const struct step *s, const char *text, size_t n, bool first, struct buf *out)
{
    (void)s, (void)first;
    return bytelevel_map(text, n, out);
}

static int edit_metaspace(const struct step *s, const char *text, size_t n, bool first, struct buf *out)
{
    bool has = (n > 0 && text[0] == ' ') || (n >= s->text_n && memcmp(text, s->text, s->text_n) == 0);
    bool put = n > 0 && !has && (s->prepend == PREPEND_ALWAYS || (s->prepend == PREPEND_FIRST && first));
    int rc = put ? buf_add(out, s->text, s->text_n) : ERR_OK;
    for (size_t i = 0, run; i < n && rc == ERR_OK; i += run) {
        const char *space = memchr(text + i, ' ', n - i);
        run = space ? (size_t)(space - text) - i : n - i;
        rc = buf_add(out, text + i, run);
        if (rc == ERR_OK && space) {
            rc = buf_add(out, s->text, s->text_n);
            run++;
        }
    }
    return rc;
}

static int bytelevel(const struct step *s, struct split *x)
{
    int rc = s->prefix_space ? rewrite(s, x, edit_prefix) : ERR_OK;
    for (int64_t i = 0; s->use_regex && i < x->piece.n && rc == ERR_OK; i++) {
        size_t from = x->piece.v[i].at;
        rc = gpt2_cut(x->text, &from, from + x->piece.v[i].n, &x->next, INT64_MAX);
    }
    if (s->use_regex)
        turn_pieces(x);
    return rc ? rc : rewrite(s, x, edit_map);
}

static int metaspace(const struct step *s, struct split *x)
{
    int rc = rewrite(s, x, edit_metaspace);
    return rc || !s->split ? rc : split_chars(s, x, is_cp, SPLIT_MERGED_WITH_NEXT);
}

/* ---- parameters ------------------------------------------------------------------------------------------------------ */

static int behaviour_parse(const struct json_doc *d, const struct json *o, const char *def, struct step *s)
{
    static const struct {
        const char *name;
        enum split_behaviour value;
    } all[] = {{"Removed", SPLIT_REMOVED},
               {"Isolated", SPLIT_ISOLATED},
               {"MergedWithPrevious", SPLIT_MERGED_WITH_PREVIOUS},
               {"MergedWithNext", SPLIT_MERGED_WITH_NEXT},
               {"Contiguous", SPLIT_CONTIGUOUS}};
    const char *name;
    int rc = json_string(d, o, "behavior", def, &name);
    if (rc)
        return rc;
    for (size_t i = 0; name && i < sizeof all / sizeof all[0]; i++)
        if (strcmp(name, all[i].name) == 0) {
            s->behaviour = all[i].value;
            return ERR_OK;
        }
    return err_set(ERR_FORMAT,
                   "%s: %s's behavior is '%.60s'; there are Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous",
                   json_name(d), s->kind->name, name ? name : "");
}

static int split_parse(const struct json_doc *d, const struct json *o, struct step *s)
{
    int rc = pattern_parse(&s->find, d, json_get(o, "pattern"), "Split");
    if (rc == ERR_OK)
        rc = behaviour_parse(d, o, NULL, s);
    return rc ? rc : json_bool(d, o, "invert", false, &s->invert);
}

static int digits_parse(const struct json_doc *d, const struct json *o, struct step *s)
{
    return json_bool(d, o, "individual_digits", false, &s->each);
}

static int punctuation_parse(const struct json_doc *d, const struct json *o, struct step *s)
{
    return behaviour_parse(d, o, "Isolated", s);
}

static int delimiter_parse(const struct json_doc *d, const struct json *o, struct step *s)
{
    return step_char(d, o, "delimiter", s);
}

int bytelevel_parse(const struct json_doc *d, const struct json *o, struct step *s)
{
    int rc = json_bool(d, o, "add_prefix_space", true, &s->prefix_space);
    return rc ? rc : json_bool(d, o, "use_regex", true, &s->use_regex);
}

int metaspace_parse(const struct json_doc *d, const struct json *o, struct step *s)
{
    const char *scheme;
    bool prefix_space;
    int rc = step_char(d, o, "replacement", s);
    if (rc == ERR_OK)
        rc = json_bool(d, o, "add_prefix_space", true, &prefix_space); /* files before tokenizers 0.15 */
    if (rc == ERR_OK)
        rc = json_string(d, o, "prepend_scheme", prefix_space ? "always" : "never", &scheme);
    if (rc == ERR_OK)
        rc = json_bool(d, o, "split", true, &s->split);
    if (rc)
        return rc;
    if (strcmp(scheme, "always") == 0)
        s->prepend = PREPEND_ALWAYS;
    else if (strcmp(scheme, "first") == 0)
        s->prepend = PREPEND_FIRST;
    else if (strcmp(scheme, "never") == 0)
        s->prepend = PREPEND_NEVER;
    else
        return err_set(ERR_FORMAT, "%s: Metaspace's prepend_scheme is '%.60s'; there are always, first, never", json_name(d),
                       scheme);
    return ERR_OK;
}

static const struct step_kind kinds[] = {
    {.name = "ByteLevel", .parse = bytelevel_parse, .pretok = bytelevel},
    {.name = "Split", .parse = split_parse, .pretok = split},
    {.name = "Digits", .parse = digits_parse, .pretok = digits},
    {.name = "Metaspace", .parse = metaspace_parse, .pretok = metaspace},
    {.name = "Punctuation", .parse = punctuation_parse, .pretok = punctuation},
    {.name = "Whitespace", .pretok = whitespace},
    {.name = "WhitespaceSplit", .pretok = whitespace_split},
    {.name = "BertPreTokenizer", .pretok = bert},
    {.name = "CharDelimiterSplit", .parse = delimiter_parse, .pretok = delimiter},
};
const struct step_table pretok_table = {"pre_tokenizer", "pretokenizers", kinds, sizeof kinds / sizeof kinds[0]};

bool pretok_ends_in_bytes(const struct steps *steps)
{
    return steps->n > 0 && steps->v[steps->n - 1].kind->pretok == bytelevel;
}

int pretok_run(const struct steps *steps, bool skip_map, struct split *x, const char *s, size_t n)
{
    x->text = s;
    x->n = x->n_first = n;
    x->piece.n = x->next.n = 0;
    x->cut_late = false;
    x->late = 0;
    x->late_from = 0;
    int rc = n ? split_push(&x->piece, 0, n, false) : ERR_OK;
    for (int64_t i = 0; i < steps->n && rc == ERR_OK; i++) {
        const struct step *st = &steps->v[i];
        if (skip_map && i == steps->n - 1 && st->kind->pretok == bytelevel) {
            rc = st->prefix_space ? rewrite(st, x, edit_prefix) : ERR_OK;
            x->cut_late = st->use_regex;
        } else
            rc = st->kind->pretok(st, x);
    }
    return rc;
}

int split_batch(struct split *x, const struct pieces **out)
{
    enum { BATCH = 1024 };
    *out = x->cut_late ? &x->next : &x->piece;
    if (!x->cut_late) {
        int64_t have = x->late ? 0 : x->piece.n;
        x->late = x->piece.n;
        return have > 0;
    }
    x->next.n = 0;
    for (; x->late < x->piece.n && x->next.n < BATCH; x->late++) {
        const struct piece *o = &x->piece.v[x->late];
        size_t from = x->late_from > o->at ? x->late_from : o->at;
        int rc = gpt2_cut(x->text, &from, o->at + o->n, &x->next, BATCH);
        x->late_from = from;
        if (rc)
            return rc;
        if (from < o->at + o->n)
            break;
    }
    return x->next.n > 0;
}
