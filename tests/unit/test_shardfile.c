/* Shard files: whole or absent at every crash point, damage is seen, nothing is replaced, one owner at a time. */
#include "io/shardfile.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "io/file.h"
#include "tests/t.h"

static char dir[256];
static int64_t ids[3] = {7, 8, 9};
static const char words[] = "three short words";

static int commit(int64_t first, bool *dup)
{
    int64_t v[3] = {first, ids[1], ids[2]};
    struct shardfile_section s[] = {{"ids", v, sizeof v}, {"empty", NULL, 0}, {"text", words, 17}};
    return shardfile_commit(dir, "a.shard", s, 3, dup);
}

static char *path_of(const char *name)
{
    static char p[512];
    snprintf(p, sizeof p, "%s/%s", dir, name);
    return p;
}

static void clean(void)
{
    char cmd[600];
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    if (system(cmd) || file_make_folders(dir))
        T_FAIL("cannot prepare %s", dir);
}

static int64_t first_id(void)
{
    struct shardfile *f = NULL;
    size_t n;
    int64_t v = -1;
    if (shardfile_read(&f, path_of("a.shard")) == ERR_OK && shardfile_get(f, "ids", &n) && n == sizeof ids)
        memcpy(&v, shardfile_get(f, "ids", &n), 8);
    shardfile_close(f);
    err_clear();
    return v;
}

static void what_is_committed_reads_back(void)
{
    struct shardfile *f = NULL;
    size_t n = 99;
    clean();
    T_EQ(commit(7, NULL), ERR_OK);
    T_EQ(shardfile_read(&f, path_of("a.shard")), ERR_OK);
    if (!f)
        return;
    const int64_t *v = shardfile_get(f, "ids", &n);
    T_EQ(n, sizeof ids);
    T_CHECK(v && v[0] == 7 && v[2] == 9);
    T_CHECK((uintptr_t)v % 8 == 0);
    const char *t = shardfile_get(f, "text", &n);
    T_CHECK(t && n == 17 && !memcmp(t, words, 17));
    shardfile_get(f, "empty", &n);
    T_EQ(n, 0);
    T_CHECK(shardfile_get(f, "absent", &n) == NULL);
    shardfile_close(f);
}

static void a_second_attempt_never_replaces_the_first(void)
{
    bool dup = true;
    clean();
    T_EQ(commit(1, &dup), ERR_OK);
    T_CHECK(!dup);
    T_EQ(commit(2, &dup), ERR_OK);
    T_CHECK(dup);
    T_EQ(first_id(), 1);
}

static void damage_to_any_byte_is_seen(void)
{
    struct buf whole = {0};
    clean();
    T_EQ(commit(1, NULL), ERR_OK);
    T_EQ(buf_read_file(&whole, path_of("a.shard"), 0), ERR_OK);
    for (size_t cut = 0; cut < whole.len; cut++) {
        struct shardfile *f = NULL;
        for (int torn = 0; torn < 2; torn++) {
            FILE *o = fopen(path_of("t.shard"), "wb");
            whole.data[cut] ^= (char)(torn ? 0 : 0x10);
            fwrite(whole.data, 1, torn ? cut : whole.len, o);
            whole.data[cut] ^= (char)(torn ? 0 : 0x10);
            fclose(o);
            int rc = shardfile_read(&f, path_of("t.shard"));
            if (rc != ERR_FORMAT)
                T_FAIL("byte %zu %s: read gives %d", cut, torn ? "cut off" : "flipped", rc);
            shardfile_close(f);
            err_clear();
        }
    }
    buf_free(&whole);
}

static void a_damaged_file_gives_way_to_a_new_attempt(void)
{
    bool dup = true;
    clean();
    T_EQ(commit(1, NULL), ERR_OK);
    T_EQ(truncate(path_of("a.shard"), 40), 0);
    T_EQ(first_id(), -1);
    T_EQ(commit(5, &dup), ERR_OK);
    T_CHECK(!dup);
    T_EQ(first_id(), 5);
}

/* Runs the commit in a child and kills it at its k-th system call; false: it got to its end before. */
static bool kill_at(int k)
{
    int st, n = 0;
    pid_t p = fork();
    if (p == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        commit(3, NULL);
        _exit(0);
    }
    waitpid(p, &st, 0);
    while (!WIFEXITED(st) && !WIFSIGNALED(st)) {
        ptrace(PTRACE_SYSCALL, p, NULL, NULL);
        if (waitpid(p, &st, 0) != p)
            return false;
        if (WIFSTOPPED(st) && ++n == k) {
            kill(p, SIGKILL);
            waitpid(p, &st, 0);
            return true;
        }
    }
    return false;
}

static void a_kill_at_any_system_call_leaves_all_or_nothing(void)
{
    int absent = 0, whole = 0;
    for (int k = 1; k < 500; k++) {
        clean();
        if (!kill_at(k))
            break;
        if (access(path_of("a.shard"), F_OK)) {
            absent++;
        } else {
            whole++;
            T_EQ(first_id(), 3);
        }
        bool dup;
        T_EQ(commit(4, &dup), ERR_OK);
        T_EQ(first_id(), dup ? 3 : 4);
        shardfile_sweep(dir, -1);
    }
    T_CHECK(absent >= 10);
    T_CHECK(whole >= 4);
}

static void a_full_disk_publishes_nothing(void)
{
    struct rlimit was, tight = {60, 60};
    clean();
    getrlimit(RLIMIT_FSIZE, &was);
    tight.rlim_max = was.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &tight);
    int rc = commit(1, NULL);
    setrlimit(RLIMIT_FSIZE, &was);
    T_EQ(rc, ERR_IO);
    T_CHECK(strstr(err_text(), "a.shard") != NULL);
    err_clear();
    T_CHECK(access(path_of("a.shard"), F_OK) != 0);
    T_EQ(commit(1, NULL), ERR_OK);
}

static int list(void *context, const char *path, const char *name)
{
    (void)path;
    strcat(context, name);
    strcat(context, " ");
    return ERR_OK;
}

static void files_come_in_name_order_and_leftovers_are_swept(void)
{
    char names[512] = "";
    struct shardfile_section s = {"x", "y", 1};
    clean();
    T_EQ(shardfile_commit(dir, "b.shard", &s, 1, NULL), ERR_OK);
    T_EQ(shardfile_commit(dir, "a.shard", &s, 1, NULL), ERR_OK);
    T_EQ(close(open(path_of("c.shard.tmp-host-1-2"), O_CREAT | O_WRONLY, 0666)), 0);
    T_EQ(shardfile_each(dir, list, names), ERR_OK);
    T_STR(names, "a.shard b.shard ");
    shardfile_sweep(dir, 3600);
    T_EQ(access(path_of("c.shard.tmp-host-1-2"), F_OK), 0);
    shardfile_sweep(dir, -1);
    T_CHECK(access(path_of("c.shard.tmp-host-1-2"), F_OK) != 0);
    T_EQ(shardfile_each("/nonexistent/folder", list, names), ERR_OK);
}

static void one_master_owns_a_folder_until_it_dies(void)
{
    struct shardfile_lock *l = NULL;
    int go[2], st;
    char c;
    clean();
    if (pipe(go))
        return;
    pid_t p = fork();
    if (p == 0) {
        struct shardfile_lock *mine = NULL;
        c = shardfile_lock(&mine, dir, 30) == ERR_OK ? 'y' : 'n';
        if (write(go[1], &c, 1) == 1)
            pause();
        _exit(1);
    }
    T_EQ(read(go[0], &c, 1), 1);
    T_EQ(c, 'y');
    T_EQ(shardfile_lock(&l, dir, 30), ERR_ARG);
    T_CHECK(strstr(err_text(), "another master") != NULL);
    err_clear();
    kill(p, SIGKILL);
    waitpid(p, &st, 0);
    T_EQ(shardfile_lock(&l, dir, 30), ERR_OK);
    shardfile_unlock(l);
    close(go[0]);
    close(go[1]);
}

static void a_fresh_stamp_of_another_host_is_respected(void)
{
    struct shardfile_lock *l = NULL;
    clean();
    FILE *f = fopen(path_of("lock"), "w");
    fprintf(f, "another-host 12 %.0f now\n", (double)time(NULL));
    fclose(f);
    T_EQ(shardfile_lock(&l, dir, 30), ERR_ARG);
    T_CHECK(strstr(err_text(), "another-host") != NULL);
    err_clear();
    f = fopen(path_of("lock"), "w");
    fprintf(f, "another-host 12 %.0f then\n", (double)time(NULL) - 1000);
    fclose(f);
    T_EQ(shardfile_lock(&l, dir, 30), ERR_OK);
    shardfile_unlock(l);
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    snprintf(dir, sizeof dir, "%s/ast-shardfile-%ld", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", (long)getpid());
    T_RUN(what_is_committed_reads_back);
    T_RUN(a_second_attempt_never_replaces_the_first);
    T_RUN(damage_to_any_byte_is_seen);
    T_RUN(a_damaged_file_gives_way_to_a_new_attempt);
    T_RUN(a_kill_at_any_system_call_leaves_all_or_nothing);
    T_RUN(a_full_disk_publishes_nothing);
    T_RUN(files_come_in_name_order_and_leftovers_are_swept);
    T_RUN(one_master_owns_a_folder_until_it_dies);
    T_RUN(a_fresh_stamp_of_another_host_is_respected);
    clean();
    rmdir(dir);
    return t_done();
}
