/* Costs of attention's kernels that belong to a job. */
#include "sched/costs.h"

#include <stdio.h>
#include <string.h>

#include "attn/attn.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "comm/comm.h"
#include "io/file.h"
#include "sched/job.h"

static int measure(const struct job *j, const char *path, struct attn_costs *out)
{
    const struct model_info *m = &j->model[0].info;
    struct kern_table k;
    char text[128];
    if (kern_select(&k, j->run.isa[0] ? j->run.isa : NULL))
        return err_set(ERR_ARG, "the instruction set '%s' is not known or cannot run on this CPU", j->run.isa);
    int rc = attn_costs_measure(out, &k, m->heads / m->kv_heads, m->dim);
    if (rc)
        return rc;
    int n = snprintf(text, sizeof text, "cost_blocks = %.9g\ncost_gather = %.9g\n", out->cost_blocks, out->cost_gather);
    log_info("costs of attention's kernels here: %.3g ns to walk a block, %.3g ns to merge one", out->cost_blocks,
             out->cost_gather);
    return file_write_durable(path, text, (size_t)n);
}

/* What is written is what is used: both runs have the same digits. */
static int load(const char *path, struct attn_costs *out)
{
    struct buf text = {0};
    int rc = buf_read_file(&text, path, 1000);
    if (!rc && (sscanf(buf_text(&text), "cost_blocks = %lf cost_gather = %lf", &out->cost_blocks, &out->cost_gather) != 2 ||
                !(out->cost_blocks >= 0 && out->cost_blocks <= 1e6 && out->cost_gather >= 0 && out->cost_gather <= 1e6)))
        rc = err_set(ERR_FORMAT, "%s: these are no costs; remove the file, they are measured again", path);
    buf_free(&text);
    return rc;
}

/* Method i's option of that name, unless the job says what it is. */
static void set_option(struct job *j, int i, const char *name, double value)
{
    char group[32];
    struct cfg_record r;
    const struct cfg_field *f = j->method[i].impl->fields;
    snprintf(group, sizeof group, "methods.[%d]", i);
    while (f && f->name && strcmp(f->name, name))
        f++;
    if (!f || !f->name)
        return;
    for (int k = 0; cfg_record_at(j->cfg, k, &r); k++)
        if (!strcmp(r.group, group) && !strcmp(r.key, name) && strcmp(r.origin, "default"))
            return;
    memcpy((char *)j->method[i].opts + f->at, &value, sizeof value);
}

int costs_open(struct job *j, const char *folder, bool anew, const struct comm_group *g, struct attn_costs *out)
{
    char path[FILE_PATH];
    int rc = ERR_OK;
    *out = (struct attn_costs){0, 0};
    if (!j->run.calibrate)
        return ERR_OK;
    if (!g || g->rank == 0) {
        rc = file_join(path, folder, "costs.txt");
        if (!rc && (anew || !file_exists(path)))
            rc = measure(j, path, out);
        rc = rc ? rc : load(path, out);
    }
    rc = comm_agree(g, rc);
    if (rc)
        return rc;
    comm_bcast(g, out, sizeof *out, 0);
    for (int i = 0; i < j->n_methods; i++) {
        set_option(j, i, "cost_blocks", out->cost_blocks);
        set_option(j, i, "cost_gather", out->cost_gather);
    }
    return ERR_OK;
}
