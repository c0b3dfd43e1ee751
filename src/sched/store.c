/* The folder of finished shards. */
#include "sched/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "io/shardfile.h"
#include "sched/identity.h"
#include "sched/outcome.h"
#include "sched/work.h"

/* A lock's stamp of another host counts as alive for so long. */
static const double STALE_S = 120;

static int folder_of(struct store *s, const char *output)
{
    int n = snprintf(s->folder, sizeof s->folder, "%s.shards", output);
    return n > 0 && (size_t)n < sizeof s->folder - 128 ? ERR_OK
                                                       : err_set(ERR_ARG, "the path of the output is too long: %s", output);
}

static int remove_one(void *context, const char *path, const char *name)
{
    (void)context;
    (void)name;
    return unlink(path) == 0 ? ERR_OK : err_set(ERR_IO, "%s: cannot be removed", path);
}

/* The folder's job.txt against ours; written if there is none. */
static int check_job(const char *path, const char *identity)
{
    struct buf was = {0}, diff = {0};
    int rc = ERR_OK;
    if (!file_exists(path))
        return file_write_durable(path, identity, strlen(identity));
    rc = buf_read_file(&was, path, 0);
    if (!rc && strcmp(buf_text(&was), identity)) {
        rc = identity_difference(buf_text(&was), identity, &diff);
        rc = rc ? rc
                : err_set(ERR_ARG,
                          "%s: finished shards of another job are here; give the job another output, or start over with --fresh:%s",
                          path, buf_text(&diff));
    }
    buf_free(&was);
    buf_free(&diff);
    return rc;
}

int store_open(struct store *s, const char *output, const char *identity, bool fresh)
{
    char path[FILE_PATH];
    *s = (struct store){0};
    int rc = folder_of(s, output);
    rc = rc ? rc : sha_bytes(identity, strlen(identity), s->job);
    rc = rc ? rc : file_make_folders(s->folder);
    rc = rc ? rc : file_folder_writable(s->folder);
    rc = rc ? rc : shardfile_lock(&s->lock, s->folder, STALE_S);
    rc = rc ? rc : file_join(path, s->folder, "job.txt");
    if (!rc && fresh) {
        rc = shardfile_each(s->folder, remove_one, NULL);
        unlink(path);
    }
    rc = rc ? rc : check_job(path, identity);
    if (!rc)
        shardfile_sweep(s->folder, STALE_S);
    else
        store_close(s);
    return rc;
}

int store_join(struct store *s, const char *output, const char *job)
{
    *s = (struct store){0};
    snprintf(s->job, sizeof s->job, "%s", job);
    return folder_of(s, output);
}

void store_close(struct store *s)
{
    shardfile_unlock(s->lock);
    s->lock = NULL;
}

struct scan {
    struct store *store;
    const struct work *w;
    struct store_scan *out;
};

static bool fits(const struct scan *c, const struct outcome *o)
{
    if (strcmp(o->job, c->store->job) || o->cell < 0 || o->cell >= c->w->n_cells || o->first < 0)
        return false;
    const struct work_set *set = &c->w->set[c->w->cell[o->cell].set];
    if (o->first + o->n > set->n)
        return false;
    for (int64_t i = 0; i < o->n; i++)
        if (o->sample[i] != set->order[o->first + i])
            return false;
    return true;
}

static int scan_one(void *context, const char *path, const char *name)
{
    struct scan *c = context;
    struct outcome o = {0};
    struct outcome_name n;
    char aside[FILE_PATH];
    int rc = ERR_OK;
    if (!outcome_parse(name, &n))
        return ERR_OK;
    rc = outcome_read(&o, path);
    if (rc == ERR_NOMEM)
        return rc;
    if (rc || !fits(c, &o)) {
        /* Aside, not away: its name must be free for the work that is done again. */
        log_warn("%s; it is computed again", rc ? err_text() : "a shard file does not belong to this job");
        err_clear();
        c->out->damaged++;
        rc = file_temp_name(aside, path);
        if (!rc && rename(path, aside))
            rc = err_set(ERR_IO, "%s: cannot be moved aside", path);
        outcome_close(&o);
        return rc;
    }
    c->out->files++;
    c->out->seconds += o.compute_s;
    for (int64_t i = 0; i < o.n; i++)
        if (o.status[i] == OUTCOME_OK && !c->out->done[o.cell][o.first + i]) {
            c->out->done[o.cell][o.first + i] = true;
            c->out->samples++;
        }
    outcome_close(&o);
    return ERR_OK;
}

int store_scan(struct store *s, const struct work *w, struct store_scan *out)
{
    struct scan c = {s, w, out};
    int rc = ERR_OK;
    *out = (struct store_scan){.done = calloc((size_t)w->n_cells, sizeof *out->done)};
    if (!out->done)
        return err_set(ERR_NOMEM, "no memory for the state of %d cells", w->n_cells);
    for (int i = 0; i < w->n_cells && !rc; i++) {
        out->done[i] = calloc((size_t)w->set[w->cell[i].set].n, sizeof(bool));
        if (!out->done[i])
            rc = err_set(ERR_NOMEM, "no memory for the state of a cell");
    }
    rc = rc ? rc : shardfile_each(s->folder, scan_one, &c);
    if (rc)
        store_scan_free(out, w->n_cells);
    return rc;
}

void store_scan_free(struct store_scan *x, int n_cells)
{
    for (int i = 0; i < n_cells && x->done; i++)
        free(x->done[i]);
    free(x->done);
    *x = (struct store_scan){0};
}
