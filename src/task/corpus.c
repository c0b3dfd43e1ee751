/* Reading and tokenising texts. */
#include "task/corpus.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/utf8.h"
#include "io/file.h"
#include "io/sha.h"
#include "task/detok.h"
#include "task/pages.h"
#include "task/task.h"
#include "task/ws.h"

struct task_cache {
    struct corpus **v;
    int n;
};

int task_cache_open(struct task_cache **out)
{
    *out = calloc(1, sizeof **out);
    return *out ? ERR_OK : err_set(ERR_NOMEM, "out of memory for a list of texts");
}

void task_cache_close(struct task_cache *c)
{
    if (!c)
        return;
    for (int i = 0; i < c->n; i++)
        corpus_close(c->v[i]);
    free(c->v);
    free(c);
}

static struct corpus *cache_find(const struct task_cache *c, const char *key)
{
    for (int i = 0; c && i < c->n; i++)
        if (strcmp(c->v[i]->key, key) == 0)
            return c->v[i];
    return NULL;
}

static int cache_put(struct task_cache *c, struct corpus *x)
{
    struct corpus **v = realloc(c->v, ((size_t)c->n + 1) * sizeof(struct corpus *));
    if (!v)
        return err_set(ERR_NOMEM, "out of memory for a list of texts");
    c->v = v;
    v[c->n++] = x;
    x->refs++;
    return ERR_OK;
}

void corpus_close(struct corpus *c)
{
    if (!c || --c->refs > 0)
        return;
    tok_ids_free(&c->ids);
    free(c->at);
    free(c->words);
    free(c->bytes);
    free(c->key);
    free(c);
}

int corpus_read(struct buf *out, const char *path)
{
    static const char bom[] = "\xef\xbb\xbf";
    size_t before = out->len;
    struct buf b = {0};
    int rc = file_read_text(&b, path, 0);
    const char *s = buf_text(&b);
    size_t n = b.len;
    if (rc == ERR_OK && n >= 3 && memcmp(s, bom, 3) == 0) {
        s += 3;
        n -= 3;
    }
    size_t good = rc ? 0 : utf8_check(s, n);
    if (rc == ERR_OK && good < n) {
        long long line = 1;
        for (size_t i = 0; i < good; i++)
            line += s[i] == '\n';
        rc = err_set(ERR_FORMAT, "%s:%lld: byte %zu (0x%02x) is not UTF-8; convert the file, e.g. with iconv -t UTF-8", path, line,
                     good, (unsigned char)s[good]);
    }
    if (rc == ERR_OK)
        rc = buf_add(out, s, n);
    if (rc)
        out->len = before;
    buf_free(&b);
    return rc;
}

static int64_t count_words(const char *s, size_t n)
{
    size_t at = 0, len;
    const char *w;
    int64_t words = 0;
    while (ws_next(s, n, &at, &w, &len))
        words++;
    return words;
}

static int64_t count_spaced(const char *s, size_t n)
{
    int64_t fields = 1;
    ws_strip(&s, &n);
    for (size_t i = 0; i < n; i++)
        fields += s[i] == ' ';
    return fields;
}

/* Document i: what the form makes of s, tokenised. */
static int add_doc(struct corpus *c, const struct corpus_form *f, const struct tok *tok, const char *s, size_t n)
{
    struct buf b = {0};
    int64_t i = c->docs, words = f->cut == CORPUS_PAGES ? pages_words(s, n) : count_words(s, n);
    int rc = ERR_OK;
    c->words[i] = words;
    c->bytes[i] = (int64_t)n;
    c->total_words += words;
    c->total_bytes += (int64_t)n;
    if (f->cut == CORPUS_ROWS) {
        rc = pages_rows(s, n, &b);
    } else if (f->detok) {
        rc = detok_wikitext(s, n, &b);
    }
    bool changed = f->cut == CORPUS_ROWS || f->detok;
    if (rc == ERR_OK)
        rc = tok_encode(tok, changed ? buf_text(&b) : s, changed ? b.len : n, f->special, &c->ids);
    buf_free(&b);
    if (rc == ERR_OK) {
        c->docs++;
        c->at[c->docs] = c->ids.n;
    }
    return rc;
}

static int cut(struct corpus *c, const struct corpus_form *f, const struct tok *tok, const struct buf *text)
{
    struct page_list pages = {0};
    int rc = ERR_OK;
    if (f->cut == CORPUS_PAGES)
        rc = pages_split(buf_text(text), text->len, &pages);
    int64_t n = f->cut == CORPUS_PAGES ? pages.n : 1;
    size_t room = ((size_t)n + 1) * sizeof(int64_t);
    c->at = calloc(1, room);
    c->words = calloc(1, room);
    c->bytes = calloc(1, room);
    if (rc == ERR_OK && (!c->at || !c->words || !c->bytes))
        rc = err_set(ERR_NOMEM, "out of memory for %lld documents", (long long)n);
    for (int64_t i = 0; i < n && rc == ERR_OK; i++)
        rc = f->cut == CORPUS_PAGES ? add_doc(c, f, tok, buf_text(text) + pages.v[i].at, pages.v[i].n)
                                    : add_doc(c, f, tok, buf_text(text), text->len);
    c->spaced = count_spaced(buf_text(text), text->len);
    pages_free(&pages);
    return rc;
}

static int read_all(struct corpus *c, const struct corpus_form *f, struct buf *text)
{
    for (int64_t i = 0; i < f->paths.n; i++) {
        int rc = corpus_read(text, f->paths.v[i]);
        if (rc)
            return rc;
    }
    if (count_words(buf_text(text), text->len) == 0)
        return err_set(ERR_FORMAT, "%s: there is no text in it", f->paths.v[0]);
    c->file_bytes = (int64_t)text->len;
    return sha_bytes(buf_text(text), text->len, c->sha256);
}

/* The same files, tokenizer and form give the same key. */
static int make_key(const struct corpus_form *f, const struct tok *tok, struct buf *key)
{
    int rc = buf_printf(key, "%s %d %d %d", tok_sha256(tok), (int)f->cut, f->detok, f->special);
    for (int64_t i = 0; i < f->paths.n && rc == ERR_OK; i++)
        rc = buf_printf(key, "\n%s", f->paths.v[i]);
    return rc;
}

static int check_ids(const struct corpus *c, int64_t vocab, const char *path)
{
    for (int64_t i = 0; i < c->ids.n; i++)
        if (c->ids.v[i] >= vocab)
            return err_set(ERR_ARG, "%s: the tokenizer gives id %d, the model has %lld entries: they do not belong together", path,
                           (int)c->ids.v[i], (long long)vocab);
    return ERR_OK;
}

int corpus_open(struct corpus **out, const struct corpus_form *form, const struct tok *tok, int64_t vocab, struct task_cache *cache)
{
    struct buf text = {0}, key = {0};
    *out = NULL;
    if (form->paths.n < 1)
        return err_set(ERR_ARG, "data names no file: give the path of a text, e.g. data = \"wiki.test.raw\"");
    int rc = make_key(form, tok, &key);
    struct corpus *c = rc ? NULL : cache_find(cache, buf_text(&key));
    if (c) {
        c->refs++;
    } else if (rc == ERR_OK) {
        c = calloc(1, sizeof *c);
        if (!c) {
            rc = err_set(ERR_NOMEM, "out of memory for a text");
            goto out;
        }
        c->refs = 1;
        rc = read_all(c, form, &text);
        if (rc == ERR_OK)
            rc = cut(c, form, tok, &text);
        c->key = key.data;
        key = (struct buf){0};
        if (rc == ERR_OK && cache)
            rc = cache_put(cache, c);
    }
    if (rc == ERR_OK)
        rc = check_ids(c, vocab, form->paths.v[0]);
    if (rc == ERR_OK)
        *out = c;
    else
        corpus_close(c);
out:
    buf_free(&text);
    buf_free(&key);
    return rc;
}
