/* A job from start to result file: read and check (all or none), compute (point to point only), merge (the survivors). */
#include "sched/run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/timer.h"
#include "comm/comm.h"
#include "comm/comm_msg.h"
#include "io/file.h"
#include "sched/costs.h"
#include "sched/deal.h"
#include "sched/exec.h"
#include "sched/gather.h"
#include "sched/identity.h"
#include "sched/job.h"
#include "sched/layout.h"
#include "sched/master.h"
#include "sched/merge.h"
#include "sched/proto.h"
#include "sched/status.h"
#include "sched/stop.h"
#include "sched/store.h"
#include "sched/summary.h"
#include "sched/watch.h"
#include "sched/work.h"
#include "sched/worker.h"

/* Limits of the watchdog, behind the heartbeats: rank 0 may read large datasets and digest large models at the start. */
enum { LINK_S = 600, START_S = 3600, MERGE_S = 1800 };
/* A rank that is silent for so long is dead, until the job says how long it may be. AST_DEAD_S says otherwise. */
static double early_dead_s(void)
{
    const char *s = getenv("AST_DEAD_S");
    double v = s ? strtod(s, NULL) : 0;
    return v > 0 ? v : 30;
}

struct run {
    const struct run_opts *o;
    const struct comm_group *world;
    struct job *job;
    struct work *work;
    struct store store;
    struct comm_link *link;
    struct exec *exec;
    int rank, ranks, threads, workers; /* workers: of this machine */
    int *tensor, n_phases;             /* (phases,) ranks of a group */
    int groups;                        /* of the phase that ran last, with its tensor */
    int last_tensor;
    size_t memory;
    int64_t *sizes;          /* (cells,) samples */
    struct attn_costs costs; /* zeros unless run.calibrate */
    struct worker_times times;
    uint8_t *dead; /* (ranks,) */
    struct master_result result;
    struct status status;
};

/* ---- start: every step ends in agreement ---- */

/* Rank 0 opens all datasets: what is wrong with one is said before anything is computed. The others open what they need. */
static int open_data(struct run *r)
{
    struct progress p;
    int rc = ERR_OK;
    r->sizes = calloc((size_t)r->work->n_cells, sizeof *r->sizes);
    if (!r->sizes)
        rc = err_set(ERR_NOMEM, "no memory for %d cells", r->work->n_cells);
    if (r->rank == 0) {
        progress_begin(&p, "reading datasets", r->work->n_sets);
        for (int i = 0; i < r->work->n_sets && !rc; i++) {
            rc = work_need(r->work, i);
            progress_update(&p, i + 1, NULL);
        }
        progress_end(&p);
        for (int i = 0; i < r->work->n_cells && !rc; i++)
            r->sizes[i] = r->work->set[r->work->cell[i].set].n;
    }
    rc = comm_agree(r->world, rc);
    if (!rc)
        comm_bcast(r->world, r->sizes, (size_t)r->work->n_cells * sizeof *r->sizes, 0);
    return rc;
}

/* Can the result be written where the job wants it? Asked before hours of computing. */
static int check_output(const struct run *r)
{
    char folder[FILE_PATH];
    int rc = file_folder(folder, r->job->output);
    rc = rc ? rc : file_make_folders(folder);
    rc = rc ? rc : file_folder_writable(folder);
    if (!rc && file_is_folder(r->job->output))
        rc = err_set(ERR_IO, "%s: the result file is to be written there, but it is a folder", r->job->output);
    return rc;
}

static int open_store(struct run *r)
{
    char job[SHA_HEX] = "";
    struct buf id = {0};
    int rc = ERR_OK;
    if (r->rank == 0) {
        rc = check_output(r);
        rc = rc ? rc : identity_work(r->work, &id);
        rc = rc ? rc : store_open(&r->store, r->job->output, buf_text(&id), r->o->fresh);
        buf_free(&id);
        snprintf(job, sizeof job, "%s", r->store.job);
    }
    rc = comm_agree(r->world, rc);
    if (rc)
        return rc;
    comm_bcast(r->world, job, sizeof job, 0);
    if (r->rank != 0)
        rc = store_join(&r->store, r->job->output, job);
    return comm_agree(r->world, rc);
}

static int open_exec(struct run *r)
{
    int rc = ERR_OK;
    if (r->rank > 0 || r->ranks == 1)
        rc = exec_open(&r->exec, r->work,
                       &(struct exec_opts){.memory = r->memory, .threads = r->threads, .rank = r->rank, .workers = r->workers});
    return comm_agree(r->world, rc);
}

/* How large the groups are that compute each dataset, decided by rank 0, which has read them. */
static int open_phases(struct run *r)
{
    int n = r->work->n_sets, rc = ERR_OK;
    double memory;
    r->memory = exec_memory(r->world, r->job->run.memory_gb);
    r->threads = exec_threads(r->world, r->job->run.threads);
    r->workers = exec_workers(r->world);
    memory = -(double)r->memory;
    comm_max_f64(r->world, &memory, 1); /* the smallest */
    r->tensor = calloc((size_t)n, sizeof *r->tensor);
    rc = comm_agree(r->world, r->tensor ? ERR_OK : err_set(ERR_NOMEM, "no memory for %d datasets", n));
    if (rc)
        return rc;
    if (r->rank == 0)
        layout_choose(r->work, r->ranks, (size_t)-memory);
    for (int i = 0; i < n; i++)
        comm_bcast(r->world, &r->work->set[i].tensor, sizeof r->work->set[i].tensor, 0);
    r->n_phases = layout_phases(r->work, r->tensor);
    return ERR_OK;
}

/* First of all the heartbeats: a rank that dies during the start must not leave the others waiting for it. */
static int open_link(struct run *r)
{
    int rc;
    if (r->ranks == 1)
        return ERR_OK;
    rc = comm_link_open(&r->link, r->world, &(struct comm_link_opts){.beat_s = 1, .orphan_s = early_dead_s(), .orphan_status = 75});
    if (!rc)
        comm_link_guard(r->link, early_dead_s(), "the start");
    return rc;
}

/* An orphan finishes its batch within the grace time, or its thread ends it. */
static void tune_link(struct run *r)
{
    const struct job_run *o = &r->job->run;
    if (!r->link)
        return;
    comm_link_tune(r->link, &(struct comm_link_opts){.beat_s = o->beat_s, .orphan_s = o->dead_s + o->grace_s, .orphan_status = 75});
    comm_link_guard(r->link, o->dead_s, "the start");
}

static int start(struct run *r)
{
    int rc = open_link(r);
    watch_begin(START_S, "the start");
    rc = rc ? rc : job_open_all(&r->job, r->o->path, r->o->overrides, r->o->n_overrides, r->world);
    if (rc)
        return rc;
    tune_link(r);
    rc = comm_agree(r->world, layout_check(r->job, r->ranks));
    rc = rc ? rc : comm_agree(r->world, work_open(&r->work, r->job));
    rc = rc ? rc : open_data(r);
    rc = rc ? rc : open_store(r);
    rc = rc ? rc : costs_open(r->job, r->store.folder, r->o->fresh, r->world, &r->costs);
    rc = rc ? rc : open_phases(r);
    return rc ? rc : open_exec(r);
}

static int compute(void *context, const struct exec_shard *s, struct outcome *o, int *reach)
{
    return exec_run(context, s, o, reach);
}

/* ---- the merge ---- */

static void describe_rank(const struct run *r, struct merge_rank *me)
{
    const struct worker_times *t = &r->times;
    *me = (struct merge_rank){.rank = r->rank,
                              .shards = t->shards,
                              .tokens = t->tokens,
                              .peak_bytes = (int64_t)mem_peak(),
                              .compute_s = t->compute_s,
                              .io_s = t->io_s,
                              .wait_s = t->wait_s,
                              .load_s = t->load_s};
    if (r->rank == 0 && r->ranks > 1) {
        me->deal_s = r->result.master_s;
        me->wait_s = r->result.wall_s - r->result.master_s;
    }
    gethostname(me->host, sizeof me->host - 1);
}

/* Of the workers: rank 0 deals out the work. */
static double busy_share(const struct merge_rank *rank, int n)
{
    double busy = 0, all = 0;
    for (int i = 1; i < n; i++) {
        busy += rank[i].compute_s + rank[i].load_s + rank[i].io_s;
        all += rank[i].compute_s + rank[i].load_s + rank[i].io_s + rank[i].wait_s;
    }
    return all > 0 ? busy / all : -1;
}

static const char *state_of(const struct run *r)
{
    return r->result.stopped ? "incomplete" : r->result.failed_samples ? "failed samples" : "complete";
}

static int merge(struct run *r, const struct comm_group *g, FILE *out)
{
    struct gathered *x = NULL;
    struct merge_rank me, *rank = NULL;
    char *all = NULL;
    size_t bytes;
    bool complete = !r->result.stopped;
    struct merge_info info = {.path = r->job->output,
                              .sizes = r->sizes,
                              .command_line = r->o->command_line,
                              .ranks = r->ranks,
                              .groups = r->groups,
                              .tensor = r->last_tensor,
                              .threads = r->threads,
                              .dead = r->result.n_dead,
                              .wall_s = r->result.wall_s,
                              .isa = r->job->run.isa,
                              .state = state_of(r),
                              .costs = r->costs};
    int rc = gather_open(&x, r->work, &r->store, r->sizes, g);
    if (rc)
        return rc;
    memcpy(info.code, r->o->code, sizeof info.code);
    describe_rank(r, &me);
    rc = comm_allgatherv(g, &me, sizeof me, &all, &bytes);
    if (!rc) {
        rank = (struct merge_rank *)(void *)all;
        info.rank = rank;
        info.n_ranks = (int)(bytes / sizeof me);
        rc = merge_write(r->work, x, &info, g);
    }
    if (!rc && r->rank == 0)
        summary_print(out, r->work, x,
                      &(struct summary_info){.results = r->job->output,
                                             .shards = r->store.folder,
                                             .complete = complete,
                                             .wall_s = r->result.wall_s,
                                             .ranks = r->ranks,
                                             .groups = r->groups,
                                             .threads = r->threads,
                                             .dead = r->result.n_dead,
                                             .busy = r->ranks > 1 ? busy_share(rank, info.n_ranks) : -1,
                                             .rank = rank,
                                             .n_ranks = info.n_ranks});
    free(all);
    gather_close(x);
    return rc;
}

/* The world, or what is left of it. */
static int merge_survivors(struct run *r, FILE *out)
{
    struct comm_group *alive = NULL;
    bool lost = false;
    int rc;
    for (int i = 0; i < r->ranks; i++)
        lost |= r->dead[i] != 0;
    watch_begin(MERGE_S, "the merge");
    if (r->link)
        comm_link_guard(r->link, r->job->run.dead_s, "the merge");
    if (lost)
        rc = comm_survivors(r->world, r->dead, &alive);
    else
        rc = ERR_OK;
    rc = rc ? rc : merge(r, lost ? alive : r->world, out);
    if (r->link)
        comm_link_guard(r->link, 0, "the merge");
    watch_end();
    /* The survivors' communicator is left to the end of the process: freeing it gains nothing. */
    return rc;
}

/* ---- phases ---- */

/* Rank 0 with others, or alone. */
static int lead(struct run *r, FILE *out)
{
    struct deal d = {
        .m = {.w = r->work, .store = &r->store, .link = r->link, .world = r->world, .compute = compute, .context = r->exec},
        .tensor = r->tensor,
        .n_phases = r->n_phases,
        .threads = r->threads};
    int64_t done = 0;
    int rc = deal_job(&d, &r->status, &r->result, &done);
    /* Not one cell could run: the job is wrong, and says why. What does not fit into memory is a result. */
    if (!rc && done == 0 && r->result.unable == r->work->n_cells && r->result.code != ERR_NOMEM)
        rc = err_set(r->result.code, "%s", r->result.why);
    if (!rc && r->result.full)
        rc = err_set(ERR_STOP, "%s: finished shards could not be written; make room, the same command goes on", r->store.folder);
    if (!r->result.dead)
        r->result.dead = calloc((size_t)r->ranks, 1);
    AST_ASSERT(r->result.dead != NULL);
    memcpy(r->dead, r->result.dead, (size_t)r->ranks);
    r->groups = d.layout.groups;
    r->last_tensor = d.layout.tensor;
    deal_end(&d, &r->result, rc ? PROTO_LEAVE : PROTO_MERGE);
    if (!rc) {
        status_end(&r->status, "merging");
        rc = merge_survivors(r, out);
        if (rc == ERR_IO || rc == ERR_PEER)
            rc = err_prefix(ERR_STOP, "the results could not be written; what was computed is kept, the same command goes on");
    }
    status_end(&r->status, rc ? "failed" : state_of(r));
    /* The lock is held until the result is in place. */
    store_close(&r->store);
    return rc;
}

/* A phase of another rank: its group, its shards. false: the master is gone. */
static bool work_phase(struct run *r, int phase, struct worker_end *end)
{
    struct layout l;
    struct comm_group *group = NULL;
    struct worker w = {
        .compute = compute, .context = r->exec, .store = &r->store, .link = r->link, .rank = r->rank, .dead_s = r->job->run.dead_s};
    AST_ASSERT(layout_open(&l, r->ranks, r->tensor[phase], r->dead) == ERR_OK); /* the master notices a rank that ends */
    int g = l.group_of[r->rank];
    if (g >= 0 && l.tensor > 1)
        comm_subset(r->world, &l.member[g * l.tensor], l.tensor, &group);
    layout_close(&l);
    exec_regroup(r->exec, group);
    w.group = group;
    bool alive = worker_run(&w, &r->times, end);
    if (alive) {
        exec_regroup(r->exec, NULL);
        comm_free(group);
    }
    return alive;
}

static int follow(struct run *r)
{
    struct worker_end *end = calloc(1, sizeof *end);
    AST_ASSERT(end != NULL);
    for (int phase = 0; phase == 0 || end->next == PROTO_PHASE; phase++) {
        AST_ASSERT(phase < r->n_phases);
        if (!work_phase(r, phase, end)) {
            log_warn("the master is gone; what was finished is kept, the same command goes on");
            fflush(NULL);
            _exit(75);
        }
        for (int i = 0; i < r->ranks; i++)
            r->dead[i] = end->dead[i / 8] >> i % 8 & 1;
    }
    int next = end->next;
    free(end);
    return next == PROTO_MERGE ? merge_survivors(r, NULL) : ERR_PEER;
}

int run_job(const struct run_opts *o, const struct comm_group *world, FILE *out, struct run_result *res)
{
    struct run *r = calloc(1, sizeof *r);
    int rc;
    *res = (struct run_result){0};
    AST_ASSERT(r != NULL);
    r->o = o;
    r->world = world;
    r->rank = world ? world->rank : 0;
    r->ranks = world ? world->size : 1;
    r->dead = calloc((size_t)r->ranks, 1);
    AST_ASSERT(r->dead != NULL);
    stop_catch();
    watch_begin(LINK_S, "the start");
    rc = start(r);
    watch_end();
    if (r->link)
        comm_link_guard(r->link, 0, "the start");
    if (!rc)
        rc = r->rank == 0 ? lead(r, out) : follow(r);
    stop_release();
    res->stopped = r->result.stopped;
    res->failed_samples = r->result.failed_samples;
    for (int i = 0; i < r->ranks; i++)
        res->lost_ranks |= r->dead[i] != 0;
    comm_link_close(r->link);
    if (!res->lost_ranks)
        exec_close(r->exec);
    store_close(&r->store);
    work_close(r->work);
    job_close(r->job);
    free(r->sizes);
    free(r->tensor);
    free(r->dead);
    free(r->result.dead);
    free(r);
    return rc;
}
