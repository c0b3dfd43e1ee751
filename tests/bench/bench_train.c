/* Training steps against the forward pass: FLOP/s of each, by count, interleaved, medians. Four sequences of 2048 tokens.
 *   bench_train [MODEL] [SEQUENCES] [TOKENS] [ROUNDS]      MODEL: ../shared/models/asterism-M, else a random one of its shape
 * forward: the engine's (f32, dense); net: training's own forward; all: every weight trained, dense; gates: AST, only gates
 * trained, soft choice; hard: norms trained through the hard choice. Work that is skipped is not counted. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/timer.h"
#include "io/file.h"
#include "kernels/linear.h"
#include "train/net.h"

enum { KINDS = 5, MOST = 15 };
static const char *const kinds[KINDS] = {"forward", "net", "all", "gates", "hard"};

struct bench {
    struct kern_table kern;
    struct net *net[3]; /* all, gates, norms with gates */
    struct back_rule *dense, *soft, *hard;
    struct model_batch b;
    struct arena step;
    double s[KINDS][MOST], flops[KINDS];
};

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Pairs under the causal mask of one head. */
static double forward_flops(const struct model_info *m, const struct model_batch *b)
{
    double n = (double)b->at[b->n_seq], pairs = 0;
    for (int64_t s = 0; s < b->n_seq; s++) {
        double len = (double)(b->at[s + 1] - b->at[s]);
        pairs += len * (len + 1) / 2;
    }
    return n * (m->flops_linear + m->flops_head) + 4 * pairs * (double)(m->heads * m->dim * m->layers);
}

static int engine(struct bench *b, int round)
{
    struct model *m = b->net[0]->model;
    float *nll = ARENA_NEW(&b->step, b->b.at[b->b.n_seq], float);
    struct model_out out = {.nll = nll};
    double t0 = timer_now();
    int rc = model_score(m, &b->b, &out, &b->step);
    b->s[0][round] = timer_now() - t0;
    b->flops[0] = forward_flops(model_info(m), &b->b);
    arena_release(&b->step, 0);
    return rc;
}

static int training(struct bench *b, int kind, int round)
{
    struct net *n = b->net[kind < 3 ? 0 : kind - 2];
    const struct back_rule *rule = kind < 3 ? b->dense : kind == 3 ? b->soft : b->hard;
    struct net_step s = {.b = &b->b, .rule = rule, .backward = kind > 1, .ce = 1};
    double t0 = timer_now();
    int rc = net_step(n, &s, &b->step);
    b->s[kind][round] = timer_now() - t0;
    b->flops[kind] = s.flops;
    return rc;
}

static int open_nets(struct bench *b, const char *path)
{
    static const unsigned train[] = {NET_WEIGHTS, NET_GATES, NET_NORMS};
    int rc = ERR_OK;
    for (int i = 0; !rc && i < 3; i++) {
        struct net_how how = {.path = path, .kern = &b->kern, .train = train[i], .gates = i > 0, .block = 16, .noise = 0.02};
        how.gate_tensors = 1 | 2 | 8;
        rc = net_open(&b->net[i], &how);
    }
    int64_t L = rc ? 0 : b->net[0]->shape->layers;
    struct back_rule *rule = calloc((size_t)(3 * L + 1), sizeof *rule);
    b->dense = rule, b->soft = rule + L, b->hard = rule + 2 * L;
    for (int64_t i = 0; i < 2 * L; i++) {
        rule[L + i] = (struct back_rule){.mask = i < L ? BACK_SOFT : BACK_HARD, .temperature = 0.3, .cut = -12};
        rule[L + i].select = (struct select_rule){.block = 16, .local = 64, .budget = SELECT_TOKENS, .keep = 512};
    }
    return rc;
}

static int open_batch(struct bench *b, int64_t seqs, int64_t len)
{
    int64_t *at = calloc((size_t)(seqs + 1), sizeof *at), n = seqs * len, vocab = b->net[0]->shape->vocab;
    int32_t *token = calloc((size_t)(2 * n), sizeof *token);
    for (int64_t i = 0; i < n; i++) {
        token[i] = (int32_t)((i * 7919 + i / 13) % vocab);
        token[n + i] = (int32_t)((i * 104729 + 3) % vocab);
    }
    for (int64_t s = 0; s <= seqs; s++)
        at[s] = s * len;
    b->b = (struct model_batch){.n_seq = seqs, .at = at, .token = token, .target = token + n};
    size_t most = model_score_bytes(b->net[0]->model, n, len, seqs) + arena_bytes(n, sizeof(float));
    for (int i = 0; i < 3; i++) {
        size_t need = net_step_bytes(b->net[i], i == 0 ? b->dense : b->soft, n, len, false);
        most = need > most ? need : most;
    }
    printf("memory of a step: at most %.0f MB\n", (double)most / 1e6);
    return arena_open(&b->step, "step", most);
}

int main(int argc, char **argv)
{
    static struct bench b;
    const char *path = argc > 1 ? argv[1] : "../shared/models/asterism-M";
    int64_t seqs = argc > 2 ? atoll(argv[2]) : 4, len = argc > 3 ? atoll(argv[3]) : 2048;
    int rounds = argc > 4 ? atoi(argv[4]) : 5;
    rounds = rounds < 1 ? 1 : rounds > MOST ? MOST : rounds;
    if (!file_exists(path)) {
        printf("skipped: %s is not there\n", path);
        return 0;
    }
    kern_select(&b.kern, NULL);
    int rc = open_nets(&b, path);
    rc = rc ? rc : open_batch(&b, seqs, len);
    for (int r = 0; !rc && r < rounds; r++)
        for (int k = 0; !rc && k < KINDS; k++)
            rc = k == 0 ? engine(&b, r) : training(&b, k, r);
    if (rc) {
        fprintf(stderr, "%s\n", err_text());
        return 1;
    }
    printf("%s, %lld x %lld tokens, %s, %s, median of %d\n", path, (long long)seqs, (long long)len, b.kern.isa, kern_blas_info(),
           rounds);
    printf("%-8s %9s %9s %9s %12s %10s\n", "step", "s", "GFLOP", "GFLOP/s", "of forward", "of net");
    double rate[KINDS];
    for (int k = 0; k < KINDS; k++) {
        qsort(b.s[k], (size_t)rounds, sizeof(double), by_size);
        double s = b.s[k][rounds / 2];
        rate[k] = b.flops[k] / s / 1e9;
        printf("%-8s %9.3f %9.1f %9.1f %12.2f %10.2f\n", kinds[k], s, b.flops[k] / 1e9, rate[k], rate[k] / rate[0],
               k ? rate[k] / rate[1] : 0);
    }
    for (int i = 0; i < 3; i++)
        net_close(b.net[i]);
    arena_close(&b.step);
    return 0;
}
