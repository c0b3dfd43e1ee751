/* What the group writes our reader, h5py and xarray read back; damaged files are refused; results are described. */
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "comm/comm.h"
#include "io/file.h"
#include "io/h5.h"
#include "io/h5_read.h"
#include "io/results.h"
#include "tests/t.h"

enum { ROWS = 1000, WIDTH = 3 };

static struct comm_group *world;
static char path[300];

static void column(struct h5 *f, const char *name, enum h5_type type, int64_t rows, const void *v)
{
    h5_write(f, &(struct h5_column){.path = name, .type = type, .rows = rows, .count = world->rank == 0 ? rows : 0, .data = v});
}

/* A small file with all that the reader knows. Collective. */
static void write_file(void)
{
    struct h5 *f = NULL;
    int64_t first = ROWS * world->rank / world->size, count = (int64_t)ROWS * (world->rank + 1) / world->size - first;
    int64_t row[ROWS];
    double pair[ROWS * WIDTH];
    const uint8_t small[4] = {0, 1, 254, 255};
    for (int64_t i = 0; i < count; i++) {
        row[i] = first + i;
        for (int k = 0; k < WIDTH; k++)
            pair[WIDTH * i + k] = (double)(first + i) + 0.25 * k;
    }
    T_EQ(h5_create(&f, path, world, true), ERR_OK);
    if (!f)
        return;
    struct h5_column c = {.path = "/t/row", .type = H5_I64, .rows = ROWS, .first = first, .count = count, .data = row, .unit = "1"};
    h5_write(f, &c);
    h5_scale(f, "/t/row", "row");
    c = (struct h5_column){.path = "/t/values",
                           .type = H5_F64,
                           .rows = ROWS,
                           .width = WIDTH,
                           .first = first,
                           .count = count,
                           .data = pair,
                           .unit = "s"};
    h5_write(f, &c);
    column(f, "/t/part", H5_I32, WIDTH, (const int32_t[]){0, 1, 2});
    h5_scale(f, "/t/part", "part");
    h5_attach(f, "/t/values", 0, "/t/row");
    h5_attach(f, "/t/values", 1, "/t/part"); /* all or none: h5netcdf refuses a mixture */
    column(f, "/t/small", H5_U8, 4, small);
    h5_strings(f, "/t/words", (const char *const[]){"one", "zw\xc3\xb6lf", ""}, 3, "words");
    h5_group(f, "/z");
    h5_group(f, "/a");
    h5_attr_text(f, "/a", "title", "a t\xc3\xa4st,\nof two lines");
    h5_attr_i64(f, "/a", "n", -7);
    h5_attr_f64(f, "/a", "x", 0.1);
    T_EQ(h5_commit(f), ERR_OK);
    comm_barrier(world);
}

static struct h5_reader *opened(void)
{
    struct h5_reader *h = NULL;
    err_clear();
    if (h5_open(&h, path))
        T_FAIL("%s", err_text());
    return h;
}

/* The sentence that is set must contain want; forgets it. */
static void said(const char *want)
{
    if (!strstr(err_text(), want))
        T_FAIL("\"%s\" lacks \"%s\"", err_text(), want);
    err_clear();
}

static void datasets_read_back_with_their_shapes(void)
{
    struct h5_reader *h = world->rank == 0 ? opened() : NULL;
    struct h5_info i = {.class = H5_IS_OTHER};
    struct h5_texts words;
    int64_t *row = NULL, n = 0;
    double *v = NULL;
    uint8_t *small = NULL;
    if (!h)
        return;
    T_EQ(h5_info(h, "/t/values", &i), 0);
    T_CHECK(i.class == H5_IS_REAL && i.rank == 2 && i.dim[0] == ROWS && i.dim[1] == WIDTH && i.n == ROWS * WIDTH);
    T_EQ(h5_read_i64(h, "/t/row", &row, &n), 0);
    T_EQ(n, ROWS);
    T_EQ(h5_read_f64(h, "/t/values", &v, &n), 0);
    for (int64_t k = 0; row && v && k < ROWS; k++)
        if (row[k] != k || v[WIDTH * k + 2] != (double)k + 0.5) {
            T_FAIL("row %lld is wrong", (long long)k);
            break;
        }
    free(v);
    T_EQ(h5_read_f64(h, "/t/row", &v, &n), 0);
    T_NEAR(v ? v[999] : 0, 999, 0);
    T_EQ(h5_read_u8(h, "/t/small", &small, &n), 0);
    T_CHECK(small && n == 4 && small[2] == 254 && small[3] == 255);
    T_EQ(h5_read_texts(h, "/t/words", &words), 0);
    T_EQ(words.n, 3);
    T_STR(h5_text(&words, 0), "one");
    T_STR(h5_text(&words, 1), "zw\xc3\xb6lf");
    T_STR(h5_text(&words, 2), "");
    h5_texts_free(&words);
    free(row);
    free(v);
    free(small);
    h5_close(h);
}

static void attributes_and_listings_keep_their_order(void)
{
    struct h5_reader *h = world->rank == 0 ? opened() : NULL;
    struct buf b = {0};
    struct h5_names l;
    int64_t n = 0;
    double x = 0;
    if (!h)
        return;
    T_EQ(h5_read_attr(h, "/a", "title", &b), 0);
    T_STR(buf_text(&b), "a t\xc3\xa4st,\nof two lines");
    buf_clear(&b);
    T_EQ(h5_read_attr(h, "/a", "n", &b), 0);
    T_EQ(h5_read_attr(h, "/a", "x", &b), 0);
    T_STR(buf_text(&b), "-70.1");
    T_EQ(h5_read_attr_i64(h, "/a", "n", &n), 0);
    T_EQ(n, -7);
    T_EQ(h5_read_attr_f64(h, "/a", "x", &x), 0);
    T_NEAR(x, 0.1, 0);
    T_EQ(h5_read_attr_i64(h, "/a", "title", &n), ERR_FORMAT);
    said("title of /a is not one number");
    T_EQ(h5_children(h, "/", &l), 0);
    T_EQ(l.n, 3);
    T_STR(l.n == 3 ? l.name[0] : "", "t");
    T_STR(l.n == 3 ? l.name[1] : "", "z"); /* made before a */
    h5_names_free(&l);
    T_EQ(h5_children(h, "/t", &l), 0); /* a parent that nobody asked for keeps the order too */
    T_STR(l.n == 5 ? l.name[1] : "", "values");
    T_STR(l.n == 5 ? l.name[2] : "", "part");
    T_STR(l.n == 5 ? l.name[3] : "", "small");
    h5_names_free(&l);
    T_EQ(h5_attributes(h, "/a", &l), 0);
    T_EQ(l.n, 3);
    h5_names_free(&l);
    buf_free(&b);
    h5_close(h);
}

static void what_is_not_there_is_said(void)
{
    struct h5_reader *h = world->rank == 0 ? opened() : NULL;
    struct h5_names l;
    struct h5_texts t;
    struct h5_info i;
    struct buf b = {0};
    double *v;
    int64_t *k, n;
    if (!h)
        return;
    T_CHECK(h5_exists(h, "/") && h5_exists(h, "/t/row") && !h5_exists(h, "/t/no") && !h5_exists(h, "/no/row"));
    T_EQ(h5_read_f64(h, "/no/row", &v, &n), ERR_IO);
    said("has no /no/row");
    T_EQ(h5_info(h, "/t/no", &i), ERR_IO);
    said("has no /t/no");
    T_EQ(h5_read_f64(h, "/t/words", &v, &n), ERR_FORMAT);
    said("/t/words is not numbers");
    T_EQ(h5_read_i64(h, "/t/values", &k, &n), ERR_FORMAT);
    said("/t/values is not integers");
    T_EQ(h5_read_f64(h, "/t", &v, &n), ERR_FORMAT);
    said("/t is not numbers");
    T_EQ(h5_read_texts(h, "/t/row", &t), ERR_FORMAT);
    said("/t/row is not text");
    T_EQ(h5_read_attr(h, "/a", "no", &b), ERR_IO);
    said("/a has no attribute no");
    T_EQ(h5_children(h, "/no", &l), ERR_IO);
    said("has no /no");
    h5_close(h);
    T_EQ(results_describe(&b, path), ERR_FORMAT);
    said("not a result file");
    T_EQ(h5_open(&h, "/nonexistent.h5"), ERR_IO);
    said("/nonexistent.h5");
    T_EQ(h5_open(&h, "/proc/self/status"), ERR_FORMAT);
    said("is not an HDF5 file");
    buf_free(&b);
}

/* Reads all that the file has; whatever is wrong with it must come back as a sentence. */
static void walk(const char *file)
{
    struct h5_reader *h;
    struct buf b = {0};
    struct h5_names l = {0};
    struct h5_texts t = {0};
    double *v = NULL;
    if (h5_open(&h, file) == ERR_OK) {
        if (h5_children(h, "/t", &l) == ERR_OK)
            h5_names_free(&l);
        if (h5_read_f64(h, "/t/values", &v, NULL) == ERR_OK)
            free(v);
        if (h5_read_texts(h, "/t/words", &t) == ERR_OK)
            h5_texts_free(&t);
        T_CHECK(h5_read_attr(h, "/a", "n", &b) == ERR_OK || err_text()[0]);
        h5_close(h);
    } else {
        T_CHECK(err_text()[0]);
    }
    err_clear();
    buf_free(&b);
}

static void files_that_are_cut_short_are_refused(void)
{
    struct buf b = {0};
    char part[320];
    if (world->rank != 0)
        return;
    T_EQ(buf_read_file(&b, path, 0), 0);
    snprintf(part, sizeof part, "%s.cut", path);
    for (size_t n = 0; n < b.len; n += 1 + b.len / 20) {
        T_EQ(file_write_durable(part, buf_text(&b), n), 0);
        walk(part);
    }
    unlink(part);
    buf_free(&b);
}

/* 0 if Python has the modules and the program below it ends well, 77 if it lacks them. */
static int python(const char *program)
{
    char cmd[2400];
    snprintf(cmd, sizeof cmd, "HDF5_USE_FILE_LOCKING=FALSE /usr/bin/python3 -c '%s' %s 2>&1", program, path);
    int rc = system(cmd);
    return WIFEXITED(rc) ? WEXITSTATUS(rc) : -1;
}

static const char h5py_program[] =
    "import sys\ntry: import h5py\nexcept ImportError: sys.exit(77)\n"
    "f = h5py.File(sys.argv[1], \"r\")\n"
    "assert list(f) == [\"a\", \"t\", \"z\"] or list(f) == [\"t\", \"z\", \"a\"], list(f)\n"
    "assert isinstance(f[\"a\"].attrs[\"title\"], str) and f[\"a\"].attrs[\"n\"] == -7\n"
    "assert f[\"t/values\"].shape == (1000, 3) and f[\"t/values\"][999, 2] == 999.5\n"
    "assert f[\"t/values\"].compression == \"gzip\" and f[\"t/values\"].attrs[\"units\"] == \"s\"\n"
    "assert f[\"t/words\"].asstr()[1] == \"zw\\u00f6lf\", f[\"t/words\"][1]\n"
    "assert f[\"t/values\"].dims[0][0].name == \"/t/row\" and f[\"t/row\"].attrs[\"CLASS\"] == b\"DIMENSION_SCALE\"\n";

static const char xarray_program[] = "import sys\ntry: import xarray, h5netcdf\nexcept ImportError: sys.exit(77)\n"
                                     "d = xarray.open_dataset(sys.argv[1], group=\"t\", engine=\"h5netcdf\", phony_dims=\"sort\")\n"
                                     "assert d[\"values\"].dims[0] == \"row\", d[\"values\"].dims\n"
                                     "assert float(d[\"values\"][999, 2]) == 999.5\n"
                                     "assert d[\"values\"].attrs[\"units\"] == \"s\"\n";

static void h5py_reads_it(void)
{
    if (world->rank == 0)
        T_EQ(python(h5py_program), 0);
}

static void xarray_reads_it(void)
{
    if (world->rank == 0)
        T_EQ(python(xarray_program), 0);
}

static void texts(struct h5 *f, const char *name, const char *a, const char *b)
{
    h5_strings(f, name, (const char *const[]){a, b}, 2, NULL);
}

/* The layout of sched/merge.h, in small: two methods, one sample of three failed. Collective. */
static void write_results(void)
{
    struct h5 *f = NULL;
    T_EQ(h5_create(&f, path, world, false), ERR_OK);
    if (!f)
        return;
    h5_attr_text(f, "/", "title", "small");
    texts(f, "/cells/model", "m", "m");
    texts(f, "/cells/method", "dense", "ast");
    texts(f, "/cells/task", "wikitext", "wikitext");
    texts(f, "/cells/signature", "ppl|v1", "ppl|v1");
    column(f, "/cells/length", H5_I64, 2, (int64_t[]){512, 512});
    column(f, "/cells/samples", H5_I64, 2, (int64_t[]){2, 1});
    column(f, "/cells/samples_ok", H5_I64, 2, (int64_t[]){2, 0});
    texts(f, "/metrics/model", "m", "m");
    texts(f, "/metrics/method", "dense", "ast");
    texts(f, "/metrics/task", "wikitext", "wikitext");
    texts(f, "/metrics/metric", "perplexity", "perplexity");
    texts(f, "/metrics/unit", "1", "1");
    column(f, "/metrics/length", H5_I64, 2, (int64_t[]){512, 512});
    column(f, "/metrics/value", H5_F64, 2, (double[]){52.0, 54.7});
    column(f, "/metrics/ci_lo", H5_F64, 2, (double[]){51.0, (double)NAN});
    column(f, "/metrics/ci_hi", H5_F64, 2, (double[]){53.0, (double)NAN});
    column(f, "/metrics/minus_dense", H5_F64, 2, (double[]){(double)NAN, 2.7});
    column(f, "/metrics/minus_dense_lo", H5_F64, 2, (double[]){(double)NAN, 1.5});
    column(f, "/metrics/minus_dense_hi", H5_F64, 2, (double[]){(double)NAN, 3.25});
    column(f, "/metrics/n", H5_I64, 2, (int64_t[]){2, 1});
    column(f, "/layers/cell", H5_F64, 4, (double[]){0, 0, 1, 1});
    column(f, "/layers/pairs_seen", H5_F64, 4, (double[]){100, 100, 5, 15});
    column(f, "/layers/pairs_causal", H5_F64, 4, (double[]){100, 100, 100, 100});
    column(f, "/samples/wikitext/cell", H5_I32, 3, (int32_t[]){0, 0, 1});
    column(f, "/samples/wikitext/id", H5_I64, 3, (int64_t[]){0, 1, 7});
    h5_write(f, &(struct h5_column){.path = "/samples/wikitext/status",
                                    .type = H5_I32,
                                    .rows = 3,
                                    .count = world->rank == 0 ? 3 : 0,
                                    .data = (int32_t[]){0, 0, 2},
                                    .about = "0 ok, 1 failed, 2 did not fit into memory, 3 not done yet"});
    column(f, "/samples/wikitext/reason", H5_U8, 8, "too long");
    column(f, "/samples/wikitext/reason_end", H5_I64, 3, (int64_t[]){0, 0, 8});
    h5_group(f, "/environment");
    h5_attr_text(f, "/environment", "state", "failed samples");
    h5_attr_f64(f, "/environment", "wall_s", 200);
    h5_group(f, "/parameters");
    h5_attr_text(f, "/parameters", "run.seed", "17");
    h5_attr_text(f, "/parameters", "config_text", "a = 1;\nb = 2;\n");
    T_EQ(h5_commit(f), ERR_OK);
    comm_barrier(world);
}

static void results_are_described(void)
{
    static const char *const want[] = {"job          small\n",
                                       "state        failed samples\n",
                                       "wall time    3m 20s\n",
                                       "54.7",
                                       "[51, 53]",
                                       "+2.7",
                                       "[1.5, 3.25]",
                                       "10.00 %",
                                       "100.00 %",
                                       "wikitext: 3 rows, 1 not scored\n",
                                       "sample 7, m with ast: did not fit into memory: too long\n",
                                       "run.seed                 17\n",
                                       "(14 bytes of text)"};
    struct buf b = {0};
    write_results();
    if (world->rank != 0)
        return;
    err_clear();
    if (results_describe(&b, path))
        T_FAIL("%s", err_text());
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        if (!strstr(buf_text(&b), want[i]))
            T_FAIL("lacks \"%s\"", want[i]);
    if (t_here)
        fprintf(stderr, "%s", buf_text(&b));
    buf_free(&b);
}

static void with_python(const char *name, const char *program, void (*fn)(void))
{
    int rc = world->rank == 0 ? python(program) : 0;
    comm_bcast(world, &rc, sizeof rc, 0);
    if (rc == 77)
        t_skip(name, "skipped: this Python lacks the modules");
    else
        t_run(name, fn);
}

int main(int argc, char **argv)
{
    int pid = (int)getpid();
    t_start(&argc, &argv);
    if (comm_start(&argc, &argv, &world))
        return 1;
    comm_bcast(world, &pid, sizeof pid, 0);
    snprintf(path, sizeof path, "%.200s/ast-h5r-%d.h5", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", pid);
    write_file();
    T_RUN(datasets_read_back_with_their_shapes);
    T_RUN(attributes_and_listings_keep_their_order);
    T_RUN(what_is_not_there_is_said);
    T_RUN(files_that_are_cut_short_are_refused);
    with_python("h5py_reads_it", h5py_program, h5py_reads_it);
    with_python("xarray_reads_it", xarray_program, xarray_reads_it);
    T_RUN(results_are_described);
    if (world->rank == 0)
        unlink(path);
    comm_free(world);
    return t_done();
}
