/* Files: paths, folders, durable writing that replaces or does not, gzipped text, checksums. */
#include "tests/t.h"

#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "io/file.h"

static char dir[64];

static const char *in_dir(const char *name)
{
    static char path[4][256];
    static int i;
    i = (i + 1) % 4;
    snprintf(path[i], sizeof path[i], "%s/%s", dir, name);
    return path[i];
}

static void said(const char *want)
{
    if (!strstr(err_text(), want))
        T_FAIL("\"%s\" lacks \"%s\"", err_text(), want);
    err_clear();
}

/* Entries of the folder, or -1. */
static int entries(void)
{
    char cmd[128];
    int n = -1;
    snprintf(cmd, sizeof cmd, "ls -A %s | wc -l", dir);
    FILE *p = popen(cmd, "r");
    if (p && fscanf(p, "%d", &n) != 1)
        n = -1;
    if (p)
        pclose(p);
    return n;
}

static void holds(const char *path, const char *want)
{
    struct buf b = {0};
    T_EQ(file_read_text(&b, path, 0), ERR_OK);
    T_STR(buf_text(&b), want);
    buf_free(&b);
}

static void paths_are_joined_and_cut(void)
{
    char p[FILE_PATH], longest[FILE_PATH + 10];
    T_EQ(file_join(p, "a", "b"), 0);
    T_STR(p, "a/b");
    T_EQ(file_join(p, "/", "b"), 0);
    T_STR(p, "/b");
    T_EQ(file_folder(p, "a/b/c"), 0);
    T_STR(p, "a/b");
    T_EQ(file_folder(p, "c"), 0);
    T_STR(p, ".");
    T_EQ(file_folder(p, "/c"), 0);
    T_STR(p, "/");
    T_STR(file_base("a/b/c"), "c");
    T_STR(file_base("c"), "c");
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    T_EQ(file_join(p, longest, "b"), ERR_ARG);
    said("a path of more than 4095 bytes");
    T_EQ(file_temp_name(p, longest), ERR_ARG);
    err_clear();
    T_EQ(file_make_folders(longest), ERR_ARG);
    err_clear();
}

static void what_cannot_be_read_or_written_says_why(void)
{
    T_EQ(file_readable(in_dir("no")), ERR_IO);
    said("no: No such file");
    T_EQ(file_readable(dir), ERR_IO);
    said("is a folder, a file is needed");
    T_EQ(file_folder_writable(in_dir("no")), ERR_IO);
    said("make the folder or name another");
    T_EQ(file_write_durable(in_dir("f"), "x", 1), 0);
    T_EQ(file_folder_writable(in_dir("f")), ERR_IO);
    said("is a file, a folder is needed");
    T_EQ(file_make_folders(in_dir("f/g")), ERR_IO);
    said("cannot make the folder");
    T_EQ(file_write_durable(in_dir("no/f"), "x", 1), ERR_IO);
    said("no/f");
    T_EQ(file_space(dir, 1), ERR_OK);
    T_EQ(file_space(dir, 1e30), ERR_IO);
    said("are needed and only");
    T_CHECK(file_bytes(in_dir("f")) == 1 && file_bytes(in_dir("no")) == -1);
    unlink(in_dir("f"));
}

static void folders_are_made_with_those_above_them(void)
{
    T_EQ(file_make_folders(in_dir("a/b//c/")), 0);
    T_CHECK(file_is_folder(in_dir("a/b/c")));
    T_EQ(file_make_folders(in_dir("a/b")), 0);
    T_CHECK(!file_is_folder(in_dir("no")) && file_exists(in_dir("a")));
}

static void a_durable_file_replaces_and_leaves_nothing_else(void)
{
    int before = entries();
    T_EQ(file_write_durable(in_dir("d"), "old", 3), 0);
    T_EQ(file_write_durable(in_dir("d"), "newer", 5), 0);
    holds(in_dir("d"), "newer");
    T_EQ(file_copy(in_dir("d"), in_dir("e")), 0);
    holds(in_dir("e"), "newer");
    T_EQ(entries(), before + 2);
}

static void publishing_without_replacing_keeps_the_first(void)
{
    bool existed = true;
    int before = entries();
    T_EQ(file_write_durable(in_dir("t1"), "first", 5), 0);
    T_EQ(file_publish_noreplace(in_dir("t1"), in_dir("p"), &existed), 0);
    T_CHECK(!existed);
    T_EQ(file_write_durable(in_dir("t2"), "second", 6), 0);
    T_EQ(file_publish_noreplace(in_dir("t2"), in_dir("p"), &existed), 0);
    T_CHECK(existed && !file_exists(in_dir("t2")));
    holds(in_dir("p"), "first");
    T_EQ(entries(), before + 1);
    T_EQ(file_publish_noreplace(in_dir("t3"), in_dir("q"), &existed), ERR_IO);
    said("cannot be renamed");
}

static void temporary_names_differ(void)
{
    char a[FILE_PATH], b[FILE_PATH];
    T_EQ(file_temp_name(a, "x"), 0);
    T_EQ(file_temp_name(b, "x"), 0);
    T_CHECK(strcmp(a, b) != 0 && strncmp(a, "x.tmp-", 6) == 0);
}

static void text_is_read_plain_or_gzipped(void)
{
    char cmd[256];
    struct buf b = {0};
    T_EQ(file_write_durable(in_dir("plain"), "line\nline\n", 10), 0);
    snprintf(cmd, sizeof cmd, "cd %s && gzip -k plain && (cat plain.gz; gzip -c plain) > two.gz && head -c 20 plain.gz > cut.gz",
             dir);
    T_EQ(system(cmd), 0);
    holds(in_dir("plain"), "line\nline\n");
    holds(in_dir("plain.gz"), "line\nline\n");
    holds(in_dir("two.gz"), "line\nline\nline\nline\n");
    T_EQ(file_read_text(&b, in_dir("cut.gz"), 0), ERR_FORMAT);
    said("cut.gz: damaged or cut short");
    buf_clear(&b);
    T_EQ(file_read_text(&b, in_dir("plain.gz"), 9), ERR_FORMAT);
    said("longer than 9 bytes");
    buf_clear(&b);
    T_EQ(file_write_durable(in_dir("empty"), "", 0), 0);
    T_EQ(file_read_text(&b, in_dir("empty"), 0), 0);
    T_EQ(b.len, 0);
    buf_free(&b);
}

static void checksums_continue(void)
{
    /* the check value of CRC-32 in the usual catalogues */
    T_EQ(file_crc32(0, "123456789", 9), 0xcbf43926);
    T_EQ(file_crc32(file_crc32(0, "1234", 4), "56789", 5), 0xcbf43926);
}

int main(int argc, char **argv)
{
    char cmd[80];
    t_start(&argc, &argv);
    snprintf(dir, sizeof dir, "/tmp/ast-file-XXXXXX");
    if (!mkdtemp(dir))
        return 1;
    T_RUN(paths_are_joined_and_cut);
    T_RUN(what_cannot_be_read_or_written_says_why);
    T_RUN(folders_are_made_with_those_above_them);
    T_RUN(a_durable_file_replaces_and_leaves_nothing_else);
    T_RUN(publishing_without_replacing_keeps_the_first);
    T_RUN(temporary_names_differ);
    T_RUN(text_is_read_plain_or_gzipped);
    T_RUN(checksums_continue);
    snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
    return system(cmd) != 0 || t_done();
}
