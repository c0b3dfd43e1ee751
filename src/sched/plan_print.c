/* The plan, for people. */
#include <math.h>

#include "base/log.h"
#include "sched/job.h"
#include "sched/plan.h"

static void print_cells(FILE *f, const struct plan *p)
{
    fprintf(f, "  %-40s %8s %8s %10s %10s %10s %10s\n", "cell", "samples", "batches", "tokens", "GFLOP", "attention", "group time");
    for (int i = 0; i < p->work->n_cells; i++) {
        const struct plan_cell *c = &p->cell[i];
        double all = c->cost.linear_flops + c->cost.attn_flops;
        char name[256], took[32];
        if (!c->asked)
            continue;
        work_cell_name(p->work, i, name, sizeof name);
        log_duration(c->seconds, took, sizeof took);
        fprintf(f, "  %-40s %8lld %8lld %10.0f %10.1f %8.0f %% %10s%s\n", name, (long long)c->samples, (long long)c->batches,
                c->cost.tokens, all / 1e9, all > 0 ? 100 * c->cost.attn_flops / all : 0, took,
                c->measured || !p->measured ? "" : " (from shorter ones)");
    }
}

/* Time to ask for: half as much again, in whole minutes, at least five. */
static void slurm_time(double wall_s, char *out, int cap)
{
    int minutes = (int)fmax(5, ceil(wall_s * 1.5 / 60 + 2));
    snprintf(out, (size_t)cap, "%02d:%02d:00", minutes / 60, minutes % 60);
}

static void print_layouts(FILE *f, const struct plan *p)
{
    fprintf(f, "\n  %8s %8s %8s %10s %12s %14s\n", "ranks", "threads", "tensor", "wall time", "efficiency", "memory a rank");
    for (int k = 0; k < p->n_layouts; k++) {
        const struct plan_layout *l = &p->layout[k];
        char wall[32], memory[32] = "unknown", tensor[16] = "as asked";
        log_duration(l->wall_s, wall, sizeof wall);
        if (l->rank_bytes > 0)
            log_bytes(l->rank_bytes, memory, sizeof memory);
        if (l->tensor > 0)
            snprintf(tensor, sizeof tensor, "%d", l->tensor);
        fprintf(f, "  %8d %8d %8s %10s %10.0f %% %14s%s%s\n", l->ranks, l->threads, tensor, wall, 100 * l->efficiency, memory,
                l->fits ? "" : "  does not fit", k == p->best ? "  <- recommended" : "");
    }
}

void plan_print(FILE *f, const struct plan *p, const struct plan_opts *o, const char *job_path)
{
    const struct plan_layout *l = &p->layout[0], *best = &p->layout[p->best];
    char wall[32], work[32], memory[32] = "unknown", limit[32], option[64] = "";
    log_duration(l->wall_s, wall, sizeof wall);
    log_duration(l->work_s, work, sizeof work);
    print_cells(f, p);
    if (l->rank_bytes > 0)
        log_bytes(l->rank_bytes, memory, sizeof memory);
    fprintf(f, "\non %d rank%s: %d group%s, %d thread%s each\n", o->ranks, o->ranks == 1 ? "" : "s", l->groups,
            l->groups == 1 ? "" : "s", p->threads, p->threads == 1 ? "" : "s");
    fprintf(f,
            "  shards        %lld\n  memory a rank %s\n  computing     %s of all ranks together\n  wall time     %s\n  efficiency  "
            "  %.0f %%\n",
            (long long)l->shards, memory, work, wall, 100 * l->efficiency);
    if (p->n_layouts > 1)
        print_layouts(f, p);
    if (best->tensor > 0)
        snprintf(option, sizeof option, " run.tensor=%d", best->tensor);
    slurm_time(best->wall_s, limit, sizeof limit);
    fprintf(f, "\n  sbatch -n %d -c %d -t %s --mem-per-cpu=%.0fM slurm/run.sbatch %s%s\n", best->ranks, best->threads, limit,
            fmax(256, ceil(best->rank_bytes * 1.3 / 1e6 / best->threads)), job_path, option);
}
