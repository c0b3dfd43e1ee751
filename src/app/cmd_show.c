/* asterism show: what a file or folder is. Each kind is one line of the table: how it is told, who explains it. */
#include <stdio.h>
#include <string.h>

#include "app/app.h"
#include "base/buf.h"
#include "base/err.h"
#include "io/file.h"
#include "io/results.h"
#include "io/safetensors.h"
#include "model/model.h"
#include "text/tok.h"

static int run(int argc, char **argv);

const struct app_command app_show = {
    .name = "show",
    .brief = "a model, tokenizer, result file or safetensors file, explained",
    .usage = "usage: asterism show PATH...\n\n"
             "  a model folder      architecture, sizes, memory, positions, tokenizer; or what about it is not supported\n"
             "  results.h5          what was run and what came out\n"
             "  *.safetensors       the tensors, their types and shapes\n"
             "  tokenizer.json      the pipeline\n",
    .run = run,
};

static bool ends(const char *path, const char *with)
{
    size_t n = strlen(path), k = strlen(with);
    return n >= k && !strcmp(path + n - k, with);
}

static bool is_model(const char *path)
{
    char file[FILE_PATH];
    return file_is_folder(path) && !file_join(file, path, "config.json") && file_exists(file);
}

static bool is_results(const char *path)
{
    return ends(path, ".h5") || ends(path, ".hdf5");
}

static bool is_safetensors(const char *path)
{
    return ends(path, ".safetensors") || ends(path, ".safetensors.index.json");
}

static bool is_tokenizer(const char *path)
{
    return ends(path, "tokenizer.json");
}

static int show_tokenizer(struct buf *out, const char *path)
{
    struct tok *t = NULL;
    int rc = tok_open(&t, path);
    if (!rc)
        rc = buf_printf(out, "  tokenizer    %s\n", tok_describe(t));
    tok_close(t);
    return rc;
}

/* A model without a usable tokenizer can still be scored on token ids: said, not refused. */
static int show_model(struct buf *out, const char *path)
{
    int rc = model_describe(out, path);
    if (rc)
        return rc;
    if (show_tokenizer(out, path)) {
        rc = buf_printf(out, "  tokenizer    none that is usable: %s\n", err_text());
        err_clear();
    }
    return rc;
}

static int show_tensor(struct buf *out, const struct st_tensor *t)
{
    int rc = buf_printf(out, "  %-60s %-5s [", t->name, t->dtype_name);
    for (int i = 0; !rc && i < t->rank; i++)
        rc = buf_printf(out, "%s%lld", i ? ", " : "", (long long)t->dim[i]);
    return rc ? rc : buf_puts(out, "]\n");
}

static int show_safetensors(struct buf *out, const char *path)
{
    struct safetensors *st = NULL;
    int rc = st_open(&st, path);
    if (!rc)
        rc = buf_printf(out, "%s: %lld tensors, %zu bytes\n", path, (long long)st_count(st), st_file_bytes(st));
    for (int64_t i = 0; !rc && i < st_count(st); i++)
        rc = show_tensor(out, st_at(st, i));
    st_close(st);
    return rc;
}

static const struct {
    const char *what;
    bool (*is)(const char *path);
    int (*show)(struct buf *out, const char *path);
} kinds[] = {
    {"a model folder (with config.json)", is_model, show_model},
    {"results.h5", is_results, results_describe},
    {"*.safetensors", is_safetensors, show_safetensors},
    {"tokenizer.json", is_tokenizer, show_tokenizer},
};
enum { N_KINDS = sizeof kinds / sizeof kinds[0] };

static int show(const char *path)
{
    struct buf out = {0}, list = {0};
    int rc = file_exists(path) ? ERR_OK : err_set(ERR_IO, "%s: there is no such file or folder", path), k = 0;
    while (!rc && k < N_KINDS && !kinds[k].is(path))
        k++;
    if (!rc && k == N_KINDS) {
        for (int i = 0; i < N_KINDS; i++)
            buf_printf(&list, "%s%s", i ? ", " : "", kinds[i].what);
        rc = err_set(ERR_ARG, "%s: not a kind of file that is explained here: %s", path, buf_text(&list));
    }
    if (!rc)
        rc = kinds[k].show(&out, path);
    if (!rc)
        fputs(buf_text(&out), stdout);
    buf_free(&list);
    buf_free(&out);
    return rc;
}

static int run(int argc, char **argv)
{
    if (argc < 2)
        return app_usage(&app_show, "a path is needed");
    int rc = ERR_OK;
    for (int i = 1; !rc && i < argc; i++)
        rc = show(argv[i]);
    return app_fail(rc);
}
