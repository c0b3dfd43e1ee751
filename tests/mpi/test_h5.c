/* Columns written by several ranks read back whole, by HDF5 itself. */
#include "io/h5.h"

#include <hdf5.h>
#include <unistd.h>

#include "base/err.h"
#include "comm/comm.h"
#include "tests/t.h"

static struct comm_group *world;
static char path[300];

static void read_i64(const char *name, int64_t *v)
{
    hid_t f = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT), d = H5Dopen2(f, name, H5P_DEFAULT);
    T_CHECK(H5Dread(d, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, v) >= 0);
    H5Dclose(d);
    H5Fclose(f);
}

static void rows_of_all_ranks_make_one_column(bool compress)
{
    enum { N = 1000 };
    struct h5 *f = NULL;
    int64_t v[N], got[2 * N], first = 0, count;
    int p = world->size, r = world->rank;
    /* uneven parts; rank 1 has nothing */
    count = r == 1 ? 0 : N / p;
    for (int q = 0; q < r; q++)
        first += q == 1 ? 0 : N / p;
    int64_t total = (p > 1 ? p - 1 : 1) * (int64_t)(N / p);
    for (int64_t i = 0; i < count; i++)
        v[i] = (first + i) * (first + i);
    T_EQ(h5_create(&f, path, world, compress), ERR_OK);
    if (!f)
        return;
    h5_write(f, &(struct h5_column){.path = "/a/b/squares",
                                    .type = H5_I64,
                                    .rows = total,
                                    .first = first,
                                    .count = count,
                                    .data = v,
                                    .unit = "1",
                                    .about = "squares"});
    h5_write(
        f,
        &(struct h5_column){
            .path = "/a/pairs", .type = H5_I64, .rows = total / 2, .width = 2, .first = first / 2, .count = count / 2, .data = v});
    h5_write(f, &(struct h5_column){.path = "/a/none", .type = H5_F64});
    h5_strings(f, "/a/words", (const char *const[]){"one", "zwölf", ""}, 3, NULL);
    h5_strings(f, "/a/no_words", NULL, 0, NULL);
    h5_attr_text(f, "/a", "title", "a t\xc3\xa4st");
    h5_attr_i64(f, "/", "n", 7);
    h5_scale(f, "/a/b/squares", "row");
    T_EQ(h5_commit(f), ERR_OK);
    comm_barrier(world);
    if (r == 0) {
        read_i64("/a/b/squares", got);
        for (int64_t i = 0; i < total; i++)
            if (got[i] != i * i) {
                T_FAIL("row %lld is %lld", (long long)i, (long long)got[i]);
                break;
            }
        read_i64("/a/pairs", got);
        T_EQ(got[5], 25);
    }
    comm_barrier(world);
}

static void plain_columns_are_whole(void)
{
    rows_of_all_ranks_make_one_column(false);
}

static void compressed_columns_are_whole(void)
{
    rows_of_all_ranks_make_one_column(true);
}

static void a_failure_is_reported_once_and_leaves_no_file(void)
{
    struct h5 *f = NULL;
    if (world->rank == 0)
        unlink(path);
    comm_barrier(world);
    T_EQ(h5_create(&f, path, world, false), ERR_OK);
    h5_attr_i64(f, "/absent", "n", 1);
    T_EQ(h5_commit(f), ERR_IO);
    T_CHECK(strstr(err_text(), "/absent") != NULL);
    err_clear();
    comm_barrier(world);
    T_CHECK(access(path, F_OK) != 0);
    T_CHECK(h5_create(&f, "/proc/none/x.h5", world, false) != ERR_OK);
    err_clear();
}

int main(int argc, char **argv)
{
    int pid = (int)getpid();
    t_start(&argc, &argv);
    if (comm_start(&argc, &argv, &world))
        return 1;
    comm_bcast(world, &pid, sizeof pid, 0);
    snprintf(path, sizeof path, "%.200s/ast-h5-%d.h5", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", pid);
    T_RUN(plain_columns_are_whole);
    T_RUN(compressed_columns_are_whole);
    T_RUN(a_failure_is_reported_once_and_leaves_no_file);
    unlink(path);
    comm_free(world);
    return t_done();
}
