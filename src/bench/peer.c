/* Another engine's benchmark in turn with ours: A B A B ..., so that a machine that changes its pace changes both. */
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/timer.h"
#include "bench/engine.h"
#include "comm/comm.h"

/* ---- its number ---- */

static bool word_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.';
}

/* The last number of the line s .. s+n-1. */
static bool last_number(const char *s, size_t n, double *out)
{
    char line[512];
    bool found = false;
    n = n < sizeof line - 1 ? n : sizeof line - 1;
    memcpy(line, s, n);
    line[n] = '\0';
    for (size_t i = 0; i < n;) {
        bool digit = line[i] >= '0' && line[i] <= '9';
        if (!digit || (i > 0 && word_byte(line[i - 1]))) {
            i++;
            continue;
        }
        char *end;
        *out = strtod(line + i, &end);
        found = true;
        i = (size_t)(end - line);
    }
    return found;
}

int bench_parse(const char *text, const char *match, double *out)
{
    regex_t re;
    char why[128];
    bool found = false;
    int bad = regcomp(&re, match, REG_EXTENDED | REG_NOSUB);
    if (bad) {
        regerror(bad, &re, why, sizeof why);
        return err_set(ERR_ARG, "--peer-match '%s': %s", match, why);
    }
    for (const char *line = text; *line;) {
        size_t n = strcspn(line, "\n");
        char copy[512];
        double x;
        snprintf(copy, sizeof copy, "%.*s", (int)(n < sizeof copy ? n : sizeof copy - 1), line);
        if (regexec(&re, copy, 0, NULL, 0) == 0 && last_number(line, n, &x)) {
            *out = x;
            found = true;
        }
        line += n + (line[n] == '\n');
    }
    regfree(&re);
    if (!found)
        return err_set(ERR_FORMAT, "no line of the peer's output matches '%s' and holds a number; --peer-match sets the pattern",
                       match);
    return *out > 0 ? ERR_OK : err_set(ERR_FORMAT, "the peer's number is %g; tokens a second are positive", *out);
}

/* ---- its run ---- */

static int run_peer(const char *command, const char *match, double *tokens_s)
{
    struct buf text = {0};
    char part[4096];
    size_t n;
    int rc = ERR_OK;
    FILE *f = popen(command, "r");
    if (!f)
        return err_set(ERR_IO, "--peer: no shell can be started for '%s'", command);
    while ((n = fread(part, 1, sizeof part, f)) > 0)
        if (!rc)
            rc = buf_add(&text, part, n);
    int status = pclose(f);
    if (!rc && status != 0)
        rc = err_set(ERR_IO, "--peer '%s' ended with %s %d", command, WIFSIGNALED(status) ? "signal" : "exit code",
                     WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    if (!rc)
        rc = bench_parse(buf_text(&text), match, tokens_s);
    buf_free(&text);
    return rc;
}

/* ---- in turn ---- */

struct turn {
    struct bench_work w;
    double ours[BENCH_ROUNDS], theirs[BENCH_ROUNDS], ratio[BENCH_ROUNDS];
};

static int our_round(struct bench *b, const struct bench_work *w, double *tokens_s)
{
    int64_t n = w->most_calls > 0 ? w->most_calls : 1;
    int rc = w->ready ? w->ready(b, w->arg) : ERR_OK;
    comm_barrier(b->world);
    double t0 = timer_now();
    for (int64_t i = 0; !rc && i < n; i++)
        rc = w->call(b, w->arg);
    double s = timer_now() - t0;
    comm_max_f64(b->world, &s, 1);
    *tokens_s = (double)n * w->tokens / s;
    return rc;
}

static int take_turns(struct bench *b, struct turn *t)
{
    int rc = t->w.open(b, t->w.arg);
    rc = comm_agree(b->world, rc);
    if (!rc)
        rc = our_round(b, &t->w, &t->ours[0]); /* warms up */
    progress_begin(&b->progress, "bench against the peer", b->o.rounds);
    for (int i = 0; !rc && i < b->o.rounds; i++) {
        rc = our_round(b, &t->w, &t->ours[i]);
        if (!rc && (!b->world || b->world->rank == 0))
            rc = run_peer(b->o.peer, b->o.peer_match, &t->theirs[i]);
        rc = comm_agree(b->world, rc);
        comm_bcast(b->world, &t->theirs[i], sizeof(double), 0);
        t->ratio[i] = rc ? 0 : t->ours[i] / t->theirs[i];
        progress_update(&b->progress, i + 1, "");
    }
    progress_end(&b->progress);
    t->w.close(t->w.arg);
    return rc;
}

static int report(struct bench *b, struct turn *t)
{
    int n = b->o.rounds;
    struct bench_row r = {.part = "peer", .unit = "token/s"};
    r.rate = r.tokens_s = bench_median(t->ours, n);
    r.limit = bench_median(t->theirs, n);
    r.ratio = bench_median(t->ratio, n);
    r.low = t->ratio[0];
    r.high = t->ratio[n - 1];
    r.seconds = t->w.tokens / r.rate;
    snprintf(r.name, sizeof r.name, "%.60s: ours, the peer's", t->w.name);
    int rc = bench_add(b, &r);
    if (!rc && b->out)
        fprintf(b->out, "    ours / peer: median %.3f of %d turns, %.3f to %.3f\n", r.ratio, n, r.low, r.high);
    return rc;
}

/* The first model, type and length; peer_what: "prefill", "decode" (one sequence) or "decode16". */
int bench_peer(struct bench *b)
{
    struct bench_model e;
    struct turn t = {.ours = {0}};
    const struct bench_opts *o = &b->o;
    enum kern_dtype type = o->dtype[KERN_F32] ? KERN_F32 : KERN_BF16;
    int rc = bench_model_open(&e, b, o->model[0], type);
    struct bench_prefill p = {.e = &e, .n = o->length[0]};
    struct bench_decode d = {.e = &e, .n_seq = strcmp(o->peer_what, "decode16") ? 1 : BENCH_BATCH};
    if (rc)
        return rc;
    if (strcmp(o->peer_what, "prefill") == 0)
        bench_prefill_work(&t.w, &p);
    else
        bench_decode_work(&t.w, &d);
    rc = take_turns(b, &t);
    if (!rc)
        rc = report(b, &t);
    bench_model_close(&e);
    return rc;
}
