/* Weights that ranks of a machine share: the same numbers to the bit, one copy in memory, the same errors. */
#include <fcntl.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/err.h"
#include "comm/comm.h"
#include "io/random_ckpt.h"
#include "model/model.h"
#include "tests/t.h"

enum { N = 40 };

static struct comm_group *world;
static struct kern_table kern;
static struct arena step;
static char folder[64];

/* Rank 0 writes a checkpoint into the folder, which all ranks name alike. */
static void write_model(uint64_t seed)
{
    struct random_ckpt r = {.folder = folder, .dtype = ST_BF16, .seed = seed, .shards = 1};
    char file[128];
    int64_t params;
    size_t bytes;
    r.shape = (struct random_shape){
        .hidden = 256, .layers = 4, .heads = 4, .kv_heads = 2, .head_dim = 64, .mlp = 1024, .vocab = 4096, .positions = 64};
    r.shape.rope_theta = 10000;
    r.shape.tied = true; /* all of it is read */
    if (world->rank == 0) {
        snprintf(file, sizeof file, "%s/model.safetensors", folder);
        unlink(file);
        snprintf(file, sizeof file, "%s/config.json", folder);
        unlink(file);
        T_EQ(random_write(&r, &params, &bytes), ERR_OK);
    }
    comm_barrier(world);
}

static void remove_model(void)
{
    char file[128];
    comm_barrier(world);
    if (world->rank != 0)
        return;
    snprintf(file, sizeof file, "rm -r %s", folder);
    T_EQ(system(file), 0);
}

static int open_model(struct model **m, const struct comm_group *g, enum kern_dtype t, bool share)
{
    return model_open(
        m, &(struct model_open){
               .path = folder, .kern = &kern, .dtype = t, .kv_dtype = t, .group = g, .check_finite = true, .share = share});
}

/* Logits of every token; NULL if that failed. From step. */
static float *logits_of(struct model *m)
{
    static int64_t row[N];
    int64_t at[2] = {0, N}, vocab = model_info(m)->vocab;
    int32_t token[N];
    float *logits = ARENA_NEW(&step, N * vocab, float);
    for (int i = 0; i < N; i++) {
        token[i] = (int32_t)(i * 7919 % vocab);
        row[i] = i;
    }
    struct model_out out = {.logits = logits, .logit_row = row, .n_logit_rows = N};
    T_EQ(model_score(m, &(struct model_batch){.n_seq = 1, .at = at, .token = token}, &out, &step), ERR_OK);
    return logits;
}

/* This process's part of its memory in KiB: what n processes map counts as an n-th. */
static double part_kb(void)
{
    char line[256];
    double kb = 0;
    FILE *f = fopen("/proc/self/smaps_rollup", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "Pss: %lf", &kb) == 1)
            break;
    if (f)
        fclose(f);
    return kb;
}

static void same_bits(const struct comm_group *g, enum kern_dtype t)
{
    struct model *own = NULL, *shared = NULL;
    size_t mark = arena_mark(&step);
    T_EQ(open_model(&own, g, t, false), ERR_OK);
    T_EQ(open_model(&shared, g, t, true), ERR_OK);
    if (own && shared) {
        int64_t vocab = model_info(own)->vocab;
        T_CHECK(!model_info(own)->shared && model_info(shared)->shared);
        T_EQ(model_info(shared)->weight_bytes, model_info(own)->weight_bytes);
        T_CHECK(!memcmp(logits_of(own), logits_of(shared), (size_t)(N * vocab) * sizeof(float)));
    }
    comm_barrier(world);
    model_close(own);
    model_close(shared);
    arena_release(&step, mark);
}

static void shared_weights_give_the_same_bits(void)
{
    write_model(1);
    same_bits(NULL, KERN_F32);
    same_bits(NULL, KERN_BF16);
}

/* Two groups of half the ranks each: a rank shares with the one of its place in the other group. */
static void so_do_those_of_cut_models(void)
{
    struct comm_group *half = NULL;
    int size = world->size / 2;
    if (size < 1)
        return;
    T_EQ(comm_split(world, world->rank / size, world->rank, &half), ERR_OK);
    same_bits(half, KERN_BF16);
    comm_free(half);
}

static void they_lie_in_memory_once(void)
{
    struct model *m = NULL;
    double freed[2], weights = 0;
    size_t mark = arena_mark(&step);
    for (int share = 0; share < 2; share++) {
        T_EQ(open_model(&m, NULL, KERN_F32, share), ERR_OK);
        if (!m)
            return;
        logits_of(m);
        weights = (double)model_info(m)->weight_bytes / 1024;
        comm_barrier(world);
        double before = part_kb();
        comm_barrier(world);
        model_close(m);
        comm_barrier(world);
        freed[share] = before - part_kb();
        arena_release(&step, mark);
    }
    T_CHECK(freed[0] >= 0.9 * weights);
    if (!(freed[1] <= weights * (1.0 / world->size + 0.1) && freed[1] >= weights * (0.9 / world->size)))
        T_FAIL("%.0f KiB of weights: one of %d ranks frees %.0f, shared %.0f", weights, world->size, freed[0], freed[1]);
}

static void other_weights_are_not_taken_for_them(void)
{
    struct model *old = NULL, *now = NULL, *want = NULL;
    size_t mark = arena_mark(&step);
    T_EQ(open_model(&old, NULL, KERN_F32, true), ERR_OK);
    comm_barrier(world);
    write_model(2);
    T_EQ(open_model(&now, NULL, KERN_F32, true), ERR_OK);
    T_EQ(open_model(&want, NULL, KERN_F32, false), ERR_OK);
    if (old && now && want) {
        size_t bytes = (size_t)(N * model_info(now)->vocab) * sizeof(float);
        const float *was = logits_of(old), *is = logits_of(now), *should = logits_of(want);
        T_CHECK(!memcmp(is, should, bytes));
        T_CHECK(memcmp(is, was, bytes) != 0);
    }
    model_close(old);
    model_close(now);
    model_close(want);
    arena_release(&step, mark);
    comm_barrier(world);
}

/* The last number of the file becomes a NaN: no rank may take what another gave up. */
static void weights_that_are_refused_are_refused_by_all(void)
{
    const unsigned char nan[2] = {0xc0, 0x7f};
    char file[128];
    struct model *m = NULL;
    if (world->rank == 0) {
        snprintf(file, sizeof file, "%s/model.safetensors", folder);
        int fd = open(file, O_WRONLY);
        T_CHECK(fd >= 0 && pwrite(fd, nan, 2, lseek(fd, 0, SEEK_END) - 2) == 2);
        close(fd);
    }
    comm_barrier(world);
    T_EQ(open_model(&m, NULL, KERN_BF16, true), ERR_FORMAT);
    T_CHECK(strstr(err_text(), "NaN") && strstr(err_text(), folder));
    err_clear();
    T_CHECK(m == NULL);
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    if (comm_start(&argc, &argv, &world) || kern_select(&kern, NULL) || arena_open(&step, "step", (size_t)1 << 28))
        return 1;
    long id = (long)getpid();
    comm_bcast(world, &id, sizeof id, 0);
    snprintf(folder, sizeof folder, "/tmp/asterism-share-%ld", id);
    T_RUN(shared_weights_give_the_same_bits);
    T_RUN(so_do_those_of_cut_models);
    T_RUN(they_lie_in_memory_once);
    T_RUN(other_weights_are_not_taken_for_them);
    T_RUN(weights_that_are_refused_are_refused_by_all);
    remove_model();
    arena_close(&step);
    comm_free(world);
    return t_done();
}
