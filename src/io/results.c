/* results.h5 as text. Tables are built column by column: each is as wide as its widest entry, numbers to the right. */
#include "io/results.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "io/h5_read.h"

/* ---- tables ---- */

enum { COLUMNS = 12, CELL = 96, REASONS = 5 };

struct table {
    const char *head[COLUMNS];
    bool left[COLUMNS]; /* text; numbers stand to the right */
    int columns;
    char (*cell)[CELL]; /* (rows, columns) */
    int64_t rows;
};

static int table_open(struct table *t, int64_t rows)
{
    if (rows > 1 << 24)
        return err_set(ERR_FORMAT, "%lld rows are too many for a table that people read", (long long)rows);
    t->rows = rows;
    t->cell = calloc((size_t)(rows * t->columns) + 1, sizeof *t->cell);
    return t->cell ? ERR_OK : err_set(ERR_NOMEM, "out of memory for a table of %lld rows", (long long)rows);
}

static char *at(const struct table *t, int64_t row, int column)
{
    return t->cell[row * t->columns + column];
}

/* Code points, which is what a terminal's columns are for the texts that stand here. */
static int width_of(const char *s)
{
    int n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static int put_cell(struct buf *out, const char *text, int width, bool left, bool last)
{
    int pad = width - width_of(text);
    if (left && last)
        return buf_printf(out, "%s", text);
    return left ? buf_printf(out, "%s%*s  ", text, pad, "") : buf_printf(out, "%*s%s%s", pad, "", text, last ? "" : "  ");
}

static int table_print(const struct table *t, struct buf *out)
{
    int width[COLUMNS] = {0}, rc = ERR_OK;
    for (int c = 0; c < t->columns; c++) {
        width[c] = width_of(t->head[c]);
        for (int64_t r = 0; r < t->rows; r++)
            width[c] = width_of(at(t, r, c)) > width[c] ? width_of(at(t, r, c)) : width[c];
    }
    for (int64_t r = -1; r < t->rows; r++) {
        rc = rc ? rc : buf_puts(out, "  ");
        for (int c = 0; rc == ERR_OK && c < t->columns; c++)
            rc = put_cell(out, r < 0 ? t->head[c] : at(t, r, c), width[c], t->left[c], c + 1 == t->columns);
        rc = rc ? rc : buf_puts(out, "\n");
    }
    return rc;
}

/* ---- columns of the file ---- */

struct from {
    const struct h5_reader *h;
    struct buf *out;
    int64_t n_cells;
    struct h5_texts model, method; /* (n_cells,) */
};

/* A column of a table that must have n rows. */
static int real_column(const struct h5_reader *h, const char *path, int64_t n, double **out)
{
    int64_t got = 0;
    int rc = h5_read_f64(h, path, out, &got);
    if (rc == ERR_OK && got != n) {
        free(*out);
        *out = NULL;
        rc = err_set(ERR_FORMAT, "%s has %lld rows, %lld are needed", path, (long long)got, (long long)n);
    }
    return rc;
}

static int text_column(const struct h5_reader *h, const char *path, int64_t n, struct h5_texts *out)
{
    int rc = h5_read_texts(h, path, out);
    if (rc == ERR_OK && out->n != n) {
        rc = err_set(ERR_FORMAT, "%s has %lld rows, %lld are needed", path, (long long)out->n, (long long)n);
        h5_texts_free(out);
    }
    return rc;
}

static int put_texts(struct table *t, int column, const struct h5_reader *h, const char *path)
{
    struct h5_texts x;
    int rc = text_column(h, path, t->rows, &x);
    for (int64_t r = 0; rc == ERR_OK && r < t->rows; r++)
        snprintf(at(t, r, column), CELL, "%.60s", h5_text(&x, r));
    h5_texts_free(&x);
    return rc;
}

/* NaN: left empty. */
static int put_reals(struct table *t, int column, const struct h5_reader *h, const char *path, const char *format)
{
    double *v = NULL;
    int rc = real_column(h, path, t->rows, &v);
    for (int64_t r = 0; rc == ERR_OK && r < t->rows; r++)
        if (!isnan(v[r])) {
            if (strcmp(format, "bytes") == 0)
                log_bytes(v[r], at(t, r, column), CELL);
            else if (strcmp(format, "count") == 0)
                snprintf(at(t, r, column), CELL, "%.0f", v[r]);
            else if (strcmp(format, "signed") == 0)
                snprintf(at(t, r, column), CELL, "%+.4g", v[r]);
            else
                snprintf(at(t, r, column), CELL, "%.*g", 5, v[r]);
        }
    free(v);
    return rc;
}

static int rows_of(const struct h5_reader *h, const char *path, int64_t *n)
{
    struct h5_info i = {.class = H5_IS_OTHER};
    int rc = h5_info(h, path, &i);
    *n = rc ? 0 : i.n;
    return rc;
}

/* ---- head ---- */

/* An attribute, "?" if it is not there. */
static int put_attr(const struct from *f, const char *object, const char *name)
{
    if (!h5_exists(f->h, object) || !h5_has_attr(f->h, object, name))
        return buf_puts(f->out, "?");
    return h5_read_attr(f->h, object, name, f->out);
}

static int put_head(const struct from *f, const char *path)
{
    double wall = 0;
    char time[32];
    int rc = buf_printf(f->out, "%s\n  job          ", path);
    rc = rc ? rc : put_attr(f, "/", "title");
    rc = rc ? rc : buf_puts(f->out, "\n  state        ");
    rc = rc ? rc : put_attr(f, "/environment", "state");
    rc = rc ? rc : buf_puts(f->out, "\n  made         ");
    rc = rc ? rc : put_attr(f, "/environment", "date");
    rc = rc ? rc : buf_puts(f->out, " on ");
    rc = rc ? rc : put_attr(f, "/environment", "host");
    rc = rc ? rc : buf_puts(f->out, "\n  ranks        ");
    rc = rc ? rc : put_attr(f, "/environment", "ranks");
    rc = rc ? rc : buf_puts(f->out, " (groups of ");
    rc = rc ? rc : put_attr(f, "/environment", "ranks_per_group");
    rc = rc ? rc : buf_puts(f->out, ", threads a rank ");
    rc = rc ? rc : put_attr(f, "/environment", "threads_per_rank");
    rc = rc ? rc : buf_puts(f->out, ", lost ");
    rc = rc ? rc : put_attr(f, "/environment", "ranks_lost");
    rc = rc ? rc : buf_puts(f->out, ")\n");
    if (rc || !h5_has_attr(f->h, "/environment", "wall_s"))
        return rc;
    rc = h5_read_attr_f64(f->h, "/environment", "wall_s", &wall);
    log_duration(wall, time, sizeof time);
    return rc ? rc : buf_printf(f->out, "  wall time    %s\n", time);
}

/* ---- tables ---- */

static int put_models(const struct from *f)
{
    struct table t = {.head = {"model", "architecture", "parameters", "weights", "bos", "eos", "eos from", "fingerprint"},
                      .left = {true, true, false, true, false, true, true, true},
                      .columns = 8};
    int64_t n = 0;
    if (!h5_exists(f->h, "/models/parameters"))
        return ERR_OK;
    int rc = rows_of(f->h, "/models/parameters", &n);
    rc = rc ? rc : table_open(&t, n);
    rc = rc ? rc : put_texts(&t, 0, f->h, "/models/name");
    rc = rc ? rc : put_texts(&t, 1, f->h, "/models/architecture");
    rc = rc ? rc : put_reals(&t, 2, f->h, "/models/parameters", "count");
    rc = rc ? rc : put_texts(&t, 3, f->h, "/models/dtype");
    rc = rc ? rc : put_reals(&t, 4, f->h, "/models/bos", "count");
    rc = rc ? rc : put_texts(&t, 5, f->h, "/models/eos");
    rc = rc ? rc : put_texts(&t, 6, f->h, "/models/eos_from");
    rc = rc ? rc : put_texts(&t, 7, f->h, "/models/weights_sha256");
    for (int64_t r = 0; rc == ERR_OK && r < n; r++)
        at(&t, r, 7)[16] = '\0'; /* enough to tell two apart */
    rc = rc ? rc : buf_puts(f->out, "\nModels\n");
    rc = rc ? rc : table_print(&t, f->out);
    free(t.cell);
    return rc;
}

static int put_cells(const struct from *f)
{
    struct table t = {.head = {"model", "method", "task", "length", "samples", "scored", "protocol"},
                      .left = {true, true, true, false, false, false, true},
                      .columns = 7};
    int rc = table_open(&t, f->n_cells);
    rc = rc ? rc : put_texts(&t, 0, f->h, "/cells/model");
    rc = rc ? rc : put_texts(&t, 1, f->h, "/cells/method");
    rc = rc ? rc : put_texts(&t, 2, f->h, "/cells/task");
    rc = rc ? rc : put_reals(&t, 3, f->h, "/cells/length", "count");
    rc = rc ? rc : put_reals(&t, 4, f->h, "/cells/samples", "count");
    rc = rc ? rc : put_reals(&t, 5, f->h, "/cells/samples_ok", "count");
    rc = rc ? rc : put_texts(&t, 6, f->h, "/cells/signature");
    rc = rc ? rc : buf_puts(f->out, "\nWhat was run\n");
    rc = rc ? rc : table_print(&t, f->out);
    free(t.cell);
    return rc;
}

/* "[lo, hi]" where there is an interval; nothing where the file has no such columns. */
static int put_intervals(struct table *t, int column, const struct h5_reader *h, const char *lo_path, const char *hi_path)
{
    double *lo = NULL, *hi = NULL;
    if (!h5_exists(h, lo_path))
        return ERR_OK;
    int rc = real_column(h, lo_path, t->rows, &lo);
    rc = rc ? rc : real_column(h, hi_path, t->rows, &hi);
    for (int64_t r = 0; rc == ERR_OK && r < t->rows; r++)
        if (!isnan(lo[r]) && !isnan(hi[r]))
            snprintf(at(t, r, column), CELL, "[%.5g, %.5g]", lo[r], hi[r]);
    free(lo);
    free(hi);
    return rc;
}

static int put_metrics(const struct from *f)
{
    struct table t = {.head = {"model", "task", "length", "method", "metric", "value", "95 % interval", "unit", "minus dense",
                               "95 % interval", "n"},
                      .left = {true, true, false, true, true, false, true, true, false, true, false},
                      .columns = 11};
    int64_t n = 0;
    int rc = rows_of(f->h, "/metrics/value", &n);
    rc = rc ? rc : table_open(&t, n);
    rc = rc ? rc : put_texts(&t, 0, f->h, "/metrics/model");
    rc = rc ? rc : put_texts(&t, 1, f->h, "/metrics/task");
    rc = rc ? rc : put_reals(&t, 2, f->h, "/metrics/length", "count");
    rc = rc ? rc : put_texts(&t, 3, f->h, "/metrics/method");
    rc = rc ? rc : put_texts(&t, 4, f->h, "/metrics/metric");
    rc = rc ? rc : put_reals(&t, 5, f->h, "/metrics/value", "value");
    rc = rc ? rc : put_intervals(&t, 6, f->h, "/metrics/ci_lo", "/metrics/ci_hi");
    rc = rc ? rc : put_texts(&t, 7, f->h, "/metrics/unit");
    rc = rc ? rc : put_reals(&t, 8, f->h, "/metrics/minus_dense", "signed");
    rc = rc ? rc : put_intervals(&t, 9, f->h, "/metrics/minus_dense_lo", "/metrics/minus_dense_hi");
    rc = rc ? rc : put_reals(&t, 10, f->h, "/metrics/n", "count");
    rc = rc ? rc : buf_puts(f->out, "\nMetrics\n");
    rc = rc ? rc : table_print(&t, f->out);
    free(t.cell);
    return rc;
}

/* Adds pairs seen and allowed of each cell's layers. */
static int add_pairs(const struct from *f, double *seen, double *all)
{
    double *cell = NULL, *s = NULL, *a = NULL;
    int64_t n = 0;
    int rc = rows_of(f->h, "/layers/cell", &n);
    rc = rc ? rc : real_column(f->h, "/layers/cell", n, &cell);
    rc = rc ? rc : real_column(f->h, "/layers/pairs_seen", n, &s);
    rc = rc ? rc : real_column(f->h, "/layers/pairs_causal", n, &a);
    for (int64_t i = 0; rc == ERR_OK && i < n; i++)
        if (cell[i] >= 0 && cell[i] < (double)f->n_cells) {
            seen[(int64_t)cell[i]] += s[i];
            all[(int64_t)cell[i]] += a[i];
        }
    free(cell);
    free(s);
    free(a);
    return rc;
}

/* The share of causal pairs that was attended, all layers together. */
static int put_density(const struct from *f, struct table *t, int column)
{
    double *seen = calloc((size_t)f->n_cells + 1, sizeof *seen), *all = calloc((size_t)f->n_cells + 1, sizeof *all);
    int rc = seen && all ? add_pairs(f, seen, all) : err_set(ERR_NOMEM, "out of memory");
    for (int64_t i = 0; rc == ERR_OK && i < f->n_cells; i++)
        if (all[i] > 0)
            snprintf(at(t, i, column), CELL, "%.2f %%", 100 * seen[i] / all[i]);
    free(seen);
    free(all);
    return rc;
}

static int put_costs(const struct from *f)
{
    struct table t = {
        .head = {"model", "task", "length", "method", "pairs attended", "token/s", "attention s", "compute s", "peak"},
        .left = {true, true, false, true, false, false, false, false, false},
        .columns = 9};
    int rc = table_open(&t, f->n_cells);
    rc = rc ? rc : put_texts(&t, 0, f->h, "/cells/model");
    rc = rc ? rc : put_texts(&t, 1, f->h, "/cells/task");
    rc = rc ? rc : put_reals(&t, 2, f->h, "/cells/length", "count");
    rc = rc ? rc : put_texts(&t, 3, f->h, "/cells/method");
    rc = rc || !h5_exists(f->h, "/layers/cell") ? rc : put_density(f, &t, 4);
    if (rc == ERR_OK && h5_exists(f->h, "/timing/cells")) {
        rc = put_reals(&t, 5, f->h, "/timing/cells/tokens_per_s", "value");
        rc = rc ? rc : put_reals(&t, 6, f->h, "/timing/cells/attn_s", "value");
        rc = rc ? rc : put_reals(&t, 7, f->h, "/timing/cells/compute_s", "value");
        rc = rc ? rc : put_reals(&t, 8, f->h, "/timing/cells/peak_bytes", "bytes");
    }
    rc = rc ? rc : buf_puts(f->out, "\nSparsity and cost (times differ from run to run)\n");
    rc = rc ? rc : table_print(&t, f->out);
    free(t.cell);
    return rc;
}

/* ---- samples that are not scored ---- */

/* What a status means, from the column's own description: "0 ok, 1 failed, ...". */
static void status_name(const char *about, int64_t status, char out[CELL])
{
    char key[32];
    snprintf(key, sizeof key, "%lld ", (long long)status);
    const char *p = about;
    while (p && strncmp(p, key, strlen(key)) != 0) {
        p = strstr(p, ", ");
        p = p ? p + 2 : NULL;
    }
    snprintf(out, CELL, "%.*s", p ? (int)strcspn(p + strlen(key), ",") : 80, p ? p + strlen(key) : key);
}

struct failures {
    int64_t *status, *cell, *id, n;
    int64_t *end, n_end; /* of reasons */
    uint8_t *reason;
    int64_t reason_bytes;
    struct buf about;
};

static void failures_free(struct failures *x)
{
    free(x->status);
    free(x->cell);
    free(x->id);
    free(x->end);
    free(x->reason);
    buf_free(&x->about);
}

static int column_of(const struct h5_reader *h, const char *folder, const char *name, int64_t **out, int64_t *n)
{
    char path[512];
    snprintf(path, sizeof path, "%.300s/%s", folder, name);
    return h5_read_i64(h, path, out, n);
}

static int read_failures(const struct from *f, const char *folder, struct failures *x)
{
    char path[512];
    int64_t n = 0, m = 0;
    int rc = column_of(f->h, folder, "status", &x->status, &x->n);
    rc = rc ? rc : column_of(f->h, folder, "cell", &x->cell, &n);
    rc = rc ? rc : column_of(f->h, folder, "id", &x->id, &m);
    if (rc == ERR_OK && (n != x->n || m != x->n))
        rc = err_set(ERR_FORMAT, "%s: columns of different lengths", folder);
    snprintf(path, sizeof path, "%.300s/status", folder);
    if (rc == ERR_OK && h5_has_attr(f->h, path, "long_name"))
        rc = h5_read_attr(f->h, path, "long_name", &x->about);
    snprintf(path, sizeof path, "%.300s/reason", folder);
    if (rc || !h5_exists(f->h, path))
        return rc;
    rc = h5_read_u8(f->h, path, &x->reason, &x->reason_bytes);
    rc = rc ? rc : column_of(f->h, folder, "reason_end", &x->end, &x->n_end);
    if (rc == ERR_OK && x->n_end != x->n)
        rc = err_set(ERR_FORMAT, "%s: columns of different lengths", folder);
    return rc;
}

/* One sample: which, what, why. */
static int put_failure(const struct from *f, const struct failures *x, int64_t i)
{
    char name[CELL];
    int64_t c = x->cell[i], from = x->end && i > 0 ? x->end[i - 1] : 0, to = x->end ? x->end[i] : 0;
    status_name(buf_text(&x->about), x->status[i], name);
    bool known = c >= 0 && c < f->n_cells;
    int rc = buf_printf(f->out, "    sample %lld, %s with %s: %s", (long long)x->id[i], known ? h5_text(&f->model, c) : "?",
                        known ? h5_text(&f->method, c) : "?", name);
    if (rc == ERR_OK && from >= 0 && to > from && to <= x->reason_bytes)
        rc = buf_printf(f->out, ": %.*s", (int)(to - from < 200 ? to - from : 200), (const char *)x->reason + from);
    return rc ? rc : buf_puts(f->out, "\n");
}

static int put_task(const struct from *f, const char *name)
{
    struct failures x = {0};
    char folder[320];
    int64_t bad = 0, shown = 0;
    snprintf(folder, sizeof folder, "/samples/%.300s", name);
    int rc = read_failures(f, folder, &x);
    for (int64_t i = 0; rc == ERR_OK && i < x.n; i++)
        bad += x.status[i] != 0;
    rc = rc ? rc : buf_printf(f->out, "  %s: %lld rows, %lld not scored\n", name, (long long)x.n, (long long)bad);
    for (int64_t i = 0; rc == ERR_OK && i < x.n && shown < REASONS; i++)
        if (x.status[i] != 0) {
            rc = put_failure(f, &x, i);
            shown++;
        }
    if (rc == ERR_OK && bad > shown)
        rc = buf_printf(f->out, "    and %lld more: column status of %s\n", (long long)(bad - shown), folder);
    failures_free(&x);
    return rc;
}

static int put_samples(const struct from *f)
{
    struct h5_names l = {0};
    int rc = h5_exists(f->h, "/samples") ? h5_children(f->h, "/samples", &l) : ERR_OK;
    rc = rc ? rc : buf_puts(f->out, "\nSamples\n");
    for (int64_t i = 0; rc == ERR_OK && i < l.n; i++)
        rc = put_task(f, l.name[i]);
    h5_names_free(&l);
    return rc;
}

/* ---- provenance ---- */

/* All attributes of a group, a line each; text of several lines is only counted. */
static int put_group(const struct from *f, const char *group, const char *title)
{
    struct h5_names l = {0};
    struct buf v = {0};
    int rc = h5_exists(f->h, group) ? h5_attributes(f->h, group, &l) : ERR_OK;
    rc = rc || l.n == 0 ? rc : buf_printf(f->out, "\n%s\n", title);
    for (int64_t i = 0; rc == ERR_OK && i < l.n; i++) {
        buf_clear(&v);
        rc = h5_read_attr(f->h, group, l.name[i], &v);
        bool lines = rc == ERR_OK && strchr(buf_text(&v), '\n');
        rc = rc      ? rc
             : lines ? buf_printf(f->out, "  %-24s (%zu bytes of text)\n", l.name[i], v.len)
                     : buf_printf(f->out, "  %-24s %s\n", l.name[i], buf_text(&v));
    }
    buf_free(&v);
    h5_names_free(&l);
    return rc;
}

static int describe(struct from *f, const char *path)
{
    if (!h5_exists(f->h, "/cells/method") || !h5_exists(f->h, "/metrics/value"))
        return err_set(ERR_FORMAT, "has no /cells and /metrics: it is not a result file of asterism run");
    int rc = rows_of(f->h, "/cells/method", &f->n_cells);
    rc = rc ? rc : text_column(f->h, "/cells/model", f->n_cells, &f->model);
    rc = rc ? rc : text_column(f->h, "/cells/method", f->n_cells, &f->method);
    rc = rc ? rc : put_head(f, path);
    rc = rc ? rc : put_models(f);
    rc = rc ? rc : put_cells(f);
    rc = rc ? rc : put_metrics(f);
    rc = rc ? rc : put_costs(f);
    rc = rc ? rc : put_samples(f);
    rc = rc ? rc : put_group(f, "/parameters", "Parameters");
    rc = rc ? rc : put_group(f, "/code", "Program");
    return rc ? rc : put_group(f, "/environment", "Environment");
}

int results_describe(struct buf *out, const char *path)
{
    struct h5_reader *h = NULL;
    int rc = h5_open(&h, path);
    if (rc)
        return rc;
    struct from f = {.h = h, .out = out};
    rc = describe(&f, path);
    if (rc && !strstr(err_text(), path))
        err_prefix(rc, "%s", path);
    h5_texts_free(&f.model);
    h5_texts_free(&f.method);
    h5_close(h);
    return rc;
}
