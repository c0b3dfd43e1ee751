/* The form of results.h5, on a real small job: every dataset has a dimension scale on every dimension, units and a
 * description; every group that a reader opens holds its own scales, where netCDF's readers look for them. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "io/h5_read.h"
#include "sched/run.h"
#include "tests/t.h"

static char folder[64] = "/tmp/ast-form-XXXXXX";

static const char job[] =
    "name = \"form\";\n"
    "models = ( { path = \"data/asterism-S\"; } );\n"
    "methods = ( { method = \"dense\"; }, { method = \"window\"; keep = 16; } );\n"
    "tasks = ( { task = \"wikitext\"; name = \"english\"; data = \"data/samples/english.txt\"; lengths = [24, 48]; limit = 3; },\n"
    "  { task = \"wmt14\"; source = \"data/samples/en-de.en\"; reference = \"data/samples/en-de.de\"; max_new = 4; lengths = "
    "[128];\n"
    "    limit = 2; },\n"
    "  { task = \"retrieval\"; lengths = [300]; samples = 2; max_new = 4; },\n"
    "  { task = \"triviaqa\"; data = \"data/samples/triviaqa/qa/wikipedia-dev.json\"; lengths = [128]; limit = 2; max_new = 4; } "
    ");\n"
    "run = { threads = 1; sparsity = 8; };\n";

static int run(const char *results)
{
    char path[96], output[128];
    const char *override[] = {output};
    struct run_opts o = {.path = path, .overrides = override, .n_overrides = 1, .fresh = true, .command_line = "test"};
    struct run_result res = {0};
    snprintf(path, sizeof path, "%s/job.cfg", folder);
    snprintf(output, sizeof output, "output=%s", results);
    FILE *f = fopen(path, "w"), *table = fopen("/dev/null", "w");
    T_CHECK(f && fputs(job, f) >= 0 && table);
    if (f)
        fclose(f);
    int rc = run_job(&o, NULL, table, &res);
    if (table)
        fclose(table);
    return rc;
}

static int n_datasets;

static void check_dataset(const struct h5_reader *h, const char *path)
{
    struct h5_info i;
    struct buf text = {0};
    n_datasets++;
    T_EQ(h5_info(h, path, &i), ERR_OK);
    for (int d = 0; !h5_is_scale(h, path) && d < i.rank; d++)
        if (h5_scales_of(h, path, d) < 1)
            T_FAIL("%s has no scale on dimension %d", path, d);
    static const char *const needed[] = {"units", "long_name"};
    for (int k = 0; k < 2; k++) {
        buf_clear(&text);
        if (!h5_has_attr(h, path, needed[k]) || h5_read_attr(h, path, needed[k], &text) || text.len == 0)
            T_FAIL("%s has no %s", path, needed[k]);
    }
    buf_free(&text);
}

/* Depth first. */
static void walk(const struct h5_reader *h, const char *group)
{
    struct h5_names l = {0};
    int scales = 0, plain = 0;
    T_EQ(h5_children(h, group, &l), ERR_OK);
    for (int64_t k = 0; k < l.n; k++) {
        char path[512];
        struct h5_info i = {.class = H5_IS_GROUP};
        snprintf(path, sizeof path, "%s/%s", strcmp(group, "/") ? group : "", l.name[k]);
        if (h5_info(h, path, &i) || i.class == H5_IS_GROUP) {
            err_clear();
            walk(h, path);
        } else {
            check_dataset(h, path);
            scales += h5_is_scale(h, path);
            plain += !h5_is_scale(h, path);
        }
    }
    if (plain && !scales)
        T_FAIL("%s has no scale of its own", group);
    h5_names_free(&l);
}

static void every_dataset_says_what_it_is(void)
{
    char path[96];
    struct h5_reader *h = NULL;
    snprintf(path, sizeof path, "%s/out.h5", folder);
    T_EQ(run(path), ERR_OK);
    T_EQ(h5_open(&h, path), ERR_OK);
    if (!h)
        return;
    walk(h, "/");
    T_CHECK(n_datasets > 100);
    T_CHECK(h5_exists(h, "/samples/wmt14/text") && h5_exists(h, "/samples/triviaqa/f1"));
    T_CHECK(h5_exists(h, "/sparsity/mass_recall") && h5_exists(h, "/sparsity/map/kept"));
    h5_close(h);
}

static void the_version_of_hdf5_is_a_number(void)
{
    char path[96];
    struct h5_reader *h = NULL;
    struct buf text = {0};
    snprintf(path, sizeof path, "%s/out.h5", folder);
    T_EQ(h5_open(&h, path), ERR_OK);
    if (!h)
        return;
    T_EQ(h5_read_attr(h, "/code", "hdf5_version", &text), ERR_OK);
    T_CHECK(text.len > 0 && strspn(text.data, "0123456789.-patch") == text.len);
    buf_free(&text);
    h5_close(h);
}

int main(int argc, char **argv)
{
    char command[128];
    t_start(&argc, &argv);
    log_setup(0, LOG_WARN);
    if (!mkdtemp(folder))
        return 1;
    T_RUN(every_dataset_says_what_it_is);
    T_RUN(the_version_of_hdf5_is_a_number);
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    if (system(command))
        perror(folder);
    return t_done();
}
