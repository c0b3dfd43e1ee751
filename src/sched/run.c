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
#include "sched/board.h"
#include "sched/exec.h"
#include "sched/gather.h"
#include "sched/identity.h"
#include "sched/job.h"
#include "sched/master.h"
#include "sched/merge.h"
#include "sched/policy.h"
#include "sched/proto.h"
#include "sched/stop.h"
#include "sched/store.h"
#include "sched/summary.h"
#include "sched/watch.h"
#include "sched/work.h"
#include "sched/worker.h"

/* Limits of the watchdog: rank 0 may read large datasets and digest large models at the start. */
enum { START_S = 3600, MERGE_S = 1800 };

struct run {
    const struct run_opts *o;
    const struct comm_group *world;
    struct comm_group *group; /* tensor parallel; NULL: this rank alone, or none */
    struct job *job;
    struct work *work;
    struct store store;
    struct comm_link *link;
    struct exec *exec;
    int rank, ranks, groups, tensor, threads, my_group; /* my_group -1: rank 0, or a rank too many */
    size_t memory;
    int64_t *sizes; /* (cells,) samples */
    struct worker_times times;
    uint8_t *dead; /* (ranks,) */
    struct master_result result;
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

static int open_groups(struct run *r)
{
    int color = -1, rc = ERR_OK;
    r->tensor = (int)r->job->run.tensor;
    r->groups = r->ranks > 1 ? proto_groups(r->ranks, r->tensor) : 1;
    if (r->ranks == 1 && r->tensor > 1)
        rc = err_set(ERR_ARG, "run.tensor = %d needs at least %d ranks: one deals out the work", r->tensor, r->tensor + 1);
    else if (r->groups < 1)
        rc = err_set(ERR_ARG, "run.tensor = %d needs at least %d ranks (one deals out the work), there are %d", r->tensor,
                     r->tensor + 1, r->ranks);
    if (rc)
        return rc;
    r->my_group = r->ranks > 1 ? proto_group_of(r->rank, r->ranks, r->tensor) : 0;
    if (r->rank == 0 && r->ranks > 1 && (r->ranks - 1) % r->tensor)
        log_warn("%d ranks fill no group of %d and stay idle", (r->ranks - 1) % r->tensor, r->tensor);
    if (r->ranks > 1 && r->my_group >= 0)
        color = r->my_group;
    return r->ranks > 1 && r->tensor > 1 ? comm_split(r->world, color, r->rank, &r->group) : ERR_OK;
}

static int open_exec(struct run *r)
{
    int rc = ERR_OK;
    r->memory = exec_memory(r->world, r->job->run.memory_gb);
    r->threads = exec_threads(r->world, r->job->run.threads);
    if (r->my_group >= 0)
        rc = exec_open(&r->exec, r->work,
                       &(struct exec_opts){.group = r->group, .memory = r->memory, .threads = r->threads, .rank = r->rank});
    return comm_agree(r->world, rc);
}

static int start(struct run *r)
{
    struct comm_link_opts link;
    int rc = job_open_all(&r->job, r->o->path, r->o->overrides, r->o->n_overrides, r->world);
    rc = rc ? rc : open_groups(r);
    rc = rc ? rc : comm_agree(r->world, work_open(&r->work, r->job));
    rc = rc ? rc : open_data(r);
    rc = rc ? rc : open_store(r);
    rc = rc ? rc : open_exec(r);
    if (rc || r->ranks == 1)
        return rc;
    /* An orphan finishes its batch within the grace time, or its thread ends it. */
    link = (struct comm_link_opts){
        .beat_s = r->job->run.beat_s, .orphan_s = r->job->run.dead_s + r->job->run.grace_s, .orphan_status = 75};
    return comm_link_open(&r->link, r->world, &link);
}

static int compute(void *context, const struct exec_shard *s, struct outcome *o, bool *fatal)
{
    return exec_run(context, s, o, fatal);
}

/* ---- rank 0 ---- */

static int cells_for_board(const struct run *r, const struct store_scan *scan, struct board_cell *cells)
{
    /* Corrected by the first shards; what matters at first is how the cells compare. */
    struct work_rate rate = {.linear = 3e10 * r->threads * r->tensor, .attn = 1e10 * r->threads * r->tensor};
    for (int i = 0; i < r->work->n_cells; i++) {
        const struct work_set *s = &r->work->set[r->work->cell[i].set];
        double *cost = calloc((size_t)s->n_batches, sizeof *cost);
        if (!cost)
            return err_set(ERR_NOMEM, "no memory for the cost of %lld batches", (long long)s->n_batches);
        for (int64_t k = 0; k < s->n_batches; k++) {
            struct work_cost c;
            work_cost(r->work, i, s->batch_at[k], s->batch_at[k + 1] - s->batch_at[k], &c);
            cost[k] = work_seconds(&c, &rate);
        }
        cells[i] = (struct board_cell){.model = r->work->cell[i].model,
                                       .n = s->n,
                                       .n_batches = s->n_batches,
                                       .batch_at = s->batch_at,
                                       .batch_work = cost,
                                       .done = scan->done[i]};
    }
    return ERR_OK;
}

static void say_resumed(const struct run *r, const struct store_scan *scan)
{
    int64_t all = 0;
    for (int i = 0; i < r->work->n_cells; i++)
        all += r->sizes[i];
    if (scan->samples > 0 || scan->damaged > 0)
        log_info("going on: %lld of %lld samples were finished before (%lld files%s)", (long long)scan->samples, (long long)all,
                 (long long)scan->files, scan->damaged ? ", damaged ones are computed again" : "");
}

static int deal(struct run *r)
{
    struct store_scan scan = {0};
    struct board *board = NULL;
    struct board_cell *cells = calloc((size_t)r->work->n_cells, sizeof *cells);
    struct board_opts o = {.policy = policy_find(r->job->run.policy),
                           .n_groups = r->groups,
                           .n_models = r->job->n_models,
                           .tries = (int)r->job->run.tries,
                           .shard_s = r->job->run.shard_s};
    struct master m = {.w = r->work,
                       .store = &r->store,
                       .link = r->link,
                       .world = r->world,
                       .compute = compute,
                       .context = r->exec,
                       .tensor = r->tensor};
    int rc = cells ? ERR_OK : err_set(ERR_NOMEM, "no memory for the schedule");
    rc = rc ? rc : store_scan(&r->store, r->work, &scan);
    rc = rc ? rc : cells_for_board(r, &scan, cells);
    rc = rc ? rc : board_open(&board, cells, r->work->n_cells, &o);
    if (!rc) {
        say_resumed(r, &scan);
        log_info("%s: %d cells, %lld shards, %d group%s of %d rank%s, %d thread%s each", r->job->name, r->work->n_cells,
                 (long long)board_shards(board), r->groups, r->groups == 1 ? "" : "s", r->tensor, r->tensor == 1 ? "" : "s",
                 r->threads, r->threads == 1 ? "" : "s");
        m.board = board;
        rc = master_run(&m, &r->result);
    }
    board_close(board);
    for (int i = 0; i < r->work->n_cells && cells; i++)
        free((double *)(uintptr_t)cells[i].batch_work);
    free(cells);
    store_scan_free(&scan, r->work->n_cells);
    if (rc) {
        r->result.fatal = true;
        r->result.code = rc;
    }
    return rc;
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
    gethostname(me->host, sizeof me->host - 1);
}

static double busy_share(const struct merge_rank *rank, int n)
{
    double busy = 0, all = 0;
    for (int i = 0; i < n; i++) {
        busy += rank[i].compute_s + rank[i].load_s + rank[i].io_s;
        all += rank[i].compute_s + rank[i].load_s + rank[i].io_s + rank[i].wait_s;
    }
    return all > 0 ? busy / all : -1;
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
                              .tensor = r->tensor,
                              .threads = r->threads,
                              .dead = r->result.n_dead,
                              .wall_s = r->result.wall_s,
                              .isa = r->job->run.isa,
                              .state = r->result.stopped          ? "incomplete"
                                       : r->result.failed_samples ? "failed samples"
                                                                  : "complete"};
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
                                             .busy = r->ranks > 1 ? busy_share(rank, info.n_ranks) : -1});
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
    if (lost)
        rc = comm_survivors(r->world, r->dead, &alive);
    else
        rc = ERR_OK;
    rc = rc ? rc : merge(r, lost ? alive : r->world, out);
    watch_end();
    /* The survivors' communicator is left to the end of the process: freeing it gains nothing. */
    return rc;
}

/* ---- phases ---- */

/* Rank 0 with others, or alone. */
static int lead(struct run *r, FILE *out)
{
    struct master m = {.link = r->link, .world = r->world, .tensor = r->tensor};
    int rc = deal(r);
    bool go_merge = !rc && !r->result.fatal;
    if (!r->result.dead)
        r->result.dead = calloc((size_t)r->ranks, 1);
    AST_ASSERT(r->result.dead != NULL);
    memcpy(r->dead, r->result.dead, (size_t)r->ranks);
    if (r->link)
        master_end(&m, &r->result, go_merge, 0);
    if (r->result.fatal)
        return r->result.code;
    rc = merge_survivors(r, out);
    /* The lock is held until the result is in place. */
    store_close(&r->store);
    return rc;
}

static int follow(struct run *r)
{
    struct worker w = {.compute = compute,
                       .context = r->exec,
                       .store = &r->store,
                       .link = r->link,
                       .group = r->group,
                       .rank = r->rank,
                       .dead_s = r->job->run.dead_s};
    struct worker_end *end = calloc(1, sizeof *end);
    AST_ASSERT(end != NULL);
    if (!worker_run(&w, &r->times, end)) {
        log_warn("the master is gone; what was finished is kept, the same command goes on");
        fflush(NULL);
        _exit(75);
    }
    for (int i = 0; i < r->ranks; i++)
        r->dead[i] = end->dead[i / 8] >> i % 8 & 1;
    bool go_merge = end->merge;
    free(end);
    return go_merge ? merge_survivors(r, NULL) : ERR_PEER;
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
    watch_begin(START_S, "the start");
    rc = start(r);
    watch_end();
    if (!rc)
        rc = r->rank == 0 ? lead(r, out) : follow(r);
    stop_release();
    res->stopped = r->result.stopped;
    res->failed_samples = r->result.failed_samples;
    for (int i = 0; i < r->ranks; i++)
        res->lost_ranks |= r->dead[i] != 0;
    comm_link_close(r->link);
    if (!res->lost_ranks) {
        exec_close(r->exec);
        comm_free(r->group);
    }
    store_close(&r->store);
    work_close(r->work);
    job_close(r->job);
    free(r->sizes);
    free(r->dead);
    free(r->result.dead);
    free(r);
    return rc;
}
