/* asterism tokenize: JSON strings to JSON arrays of ids, or back, a line each. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/app.h"
#include "base/buf.h"
#include "base/err.h"
#include "io/json.h"
#include "text/tok.h"

static int run(int argc, char **argv);

const struct app_command app_tokenize = {
    .name = "tokenize",
    .brief = "text to token ids and back, as the model's tokenizer does it",
    .usage = "usage: asterism tokenize -m DIR [--special] < STRINGS > IDS\n"
             "       asterism tokenize -m DIR --decode [--skip-special] < IDS > STRINGS\n\n"
             "One JSON string a line, \"Hello\\nworld\", gives one JSON array of ids a line, and the other way round.\n\n"
             "  -m DIR          a model folder with tokenizer.json (or vocab.json and merges.txt), or a tokenizer.json\n"
             "  --special       also what the post-processor adds, such as <s> in front\n"
             "  --decode        ids to text\n"
             "  --skip-special  leave special tokens out of the text\n"
             "  --describe      print what the tokenizer is, and nothing else\n",
    .run = run,
};

struct options {
    const char *model;
    bool special, decode, skip, describe;
};

static int print_ids(const struct tok_ids *ids, struct buf *out)
{
    int rc = buf_puts(out, "[");
    for (int64_t i = 0; i < ids->n && rc == ERR_OK; i++)
        rc = buf_printf(out, "%s%d", i ? "," : "", ids->v[i]);
    return rc ? rc : buf_puts(out, "]\n");
}

static int encode_line(const struct tok *t, const struct options *o, const struct json *v, struct buf *out)
{
    struct tok_ids ids = {0};
    const char *s = json_str(v);
    int rc = s ? tok_encode(t, s, (size_t)json_len(v), o->special, &ids) : err_set(ERR_FORMAT, "a JSON string is needed");
    if (rc == ERR_OK)
        rc = print_ids(&ids, out);
    tok_ids_free(&ids);
    return rc;
}

static int decode_line(const struct tok *t, const struct options *o, const struct json *v, struct buf *out)
{
    int64_t n = json_len(v);
    struct buf text = {0};
    int rc = ERR_OK;
    if (json_kind(v) != JSON_ARRAY)
        return err_set(ERR_FORMAT, "a JSON array of ids is needed");
    int32_t *ids = malloc((size_t)(n + 1) * sizeof *ids);
    if (!ids)
        return err_set(ERR_NOMEM, "out of memory for %lld ids", (long long)n);
    for (int64_t i = 0; i < n && rc == ERR_OK; i++) {
        int64_t id;
        if (!json_as_int(json_at(v, i), &id) || id < INT32_MIN || id > INT32_MAX)
            rc = err_set(ERR_FORMAT, "element %lld of the array is not an id", (long long)i);
        else
            ids[i] = (int32_t)id;
    }
    if (rc == ERR_OK)
        rc = tok_decode(t, ids, n, o->skip, &text);
    if (rc == ERR_OK)
        rc = json_quote(out, buf_text(&text), text.len);
    if (rc == ERR_OK)
        rc = buf_puts(out, "\n");
    free(ids);
    buf_free(&text);
    return rc;
}

static int one_line(const struct tok *t, const struct options *o, const char *line, size_t n, int64_t number)
{
    struct json_doc *d = NULL;
    struct buf out = {0};
    char name[40];
    snprintf(name, sizeof name, "line %lld", (long long)number);
    int rc = json_parse(&d, line, n, name);
    if (rc == ERR_OK) {
        rc = (o->decode ? decode_line : encode_line)(t, o, json_root(d), &out);
        if (rc)
            err_prefix(rc, "%s", name);
    }
    if (rc == ERR_OK && fwrite(out.data, 1, out.len, stdout) != out.len)
        rc = err_set(ERR_IO, "standard output cannot be written");
    buf_free(&out);
    json_close(d);
    return rc;
}

static int all_lines(const struct tok *t, const struct options *o)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    int64_t number = 0;
    int rc = ERR_OK;
    while (rc == ERR_OK && (n = getline(&line, &cap, stdin)) >= 0) {
        number++;
        if (strspn(line, " \t\r\n") < (size_t)n) /* empty lines between the others are fine */
            rc = one_line(t, o, line, (size_t)n, number);
    }
    if (rc == ERR_OK && ferror(stdin))
        rc = err_set(ERR_IO, "standard input cannot be read");
    if (fflush(stdout) != 0 && rc == ERR_OK)
        rc = err_set(ERR_IO, "standard output cannot be written");
    free(line);
    return rc;
}

static int run(int argc, char **argv)
{
    struct options o = {0};
    struct tok *t = NULL;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "-m") && i + 1 < argc)
            o.model = argv[++i];
        else if (!strcmp(argv[i], "--special"))
            o.special = true;
        else if (!strcmp(argv[i], "--decode"))
            o.decode = true;
        else if (!strcmp(argv[i], "--skip-special"))
            o.skip = true;
        else if (!strcmp(argv[i], "--describe"))
            o.describe = true;
        else
            return app_usage(&app_tokenize, "unknown option '%s'%s", argv[i],
                             strcmp(argv[i], "-m") ? "" : ", or its value is missing");
    }
    if (!o.model)
        return app_usage(&app_tokenize, "-m DIR is missing: the folder of the model");
    int rc = tok_open(&t, o.model);
    if (rc == ERR_OK && o.describe)
        printf("%s\nsha256 %s\n", tok_describe(t), tok_sha256(t));
    else if (rc == ERR_OK)
        rc = all_lines(t, &o);
    tok_close(t);
    return app_fail(rc);
}
