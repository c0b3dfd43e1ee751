/* The scheduler against its bounds: the policy in virtual time with real lengths, the real master with empty shards, the
 * groups' waiting in the demo. Each figure is printed beside what is asked of it.
 *   usage: bench_sched [RANKS of the demo, default 3]      from the repository's root, after `make tests` */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/rng.h"
#include "base/timer.h"
#include "sched/board.h"
#include "sched/policy.h"
#include "sched/simulate.h"

enum { LENGTHS_MAX = 40000, CELLS_MAX = 64, BATCHES = 25000 };

struct lengths { /* tokens of samples */
    double v[LENGTHS_MAX];
    int n;
    const char *from;
};

/* One length a line: words of a sentence (1.3 tokens each), or the second column of a trace (prompt tokens). */
static void read_lengths(struct lengths *l, const char *path, bool trace)
{
    char line[65536];
    FILE *f = fopen(path, "r");
    l->n = 0;
    l->from = path;
    while (f && l->n < LENGTHS_MAX && fgets(line, sizeof line, f)) {
        const char *comma = strchr(line, ',');
        double tokens = 0;
        if (trace)
            tokens = comma ? strtod(comma + 1, NULL) : 0;
        else
            for (const char *s = line; *s; s++)
                tokens += *s == ' ' || *s == '\n' ? 1.3 : 0;
        if (tokens >= 1)
            l->v[l->n++] = tokens;
    }
    if (f)
        fclose(f);
}

struct sim {
    struct board_cell cell[CELLS_MAX];
    int n;
    double total, longest;
};

static int descending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

/* Batches of one sample each, longest first as the real ones are; seconds of a 1.1 B-shaped model on a group of 1e12
 * operations a second: 2.2e9 a token, and 22 layers x 32 heads x 64 x 4 a pair (dense: half of L^2; sparse: 512 a token). */
static int add_cell(struct sim *s, const struct lengths *l, double most, bool dense, uint64_t seed)
{
    int64_t *at = calloc(BATCHES + 1, sizeof *at);
    double *work = calloc(BATCHES, sizeof *work);
    if (!at || !work)
        return err_set(ERR_NOMEM, "no memory for the simulation");
    for (int k = 0; k < BATCHES; k++) {
        double len = l ? fmin(most, l->v[rng_below(seed, 1, (uint64_t)k, (uint64_t)l->n)]) : most;
        double pairs = dense ? len * len / 2 : fmin(len * len / 2, 512 * len);
        at[k + 1] = k + 1;
        work[k] = (2.2e9 * len + 22 * 32 * 64 * 4.0 * pairs) / 1e12;
    }
    qsort(work, BATCHES, sizeof *work, descending);
    for (int k = 0; k < BATCHES; k++) {
        s->total += work[k];
        s->longest = fmax(s->longest, work[k]);
    }
    s->cell[s->n++] =
        (struct board_cell){.model = (int)(seed % 2), .n = BATCHES, .n_batches = BATCHES, .batch_at = at, .batch_work = work};
    return ERR_OK;
}

/* A machine 2.5 times slower than thought, with 20 % spread from shard to shard. */
static double real_time(void *context, const struct shard *s)
{
    (void)context;
    return s->work * 2.5 * exp(0.2 * rng_normal(9, (uint64_t)s->cell, (uint64_t)s->first));
}

static int run_sim(const struct sim *s, int groups)
{
    struct board *b = NULL;
    struct simulated r;
    struct board_opts o = {.policy = policy_find("longest_first"), .n_groups = groups, .n_models = 2, .tries = 3, .shard_s = 0};
    int rc = board_open(&b, s->cell, s->n, &o);
    double t0 = timer_now();
    rc = rc ? rc : simulate(b, groups, real_time, NULL, &r);
    double us = rc ? 0 : (timer_now() - t0) / (double)r.shards * 1e6;
    board_close(b);
    if (!rc)
        printf("  %6d groups %8lld shards   makespan %.4f of the lower bound (asked: 1.03)   master %.2f us a shard (asked: 20)\n",
               groups, (long long)r.shards, r.makespan_s / fmax(r.work_s / groups, r.longest_s), us);
    return rc;
}

static int bench_policy(void)
{
    static struct lengths source[3];
    static const char *const path[3] = {"../shared/data/eval/newstest2014.en",
                                        "../shared/data/eval/AzureLLMInferenceTrace_conv.csv",
                                        "../shared/data/eval/AzureLLMInferenceTrace_code.csv"};
    static const double window[3] = {512, 2048, 8192};
    struct sim s = {0};
    int rc = ERR_OK;
    printf("policy in virtual time: 40 cells, 1,000,000 shards; lengths of windows (512, 2048, 8192)");
    for (int k = 0; k < 3; k++) {
        read_lengths(&source[k], path[k], k > 0);
        if (source[k].n > 0)
            printf(", %s", strrchr(path[k], '/') + 1);
    }
    printf("\n");
    for (uint64_t c = 0; c < 40 && !rc; c++) {
        const struct lengths *l = c % 5 < 3 && source[c % 5].n > 0 ? &source[c % 5] : NULL;
        rc = add_cell(&s, l, l ? 8192 : window[c % 3], c % 2 == 0, c + 1);
    }
    for (int groups = 100; groups <= 10000 && !rc; groups *= 10)
        rc = run_sim(&s, groups);
    for (int i = 0; i < s.n; i++) {
        free((int64_t *)(uintptr_t)s.cell[i].batch_at);
        free((double *)(uintptr_t)s.cell[i].batch_work);
    }
    return rc;
}

/* Runs a command and shows its lines that hold `what`; the program prints its own figures. */
static int show(const char *title, const char *command, const char *what)
{
    char line[1024];
    int shown = 0;
    printf("%s\n", title);
    fflush(stdout);
    FILE *p = popen(command, "r");
    while (p && fgets(line, sizeof line, p))
        if (strstr(line, what)) {
            printf("  %s", line);
            shown++;
        }
    if (p)
        pclose(p);
    return shown ? ERR_OK : err_set(ERR_IO, "'%s' did not say what was expected", command);
}

int main(int argc, char **argv)
{
    static const char mpi[] =
        "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_pml=ob1 "
        "OMPI_MCA_btl=self,vader OMPI_MCA_btl_vader_single_copy_mechanism=none OMP_WAIT_POLICY=passive OMPI_MCA_sharedfp=^sm "
        "mpirun --oversubscribe --bind-to none";
    char command[1024];
    int rc = bench_policy();
    snprintf(command, sizeof command, "%s -np 8 build/tests/mpi/test_sched_deal - 800000 0 2>/dev/null </dev/null", mpi);
    rc = rc ? rc
            : show("dispatch: empty shards through the real master, 7 workers (asked: 20000 shards a second)", command,
                   "shards a second");
    snprintf(command, sizeof command,
             "%s -np %d build/asterism run jobs/demo.cfg output=build/bench/demo.h5 run.threads=1 --quiet --fresh 2>/dev/null "
             "</dev/null",
             mpi, argc > 1 ? atoi(argv[1]) : 3);
    rc = rc ? rc : show("the demo: share of the groups' time that is not waiting (asked: more than 98 %)", command, "of the time");
    if (rc)
        fprintf(stderr, "%s\n", err_text());
    return rc != ERR_OK;
}
