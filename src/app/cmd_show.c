/* asterism show: what a file or folder is. Each kind is one line of the table: how it is told, who explains it. */
#include <stdio.h>

#include "app/app.h"
#include "app/show.h"
#include "base/buf.h"
#include "base/err.h"
#include "io/file.h"
#include "io/results.h"

static int run(int argc, char **argv);
static void list_kinds(FILE *f);

const struct app_command app_show = {
    .name = "show",
    .brief = "a model, gate file, tokenizer, job, result file or folder of shards, explained",
    .usage = "usage: asterism show PATH...\n\n",
    .more = list_kinds,
    .run = run,
};

static bool is_results(const char *path)
{
    return !file_is_folder(path) && (show_ends(path, ".h5") || show_ends(path, ".hdf5"));
}

/* The first that fits is taken: gate files are safetensors, model folders hold tokenizers. */
static const struct {
    const char *what, *about;
    bool (*is)(const char *path);
    int (*show)(struct buf *out, const char *path);
} kinds[] = {
    {"a model folder (with config.json)", "architecture, sizes, memory, BOS and EOS, tokenizer; what is unsupported", show_is_model,
     show_model},
    {"a job (*.cfg)", "every option: its value, what it does, where it was set", show_is_job, show_job},
    {"a result file (*.h5)", "what was run, what came out, where it comes from", is_results, results_describe},
    {"a folder of shards (*.shards)", "how far a run is, what its folder belongs to", show_is_shards, show_shards},
    {"a shard (*.shard)", "which samples, whether it is whole", show_is_shard, show_shard},
    {"a gate file (*.safetensors)", "what the gates of method ast read, which model they are for", show_is_gates, show_gates},
    {"weights (*.safetensors, index)", "the tensors, their types and shapes", show_is_safetensors, show_safetensors},
    {"a tokenizer (tokenizer.json)", "the pipeline, what it puts in front of a text", show_is_tokenizer, show_tokenizer},
};
enum { N_KINDS = sizeof kinds / sizeof kinds[0] };

static void list_kinds(FILE *f)
{
    for (int i = 0; i < N_KINDS; i++)
        fprintf(f, "  %-34s  %s\n", kinds[i].what, kinds[i].about);
}

static int unknown(const char *path)
{
    struct buf list = {0};
    for (int i = 0; i < N_KINDS; i++)
        buf_printf(&list, "%s%s", i ? ", " : "", kinds[i].what);
    int rc = err_set(ERR_ARG, "%s: not a kind of %s that is explained here; those are: %s", path,
                     file_is_folder(path) ? "folder" : "file", buf_text(&list));
    buf_free(&list);
    return rc;
}

static int show(const char *path)
{
    struct buf out = {0};
    int rc = file_exists(path) ? ERR_OK : err_set(ERR_IO, "%s: there is no such file or folder", path), k = 0;
    while (!rc && k < N_KINDS && !kinds[k].is(path))
        k++;
    if (!rc)
        rc = k == N_KINDS ? unknown(path) : kinds[k].show(&out, path);
    fputs(buf_text(&out), stdout);
    buf_free(&out);
    return rc;
}

static int run(int argc, char **argv)
{
    if (argc < 2)
        return app_usage(&app_show, "a path is needed");
    int rc = ERR_OK;
    for (int i = 1; !rc && i < argc; i++) {
        if (i > 1)
            putchar('\n');
        rc = show(argv[i]);
    }
    return app_fail(rc);
}
