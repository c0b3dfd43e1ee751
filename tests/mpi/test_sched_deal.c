/* Master and workers over MPI with a computation that is only pretended: every sample done once, errors retried and
 * isolated, a stop leaves whole files, a second run goes on. With arguments it is the program of the kill tests
 * (tests/cli/test_run_kill.sh) and of the dispatch benchmark: test_sched_deal FOLDER SAMPLES MICROSECONDS, or "-" as
 * folder: nothing is committed. */
#include <signal.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "base/timer.h"
#include "comm/comm.h"
#include "comm/comm_msg.h"
#include "io/shardfile.h"
#include "model/model.h"
#include "sched/board.h"
#include "sched/exec.h"
#include "sched/gather.h"
#include "sched/job.h"
#include "sched/layout.h"
#include "sched/master.h"
#include "sched/outcome.h"
#include "sched/policy.h"
#include "sched/proto.h"
#include "sched/stop.h"
#include "sched/store.h"
#include "sched/work.h"
#include "sched/worker.h"
#include "tests/t.h"

enum { BATCH = 4 };

struct stage { /* a job of one cell, made by hand */
    struct job job;
    struct job_model model;
    struct job_method method;
    struct job_task task;
    struct work work;
    struct work_set set;
    struct work_cell cell;
    struct store store;
    int64_t n, sizes[1], *batch_at, bad, flaky; /* samples that fail always; once a rank */
    double *cost, sample_s;
    int calls;
    int64_t found; /* samples that an earlier run had finished */
};

static const struct comm_group *world;

static void set_stage(struct stage *s, int64_t n, const char *folder, double sample_s)
{
    *s = (struct stage){.n = n, .sizes = {n}, .bad = -1, .flaky = -1, .sample_s = sample_s};
    int64_t batches = (n + BATCH - 1) / BATCH;
    s->model = (struct job_model){.name = "fake", .info = {.layers = 2}};
    s->method.name = "none";
    s->task.name = "pretend";
    s->job = (struct job){
        .name = "stage", .n_models = 1, .n_methods = 1, .n_tasks = 1, .model = &s->model, .method = &s->method, .task = &s->task};
    s->job.run = (struct job_run){.tries = 3, .beat_s = 0.1, .dead_s = 20, .hang_s = 600, .grace_s = 5, .tensor = 1};
    s->batch_at = calloc((size_t)batches + 1, sizeof *s->batch_at);
    s->cost = calloc((size_t)batches, sizeof *s->cost);
    s->set = (struct work_set){.n = n, .n_batches = batches, .batch_at = s->batch_at, .order = calloc((size_t)n, 8)};
    for (int64_t k = 0; k < batches; k++) {
        s->batch_at[k + 1] = (k + 1) * BATCH < n ? (k + 1) * BATCH : n;
        s->cost[k] = BATCH * sample_s + 1e-6;
    }
    for (int64_t i = 0; i < n; i++)
        s->set.order[i] = n - 1 - i;
    s->work = (struct work){.job = &s->job, .n_sets = 1, .n_cells = 1, .set = &s->set, .cell = &s->cell};
    snprintf(s->store.folder, sizeof s->store.folder, "%s", folder);
    snprintf(s->store.job, sizeof s->store.job, "%064d", 7);
}

static void strike(struct stage *s)
{
    free(s->batch_at);
    free(s->cost);
    free(s->set.order);
}

static int pretend(void *context, const struct exec_shard *x, struct outcome *o, int *reach)
{
    struct stage *s = context;
    int rc = outcome_open(o, x->count, 1);
    *reach = EXEC_SHARD;
    o->cell = x->cell;
    o->first = x->first;
    o->n_counts = 2;
    o->n_sums = 1;
    o->group_size = 1;
    o->begin_s = timer_wall();
    s->calls++;
    for (; o->n < x->count && !rc; o->n++) {
        int64_t id = s->set.order[x->first + o->n];
        bool fails = id == s->bad || (id == s->flaky && s->calls == 1);
        if (x->go && o->n > 0 && o->n % BATCH == 0 && !x->go(x->context))
            break;
        if (s->sample_s > 0)
            nanosleep(&(struct timespec){0, (long)(s->sample_s * 1e9)}, NULL);
        if (fails && !x->isolate) {
            rc = err_set(ERR_FORMAT, "sample %lld cannot be computed", (long long)id);
            outcome_close(o);
            return rc;
        }
        o->sample[o->n] = id;
        o->acc[o->n].n[0] = id;
        o->acc[o->n].n[1] = id * id;
        o->acc[o->n].s[0] = 0.5 * (double)id;
        o->status[o->n] = fails ? OUTCOME_FAILED : OUTCOME_OK;
        o->failed += fails;
        o->tokens += 10;
        if (fails)
            rc = buf_puts(&o->reason[o->n], "it never works");
        else
            rc = buf_printf(&o->text[o->n], "sample %lld", (long long)id);
    }
    o->compute_s = timer_wall() - o->begin_s;
    o->end_s = timer_wall();
    return rc;
}

/* Deals the stage out over all ranks until done or stopped. Collective. */
static void play(struct stage *s, bool commit, struct master_result *out)
{
    struct comm_link *link = NULL;
    struct store_scan scan = {0};
    struct store *store = commit ? &s->store : NULL;
    struct layout layout;
    *out = (struct master_result){0};
    T_EQ(layout_open(&layout, world->size, 1, NULL), ERR_OK);
    if (world->size > 1)
        T_EQ(comm_link_open(&link, world,
                            &(struct comm_link_opts){.beat_s = s->job.run.beat_s, .orphan_s = 60, .orphan_status = 75}),
             ERR_OK);
    if (world->rank == 0) {
        struct board *board = NULL;
        struct board_cell cell = {.n = s->n, .n_batches = s->set.n_batches, .batch_at = s->batch_at, .batch_work = s->cost};
        struct board_opts o = {.policy = policy_find("longest_first"),
                               .n_groups = world->size > 1 ? world->size - 1 : 1,
                               .n_models = 1,
                               .tries = (int)s->job.run.tries,
                               .shard_s = commit ? 0.05 : 0};
        if (commit)
            T_EQ(store_scan(&s->store, &s->work, &scan), ERR_OK);
        s->found = scan.samples;
        cell.done = commit ? scan.done[0] : NULL;
        T_EQ(board_open(&board, &cell, 1, &o), ERR_OK);
        struct master m = {.board = board,
                           .w = &s->work,
                           .store = &s->store,
                           .link = link,
                           .world = world,
                           .compute = pretend,
                           .context = s,
                           .layout = &layout};
        T_EQ(master_run(&m, out), ERR_OK);
        if (link)
            master_end(&m, out, PROTO_MERGE);
        board_close(board);
        store_scan_free(&scan, 1);
    } else {
        struct worker w = {
            .compute = pretend, .context = s, .store = store, .link = link, .rank = world->rank, .dead_s = s->job.run.dead_s};
        struct worker_times t = {0};
        static struct worker_end end;
        if (!worker_run(&w, &t, &end)) {
            log_warn("the master is gone");
            _exit(75);
        }
    }
    layout_close(&layout);
    comm_link_close(link);
}

static char folder[256];

static void clean(void)
{
    char cmd[600];
    comm_barrier(world);
    snprintf(cmd, sizeof cmd, "rm -rf '%s' && mkdir -p '%s'", folder, folder);
    if (world->rank == 0 && system(cmd))
        T_FAIL("cannot prepare %s", folder);
    comm_barrier(world);
}

struct tally {
    const struct stage *s;
    int *ok, *failed;
};

static int count_file(void *context, const char *path, const char *name)
{
    struct tally *t = context;
    struct outcome o;
    (void)name;
    T_EQ(outcome_read(&o, path), ERR_OK);
    for (int64_t i = 0; i < o.n; i++) {
        int64_t id = o.sample[i];
        (o.status[i] == OUTCOME_OK ? t->ok : t->failed)[id]++;
        T_EQ(o.acc[i].n[1], id * id);
        if (o.status[i] == OUTCOME_OK) {
            char want[32];
            snprintf(want, sizeof want, "sample %lld", (long long)id);
            T_STR(buf_text(&o.text[i]), want);
        }
    }
    outcome_close(&o);
    return ERR_OK;
}

/* Every sample but `bad` is ok in exactly one file. */
static void check_files(const struct stage *s, int64_t bad)
{
    struct tally t = {s, calloc((size_t)s->n, sizeof(int)), calloc((size_t)s->n, sizeof(int))};
    comm_barrier(world);
    if (world->rank == 0) {
        T_EQ(shardfile_each(s->store.folder, count_file, &t), ERR_OK);
        for (int64_t i = 0; i < s->n; i++)
            if (t.ok[i] != (i != bad) || t.failed[i] != (i == bad))
                T_FAIL("sample %lld: %d times ok, %d times failed", (long long)i, t.ok[i], t.failed[i]);
    }
    free(t.ok);
    free(t.failed);
    comm_barrier(world);
}

static void every_sample_is_done_once(void)
{
    struct stage s;
    struct master_result r;
    clean();
    set_stage(&s, 203, folder, 0.0005);
    play(&s, true, &r);
    T_CHECK(!r.stopped && r.unable == 0 && r.failed_samples == 0);
    check_files(&s, -1);
    free(r.dead);
    strike(&s);
}

static void one_sample_that_never_works_fails_alone(void)
{
    struct stage s;
    struct master_result r;
    clean();
    set_stage(&s, 101, folder, 0.0002);
    s.bad = 55;
    play(&s, true, &r);
    if (world->rank == 0)
        T_EQ(r.failed_samples, 1);
    check_files(&s, 55);
    free(r.dead);
    strike(&s);
}

static void an_error_that_does_not_repeat_leaves_no_trace(void)
{
    struct stage s;
    struct master_result r;
    clean();
    set_stage(&s, 40, folder, 0.0002);
    s.flaky = 39; /* the first of the order */
    play(&s, true, &r);
    if (world->rank == 0)
        T_EQ(r.failed_samples, 0);
    check_files(&s, -1);
    free(r.dead);
    strike(&s);
}

static void a_signal_stops_in_order_and_a_second_run_goes_on(void)
{
    struct stage s;
    struct master_result r;
    clean();
    set_stage(&s, 400, folder, 0.002);
    stop_catch();
    if (world->rank == world->size - 1) { /* any rank may be the one that gets it */
        struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2};
        struct itimerspec at = {.it_value = {0, 100000000}};
        timer_t timer;
        T_EQ(timer_create(CLOCK_MONOTONIC, &e, &timer), 0);
        timer_settime(timer, 0, &at, NULL);
    }
    play(&s, true, &r);
    int64_t stopped = r.stopped;
    comm_bcast(world, &stopped, sizeof stopped, 0);
    T_CHECK(stopped);
    free(r.dead);
    stop_catch(); /* forgets it */
    int64_t calls = s.calls;
    play(&s, true, &r);
    T_CHECK(!r.stopped);
    check_files(&s, -1);
    comm_sum_i64(world, &calls, 1);
    T_CHECK(calls > 0);
    stop_release();
    free(r.dead);
    strike(&s);
}

static void cells_are_gathered_in_sample_order(void)
{
    struct stage s;
    struct master_result r;
    clean();
    set_stage(&s, 60, folder, 0);
    play(&s, true, &r);
    int sum = 0;
    int64_t sizes[6] = {10, 10, 1000, 1000, 500, 500};
    for (int k = 0; k < world->size; k++) {
        struct gather_part p = gather_range(sizes, 6, 2, k, world->size);
        T_CHECK(p.n == 0 || p.first == sum);
        T_EQ(p.n % 2, 0);
        sum += p.n;
    }
    T_EQ(sum, 6);
    check_files(&s, -1);
    free(r.dead);
    strike(&s);
}

/* The program for kill tests and benchmarks. */
static int serve(char **argv)
{
    struct stage s;
    struct master_result r;
    bool commit = strcmp(argv[1], "-") != 0;
    log_setup(world->rank, LOG_WARN);
    set_stage(&s, atoll(argv[2]), argv[1], atof(argv[3]) * 1e-6);
    s.job.run.dead_s = 1;
    double t0 = timer_now();
    play(&s, commit, &r);
    if (world->rank == 0) {
        struct tally t = {&s, calloc((size_t)s.n, sizeof(int)), calloc((size_t)s.n, sizeof(int))};
        double took = timer_now() - t0;
        int64_t once = 0;
        if (commit)
            T_EQ(shardfile_each(argv[1], count_file, &t), ERR_OK);
        for (int64_t i = 0; i < s.n; i++)
            once += t.ok[i] >= 1 && t.failed[i] == 0;
        printf("%.0f shards a second, master busy %.2f us a shard\n", (double)s.set.n_batches / took,
               r.master_s / (double)s.set.n_batches * 1e6);
        printf("found %lld computed %lld there %lld of %lld dead %d failed %lld\n", (long long)s.found, (long long)(r.tokens / 10),
               (long long)once, (long long)s.n, r.n_dead, (long long)r.failed_samples);
        fflush(stdout);
    }
    alarm(10); /* MPI_Finalize with dead ranks: see app/cmd_run.c */
    comm_stop();
    return r.stopped ? 75 : t_here != 0;
}

int main(int argc, char **argv)
{
    struct comm_group *w;
    if (comm_start(&argc, &argv, &w))
        return 1;
    world = w;
    t_rank = w->rank;
    if (argc > 3)
        return serve(argv);
    int pid = (int)getpid();
    comm_bcast(world, &pid, sizeof pid, 0);
    snprintf(folder, sizeof folder, "%s/ast-deal-%d", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", pid);
    log_setup(t_rank, LOG_ERROR + 1);
    T_RUN(every_sample_is_done_once);
    T_RUN(one_sample_that_never_works_fails_alone);
    T_RUN(an_error_that_does_not_repeat_leaves_no_trace);
    T_RUN(a_signal_stops_in_order_and_a_second_run_goes_on);
    T_RUN(cells_are_gathered_in_sample_order);
    clean();
    if (world->rank == 0)
        rmdir(folder);
    comm_free(w);
    return t_done();
}
