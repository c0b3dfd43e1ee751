/* The training loop. */
#include "train/loop.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/timer.h"
#include "comm/comm.h"
#include "io/file.h"
#include "io/sha.h"
#include "kernels/linear.h"
#include "text/tok.h"
#include "train/ckpt.h"
#include "train/reduce.h"
#include "train/spec.h"

struct batch { /* a micro-batch's room */
    int64_t *at;
    int32_t *token, *target;
};

struct loop {
    const struct loop_opts *o;
    const struct comm_group *world;
    struct comm_group *model, *same; /* a replica's ranks; ranks of the same place in every replica; NULL: this one */
    int replica, replicas;
    struct train_spec *spec;
    struct kern_table kern;
    struct tok *tok;
    struct train_data *data;
    void *self;
    struct train_params *params;
    struct adamw adamw;
    struct reduce reduce;
    struct curve curve;
    struct batch batch;
    struct arena run, step;
    int64_t next; /* step to come */
    double before_s, start_s, flops;
    struct buf job; /* what decides the result: lines "name = value" */
};

static bool first_rank(const struct loop *l)
{
    return !l->world || l->world->rank == 0;
}

/* ---- opening: every step ends in agreement ---- */

static int open_spec(struct loop *l)
{
    int rc = ERR_OK; /* rank 0 first, so that one mistake gives one sentence */
    if (first_rank(l))
        rc = spec_open(&l->spec, l->o->path, l->o->overrides, l->o->n_overrides);
    rc = comm_agree(l->world, rc);
    if (!rc && !first_rank(l))
        rc = spec_open(&l->spec, l->o->path, l->o->overrides, l->o->n_overrides);
    return comm_agree(l->world, rc);
}

static int open_groups(struct loop *l)
{
    int size = l->world ? l->world->size : 1, rank = l->world ? l->world->rank : 0, tensor = (int)l->spec->train.tensor;
    int rc = ERR_OK;
    if (size % tensor)
        return err_set(ERR_ARG, "train.tensor = %d does not divide %d ranks", tensor, size);
    l->replicas = size / tensor;
    l->replica = rank / tensor;
    if (tensor > 1)
        rc = comm_split(l->world, l->replica, rank, &l->model);
    if (!rc && l->replicas > 1)
        rc = comm_split(l->world, rank % tensor, rank, &l->same);
    if (!rc && l->spec->train.batch < l->replicas && rank == 0)
        log_warn("train.batch = %lld sequences for %d replicas of the model: some stay idle", (long long)l->spec->train.batch,
                 l->replicas);
    return rc;
}

static int open_machine(struct loop *l)
{
    const char *isa = l->spec->train.isa[0] ? l->spec->train.isa : NULL;
    int rank, size, rc = kern_select(&l->kern, isa);
    if (rc)
        rc = err_set(ERR_ARG, rc == -1 ? "there is no instruction set '%s'" : "this CPU cannot run the instruction set '%s'",
                     isa ? isa : getenv("AST_ISA"));
    comm_node(l->world, &rank, &size);
    int share = mem_cores() / size;
    kern_threads(l->spec->train.threads > 0 ? (int)l->spec->train.threads : share > 0 ? share : 1);
    rc = rc ? rc : file_make_folders(l->spec->output);
    rc = rc ? rc : file_folder_writable(l->spec->output);
    return comm_agree(l->world, rc);
}

static int open_data(struct loop *l)
{
    const struct train_spec *s = l->spec;
    struct model_info info;
    int rc = comm_agree(l->world, tok_open(&l->tok, s->model));
    rc = rc ? rc : data_open(&l->data, &s->data, l->tok, (uint64_t)s->train.seed, l->world);
    rc = rc ? rc : model_peek(&info, s->model);
    if (!rc && tok_vocab(l->tok) > info.vocab)
        rc = err_set(ERR_FORMAT, "%s: the tokenizer has %lld tokens, the model's vocabulary %lld", s->model,
                     (long long)tok_vocab(l->tok), (long long)info.vocab);
    return comm_agree(l->world, rc);
}

static int64_t per_micro(const struct train_spec *s)
{
    int64_t n = s->train.micro_tokens / s->data.length;
    return n < s->train.batch ? n : s->train.batch;
}

static int open_batch(struct loop *l)
{
    int64_t n = per_micro(l->spec), tokens = n * l->spec->data.length;
    struct batch *b = &l->batch;
    b->at = malloc((size_t)(n + 1) * sizeof *b->at);
    b->token = malloc((size_t)tokens * sizeof *b->token);
    b->target = malloc((size_t)tokens * sizeof *b->target);
    l->curve.v = calloc((size_t)l->spec->train.steps, sizeof(double[CURVE_COLUMNS]));
    if (!b->at || !b->token || !b->target || !l->curve.v)
        return err_set(ERR_NOMEM, "no memory for batches of %lld tokens", (long long)tokens);
    for (int64_t s = 0; s <= n; s++)
        b->at[s] = s * l->spec->data.length;
    return ERR_OK;
}

/* A tenth stays for the system, MPI and HDF5. Collective over the world. */
static size_t memory_of(const struct loop *l)
{
    int rank, size;
    size_t there = mem_available();
    comm_node(l->world, &rank, &size);
    return (size_t)(0.9 * (double)there / size);
}

static int open_objective(struct loop *l)
{
    const struct train_spec *s = l->spec;
    int64_t tokens = per_micro(s) * s->data.length;
    struct train_env env = {.model = s->model, .gate = s->gate, .method = s->method, .method_opts = s->method_opts};
    env.group = l->model;
    env.kern = &l->kern;
    env.max_tokens = tokens;
    env.max_len = s->data.length;
    env.steps = s->train.steps;
    env.max_seqs = (s->train.batch + l->replicas - 1) / l->replicas;
    env.repeat = s->train.repeat;
    env.memory = memory_of(l);
    env.seed = (uint64_t)s->train.seed;
    int rc = comm_agree(l->world, s->objective->open(&l->self, s->objective_opts, &env));
    if (rc)
        return rc;
    l->params = s->objective->params(l->self);
    rc = arena_open(&l->run, "training",
                    (size_t)train_params_total(l->params) * 2 * sizeof(float) +
                        (size_t)(l->params->n + 1) * (2 * sizeof(float *) + 4 * ARENA_ALIGN));
    rc = rc ? rc : adamw_alloc(&l->adamw, l->params, &l->run);
    rc = rc ? rc : arena_open(&l->step, "step", s->objective->step_bytes(l->self, tokens, per_micro(s)) + ((size_t)1 << 20));
    rc = rc ? rc : open_batch(l);
    l->reduce = (struct reduce){.p = l->params, .replicas = l->same, .model = l->model};
    rc = rc ? rc : reduce_open(&l->reduce);
    return comm_agree(l->world, rc);
}

/* ---- checkpoints ---- */

/* Weights and starting gates count by what is in them, not by where they lie. */
static int identity(struct loop *l)
{
    char gates[SHA_HEX] = "";
    int rc = spec_identity(l->spec, &l->job);
    if (!rc && l->spec->gate[0])
        rc = sha_file(l->spec->gate, gates);
    return rc ? rc
              : buf_printf(&l->job, "data's fingerprint = %s\nmodel's fingerprint = %s\ngates' fingerprint = %s\n",
                           data_sha256(l->data), l->params->base, gates);
}

static struct ckpt checkpoint(struct loop *l)
{
    return (struct ckpt){.folder = l->spec->output,
                         .job = buf_text(&l->job),
                         .params = l->params,
                         .adamw = &l->adamw,
                         .curve = &l->curve,
                         .step = l->next,
                         .steps = l->spec->train.steps};
}

static struct train_at where(const struct loop *l, int64_t step)
{
    const struct train_opts *t = &l->spec->train;
    int64_t soft = t->steps - (int64_t)(t->hard * (double)t->steps);
    return (struct train_at){.step = step,
                             .steps = t->steps,
                             .repeat = step % t->repeat,
                             .temperature = schedule_temperature(t->temperature, t->temperature_end, step, soft),
                             .phase = step >= soft,
                             .seed = (uint64_t)t->seed};
}

static int load(struct loop *l)
{
    struct ckpt c = checkpoint(l);
    bool found = false;
    int rc = ERR_OK;
    if (l->o->fresh && first_rank(l))
        rc = ckpt_remove(l->spec->output);
    rc = comm_agree(l->world, rc);
    rc = rc ? rc : comm_agree(l->world, ckpt_load(&c, l->model ? l->model->rank : 0, &found));
    double least = rc ? 0 : -(double)(found ? c.step : 0), most = -least;
    if (rc)
        return rc;
    comm_max_f64(l->world, &least, 1);
    comm_max_f64(l->world, &most, 1);
    if (-least != most)
        return comm_agree(
            l->world, err_set(ERR_IO, "%s: ranks see checkpoints of different steps: is it one shared folder?", l->spec->output));
    if (found) {
        l->next = c.step;
        if (c.step > 0)
            l->before_s = l->curve.v[(c.step - 1) * CURVE_COLUMNS + CURVE_SECONDS];
        log_info("goes on from the checkpoint of step %lld", (long long)c.step);
    }
    struct train_at at = where(l, l->next);
    return comm_agree(l->world, l->spec->objective->update ? l->spec->objective->update(l->self, &at, NULL) : ERR_OK);
}

static int write_curve(struct loop *l)
{
    char path[FILE_PATH];
    struct buf text = {0};
    int n = l->o->n_facts, rc = file_join(path, l->spec->output, "training.h5");
    struct curve_fact *fact = calloc((size_t)n + 2, sizeof *fact);
    rc = rc || fact ? rc : err_set(ERR_NOMEM, "no memory to write %s", path);
    rc = rc ? rc : cfg_print(l->spec->cfg, &text);
    if (!rc) {
        if (n)
            memcpy(fact, l->o->fact, (size_t)n * sizeof *fact);
        fact[n++] = (struct curve_fact){"parameters", buf_text(&text)};
        fact[n++] = (struct curve_fact){"data_sha256", data_sha256(l->data)};
        rc = curve_write(&l->curve, path, l->spec->objective->parts, fact, n);
    }
    buf_free(&text);
    free(fact);
    return rc;
}

/* Replica 0 writes; the others know that it went well. Collective over the world. */
static int save(struct loop *l)
{
    struct ckpt c = checkpoint(l);
    int rc = l->replica == 0 ? ckpt_save(&c, l->model) : ERR_OK;
    if (!rc && first_rank(l))
        rc = write_curve(l);
    return comm_agree(l->world, rc);
}

/* ---- one step ---- */

static int micro_batches(struct loop *l, int64_t step, struct train_sums *sums)
{
    const struct train_opts *t = &l->spec->train;
    int64_t base = step / t->repeat * t->batch, first = base + t->batch * l->replica / l->replicas;
    int64_t end = base + t->batch * (l->replica + 1) / l->replicas, length = l->spec->data.length;
    struct train_at at = where(l, step);
    int rc = ERR_OK;
    for (int64_t i = first; !rc && i < end;) {
        int64_t n = end - i < per_micro(l->spec) ? end - i : per_micro(l->spec);
        for (int64_t s = 0; s < n; s++)
            data_window(l->data, i + s, l->batch.token + s * length, l->batch.target + s * length);
        struct model_batch b = {.n_seq = n, .at = l->batch.at, .token = l->batch.token, .target = l->batch.target};
        at.micro = i;
        /* Sums beside the backward pass need every replica to have one. */
        bool overlap = i + n == end && t->batch >= l->replicas;
        at.ready = overlap ? reduce_ready : NULL;
        at.context = &l->reduce;
        rc = l->spec->objective->step(l->self, &b, &at, sums, &l->step);
        i += n;
    }
    return rc;
}

/* Sums over replicas, and whether anybody wants to stop. Collective over the world. */
static bool all_sums(struct loop *l, struct train_sums *sums, bool stop)
{
    double flag = stop;
    AST_ASSERT(sizeof *sums % sizeof(double) == 0);
    comm_sum_f64(l->same, (double *)(void *)sums, (int64_t)(sizeof *sums / sizeof(double)));
    comm_max_f64(l->world, &flag, 1);
    return flag > 0;
}

static int update(struct loop *l, const struct train_sums *sums, double *row)
{
    const struct train_opts *t = &l->spec->train;
    struct train_at at = where(l, l->next);
    struct adamw_opts o = {t->beta1, t->beta2, t->eps, t->weight_decay};
    struct schedule s = {.kind = t->schedule, .steps = t->steps, .warmup = t->warmup, .lr = t->lr, .end = t->lr_end};
    struct adamw_at a = {.step = l->next, .lr = schedule_lr(&s, l->next)};
    double scale = sums->count > 0 ? 1 / sums->count : 0, norm = reduce_norm(&l->reduce) * scale;
    curve_means(row, sums);
    row[CURVE_LR] = a.lr;
    row[CURVE_NORM] = norm;
    row[CURVE_TEMPERATURE] = at.temperature;
    row[CURVE_SECONDS] = l->before_s + timer_now() - l->start_s;
    if (!isfinite(norm) || (sums->count > 0 && !isfinite(row[CURVE_LOSS])))
        return err_set(ERR_ARG, "step %lld: loss %g, gradient norm %g: the training has diverged; a lower train.lr may help",
                       (long long)l->next, row[CURVE_LOSS], norm);
    a.scale = t->clip > 0 && norm > t->clip ? scale * t->clip / norm : scale;
    if (sums->count > 0)
        adamw_step(&l->adamw, l->params, &o, &a);
    return l->spec->objective->update ? l->spec->objective->update(l->self, &at, sums) : ERR_OK;
}

static int one_step(struct loop *l, bool *stop)
{
    struct train_sums sums = {0};
    train_params_zero_grad(l->params);
    int rc = micro_batches(l, l->next, &sums);
    if (rc && l->replicas > 1) { /* the others wait in sums that will never be complete */
        log_error("step %lld: %s", (long long)l->next, err_text());
        comm_abort(1);
    }
    rc = comm_agree(l->model, rc);
    if (rc)
        return rc;
    reduce_finish(&l->reduce);
    *stop = all_sums(l, &sums, l->o->stop && l->o->stop(l->o->context));
    l->flops += sums.flops;
    rc = comm_agree(l->world, update(l, &sums, l->curve.v + l->next * CURVE_COLUMNS));
    if (!rc)
        l->curve.n = ++l->next;
    return rc;
}

/* ---- the whole ---- */

static void announce(const struct loop *l)
{
    const struct train_opts *t = &l->spec->train;
    log_info("%s: %s trains %lld tensors with %.3g M parameters of %s", l->spec->name, l->spec->objective->name,
             (long long)l->params->n, (double)train_params_total(l->params) / 1e6, l->spec->model);
    log_info("%.3g M tokens in %lld documents: %lld windows of %lld; %lld steps of %lld, %.3g M tokens in all; %d x %lld ranks",
             (double)data_tokens(l->data) / 1e6, (long long)data_documents(l->data), (long long)data_windows(l->data),
             (long long)l->spec->data.length, (long long)t->steps, (long long)t->batch,
             (double)((t->steps + t->repeat - 1) / t->repeat * t->batch * l->spec->data.length) / 1e6, l->replicas,
             (long long)t->tensor);
}

/* "loss 0.123 kl 0.11 kept 0.9 1234 tok/s", means of the last steps */
static void note(const struct loop *l, char *out, size_t cap, int64_t from)
{
    double tokens = 0, last = l->curve.v[(l->next - 1) * CURVE_COLUMNS + CURVE_SECONDS];
    double begin = from > 0 ? l->curve.v[(from - 1) * CURVE_COLUMNS + CURVE_SECONDS] : 0;
    int at = 0;
    for (int64_t i = from; i < l->next; i++)
        tokens += l->curve.v[i * CURVE_COLUMNS + CURVE_TOKENS];
    for (int k = -1; k < TRAIN_PARTS && (k < 0 || (l->spec->objective->parts && l->spec->objective->parts[k])); k++) {
        double sum = 0, n = 0;
        for (int64_t i = from; i < l->next; i++) {
            double x = l->curve.v[i * CURVE_COLUMNS + (k < 0 ? CURVE_LOSS : CURVE_PARTS + k)];
            sum += isfinite(x) ? x : 0;
            n += isfinite(x);
        }
        if (n > 0 && at < (int)cap - 40)
            at += snprintf(out + at, cap - (size_t)at, "%s %.4g  ", k < 0 ? "loss" : l->spec->objective->parts[k], sum / n);
    }
    snprintf(out + at, cap - (size_t)at, "%.0f tok/s", last > begin ? tokens / (last - begin) : 0);
}

static int run_steps(struct loop *l, struct loop_result *r)
{
    struct progress p;
    double saved = timer_now();
    int64_t steps = l->spec->train.steps;
    int rc = ERR_OK;
    char text[256] = "";
    l->start_s = timer_now();
    progress_begin(&p, "training", (double)steps);
    while (!rc && l->next < steps && !r->stopped) {
        rc = one_step(l, &r->stopped);
        if (rc)
            break;
        note(l, text, sizeof text, l->next > 20 ? l->next - 20 : 0);
        progress_update(&p, (double)l->next, text);
        double late = timer_now() - saved; /* every rank's clock says something else */
        comm_bcast(l->world, &late, sizeof late, 0);
        if (l->next == steps || r->stopped || late >= l->spec->train.save_s) {
            rc = save(l);
            saved = timer_now();
        }
    }
    progress_end(&p);
    r->stopped = r->stopped && l->next < steps;
    r->steps = l->next;
    r->seconds = l->before_s + timer_now() - l->start_s;
    if (!rc && l->next > 0) {
        r->loss = l->curve.v[(l->next - 1) * CURVE_COLUMNS + CURVE_LOSS];
        if (l->flops > 0)
            log_info("%lld of %lld steps, %s, %.1f GFLOP/s", (long long)l->next, (long long)steps, text,
                     l->flops / (timer_now() - l->start_s) / 1e9);
        else
            log_info("%lld of %lld steps had been done before", (long long)l->next, (long long)steps);
    }
    return rc;
}

/* Collective over the world. */
static int save_result(struct loop *l)
{
    int rc = l->replica == 0 ? l->spec->objective->save(l->self, l->spec->output) : ERR_OK;
    rc = comm_agree(l->world, rc);
    if (!rc)
        log_info("saved in %s", l->spec->output);
    return rc;
}

static void close_all(struct loop *l)
{
    reduce_close(&l->reduce);
    if (l->spec && l->self)
        l->spec->objective->close(l->self);
    data_close(l->data);
    tok_close(l->tok);
    arena_close(&l->run);
    arena_close(&l->step);
    free(l->batch.at);
    free(l->batch.token);
    free(l->batch.target);
    free(l->curve.v);
    buf_free(&l->job);
    comm_free(l->same);
    comm_free(l->model);
    spec_close(l->spec);
}

int loop_train(const struct loop_opts *o, const struct comm_group *world, struct loop_result *r)
{
    struct loop l = {.o = o, .world = world};
    *r = (struct loop_result){0};
    int rc = open_spec(&l);
    rc = rc ? rc : open_groups(&l);
    rc = rc ? rc : open_machine(&l);
    rc = rc ? rc : open_data(&l);
    rc = rc ? rc : open_objective(&l);
    rc = rc ? rc : comm_agree(world, identity(&l));
    rc = rc ? rc : load(&l);
    if (!rc)
        announce(&l);
    rc = rc ? rc : run_steps(&l, r);
    if (!rc && !r->stopped)
        rc = save_result(&l);
    close_all(&l);
    return rc;
}
