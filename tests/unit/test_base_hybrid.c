/* The hybrid's predictor against its definition in double precision: every candidate's mask, its share of dense attention's mass
 * on sampled rows, the choice for the segment after, and the rows that come of it. */
#include "tests/unit/test_base.h"

enum { KEEP = 64, SINK = 16, LOCAL = 16, STRIDE = 16, SEGMENT = 64, EVERY = 16, PICKS = (KEEP - SINK - LOCAL) / 16 };
enum { STREAMING, WINDOW, STRIDED, BLOCKS, DENSE, CANDIDATES };

struct model {          /* one query head */
    double s[B_N][B_N]; /* logits, j <= t */
    double v[B_N][B_D];
    double mean[B_N / 16][B_D], q[B_N][B_D];
    int64_t window;
    double margin; /* how clear the closest call was */
};

static void load(struct model *m, const struct base *b, int64_t h)
{
    int64_t g = h / (B_H / B_G);
    memset(m->mean, 0, sizeof m->mean);
    m->window = b->window;
    for (int64_t t = 0; t < B_N; t++) {
        for (int64_t i = 0; i < B_D; i++) {
            m->v[t][i] = (double)b->v[(t * B_G + g) * B_D + i];
            m->q[t][i] = (double)(b->q[(t * B_H + h) * B_D + i] * b->scale);
            if (t / 16 < B_N / 16)
                m->mean[t / 16][i] += (double)b->k[(t * B_G + g) * B_D + i] / 16;
        }
        for (int64_t j = 0; j <= t; j++) {
            m->s[t][j] = 0;
            for (int64_t i = 0; i < B_D; i++)
                m->s[t][j] += m->q[t][i] * (double)b->k[(j * B_G + g) * B_D + i];
        }
    }
}

/* The PICKS best blocks that lie wholly between sinks and local part. */
static void best_blocks(struct model *m, int64_t t, bool in[B_N / 16])
{
    double score[B_N / 16], last = HUGE_VAL;
    int64_t hi = t - LOCAL + 1, lo = 1, first = m->window > 0 && t - m->window + 1 > 0 ? t - m->window + 1 : 0;
    lo = first / 16 > lo ? first / 16 : lo;
    memset(in, 0, B_N / 16);
    for (int64_t J = lo; 16 * J + 16 <= hi; J++) {
        score[J] = 0;
        for (int64_t i = 0; i < B_D; i++)
            score[J] += m->q[t][i] * m->mean[J][i];
    }
    for (int n = 0; n <= PICKS; n++) { /* one more, for the margin */
        int64_t best = -1;
        for (int64_t J = lo; 16 * J + 16 <= hi; J++)
            if (!in[J] && (best < 0 || score[J] > score[best]))
                best = J;
        if (best < 0)
            return;
        if (n == PICKS)
            m->margin = fmin(m->margin, last - score[best]);
        else
            in[best] = true, last = score[best];
    }
}

static int64_t mask(struct model *m, int kind, int64_t t, bool sees[B_N])
{
    bool in[B_N / 16];
    int64_t n = 0;
    if (kind == BLOCKS)
        best_blocks(m, t, in);
    for (int64_t j = 0; j <= t; j++) {
        bool local = j > t - LOCAL;
        switch (kind) {
        case STREAMING: sees[j] = j < SINK || j > t - (KEEP - SINK); break;
        case WINDOW: sees[j] = j > t - KEEP; break;
        case STRIDED: sees[j] = t - j < STRIDE || (t - j) % STRIDE == 0; break;
        case BLOCKS: sees[j] = j < SINK || local || (j / 16 < B_N / 16 && in[j / 16]); break;
        default: sees[j] = true;
        }
        sees[j] = sees[j] && (m->window == 0 || j > t - m->window);
        n += sees[j];
    }
    return n;
}

/* What the rule takes a pattern to cost: its keys, all picks counted. */
static int64_t price(struct model *m, int kind, int64_t t)
{
    bool sees[B_N];
    int64_t n = 0;
    if (kind != BLOCKS)
        return mask(m, kind, t, sees);
    for (int64_t j = 0; j <= t; j++)
        n += (j < SINK || j > t - LOCAL) && (m->window == 0 || j > t - m->window);
    return n + 16 * PICKS;
}

/* Attention of row t; returns its log-sum-exp. */
static double attend(const struct model *m, int64_t t, const bool *sees, double *o)
{
    double sum = 0;
    memset(o, 0, B_D * sizeof *o);
    for (int64_t j = 0; j <= t; j++)
        if (sees[j]) {
            double p = exp(m->s[t][j]);
            sum += p;
            for (int i = 0; i < B_D; i++)
                o[i] += p * m->v[j][i];
        }
    for (int i = 0; i < B_D; i++)
        o[i] /= sum;
    return log(sum);
}

struct rule {
    bool best;
    double mass;
};

static int choose(struct model *m, const struct rule *r, int64_t t, const double *mass, double samples)
{
    int best = DENSE;
    for (int v = 0; v < DENSE && samples > 0; v++) {
        double share = mass[v] / samples;
        if (r->best) {
            if (best != DENSE)
                m->margin = fmin(m->margin, share == mass[best] / samples ? 1 : fabs(share - mass[best] / samples));
            best = best == DENSE || share > mass[best] / samples ? v : best;
        } else {
            m->margin = fmin(m->margin, fabs(share - r->mass));
            if (share >= r->mass && price(m, v, t) < price(m, best, t))
                best = v;
        }
    }
    return best;
}

/* Compares head h's rows; counts its choices. */
static double compare(struct model *m, const struct base *b, int64_t h, const struct rule *r, int count[CANDIDATES])
{
    double mass[CANDIDATES] = {0}, samples = 0, worst = 0, o[B_D];
    int chosen = DENSE;
    load(m, b, h);
    for (int64_t t = 0; t < B_N; t++) {
        bool sees[B_N];
        if (t % SEGMENT == 0) {
            chosen = choose(m, r, t, mass, samples);
            memset(mass, 0, sizeof mass);
            samples = 0;
        }
        count[chosen]++;
        mask(m, chosen, t, sees);
        worst = fmax(worst, fabs(attend(m, t, sees, o) - (double)b->lse[t * B_H + h]));
        for (int i = 0; i < B_D; i++)
            worst = fmax(worst, fabs(o[i] - (double)b->out[(t * B_H + h) * B_D + i]));
        if (t % EVERY != EVERY - 1)
            continue;
        mask(m, DENSE, t, sees);
        double dense = attend(m, t, sees, o);
        for (int v = 0; v < CANDIDATES; v++) {
            mask(m, v, t, sees);
            mass[v] += exp(attend(m, t, sees, o) - dense);
        }
        samples++;
    }
    return worst;
}

static void make(struct base *b, const char *isa)
{
    base_make(b, "hybrid", isa);
    b->set[0] = "m.keep=64", b->set[1] = "m.sink=16", b->set[2] = "m.local=16", b->set[3] = "m.stride=16";
    b->set[4] = "m.segment=64", b->set[5] = "m.every=16";
    /* heads that differ: some look at the sinks, some back by multiples of 16, one is sharp */
    for (int64_t t = 0; t < B_N; t++)
        for (int64_t i = 0; i < B_D; i++) {
            b->k[t * B_G * B_D + i] += t < 8 ? 1.5F : 0;
            b->q[t * B_H * B_D + i] += 1;
            b->k[(t * B_G + 1) * B_D + i] += (float)cos(2 * 3.14159265 * (double)t / 16 + (double)i);
            b->q[(t * B_H + 4) * B_D + i] += 2 * (float)cos(2 * 3.14159265 * (double)t / 16 + (double)i);
            b->q[(t * B_H + 2) * B_D + i] *= 3;
        }
}

static void ran(struct base *b)
{
    if (base_run(b)) {
        T_FAIL("%s on %s: %s", b->method, b->isa, err_text());
        err_clear();
    }
    T_CHECK(b->peak <= b->scratch);
}

static void choices_and_rows_follow_the_definition(void)
{
    static const struct rule rules[] = {{false, 0.55}, {false, 0.75}, {true, 0}};
    static const char *const text[] = {"m.mass=0.55", "m.mass=0.75", "m.rule=\"best\""};
    struct base *b = malloc(sizeof *b);
    struct model *m = malloc(sizeof *m);
    int count[CANDIDATES] = {0};
    for (int i = 0; b && m && i < 3; i++)
        for (int isa = 0; isa < kern_isa_count(); isa++) {
            double worst = 0;
            int here[CANDIDATES] = {0};
            if (!kern_isa_runs(isa))
                continue;
            make(b, kern_isa_name(isa));
            b->set[6] = text[i];
            b->chunk = isa == 1 ? 50 : B_N;
            b->window = i == 1 ? 150 : 0;
            ran(b);
            m->margin = HUGE_VAL;
            for (int64_t h = 0; h < B_H; h++)
                worst = fmax(worst, compare(m, b, h, &rules[i], here));
            T_CHECK(m->margin > 1e-6); /* no choice so close that float may see it otherwise */
            T_NEAR(worst, 0, 1e-5);
            T_CHECK(b->stats.tile_dense == here[DENSE] && b->stats.tile_gather == here[BLOCKS]);
            T_CHECK(b->stats.tile_blocks == here[STREAMING] + here[WINDOW] + here[STRIDED]);
            for (int v = 0; v < CANDIDATES; v++)
                count[v] += here[v];
        }
    printf("# rows by streaming %d, window %d, strided %d, blocks %d, dense %d\n", count[0], count[1], count[2], count[3],
           count[4]);
    for (int v = 0; v < CANDIDATES; v++)
        T_CHECK(count[v] > 0);
    free(b);
    free(m);
}

static void ranks_and_chunks_choose_alike(void)
{
    struct base *a = malloc(sizeof *a), *b = malloc(sizeof *b);
    make(a, base_isa());
    a->set[6] = "m.rule=\"best\"";
    a->dtype = KERN_BF16;
    ran(a);
    make(b, base_isa());
    b->set[6] = a->set[6];
    b->dtype = KERN_BF16;
    b->heads = B_H / B_G;
    b->chunk = 33;
    for (b->head_from = 0; b->head_from < B_H; b->head_from += B_H / B_G)
        ran(b);
    T_CHECK(base_same(a, b));
    free(a);
    free(b);
}

static void what_cannot_be_is_refused(void)
{
    static const char *const bad[] = {"m.sink=10", "m.every=100", "m.keep=80"};
    struct base *b = malloc(sizeof *b);
    for (int i = 0; b && i < 3; i++) {
        base_make(b, "hybrid", base_isa());
        b->set[0] = bad[i];
        T_EQ(base_run(b), ERR_ARG);
        err_clear();
    }
    free(b);
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    T_RUN(choices_and_rows_follow_the_definition);
    T_RUN(ranks_and_chunks_choose_alike);
    T_RUN(what_cannot_be_is_refused);
    return t_done();
}
