/* Training checkpoints. */
#include "train/ckpt.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "comm/comm.h"
#include "io/file.h"
#include "io/safetensors.h"

static const char format[] = "asterism-training-2", newest[] = "checkpoint";
enum { KINDS = 3, NAME = TRAIN_NAME + 4 };
static const char kind[KINDS] = {'w', 'm', 'v'};

static int path_of(char out[FILE_PATH], const char *folder, int64_t step, int rank)
{
    char name[64];
    snprintf(name, sizeof name, "checkpoint-%lld-%d.safetensors", (long long)step, rank);
    return file_join(out, folder, name);
}

static float *array(const struct ckpt *c, int64_t i, int k)
{
    return k == 0 ? c->params->at[i].w : k == 1 ? c->adamw->m[i] : c->adamw->v[i];
}

static int declare(const struct ckpt *c, struct st_decl *d, char (*name)[NAME])
{
    int n = 0;
    for (int64_t i = 0; i < c->params->n; i++)
        for (int k = 0; k < KINDS; k++, n++) {
            const struct train_param *p = &c->params->at[i];
            snprintf(name[n], NAME, "%c.%s", kind[k], p->name);
            d[n] = (struct st_decl){.name = name[n], .dtype = ST_F32, .rank = p->rank};
            memcpy(d[n].dim, p->dim, sizeof p->dim);
        }
    d[n++] = (struct st_decl){.name = "state", .dtype = ST_F64, .rank = 1, .dim = {c->params->n_state}};
    d[n++] = (struct st_decl){.name = "curve", .dtype = ST_F64, .rank = 2, .dim = {c->curve->n, CURVE_COLUMNS}};
    return n;
}

static int write_file(const struct ckpt *c, const char *path)
{
    char step[24];
    const char *meta[] = {"format", format, "job", c->job, "step", step};
    size_t most = (size_t)c->params->n * KINDS + 2;
    struct st_decl *decl = calloc(most, sizeof *decl);
    char(*name)[NAME] = calloc(most, NAME);
    struct st_writer *w = NULL;
    int rc = decl && name ? ERR_OK : err_set(ERR_NOMEM, "no memory to write %s", path);
    snprintf(step, sizeof step, "%lld", (long long)c->step);
    rc = rc ? rc : st_create(&w, path, decl, declare(c, decl, name), meta, 3);
    for (int64_t i = 0; !rc && i < c->params->n; i++)
        for (int k = 0; !rc && k < KINDS; k++)
            rc = st_append(w, array(c, i, k), (size_t)c->params->at[i].n * sizeof(float));
    rc = rc ? rc : st_append(w, c->params->state, (size_t)c->params->n_state * sizeof(double));
    rc = rc ? rc : st_append(w, c->curve->v, (size_t)(c->curve->n * CURVE_COLUMNS) * sizeof(double));
    if (w && rc)
        st_abort(w);
    else if (w)
        rc = st_commit(w);
    free(decl);
    free(name);
    return rc;
}

/* Step of a file's name, -1: it is not one of ours. */
static int64_t step_of(const char *name)
{
    long long step;
    int rank, end = 0;
    if (sscanf(name, "checkpoint-%lld-%d.safetensors%n", &step, &rank, &end) != 2 || end == 0 || name[end])
        return -1;
    return (int64_t)step;
}

/* Removes all files of other steps. What cannot be removed is in nobody's way. */
static int remove_but(const char *folder, int64_t step)
{
    DIR *d = opendir(folder);
    struct dirent *e;
    char path[FILE_PATH];
    int rc = ERR_OK;
    if (!d)
        return errno == ENOENT ? ERR_OK : err_set(ERR_IO, "%s: %s", folder, strerror(errno));
    while ((e = readdir(d)) != NULL) {
        int64_t s = step_of(e->d_name);
        if (s >= 0 && s != step && !file_join(path, folder, e->d_name) && unlink(path))
            rc = err_set(ERR_IO, "%s: %s", path, strerror(errno));
    }
    closedir(d);
    return rc;
}

int ckpt_remove(const char *folder)
{
    char path[FILE_PATH];
    int rc = file_join(path, folder, newest);
    if (!rc && unlink(path) && errno != ENOENT)
        rc = err_set(ERR_IO, "%s: %s", path, strerror(errno));
    return rc ? rc : remove_but(folder, -1);
}

int ckpt_save(const struct ckpt *c, const struct comm_group *g)
{
    char path[FILE_PATH], text[32];
    int rank = g ? g->rank : 0, rc = path_of(path, c->folder, c->step, rank);
    rc = comm_agree(g, rc ? rc : write_file(c, path));
    if (!rc && rank == 0) {
        int n = snprintf(text, sizeof text, "%lld\n", (long long)c->step);
        rc = file_join(path, c->folder, newest);
        rc = rc ? rc : file_write_durable(path, text, (size_t)n);
        if (!rc && remove_but(c->folder, c->step)) {
            log_warn("%s", err_text());
            err_clear();
        }
    }
    return comm_agree(g, rc);
}

/* ---- reading ---- */

static int newest_step(const char *folder, int64_t *step)
{
    char path[FILE_PATH], *end;
    struct buf b = {0};
    *step = -1;
    int rc = file_join(path, folder, newest);
    if (rc || !file_exists(path))
        return rc;
    rc = file_read_text(&b, path, 4096);
    if (!rc) {
        long long x = strtoll(buf_text(&b), &end, 10);
        if (end == buf_text(&b) || x < 0)
            rc = err_set(ERR_FORMAT, "%s: a step is expected, not '%.40s'; --fresh starts over", path, buf_text(&b));
        *step = (int64_t)x;
    }
    buf_free(&b);
    return rc;
}

/* Copies tensor name, which must have this type and these elements. */
static int read_tensor(const struct safetensors *st, const char *path, const char *name, void *to, size_t bytes)
{
    const struct st_tensor *t = st_find(st, name);
    if (!t || t->bytes != bytes)
        return err_set(ERR_FORMAT, "%s: tensor %s is %s; --fresh starts over", path, name,
                       t ? "not of this model's size" : "missing");
    if (bytes)
        memcpy(to, t->data, bytes);
    return ERR_OK;
}

/* ERR_ARG that names the first line in which two jobs differ. */
static int other_job(const char *path, const char *was, const char *is)
{
    enum { MOST = 120 };
    size_t line = 0;
    for (size_t i = 0; was[i] && was[i] == is[i]; i++)
        line = was[i] == '\n' ? i + 1 : line;
    was += line, is += line;
    size_t n = strcspn(was, "\n"), m = strcspn(is, "\n");
    return err_set(ERR_ARG,
                   "%s: was made with other options, data or weights: '%.*s%s' then, '%.*s%s' now; go on with those, or start "
                   "over with --fresh",
                   path, (int)(n < MOST ? n : MOST), was, n > MOST ? "..." : "", (int)(m < MOST ? m : MOST), is,
                   m > MOST ? "..." : "");
}

static int read_all(struct ckpt *c, const struct safetensors *st, const char *path)
{
    const char *kind_of = st_metadata(st, "format"), *job = st_metadata(st, "job"), *step = st_metadata(st, "step");
    const struct st_tensor *curve = st_find(st, "curve");
    char name[NAME];
    if (!kind_of || strcmp(kind_of, format) || !job || !step || !curve || curve->rank != 2 || curve->dim[1] != CURVE_COLUMNS)
        return err_set(ERR_FORMAT, "%s: not a training checkpoint of this program; --fresh starts over", path);
    if (strcmp(job, c->job))
        return other_job(path, job, c->job);
    c->step = strtoll(step, NULL, 10);
    c->curve->n = curve->dim[0];
    if (c->step != c->curve->n || c->step > c->steps)
        return err_set(ERR_FORMAT, "%s: step %lld with a curve of %lld steps; --fresh starts over", path, (long long)c->step,
                       (long long)c->curve->n);
    int rc = read_tensor(st, path, "curve", c->curve->v, (size_t)(c->curve->n * CURVE_COLUMNS) * sizeof(double));
    rc = rc ? rc : read_tensor(st, path, "state", c->params->state, (size_t)c->params->n_state * sizeof(double));
    for (int64_t i = 0; !rc && i < c->params->n; i++)
        for (int k = 0; !rc && k < KINDS; k++) {
            snprintf(name, sizeof name, "%c.%s", kind[k], c->params->at[i].name);
            rc = read_tensor(st, path, name, array(c, i, k), (size_t)c->params->at[i].n * sizeof(float));
        }
    return rc;
}

int ckpt_load(struct ckpt *c, int group_rank, bool *found)
{
    char path[FILE_PATH];
    struct safetensors *st = NULL;
    int64_t step;
    int rc = newest_step(c->folder, &step);
    *found = !rc && step >= 0;
    if (!*found)
        return rc;
    rc = path_of(path, c->folder, step, group_rank);
    rc = rc ? rc : st_open(&st, path);
    rc = rc ? rc : read_all(c, st, path);
    st_close(st);
    return rc;
}
