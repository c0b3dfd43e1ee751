/* The training loop over ranks: the gradients of a step are those of one rank; interrupted and continued gives the same bits
 * as at one go. Tolerance 1e-5 of a tensor's largest: sums over ranks are taken in another order. */
#include <stdint.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "comm/comm.h"
#include "io/file.h"
#include "io/safetensors.h"
#include "tests/t.h"
#include "train/curve.h"
#include "train/loop.h"

static struct comm_group *world;
static char dir[64], text[80];
/* of the trainings that follow */
static const char *repeat = "train.repeat=1", *model = "model=\"data/asterism-S\"", *gate = "gate=\"\"";
static const char *tensor = "train.tensor=1";

/* Few tokens, four sequences a step. */
static const char *const common[] = {
    "objective.objective=\"distil\"", "objective.rows=24",      "objective.local=16", "objective.keep=64",
    "objective.budget=0.9",           "objective.context=true", "data.length=160",    "train.batch=4",
    "train.micro_tokens=160",         "train.warmup=1",         "train.threads=1"};
enum { COMMON = sizeof common / sizeof common[0], MOST_KEYS = COMMON + 8 };

struct job {
    char files[128], output[128], steps[32];
    const char *override[MOST_KEYS];
};

static void job_of(struct job *j, const char *name, int steps)
{
    memcpy(j->override, common, sizeof common);
    snprintf(j->files, sizeof j->files, "data.files=[\"%s\"]", text);
    snprintf(j->output, sizeof j->output, "output=\"%s/%s\"", dir, name);
    snprintf(j->steps, sizeof j->steps, "train.steps=%d", steps);
    j->override[COMMON] = j->files;
    j->override[COMMON + 1] = j->output;
    j->override[COMMON + 2] = j->steps;
    j->override[COMMON + 3] = "train.save_s=0";
    j->override[COMMON + 4] = repeat;
    j->override[COMMON + 5] = model;
    j->override[COMMON + 6] = gate;
    j->override[COMMON + 7] = tensor;
}

static bool after(void *context)
{
    int *left = context;
    return --*left <= 0;
}

/* Trains; stops after `stop` steps if that is > 0. */
static struct loop_result train(const char *name, int steps, int stop, const struct comm_group *g)
{
    struct job j;
    struct loop_result r = {0};
    struct loop_opts o = {.overrides = j.override, .n_overrides = MOST_KEYS};
    job_of(&j, name, steps);
    if (stop > 0) {
        o.stop = after;
        o.context = &stop;
    }
    if (loop_train(&o, g, &r))
        T_FAIL("%s: %s", name, err_text());
    err_clear();
    return r;
}

static struct safetensors *open_file(const char *name, const char *file)
{
    char path[256];
    struct safetensors *s = NULL;
    snprintf(path, sizeof path, "%s/%s/%s", dir, name, file);
    if (st_open(&s, path))
        T_FAIL("%s", err_text());
    return s;
}

/* Tensors whose names begin so, to 1e-5 of the largest entry, or of `scale` if that is more. */
static void compare_tensors(const struct safetensors *got, const struct safetensors *want, const char *prefix, double scale)
{
    int seen = 0;
    for (int64_t i = 0; want && got && i < st_count(want); i++) {
        const struct st_tensor *w = st_at(want, i), *g = st_find(got, w->name);
        double most = 0, worst = 0;
        if (strncmp(w->name, prefix, strlen(prefix)))
            continue;
        T_CHECK(g && g->bytes == w->bytes);
        for (size_t x = 0; g && x < w->bytes / sizeof(float); x++) {
            float a, b;
            memcpy(&a, (const char *)g->data + x * sizeof a, sizeof a);
            memcpy(&b, (const char *)w->data + x * sizeof b, sizeof b);
            double off = fabs((double)a - (double)b);
            most = fmax(most, fabs((double)b));
            worst = off >= 0 ? fmax(worst, off) : HUGE_VAL;
        }
        T_CHECK(most > 0);
        if (!(worst <= 1e-5 * fmax(most, scale)))
            T_FAIL("%s: off by %g of %g", w->name, worst, most);
        seen++;
    }
    T_EQ(seen, 6 * 6); /* layers x (wq, wk, wc, dist, wr, br) */
}

/* The mean gradient that AdamW remembers, after one step: (1 - beta1) times the gradient. */
static void compare_gradients(const struct safetensors *got, const struct safetensors *want)
{
    compare_tensors(got, want, "m.", 0);
}

static void gradients_do_not_depend_on_the_number_of_ranks(void)
{
    struct loop_result all = train("all", 1, 0, world), one = {0};
    T_EQ(all.steps, 1);
    if (t_rank == 0) {
        one = train("one", 1, 0, NULL);
        T_NEAR(all.loss, one.loss, 1e-6);
        struct safetensors *a = open_file("all", "checkpoint-1-0.safetensors"), *b = open_file("one", "checkpoint-1-0.safetensors");
        compare_gradients(a, b);
        st_close(a);
        st_close(b);
    }
    comm_barrier(world);
}

static void compare_bits(const char *file, const char *whole, const char *parts)
{
    struct safetensors *a = open_file(whole, file), *b = open_file(parts, file);
    for (int64_t i = 0; a && b && i < st_count(a); i++) {
        const struct st_tensor *x = st_at(a, i), *y = st_find(b, st_at(a, i)->name);
        if (!strcmp(x->name, "curve")) /* has seconds in it */
            continue;
        if (!y || x->bytes != y->bytes || memcmp(x->data, y->data, x->bytes))
            T_FAIL("%s: %s differs after an interruption", file, x->name);
    }
    st_close(a);
    st_close(b);
}

static void an_interrupted_training_goes_on_to_the_same_bits(void)
{
    struct loop_result r = train("whole", 5, 0, world);
    T_EQ(r.steps, 5);
    r = train("parts", 5, 2, world);
    T_CHECK(r.stopped && r.steps == 2);
    r = train("parts", 5, 1, world);
    T_CHECK(r.stopped && r.steps == 3);
    r = train("parts", 5, 0, world);
    T_CHECK(!r.stopped && r.steps == 5);
    if (t_rank == 0) {
        compare_bits("checkpoint-5-0.safetensors", "whole", "parts");
        compare_bits("gates.safetensors", "whole", "parts");
    }
    r = train("parts", 5, 0, world); /* complete: nothing to do */
    T_CHECK(!r.stopped && r.steps == 5);
}

/* A batch of several sequences a rank serves three steps: it is read once and kept; a training that stops after every step
 * reads it anew each time. */
static void sequences_kept_for_later_steps_give_the_bits_of_reading_them_anew(void)
{
    repeat = "train.repeat=3";
    struct loop_result r = train("kept", 4, 0, world);
    T_EQ(r.steps, 4);
    for (int i = 1; i <= 4; i++)
        r = train("anew", 4, 1, world);
    T_CHECK(!r.stopped && r.steps == 4);
    if (t_rank == 0) {
        compare_bits("checkpoint-4-0.safetensors", "kept", "anew");
        compare_bits("gates.safetensors", "kept", "anew");
        struct safetensors *s = open_file("kept", "checkpoint-4-0.safetensors");
        const struct st_tensor *curve = s ? st_find(s, "curve") : NULL;
        for (int i = 0; curve && i < 4; i++) { /* tokens that the model has read */
            double row[CURVE_COLUMNS];
            memcpy(row, (const char *)curve->data + (size_t)i * sizeof row, sizeof row);
            T_EQ(row[CURVE_TOKENS], i % 3 ? 0 : 4 * 160);
        }
        st_close(s);
    }
    repeat = "train.repeat=1";
}

/* End to end by pairs of ranks that share a model, with `stop` as above. */
static struct loop_result train_pairs(const char *name, int stop, const char *pairs, const struct comm_group *g)
{
    char files[128], output[128];
    const char *const over[] = {"model=\"data/asterism-S\"",
                                files,
                                output,
                                pairs,
                                "objective.objective=\"lm\"",
                                "objective.what=\"gates+norms\"",
                                "method.method=\"ast\"",
                                "method.keep=48",
                                "method.local=16",
                                "data.length=64",
                                "train.batch=2",
                                "train.micro_tokens=64",
                                "train.warmup=1",
                                "train.threads=1",
                                "train.steps=2",
                                "train.save_s=0"};
    struct loop_opts o = {.overrides = over, .n_overrides = sizeof over / sizeof over[0]};
    struct loop_result r = {0};
    snprintf(files, sizeof files, "data.files=[\"%s\"]", text);
    snprintf(output, sizeof output, "output=\"%s/%s\"", dir, name);
    if (stop > 0)
        o.stop = after, o.context = &stop;
    if (loop_train(&o, g, &r))
        T_FAIL("%s: %s", name, err_text());
    err_clear();
    return r;
}

static void ranks_that_share_a_model_train_it_as_one_does_and_go_on_to_the_same_bits(void)
{
    struct loop_result r, one;
    if (world->size < 2)
        return;
    r = train_pairs("pairs", 0, "train.tensor=2", world);
    T_EQ(r.steps, 2);
    train_pairs("pairs-parts", 1, "train.tensor=2", world);
    T_EQ(train_pairs("pairs-parts", 0, "train.tensor=2", world).steps, 2);
    if (t_rank == 0) {
        compare_bits("checkpoint-2-0.safetensors", "pairs", "pairs-parts");
        compare_bits("checkpoint-2-1.safetensors", "pairs", "pairs-parts");
        compare_bits("gates.safetensors", "pairs", "pairs-parts");
        one = train_pairs("pairs-one", 0, "train.tensor=1", NULL);
        T_NEAR(r.loss, one.loss, 1e-5);
    }
    comm_barrier(world);
}

/* Distillation by pairs. After AdamW, whose steps have the length of the learning rate (1e-3) whatever the gradient's, gates are
 * one rank's to a tenth of a step; tests/mpi/test_distil.c compares gradients, and gates without it. */
static void ranks_that_share_a_model_distil_its_gates_and_go_on_to_the_same_bits(void)
{
    if (world->size != 2)
        return;
    tensor = "train.tensor=2";
    T_EQ(train("halves", 2, 0, world).steps, 2);
    T_CHECK(train("halves-parts", 2, 1, world).stopped);
    struct loop_result r = train("halves-parts", 2, 0, world);
    tensor = "train.tensor=1";
    if (t_rank == 0) {
        compare_bits("checkpoint-2-0.safetensors", "halves", "halves-parts");
        compare_bits("checkpoint-2-1.safetensors", "halves", "halves-parts");
        compare_bits("gates.safetensors", "halves", "halves-parts");
        struct loop_result one = train("halves-one", 2, 0, NULL);
        T_NEAR(r.loss, one.loss, 1e-5);
        struct safetensors *a = open_file("halves", "gates.safetensors"), *b = open_file("halves-one", "gates.safetensors");
        compare_tensors(a, b, "", 10);
        st_close(a);
        st_close(b);
    }
    comm_barrier(world);
}

static void what_does_not_fit_into_memory_is_refused(void)
{
    struct job j;
    struct loop_result r;
    repeat = "train.repeat=1000";
    job_of(&j, "large", 1);
    const char *over[MOST_KEYS + 3];
    memcpy(over, j.override, sizeof j.override);
    over[MOST_KEYS] = "train.batch=1000000", over[MOST_KEYS + 1] = "data.length=2000",
    over[MOST_KEYS + 2] = "train.micro_tokens=2000";
    struct loop_opts o = {.overrides = over, .n_overrides = MOST_KEYS + 3};
    T_EQ(loop_train(&o, world, &r), ERR_NOMEM);
    if (!strstr(err_text(), "train.batch") || !strstr(err_text(), "train.repeat"))
        T_FAIL("%s", err_text());
    err_clear();
    repeat = "train.repeat=1";
}

static void other_options_do_not_go_on_from_a_checkpoint(void)
{
    struct job j;
    struct loop_result r;
    job_of(&j, "parts", 6);
    struct loop_opts o = {.overrides = j.override, .n_overrides = MOST_KEYS};
    int rc = loop_train(&o, world, &r);
    T_CHECK(rc == ERR_ARG);
    if (!strstr(err_text(), "--fresh"))
        T_FAIL("%s", err_text());
    err_clear();
    o.fresh = true;
    T_EQ(loop_train(&o, world, &r), ERR_OK);
    T_EQ(r.steps, 6);
}

/* rank 0's */
static void shell(const char *format, const char *a, const char *b)
{
    char command[512];
    snprintf(command, sizeof command, format, a, b);
    T_CHECK(system(command) == 0);
}

static void refused(const char *name, const char *why)
{
    struct job j;
    struct loop_result r;
    struct loop_opts o = {.overrides = j.override, .n_overrides = MOST_KEYS};
    job_of(&j, name, 2);
    T_EQ(loop_train(&o, world, &r), ERR_ARG);
    if (!strstr(err_text(), why))
        T_FAIL("%s", err_text());
    err_clear();
}

/* One bit of one weight. */
static void change_weights(const char *file)
{
    FILE *f = fopen(file, "r+b");
    int c = f && !fseek(f, -2, SEEK_END) ? fgetc(f) : EOF;
    T_CHECK(c != EOF && !fseek(f, -2, SEEK_END) && fputc(c ^ 1, f) != EOF && fclose(f) == 0);
}

static void other_weights_or_gates_do_not_go_on_from_a_checkpoint(void)
{
    char copy[128], file[160], start[128];
    snprintf(copy, sizeof copy, "model=\"%s/copy\"", dir);
    snprintf(file, sizeof file, "%s/copy/model.safetensors", dir);
    snprintf(start, sizeof start, "gate=\"%s/start\"", dir);
    if (t_rank == 0) {
        shell("cp -r data/asterism-S %s/%s", dir, "copy");
        shell("chmod -R u+w %s/%s", dir, "copy");
        shell("cp %s/whole/gates.safetensors %s/start", dir, dir);
    }
    comm_barrier(world);
    gate = start;
    train("weights", 2, 1, world);
    gate = "gate=\"\"";
    refused("weights", "gates' fingerprint");
    if (t_rank == 0)
        shell("cp %s/start %s/moved", dir, dir);
    comm_barrier(world);
    snprintf(start, sizeof start, "gate=\"%s/moved\"", dir);
    gate = start;
    model = copy;
    struct loop_result r = train("weights", 2, 1, world); /* the same, elsewhere */
    T_EQ(r.steps, 2);
    if (t_rank == 0)
        change_weights(file);
    comm_barrier(world);
    gate = "gate=\"\"";
    train("other", 2, 1, world);
    model = "model=\"data/asterism-S\"";
    refused("other", "model's fingerprint");
}

static void make_text(void)
{
    FILE *f = fopen(text, "w");
    for (int doc = 0; f && doc < 30; doc++) {
        for (int i = 0; i < 40; i++)
            fprintf(f, "Sentence %d of document %d tells of %d houses. ", i, doc, doc * i % 17);
        fputs("<|endoftext|>", f);
    }
    if (f)
        fclose(f);
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    if (comm_start(&argc, &argv, &world))
        return 1;
    log_setup(t_rank, LOG_ERROR);
    snprintf(dir, sizeof dir, "/tmp/asterism-train-XXXXXX");
    if (t_rank == 0 && !mkdtemp(dir))
        return 1;
    comm_bcast(world, dir, sizeof dir, 0);
    snprintf(text, sizeof text, "%s/text", dir);
    if (t_rank == 0)
        make_text();
    comm_barrier(world);
    T_RUN(gradients_do_not_depend_on_the_number_of_ranks);
    T_RUN(an_interrupted_training_goes_on_to_the_same_bits);
    T_RUN(sequences_kept_for_later_steps_give_the_bits_of_reading_them_anew);
    T_RUN(ranks_that_share_a_model_train_it_as_one_does_and_go_on_to_the_same_bits);
    T_RUN(ranks_that_share_a_model_distil_its_gates_and_go_on_to_the_same_bits);
    T_RUN(what_does_not_fit_into_memory_is_refused);
    T_RUN(other_options_do_not_go_on_from_a_checkpoint);
    T_RUN(other_weights_or_gates_do_not_go_on_from_a_checkpoint);
    comm_barrier(world);
    if (t_rank == 0) {
        char command[128];
        snprintf(command, sizeof command, "rm -rf '%s'", dir);
        T_CHECK(system(command) == 0);
    }
    comm_free(world);
    return t_done();
}
