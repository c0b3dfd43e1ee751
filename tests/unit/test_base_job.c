/* jobs/baselines.cfg: it reads, its options fit the model, and no method of the list is forgotten in it. */
#include "attn/attn.h"
#include "base/arena.h"
#include "base/err.h"
#include "sched/job.h"
#include "tests/t.h"

static struct job *job;

static bool in_job(const char *method)
{
    for (int i = 0; i < job->n_methods; i++)
        if (!strcmp(job->method[i].impl->name, method))
            return true;
    return false;
}

static void every_method_is_compared(void)
{
    T_CHECK(!in_job("no such method"));
    for (int i = 0; attn_at(i); i++)
        if (strcmp(attn_at(i)->name, "oracle") && !in_job(attn_at(i)->name)) /* the oracle is a bound, slower than dense */
            T_FAIL("jobs/baselines.cfg has no %s", attn_at(i)->name);
}

/* Memory of 8192 tokens in one layer, for the record; all promises are finite and grow with the length. */
static void every_method_fits_the_model(void)
{
    const struct model_info *m = &job->model[0].info;
    struct attn_shape s = {.heads = m->heads, .kv_heads = m->kv_heads, .dim = m->dim, .hidden = m->hidden};
    s.n_layers = m->layers, s.scale = 0.125F, s.rot = m->dim, s.rope_theta = 1e4;
    for (int i = 0; i < job->n_methods; i++) {
        const struct job_method *o = &job->method[i];
        struct attn_cost cost, longer;
        if (o->impl->check && o->impl->check(o->opts, &s))
            T_FAIL("%s: %s", o->name, err_text());
        size_t state = o->impl->state_bytes ? o->impl->state_bytes(o->opts, &s, 8192) : 0;
        size_t scratch = o->impl->scratch(o->opts, &s, 8192, 8192);
        o->impl->cost(o->opts, &s, 0, 8192, &cost);
        o->impl->cost(o->opts, &s, 0, 16384, &longer);
        T_CHECK(cost.flops > 0 && cost.pairs > 0 && longer.flops > 1.9 * cost.flops);
        T_CHECK(state < (size_t)1 << 30 && scratch < (size_t)1 << 30);
        printf("# %-19s state %6.2f MiB, scratch %6.2f MiB, %4.0f keys a token\n", o->name, (double)state / 1048576,
               (double)scratch / 1048576, cost.pairs / 8192 / (double)s.heads);
    }
    err_clear();
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    if (job_open(&job, "jobs/baselines.cfg", NULL, 0)) {
        fprintf(stderr, "test_base_job: %s\n", err_text());
        return 1;
    }
    T_RUN(every_method_is_compared);
    T_RUN(every_method_fits_the_model);
    job_close(job);
    return t_done();
}
