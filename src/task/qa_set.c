/* Reading TriviaQA's files. */
#include "task/qa_set.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "io/file.h"
#include "io/sha.h"
#include "task/corpus.h"
#include "task/ws.h"

void qa_set_close(struct qa_set *s)
{
    if (!s)
        return;
    for (int64_t i = 0; i < s->n_docs; i++) {
        free(s->doc[i].path);
        free(s->doc[i].error);
        tok_ids_free(&s->doc[i].ids);
    }
    free(s->doc);
    free(s->doc_of);
    free(s->q);
    spans_free(&s->aliases);
    json_close(s->json);
    free(s);
}

static int grow(void **v, int64_t n, int64_t *cap, size_t size)
{
    if (n < *cap)
        return ERR_OK;
    int64_t more = *cap ? 2 * *cap : 64;
    void *p = realloc(*v, (size_t)more * size);
    if (!p)
        return err_set(ERR_NOMEM, "out of memory for %lld questions or documents", (long long)more);
    *v = p;
    *cap = more;
    return ERR_OK;
}

/* The document of that name, new or known. Names come from the file: none may leave the folder. */
static int find_doc(struct qa_set *s, const char *folder, const char *name, int64_t *out)
{
    char path[FILE_PATH];
    if (name[0] == '/' || strcmp(name, "..") == 0 || strncmp(name, "../", 3) == 0 || strstr(name, "/../"))
        return err_set(ERR_FORMAT, "%s: the document name \"%s\" leads out of the evidence folder", json_name(s->json), name);
    int rc = file_join(path, folder, name);
    void *v = s->doc;
    for (*out = 0; rc == ERR_OK && *out < s->n_docs; ++*out)
        if (strcmp(s->doc[*out].path, path) == 0)
            return ERR_OK;
    if (rc == ERR_OK)
        rc = grow(&v, s->n_docs, &s->cap_docs, sizeof *s->doc);
    s->doc = v;
    if (rc)
        return rc;
    char *copy = strdup(path);
    if (!copy)
        return err_set(ERR_NOMEM, "out of memory for a path");
    s->doc[s->n_docs++] = (struct qa_doc){.path = copy};
    return ERR_OK;
}

static int read_doc(struct qa_doc *d, const struct tok *tok)
{
    struct buf b = {0};
    int rc = corpus_read(&b, d->path);
    const char *s = buf_text(&b);
    size_t n = b.len;
    ws_strip(&s, &n);
    if (rc == ERR_OK && n == 0)
        rc = err_set(ERR_FORMAT, "%s: the document is empty", d->path);
    if (rc == ERR_OK)
        rc = tok_encode(tok, s, n, false, &d->ids);
    buf_free(&b);
    if (rc == ERR_IO || rc == ERR_FORMAT) { /* the trouble of its questions alone */
        d->error = strdup(err_text());
        err_clear();
        rc = d->error ? ERR_OK : err_set(ERR_NOMEM, "out of memory for a sentence");
    }
    return rc;
}

static int read_docs(struct qa_set *s, const struct tok *tok)
{
    struct progress p;
    int64_t bad = 0;
    int rc = ERR_OK;
    progress_begin(&p, "reading evidence", (double)s->n_docs);
    for (int64_t i = 0; i < s->n_docs && rc == ERR_OK; i++) {
        rc = read_doc(&s->doc[i], tok);
        bad += s->doc[i].error != NULL;
        progress_update(&p, (double)i + 1, "");
    }
    progress_end(&p);
    if (rc == ERR_OK && s->n_docs > 0 && bad == s->n_docs)
        rc = err_set(ERR_IO, "not one evidence document can be read; the first: %s", s->doc[0].error);
    else if (rc == ERR_OK && bad > 0)
        log_warn("%lld of %lld evidence documents cannot be read: their questions will fail", (long long)bad, (long long)s->n_docs);
    return rc;
}

static int add_strings(struct qa_set *s, const struct json *list)
{
    int rc = ERR_OK;
    for (int64_t i = 0; i < json_len(list) && rc == ERR_OK; i++) {
        const struct json *v = json_at(list, i);
        if (json_str(v))
            rc = spans_push(&s->aliases, json_str(v), (size_t)json_len(v));
    }
    return rc;
}

/* The official truths: NormalizedAliases and the human answers; where they lack, Aliases and Value. */
static int add_aliases(struct qa_set *s, const struct json *answer, struct qa_question *q)
{
    const struct json *norm = json_get(answer, "NormalizedAliases"), *value = json_get(answer, "Value");
    q->alias0 = s->aliases.n;
    int rc = add_strings(s, json_len(norm) > 0 ? norm : json_get(answer, "Aliases"));
    if (rc == ERR_OK)
        rc = add_strings(s, json_get(answer, "HumanAnswers"));
    if (rc == ERR_OK && s->aliases.n == q->alias0 && json_str(value))
        rc = spans_push(&s->aliases, json_str(value), (size_t)json_len(value));
    q->n_aliases = s->aliases.n - q->alias0;
    if (json_str(value))
        q->answer = (struct span){json_str(value), (size_t)json_len(value)};
    else if (q->n_aliases > 0)
        q->answer = s->aliases.v[q->alias0];
    return rc;
}

static int add_doc(struct qa_set *s, const char *folder, const struct json *page)
{
    const char *name = json_str(json_get(page, "Filename"));
    int64_t doc = 0;
    void *v = s->doc_of;
    if (!name)
        return ERR_OK; /* as the official reader: a page without a file is passed over */
    int rc = find_doc(s, folder, name, &doc);
    if (rc == ERR_OK)
        rc = grow(&v, s->n_doc_of, &s->cap_doc_of, sizeof *s->doc_of);
    s->doc_of = v;
    if (rc == ERR_OK)
        s->doc_of[s->n_doc_of++] = doc;
    return rc;
}

static int add_question(struct qa_set *s, const struct json *item, const struct qa_files *f, const char *folder)
{
    const struct json *text = json_get(item, "Question"),
                      *pages = json_get(item, f->domain == QA_WEB ? "SearchResults" : "EntityPages");
    const char *id = json_str(json_get(item, "QuestionId"));
    struct qa_question q = {.id = id ? id : "?", .text = {json_str(text), (size_t)json_len(text)}};
    int rc = ERR_OK;
    if (!q.text.s)
        return err_set(ERR_FORMAT, "%s: question %lld has no \"Question\"", json_name(s->json), (long long)s->n + 1);
    rc = add_aliases(s, json_get(item, "Answer"), &q);
    if (rc == ERR_OK && q.n_aliases == 0)
        return err_set(ERR_FORMAT, "%s: question %s has no answer: use the dev set, whose answers are public", json_name(s->json),
                       q.id);
    q.doc0 = s->n_doc_of;
    for (int64_t i = 0; i < json_len(pages) && rc == ERR_OK; i++)
        rc = add_doc(s, folder, json_at(pages, i));
    /* Wikipedia: one sample with all pages; web: each document by itself, as the official scorer counts them. */
    int64_t docs = s->n_doc_of - q.doc0, samples = f->domain == QA_WEB ? docs : 1;
    for (int64_t i = 0; i < samples && rc == ERR_OK; i++) {
        void *v = s->q;
        rc = grow(&v, s->n, &s->cap, sizeof *s->q);
        s->q = v;
        if (rc)
            break;
        s->q[s->n] = q;
        s->q[s->n].doc0 = f->domain == QA_WEB ? q.doc0 + i : q.doc0;
        s->q[s->n].n_docs = f->domain == QA_WEB ? 1 : docs;
        s->n++;
    }
    return rc;
}

static int evidence_folder(char out[FILE_PATH], const struct qa_files *f)
{
    static const char *const domain[] = {"wikipedia", "web"};
    char base[FILE_PATH], up[FILE_PATH], root[FILE_PATH];
    int rc = file_folder(base, f->data);
    if (f->evidence[0]) {
        rc = file_join(root, f->evidence, ".");
    } else if (rc == ERR_OK) {
        rc = file_join(root, base, "evidence");
        if (rc == ERR_OK && !file_is_folder(root)) {
            rc = file_join(up, base, "..");
            if (rc == ERR_OK)
                rc = file_join(root, up, "evidence");
        }
    }
    if (rc == ERR_OK)
        rc = file_join(out, root, domain[f->domain]);
    return rc;
}

int qa_set_open(struct qa_set **out, const struct qa_files *f, const struct tok *tok)
{
    char folder[FILE_PATH];
    struct qa_set *s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s)
        return err_set(ERR_NOMEM, "out of memory for a dataset");
    int rc = json_read(&s->json, f->data);
    if (rc == ERR_OK)
        rc = sha_file(f->data, s->sha256);
    if (rc == ERR_OK)
        rc = evidence_folder(folder, f);
    const struct json *data = rc ? NULL : json_get(json_root(s->json), "Data");
    if (rc == ERR_OK && json_kind(data) != JSON_ARRAY)
        rc = err_set(ERR_FORMAT, "%s: \"Data\", a list of questions, is missing: this is not a TriviaQA file", f->data);
    for (int64_t i = 0; rc == ERR_OK && i < json_len(data) && (f->limit == 0 || i < f->limit); i++)
        rc = add_question(s, json_at(data, i), f, folder);
    if (rc == ERR_OK && s->n == 0)
        rc = err_set(ERR_FORMAT, "%s: there is no question in it", f->data);
    if (rc == ERR_OK && tok)
        rc = read_docs(s, tok);
    if (rc)
        qa_set_close(s);
    else
        *out = s;
    return rc;
}
