/* Added tokens: found in the text before anything else, longest first at each place, through a trie.
 *
 *     "<|a|>" "<|ab|>"       root -'<'-> . -'|'-> . -'a'-> . -'|'-> . -'>'-> <|a|>
 *                                                        '-'b'-> . -'|'-> . -'>'-> <|ab|>
 *
 * The tokens that are not "normalized" are looked for in the text as it is; the others, themselves normalized, in the
 * normalized rest. */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "text/tok_impl.h"

struct trie_node {
    int32_t child, sibling; /* 0: none */
    int32_t token;          /* index into added.token, -1 */
    unsigned char byte;
};
struct trie {
    struct trie_node *node; /* [n]; 0 is the root */
    int64_t n, cap;
    int32_t root[256]; /* the root's children by byte, 0: none */
    int only;          /* the one byte that tokens start with; -1: several */
};

/* ---- building ---------------------------------------------------------------------------------------------------------- */

static void trie_free(struct trie *t)
{
    if (t)
        free(t->node);
    free(t);
}

static int trie_child(struct trie *t, int32_t at, unsigned char byte, int32_t *child)
{
    for (*child = t->node[at].child; *child; *child = t->node[*child].sibling)
        if (t->node[*child].byte == byte)
            return ERR_OK;
    int rc = t->n > INT32_MAX - 1 ? err_set(ERR_FORMAT, "too many added tokens") : ERR_OK;
    if (rc == ERR_OK)
        rc = tok_grow(&t->node, &t->cap, t->n + 1, sizeof *t->node);
    if (rc)
        return rc;
    *child = (int32_t)t->n++;
    t->node[*child] = (struct trie_node){.sibling = t->node[at].child, .token = -1, .byte = byte};
    t->node[at].child = *child;
    return ERR_OK;
}

static int trie_put(struct trie **trie, const char *s, size_t n, int32_t token)
{
    int rc = ERR_OK;
    int32_t at = 0;
    if (n == 0)
        return ERR_OK;
    if (!*trie) {
        *trie = calloc(1, sizeof **trie);
        if (!*trie)
            return err_set(ERR_NOMEM, "out of memory for added tokens");
        (*trie)->only = -2; /* none so far */
        rc = tok_grow(&(*trie)->node, &(*trie)->cap, 1, sizeof *(*trie)->node);
        if (rc)
            return rc;
        (*trie)->node[(*trie)->n++] = (struct trie_node){.token = -1};
    }
    struct trie *t = *trie;
    unsigned char first = (unsigned char)s[0];
    for (size_t i = 0; i < n && rc == ERR_OK; i++)
        rc = trie_child(t, at, (unsigned char)s[i], &at);
    if (rc)
        return rc;
    if (t->node[at].token < 0) /* of two equal ones the first counts */
        t->node[at].token = token;
    t->only = t->only == -2 || t->only == first ? first : -1;
    for (int32_t c = t->node[0].child; c; c = t->node[c].sibling)
        t->root[t->node[c].byte] = c;
    return ERR_OK;
}

int added_put(struct added *a, const struct added_token *t, const char *s, size_t n)
{
    if (n == 0)
        return ERR_OK;
    int rc = words_put(&a->words, t->id, s, n);
    if (rc == ERR_OK)
        rc = tok_grow(&a->token, &a->cap, a->n + 1, sizeof *a->token);
    if (rc == ERR_OK)
        a->token[a->n++] = *t;
    return rc;
}

/* Fields of one element of added_tokens; where the vocabulary has the same token or id, both must agree. */
static int parse_token(struct added *a, const struct json_doc *d, const struct json *o, const struct words *vocab)
{
    struct added_token t = {0};
    int64_t id;
    size_t there_n = 0;
    const struct json *content = json_get(o, "content");
    const char *s = content ? json_str(content) : NULL;
    if (!s)
        return err_set(ERR_FORMAT, "%s: an element of added_tokens needs the string \"content\"", json_name(d));
    size_t n = (size_t)json_len(content);
    int rc = json_int_req(d, o, "id", 0, TOK_ID_MAX, &id);
    if (rc == ERR_OK)
        rc = json_bool(d, o, "special", false, &t.special);
    if (rc == ERR_OK)
        rc = json_bool(d, o, "lstrip", false, &t.lstrip);
    if (rc == ERR_OK)
        rc = json_bool(d, o, "rstrip", false, &t.rstrip);
    if (rc == ERR_OK)
        rc = json_bool(d, o, "single_word", false, &t.single_word);
    if (rc == ERR_OK)
        rc = json_bool(d, o, "normalized", !t.special, &t.normalized);
    if (rc)
        return rc;
    t.id = (int32_t)id;
    int32_t in_vocab = words_find(vocab, s, n);
    const char *there = words_text(vocab, id, &there_n);
    if ((in_vocab >= 0 && in_vocab != id) || (there && in_vocab != id))
        return err_set(ERR_FORMAT, "%s: added token \"%.60s\" has the id %lld, but the vocabulary has %s%.60s%s%d", json_name(d), s,
                       (long long)id, in_vocab >= 0 ? "it under " : "\"", in_vocab >= 0 ? "" : there,
                       in_vocab >= 0 ? "" : "\" under ", in_vocab >= 0 ? in_vocab : (int)id);
    rc = added_put(a, &t, s, n);
    return rc ? err_prefix(rc, "%s", json_name(d)) : ERR_OK;
}

int added_parse(struct added *a, const struct json_doc *d, const struct json *list, const struct words *vocab)
{
    if (!list || json_kind(list) == JSON_NULL)
        return ERR_OK;
    if (json_kind(list) != JSON_ARRAY)
        return err_set(ERR_FORMAT, "%s: added_tokens is not a list", json_name(d));
    for (int64_t i = 0; i < json_len(list); i++) {
        const struct json *o = json_at(list, i);
        if (!o || json_kind(o) != JSON_OBJECT)
            return err_set(ERR_FORMAT, "%s: element %lld of added_tokens is not an object", json_name(d), (long long)i);
        int rc = parse_token(a, d, o, vocab);
        if (rc)
            return rc;
    }
    return ERR_OK;
}

/* Puts token i into its trie; w, run: scratch of the normalizer. */
static int index_token(struct added *a, int64_t i, const struct steps *normal, struct normal_work *w, struct regex_run **run)
{
    const struct added_token *t = &a->token[i];
    size_t n = 0;
    const char *s = words_text(&a->words, t->id, &n);
    int rc = ERR_OK;
    a->by_id[t->id] = (int32_t)i;
    if (!t->normalized)
        return trie_put(&a->raw, s, n, (int32_t)i);
    rc = normal_run(normal, run, w, &s, &n);
    if (rc == ERR_OK)
        rc = words_put(&a->decoded, t->id, s, n);
    return rc ? rc : trie_put(&a->normalized, s, n, (int32_t)i);
}

int added_index(struct added *a, const struct steps *normal)
{
    struct normal_work w = {0};
    struct regex_run *run = NULL;
    int rc = words_index(&a->words);
    a->by_id = malloc(((size_t)a->words.size + 1) * sizeof *a->by_id);
    if (!a->by_id)
        return err_set(ERR_NOMEM, "out of memory for added tokens");
    for (int64_t id = 0; id < a->words.size; id++)
        a->by_id[id] = -1;
    /* Where normalizing makes two tokens equal the first counts, special ones before others. */
    for (int special = 1; special >= 0; special--)
        for (int64_t i = 0; i < a->n && rc == ERR_OK; i++)
            if (a->token[i].special == (special == 1))
                rc = index_token(a, i, normal, &w, &run);
    regex_run_free(run);
    buf_free(&w.buf[0]);
    buf_free(&w.buf[1]);
    return rc;
}

void added_free(struct added *a)
{
    words_free(&a->words);
    words_free(&a->decoded);
    free(a->token);
    free(a->by_id);
    trie_free(a->raw);
    trie_free(a->normalized);
    *a = (struct added){0};
}

const struct added_token *added_by_id(const struct added *a, int32_t id)
{
    if (id < 0 || id >= a->words.size || !a->by_id || a->by_id[id] < 0)
        return NULL;
    return &a->token[a->by_id[id]];
}

/* ---- finding ----------------------------------------------------------------------------------------------------------- */

struct finding { /* a walk over the tokens in s[0 .. n-1] */
    const struct trie *trie;
    const char *s;
    size_t n;
    size_t from, done; /* where to look on; up to where the text is dealt out */
    size_t at, end;    /* out: the token is [at, end) */
};

/* The longest token at f->at: its index and f->end, or -1. */
static int32_t longest_here(struct finding *f)
{
    const struct trie_node *nodes = f->trie->node;
    size_t at = f->at;
    int32_t found = -1, node = f->trie->root[(unsigned char)f->s[at]];
    while (node) {
        at++;
        if (nodes[node].token >= 0) {
            found = nodes[node].token;
            f->end = at;
        }
        if (at >= f->n)
            break;
        for (node = nodes[node].child; node && nodes[node].byte != (unsigned char)f->s[at];)
            node = nodes[node].sibling;
    }
    return found;
}

/* The next token at or after f->from: its index, -1 if there is none. */
static int32_t find_next(struct finding *f)
{
    while (f->from < f->n) {
        if (f->trie->only >= 0) {
            const char *p = memchr(f->s + f->from, f->trie->only, f->n - f->from);
            f->from = p ? (size_t)(p - f->s) : f->n;
        } else
            while (f->from < f->n && !f->trie->root[(unsigned char)f->s[f->from]])
                f->from++;
        if (f->from >= f->n)
            break;
        f->at = f->from++;
        int32_t found = longest_here(f);
        if (found >= 0) {
            f->from = f->end;
            return found;
        }
    }
    return -1;
}

static bool is_single_word(const struct finding *f)
{
    uint32_t cp;
    if (f->at > 0) {
        char_last(f->s, f->at, &cp);
        if (char_is_word(cp))
            return false;
    }
    if (f->end < f->n) {
        char_next(f->s + f->end, &cp);
        if (char_is_word(cp))
            return false;
    }
    return true;
}

/* White space around the token that it swallows; on the left not before f->done: what the last token swallowed may leave
 * nothing of this one. */
static void swallow(const struct added_token *k, struct finding *f)
{
    uint32_t cp;
    if (k->lstrip && f->at < f->done)
        f->at = f->done;
    while (k->lstrip && f->at > f->done) {
        size_t last = char_last(f->s, f->at, &cp);
        if (!char_is_space(cp))
            break;
        f->at = last;
    }
    while (k->rstrip && f->end < f->n) {
        size_t w = (size_t)char_next(f->s + f->end, &cp);
        if (!char_is_space(cp))
            break;
        f->end += w;
    }
}

static int push(struct segments *out, size_t at, size_t end, int32_t id)
{
    int rc = tok_grow(&out->v, &out->cap, out->n + 1, sizeof *out->v);
    if (rc == ERR_OK)
        out->v[out->n++] = (struct segment){at, end - at, id};
    return rc;
}

int added_split(const struct added *a, const struct trie *t, const char *s, size_t n, struct segments *out)
{
    struct finding f = {.trie = t, .s = s, .n = n};
    int rc = ERR_OK;
    int32_t i;
    while (t && rc == ERR_OK && (i = find_next(&f)) >= 0) {
        const struct added_token *k = &a->token[i];
        if (k->single_word && !is_single_word(&f))
            continue;
        swallow(k, &f);
        if (f.at > f.done)
            rc = push(out, f.done, f.at, -1);
        if (f.at >= f.end)
            continue;
        if (rc == ERR_OK)
            rc = push(out, f.at, f.end, k->id);
        f.done = f.end; /* may lie before what the last token swallowed: as Hugging Face has it */
    }
    return rc == ERR_OK && f.done < n ? push(out, f.done, n, -1) : rc;
}
