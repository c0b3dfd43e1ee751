/* asterism show: jobs, folders of finished shards, single shards. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/show.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "base/timer.h"
#include "io/file.h"
#include "io/shardfile.h"
#include "sched/job.h"
#include "sched/outcome.h"

bool show_ends(const char *path, const char *with)
{
    size_t n = strlen(path), k = strlen(with);
    while (n > 0 && path[n - 1] == '/')
        n--;
    return n >= k && !strncmp(path + n - k, with, k);
}

/* ---- jobs ---- */

bool show_is_job(const char *path)
{
    return show_ends(path, ".cfg");
}

static int job_head(struct buf *out, const struct job *j, const char *path)
{
    int64_t cells = 0;
    for (int t = 0; t < j->n_tasks; t++)
        cells += j->task[t].lengths.n;
    cells *= (int64_t)j->n_models * j->n_methods;
    return buf_printf(out,
                      "%s: a job, \"%s\"\n"
                      "  crosses      %d model%s x %d method%s x the lengths of %d task%s = %lld cells\n"
                      "  results      %s (%s)\n"
                      "  run it       slurm/launch.sh -np N asterism run %s\n",
                      path, j->name, j->n_models, j->n_models == 1 ? "" : "s", j->n_methods, j->n_methods == 1 ? "" : "s",
                      j->n_tasks, j->n_tasks == 1 ? "" : "s", (long long)cells, j->output,
                      file_exists(j->output) ? "there already" : "not there yet", path);
}

/* An option a line: what it is set to, what it does, and where it was set unless that is the default. */
static int job_option(struct buf *out, const struct cfg_record *r)
{
    int rc = buf_printf(out, "  %s = %s", r->key, r->text);
    int used = (int)(strlen(r->key) + strlen(r->text)) + 5;
    if (!rc)
        rc = buf_printf(out, "%*s%s", used < 34 ? 34 - used : 2, "", r->help);
    if (!rc && strcmp(r->origin, "default"))
        rc = buf_printf(out, "  [%s]", r->origin);
    return rc ? rc : buf_puts(out, "\n");
}

int show_job(struct buf *out, const char *path)
{
    struct job *j = NULL;
    struct cfg_record r;
    const char *group = NULL;
    int rc = job_open(&j, path, NULL, 0);
    if (rc)
        return rc;
    rc = job_head(out, j, path);
    for (int i = 0; !rc && cfg_record_at(j->cfg, i, &r); i++) {
        if (!group || strcmp(group, r.group))
            rc = buf_printf(out, "\n%s\n", r.group[0] ? r.group : "job");
        group = r.group;
        rc = rc ? rc : job_option(out, &r);
    }
    job_close(j);
    return rc;
}

/* ---- shards ---- */

bool show_is_shard(const char *path)
{
    return show_ends(path, ".shard") && !file_is_folder(path);
}

int show_shard(struct buf *out, const char *path)
{
    struct outcome o = {0};
    char took[32], peak[32], when[32];
    int64_t ok = 0;
    int rc = outcome_read(&o, path);
    if (rc)
        return rc;
    for (int64_t i = 0; i < o.n; i++)
        ok += o.status[i] == OUTCOME_OK;
    log_duration(o.compute_s, took, sizeof took);
    log_bytes((double)o.peak_bytes, peak, sizeof peak);
    timer_iso(o.end_s, when, sizeof when);
    rc = buf_printf(out,
                    "%s: a finished shard, whole\n"
                    "  cell         %d of its job, positions %lld to %lld\n"
                    "  samples      %lld, %lld scored\n"
                    "  computed     in %s by %d rank%s (leader %d) until %s, %lld tokens, at most %s a rank\n"
                    "  job          %.16s...\n",
                    path, o.cell, (long long)o.first, (long long)(o.first + o.n - 1), (long long)o.n, (long long)ok, took,
                    o.group_size, o.group_size == 1 ? "" : "s", o.rank, when, (long long)o.tokens, peak, o.job);
    outcome_close(&o);
    return rc;
}

bool show_is_shards(const char *path)
{
    return file_is_folder(path) && show_ends(path, ".shards");
}

enum { CELLS = 4096 }; /* of which a folder is summed up by cell */

struct shards {
    int64_t files, damaged, samples, failed, tokens;
    double seconds;
    struct {
        int64_t files, samples, failed, tokens;
        double seconds;
    } cell[CELLS];
};

static int add_shard(void *context, const char *path, const char *name)
{
    struct shards *s = context;
    struct outcome o = {0};
    struct outcome_name n;
    if (!outcome_parse(name, &n))
        return ERR_OK;
    s->files++;
    if (outcome_read(&o, path)) {
        s->damaged++;
        err_clear();
        return ERR_OK;
    }
    int c = n.cell >= 0 && n.cell < CELLS ? n.cell : CELLS - 1;
    s->samples += o.n - o.failed;
    s->failed += o.failed;
    s->tokens += o.tokens;
    s->seconds += o.compute_s;
    s->cell[c].files++;
    s->cell[c].samples += o.n - o.failed;
    s->cell[c].failed += o.failed;
    s->cell[c].tokens += o.tokens;
    s->cell[c].seconds += o.compute_s;
    outcome_close(&o);
    return ERR_OK;
}

static int shards_table(struct buf *out, const struct shards *s)
{
    int rc = s->files ? buf_puts(out, "\n  cell   shards  samples  failed      tokens     time\n") : ERR_OK;
    for (int c = 0; c < CELLS && !rc; c++) {
        char took[32];
        if (!s->cell[c].files)
            continue;
        log_duration(s->cell[c].seconds, took, sizeof took);
        rc = buf_printf(out, "  %4d  %7lld %8lld %7lld %11lld %8s\n", c, (long long)s->cell[c].files, (long long)s->cell[c].samples,
                        (long long)s->cell[c].failed, (long long)s->cell[c].tokens, took);
    }
    return rc;
}

/* A file of the folder as it is, indented; nothing if it is not there. */
static int quote(struct buf *out, const char *folder, const char *name, const char *title)
{
    char path[FILE_PATH];
    struct buf text = {0};
    int rc = file_join(path, folder, name);
    if (rc || !file_exists(path))
        return rc;
    rc = buf_read_file(&text, path, 1 << 20);
    rc = rc ? rc : buf_printf(out, "\n%s (%s)\n", title, name);
    for (const char *at = buf_text(&text); !rc && *at;) {
        size_t n = strcspn(at, "\n");
        rc = buf_printf(out, "  %.*s\n", (int)n, at);
        at += n + (at[n] == '\n');
    }
    buf_free(&text);
    return rc;
}

int show_shards(struct buf *out, const char *path)
{
    struct shards *s = calloc(1, sizeof *s);
    char took[32];
    if (!s)
        return err_set(ERR_NOMEM, "no memory to sum up %s", path);
    int rc = shardfile_each(path, add_shard, s);
    log_duration(s->seconds, took, sizeof took);
    if (!rc)
        rc = buf_printf(out,
                        "%s: finished shards of a job; the command that made them goes on from here\n"
                        "  files        %lld, %lld damaged (those are computed again)\n"
                        "  samples      %lld scored, %lld failed\n"
                        "  computed     %lld tokens in %s of groups\n",
                        path, (long long)s->files, (long long)s->damaged, (long long)s->samples, (long long)s->failed,
                        (long long)s->tokens, took);
    rc = rc ? rc : shards_table(out, s);
    rc = rc ? rc : quote(out, path, "status.json", "State when last written");
    rc = rc ? rc : quote(out, path, "job.txt", "What decides the results; a job that differs is refused here");
    free(s);
    return rc;
}
