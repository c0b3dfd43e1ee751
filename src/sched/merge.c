/* results.h5. The layout is at the top of the header; rows never depend on who computed what. One file a table. */
#include "sched/merge.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "comm/comm.h"
#include "io/file.h"
#include "io/h5.h"
#include "sched/gather.h"
#include "sched/job.h"
#include "sched/merge_out.h"
#include "sched/work.h"

static void write_root(struct merge_out *o)
{
    h5_attr_text(o->f, "/", "Conventions", "ASTERISM-1.0 CF-1.11");
    h5_attr_text(o->f, "/", "title", o->w->job->name);
    h5_attr_text(o->f, "/", "software", "asterism");
    h5_attr_text(o->f, "/", "softwareVersion", o->i->code[0][1] ? o->i->code[0][1] : "unknown");
    h5_attr_text(o->f, "/", "default", "/metrics");
}

/* Signatures of sets that rank 0 alone has opened. */
static int share_signatures(const struct work *w, const struct comm_group *g)
{
    for (int i = 0; i < w->n_sets; i++) {
        struct work_set *s = &w->set[i];
        int64_t n = s->signature && (!g || g->rank == 0) ? (int64_t)strlen(s->signature) + 1 : 0;
        comm_bcast(g, &n, sizeof n, 0);
        char *text = calloc((size_t)n + 1, 1);
        int rc = comm_agree(g, text ? ERR_OK : err_set(ERR_NOMEM, "no memory for a signature"));
        if (rc) {
            free(text);
            return rc;
        }
        if (!g || g->rank == 0)
            snprintf(text, (size_t)n + 1, "%s", s->signature ? s->signature : "");
        comm_bcast(g, text, (size_t)n, 0);
        free(s->signature);
        s->signature = text;
    }
    return ERR_OK;
}

/* Room for the file, asked before anybody enters a collective write: on a full disk some of them never return (HDF5 1.10.8
 * over OMPIO), others report success and lose bytes. Uncompressed, so on the safe side. Collective. */
static int check_room(const struct merge_out *o)
{
    char folder[FILE_PATH];
    double bytes = 512 * 1024;
    int64_t texts = 0;
    for (int i = 0; i < o->w->n_cells; i++) {
        const struct task *t = o->w->job->task[o->w->cell[i].task].impl;
        int columns = 10;
        for (int k = 0; t->count_name && t->count_name[k]; k++)
            columns++;
        for (int k = 0; t->sum_name && t->sum_name[k]; k++)
            columns++;
        bytes += 8.0 * columns * (double)o->i->sizes[i];
    }
    for (int c = 0; c < o->x->n_cells; c++)
        for (int64_t i = 0; i < o->x->cell[c].n; i++)
            texts += (int64_t)(o->x->cell[c].text[i].len + o->x->cell[c].reason[i].len);
    comm_sum_i64(o->g, &texts, 1);
    if (o->g && o->g->rank > 0)
        return comm_agree(o->g, ERR_OK);
    int rc = file_folder(folder, o->i->path);
    return comm_agree(o->g, rc ? rc : file_space(folder, bytes + (double)texts));
}

int merge_write(const struct work *w, const struct gathered *x, const struct merge_info *i, const struct comm_group *g)
{
    struct merge_out o = {.w = w, .x = x, .i = i, .g = g};
    int rc = share_signatures(w, g);
    rc = rc ? rc : check_room(&o);
    rc = rc ? rc : h5_create(&o.f, i->path, g, w->job->run.compress);
    if (rc)
        return rc;
    write_root(&o);
    merge_cells(&o);
    merge_metrics(&o);
    h5_group(o.f, "/samples");
    h5_group(o.f, "/timing");
    for (int t = 0; t < w->job->n_tasks; t++)
        merge_samples(&o, t);
    merge_models(&o);
    merge_layers(&o);
    merge_sparsity(&o);
    merge_cell_times(&o);
    merge_rank_times(&o);
    merge_code(&o);
    merge_parameters(&o);
    merge_environment(&o);
    return h5_commit(o.f);
}
