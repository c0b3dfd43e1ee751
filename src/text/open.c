/* Reading a tokenizer: tokenizer.json, or GPT-2's older pair vocab.json + merges.txt. */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/utf8.h"
#include "io/file.h"
#include "io/sha.h"
#include "text/tok_impl.h"

/* ---- the model ---------------------------------------------------------------------------------------------------------- */

static int read_vocab(struct words *w, const struct json_doc *d, const struct json *vocab)
{
    if (!vocab || json_kind(vocab) != JSON_OBJECT)
        return err_set(ERR_FORMAT, "%s: the vocabulary must be an object of tokens and ids", json_name(d));
    for (void *it = json_first(vocab); it; it = json_next(vocab, it)) {
        const char *token = json_key(it);
        int64_t id;
        if (json_kind(json_value(it)) != JSON_INT || !json_as_int(json_value(it), &id))
            return err_set(ERR_FORMAT, "%s: the id of token \"%.60s\" is not an integer", json_name(d), token);
        int rc = words_put(w, id, token, strlen(token));
        if (rc)
            return err_prefix(rc, "%s", json_name(d));
    }
    if (w->count == 0)
        return err_set(ERR_FORMAT, "%s: the vocabulary is empty", json_name(d));
    int rc = words_index(w);
    return rc ? err_prefix(rc, "%s", json_name(d)) : ERR_OK;
}

/* "a b": exactly one space. */
static int merge_line(struct bpe *m, const char *s, size_t n)
{
    const char *space = memchr(s, ' ', n);
    size_t an = space ? (size_t)(space - s) : 0;
    if (!space || memchr(space + 1, ' ', n - an - 1))
        return err_set(ERR_FORMAT, "merge %lld is \"%.*s\", two tokens with one space between them are needed",
                       (long long)bpe_merges(m), n > 80 ? 80 : (int)n, s);
    return bpe_merge(m, s, an, space + 1, n - an - 1);
}

static int one_merge(struct bpe *m, const struct json *v)
{
    if (v && json_kind(v) == JSON_STRING)
        return merge_line(m, json_str(v), (size_t)json_len(v));
    const struct json *a = NULL, *b = NULL;
    if (v && json_kind(v) == JSON_ARRAY && json_len(v) == 2) {
        a = json_at(v, 0);
        b = json_at(v, 1);
    }
    if (!a || !b || json_kind(a) != JSON_STRING || json_kind(b) != JSON_STRING)
        return err_set(ERR_FORMAT, "merge %lld is neither \"a b\" nor [\"a\", \"b\"]", (long long)bpe_merges(m));
    return bpe_merge(m, json_str(a), (size_t)json_len(a), json_str(b), (size_t)json_len(b));
}

static int bpe_fields(struct bpe_options *o, const struct json_doc *d, const struct json *model)
{
    double dropout;
    int rc = json_string(d, model, "unk_token", NULL, &o->unk);
    if (rc == ERR_OK)
        rc = json_string(d, model, "continuing_subword_prefix", NULL, &o->prefix);
    if (rc == ERR_OK)
        rc = json_string(d, model, "end_of_word_suffix", NULL, &o->suffix);
    if (rc == ERR_OK)
        rc = json_bool(d, model, "fuse_unk", false, &o->fuse_unk);
    if (rc == ERR_OK)
        rc = json_bool(d, model, "byte_fallback", false, &o->byte_fallback);
    if (rc == ERR_OK)
        rc = json_bool(d, model, "ignore_merges", false, &o->ignore_merges);
    if (rc == ERR_OK)
        rc = json_real(d, model, "dropout", 0, 0, 1, &dropout);
    if (rc == ERR_OK && dropout > 0)
        rc = err_set(ERR_FORMAT, "%s: model.dropout is %g: tokens would be random; set it to null", json_name(d), dropout);
    if (o->prefix && !o->prefix[0])
        o->prefix = NULL;
    if (o->suffix && !o->suffix[0])
        o->suffix = NULL;
    return rc;
}

static int read_bpe(struct tok *t, const struct json_doc *d, const struct json *model)
{
    struct bpe_options o = {.vocab = &t->vocab};
    const struct json *merges = json_get(model, "merges");
    int rc = bpe_fields(&o, d, model);
    if (rc == ERR_OK && (!merges || json_kind(merges) != JSON_ARRAY))
        rc = err_set(ERR_FORMAT, "%s: model.merges must be a list", json_name(d));
    if (rc)
        return rc;
    o.n_merges = json_len(merges);
    /* With affixes or <0xHH> the model has to see the mapped characters themselves. */
    o.bytes = t->bytes = pretok_ends_in_bytes(&t->pretok) && !o.prefix && !o.suffix && !o.byte_fallback;
    rc = bpe_open(&t->bpe, &o);
    for (int64_t i = 0; i < o.n_merges && rc == ERR_OK; i++)
        rc = one_merge(t->bpe, json_at(merges, i));
    if (rc == ERR_OK)
        rc = bpe_finish(t->bpe);
    return rc ? err_prefix(rc, "%s", json_name(d)) : ERR_OK;
}

static const struct {
    const char *name;
    int (*read)(struct tok *t, const struct json_doc *d, const struct json *model);
} models[] = {{"BPE", read_bpe}};
enum { N_MODELS = sizeof models / sizeof models[0] };

static int read_model(struct tok *t, const struct json_doc *d, const struct json *model)
{
    const char *type;
    if (!model || json_kind(model) != JSON_OBJECT)
        return err_set(ERR_FORMAT, "%s: there is no object \"model\"", json_name(d));
    /* Files written before tokenizers 0.9 do not say the type of a BPE. */
    int rc = json_string(d, model, "type", json_get(model, "merges") ? "BPE" : NULL, &type);
    if (rc)
        return rc;
    for (int i = 0; i < N_MODELS; i++)
        if (type && strcmp(type, models[i].name) == 0) {
            rc = read_vocab(&t->vocab, d, json_get(model, "vocab"));
            return rc ? rc : models[i].read(t, d, model);
        }
    return err_set(ERR_FORMAT, "%s: the model '%.60s' is not supported; there is BPE", json_name(d), type ? type : "(no type)");
}

/* ---- what follows from the parts ------------------------------------------------------------------------------------------ */

static int check_post(const struct tok *t, const struct tok_ids *ids)
{
    for (int64_t i = 0; i < ids->n; i++)
        if (!tok_token(t, ids->v[i]))
            return err_set(ERR_FORMAT, "the post_processor adds the id %d, which is no token", ids->v[i]);
    return ERR_OK;
}

static int describe(struct tok *t)
{
    struct buf b = {0};
    int rc = buf_printf(&b, "%s, %lld tokens, %lld merges, normalizer ", t->bytes ? "byte-level BPE" : "BPE", (long long)t->size,
                        (long long)bpe_merges(t->bpe));
    if (rc == ERR_OK)
        rc = steps_names(&t->normal, &b);
    if (rc == ERR_OK)
        rc = buf_puts(&b, ", pre-tokenizer ");
    if (rc == ERR_OK)
        rc = steps_names(&t->pretok, &b);
    for (int64_t i = 0; i < t->post.before.n && rc == ERR_OK; i++)
        rc = buf_printf(&b, ", puts %s first", tok_token(t, t->post.before.v[i]));
    for (int64_t i = 0; i < t->post.after.n && rc == ERR_OK; i++)
        rc = buf_printf(&b, ", puts %s last", tok_token(t, t->post.after.v[i]));
    if (rc)
        buf_free(&b);
    t->describe = b.data;
    return rc;
}

static int finish(struct tok *t, const char *name)
{
    int rc = added_index(&t->added, &t->normal);
    t->size = t->vocab.size > t->added.words.size ? t->vocab.size : t->added.words.size;
    if (rc == ERR_OK)
        rc = check_post(t, &t->post.before);
    if (rc == ERR_OK)
        rc = check_post(t, &t->post.after);
    if (rc == ERR_OK)
        rc = describe(t);
    return rc ? err_prefix(rc, "%s", name) : ERR_OK;
}

/* ---- files -------------------------------------------------------------------------------------------------------------- */

int tok_read_json(struct tok *t, const char *text, size_t n, const char *name)
{
    struct json_doc *d = NULL;
    int rc = json_parse(&d, text, n, name);
    const struct json *root = d ? json_root(d) : NULL;
    if (rc == ERR_OK && json_kind(root) != JSON_OBJECT)
        rc = err_set(ERR_FORMAT, "%s: a tokenizer is a JSON object", name);
    if (rc == ERR_OK)
        rc = steps_parse(&t->normal, &normal_table, d, json_get(root, "normalizer"));
    if (rc == ERR_OK)
        rc = steps_parse(&t->pretok, &pretok_table, d, json_get(root, "pre_tokenizer"));
    if (rc == ERR_OK)
        rc = steps_parse(&t->decode, &decode_table, d, json_get(root, "decoder"));
    t->spaced = !json_get(root, "decoder");
    if (rc == ERR_OK)
        rc = post_parse(&t->post, d, json_get(root, "post_processor"));
    if (rc == ERR_OK)
        rc = read_model(t, d, json_get(root, "model"));
    if (rc == ERR_OK)
        rc = added_parse(&t->added, d, json_get(root, "added_tokens"), &t->vocab);
    if (rc == ERR_OK)
        rc = finish(t, name);
    json_close(d);
    return rc;
}

static int read_json_file(struct tok *t, const char *path)
{
    struct buf text = {0};
    int rc = buf_read_file(&text, path, TOK_FILE_MAX);
    if (rc == ERR_OK)
        rc = tok_read_json(t, buf_text(&text), text.len, path);
    if (rc == ERR_OK)
        rc = sha_bytes(text.data, text.len, t->sha256);
    buf_free(&text);
    return rc;
}

/* What GPT-2's code does around its vocabulary, as tokenizer.json would say it. */
static int gpt2_defaults(struct tok *t)
{
    static const char text[] = "{\"type\": \"ByteLevel\", \"add_prefix_space\": false}";
    static const char end[] = "<|endoftext|>";
    struct json_doc *d = NULL;
    int rc = json_parse(&d, text, sizeof text - 1, "GPT-2's defaults");
    if (rc == ERR_OK)
        rc = steps_parse(&t->pretok, &pretok_table, d, json_root(d));
    if (rc == ERR_OK)
        rc = steps_parse(&t->decode, &decode_table, d, json_root(d));
    json_close(d);
    struct added_token eot = {.id = words_find(&t->vocab, end, sizeof end - 1), .special = true};
    if (rc == ERR_OK && eot.id >= 0)
        rc = added_put(&t->added, &eot, end, sizeof end - 1);
    return rc;
}

/* merges.txt: "#version" first, then a merge a line. */
static int read_merge_lines(struct tok *t, const char *text, size_t n)
{
    struct bpe_options o = {.vocab = &t->vocab, .bytes = true};
    t->bytes = true;
    for (size_t i = 0; i < n; i++)
        o.n_merges += text[i] == '\n';
    o.n_merges++;
    int rc = bpe_open(&t->bpe, &o);
    for (size_t at = 0, len; at < n && rc == ERR_OK; at += len + 1) {
        const char *line = text + at, *end = memchr(line, '\n', n - at);
        len = end ? (size_t)(end - line) : n - at;
        size_t use = len > 0 && line[len - 1] == '\r' ? len - 1 : len;
        if (use > 0 && !(at == 0 && use > 8 && memcmp(line, "#version", 8) == 0))
            rc = merge_line(t->bpe, line, use);
    }
    return rc ? rc : bpe_finish(t->bpe);
}

static int read_pair(struct tok *t, const char *vocab_path, const char *merges_path)
{
    struct buf vocab = {0}, merges = {0};
    struct json_doc *d = NULL;
    struct sha *sha = NULL;
    int rc = buf_read_file(&vocab, vocab_path, TOK_FILE_MAX);
    if (rc == ERR_OK)
        rc = buf_read_file(&merges, merges_path, TOK_FILE_MAX);
    size_t bad = utf8_check(buf_text(&merges), merges.len);
    if (rc == ERR_OK && bad < merges.len)
        rc = err_set(ERR_FORMAT, "%s: not UTF-8 at byte %zu", merges_path, bad);
    if (rc == ERR_OK)
        rc = json_parse(&d, buf_text(&vocab), vocab.len, vocab_path);
    if (rc == ERR_OK)
        rc = read_vocab(&t->vocab, d, json_root(d));
    if (rc == ERR_OK)
        rc = gpt2_defaults(t);
    if (rc == ERR_OK) {
        rc = read_merge_lines(t, buf_text(&merges), merges.len);
        if (rc)
            err_prefix(rc, "%s", merges_path);
    }
    if (rc == ERR_OK)
        rc = finish(t, vocab_path);
    if (rc == ERR_OK)
        rc = sha_open(&sha);
    if (rc == ERR_OK) {
        sha_add(sha, vocab.data, vocab.len);
        sha_add(sha, buf_text(&merges), merges.len);
    }
    sha_close(sha, t->sha256);
    json_close(d);
    buf_free(&vocab);
    buf_free(&merges);
    return rc;
}

int tok_read(struct tok *t, const char *path)
{
    char json[FILE_PATH], vocab[FILE_PATH], merges[FILE_PATH], model[FILE_PATH];
    if (!file_is_folder(path))
        return read_json_file(t, path);
    int rc = file_join(json, path, "tokenizer.json");
    if (rc == ERR_OK)
        rc = file_join(vocab, path, "vocab.json");
    if (rc == ERR_OK)
        rc = file_join(merges, path, "merges.txt");
    if (rc == ERR_OK)
        rc = file_join(model, path, "tokenizer.model");
    if (rc)
        return rc;
    if (file_exists(json))
        return read_json_file(t, json);
    if (file_exists(vocab) && file_exists(merges))
        return read_pair(t, vocab, merges);
    return err_set(ERR_IO, "%s: there is no tokenizer.json here, nor vocab.json with merges.txt%s", path,
                   file_exists(model) ? "; convert tokenizer.model with transformers' AutoTokenizer.save_pretrained" : "");
}
