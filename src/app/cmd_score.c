/* asterism score: BLEU and TriviaQA scores of outputs that exist already, as JSON. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/app.h"
#include "base/buf.h"
#include "base/err.h"
#include "io/json.h"
#include "task/bleu.h"
#include "task/chrf.h"
#include "task/lines.h"
#include "task/qa.h"
#include "task/stats.h"

static int run(int argc, char **argv);

const struct app_command app_score = {
    .name = "score",
    .brief = "BLEU, chrF, or TriviaQA's exact match and F1 of outputs that you have already, as JSON",
    .usage = "usage: asterism score bleu --hyp FILE --ref FILE [--ref FILE ...] [--tok 13a|none|char] [--lowercase]\n"
             "       asterism score triviaqa --pred FILE.jsonl\n\n"
             "bleu      one segment a line in each file (plain, .gz, .sgm); equal to sacreBLEU 2.6, with chrF2 and chrF2++ and a\n"
             "          95 % interval of BLEU over 1000 resamples of the segments\n"
             "triviaqa  one JSON object a line: {\"prediction\": \"...\", \"aliases\": [\"...\", ...]}; the official exact match\n"
             "          and F1, and the variants of SQuAD, LongBench and lm-evaluation-harness\n",
    .run = run,
};

enum { MAX_REFS = 16, REPLICATES = 1000 };

static int print(struct buf *out, int rc)
{
    if (rc == ERR_OK)
        fwrite(buf_text(out), 1, out->len, stdout);
    buf_free(out);
    return rc;
}

static int add_number(struct buf *b, const char *key, double x)
{
    return x == x ? buf_printf(b, "  \"%s\": %.17g,\n", key, x) : buf_printf(b, "  \"%s\": null,\n", key);
}

/* ---- bleu ---- */

struct bleu_job {
    const char *hyp, *ref[MAX_REFS];
    int n_refs;
    struct bleu_opts o;
};

struct bleu_units {
    const struct bleu_stat *segment;
    const struct bleu_opts *o;
};

static double resampled(const void *ctx, const int64_t *pick, int64_t n)
{
    const struct bleu_units *u = ctx;
    struct bleu_stat s = {{0}, {0}, 0, 0};
    struct bleu b;
    for (int64_t i = 0; i < n; i++)
        bleu_sum(&s, &u->segment[pick[i]]);
    bleu_score(&b, &s, u->o);
    return b.score;
}

struct bleu_total {
    struct bleu_stat bleu;
    struct chrf_stat chrf, chrfpp;
    struct stats_result interval;
    int64_t n;
};
static const struct chrf_opts chrf2, chrf2pp = {.word_order = 2};

static int count_all(struct bleu_total *t, const struct bleu_job *j, const struct lines *hyp, const struct lines *ref)
{
    int64_t n = hyp->line.n;
    struct bleu_stat *seg = calloc((size_t)n + 1, sizeof *seg);
    int rc = seg ? ERR_OK : err_set(ERR_NOMEM, "out of memory for %lld segments", (long long)n);
    for (int64_t i = 0; i < n && rc == ERR_OK; i++) {
        struct span r[MAX_REFS];
        for (int k = 0; k < j->n_refs; k++)
            r[k] = ref[k].line.v[i];
        rc = bleu_add(&seg[i], hyp->line.v[i], r, j->n_refs, &j->o);
        if (rc == ERR_OK)
            rc = chrf_add(&t->chrf, hyp->line.v[i], r, j->n_refs, &chrf2);
        if (rc == ERR_OK)
            rc = chrf_add(&t->chrfpp, hyp->line.v[i], r, j->n_refs, &chrf2pp);
        bleu_sum(&t->bleu, &seg[i]);
    }
    struct stats_plan plan = {.n = n, .replicates = REPLICATES, .seed = 12345};
    if (rc == ERR_OK)
        rc = stats_bootstrap(&t->interval, &plan, resampled, &(struct bleu_units){seg, &j->o});
    t->n = n;
    free(seg);
    return rc;
}

static int add_list(struct buf *b, const char *key, const int64_t *v)
{
    return buf_printf(b, "  \"%s\": [%lld, %lld, %lld, %lld],\n", key, (long long)v[0], (long long)v[1], (long long)v[2],
                      (long long)v[3]);
}

static int print_bleu(const struct bleu_total *t, const struct bleu_job *j)
{
    struct buf b = {0}, sig = {0}, line = {0}, csig = {0};
    struct bleu s;
    bleu_score(&s, &t->bleu, &j->o);
    int rc = bleu_signature(&sig, j->n_refs, &j->o);
    if (rc == ERR_OK)
        rc = bleu_line(&line, &t->bleu, &j->o);
    if (rc == ERR_OK)
        rc = chrf_signature(&csig, j->n_refs, &chrf2);
    if (rc == ERR_OK)
        rc = buf_puts(&b, "{\n  \"name\": \"BLEU\",\n");
    if (rc == ERR_OK)
        rc = add_number(&b, "score", s.score);
    if (rc == ERR_OK)
        rc = add_number(&b, "low95", t->interval.lo);
    if (rc == ERR_OK)
        rc = add_number(&b, "high95", t->interval.hi);
    if (rc == ERR_OK)
        rc = buf_printf(&b, "  \"signature\": \"%s\",\n  \"verbose_score\": \"%s\",\n", buf_text(&sig), buf_text(&line));
    if (rc == ERR_OK)
        rc = add_list(&b, "counts", t->bleu.correct);
    if (rc == ERR_OK)
        rc = add_list(&b, "totals", t->bleu.total);
    if (rc == ERR_OK)
        rc = add_number(&b, "bp", s.bp);
    if (rc == ERR_OK)
        rc = add_number(&b, "chrf2", chrf_score(&t->chrf, &chrf2));
    if (rc == ERR_OK)
        rc = add_number(&b, "chrf2++", chrf_score(&t->chrfpp, &chrf2pp));
    if (rc == ERR_OK)
        rc = buf_printf(&b, "  \"chrf_signature\": \"%s\",\n  \"sys_len\": %lld,\n  \"ref_len\": %lld,\n  \"segments\": %lld\n}\n",
                        buf_text(&csig), (long long)t->bleu.sys_len, (long long)t->bleu.ref_len, (long long)t->n);
    buf_free(&sig);
    buf_free(&line);
    buf_free(&csig);
    return print(&b, rc);
}

static int score_bleu(const struct bleu_job *j)
{
    struct lines hyp = {0}, ref[MAX_REFS] = {{{0}, {0}, {0}}};
    struct bleu_total t = {0};
    int rc = lines_read(&hyp, j->hyp);
    for (int k = 0; k < j->n_refs && rc == ERR_OK; k++) {
        rc = lines_read(&ref[k], j->ref[k]);
        if (rc == ERR_OK && ref[k].line.n != hyp.line.n)
            rc = err_set(ERR_FORMAT, "%s has %lld segments, %s has %lld: they must be the same segments, line by line", j->hyp,
                         (long long)hyp.line.n, j->ref[k], (long long)ref[k].line.n);
    }
    if (rc == ERR_OK && hyp.line.n == 0)
        rc = err_set(ERR_FORMAT, "%s is empty", j->hyp);
    if (rc == ERR_OK)
        rc = count_all(&t, j, &hyp, ref);
    if (rc == ERR_OK)
        rc = print_bleu(&t, j);
    lines_free(&hyp);
    for (int k = 0; k < j->n_refs; k++)
        lines_free(&ref[k]);
    return rc;
}

static int run_bleu(int argc, char **argv)
{
    static const char *const toks[] = {"13a", "none", "char"};
    struct bleu_job j = {0};
    for (int i = 2; i < argc; i++) {
        const char *a = argv[i], *v = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(a, "--lowercase") == 0) {
            j.o.lowercase = true;
            continue;
        }
        if (strcmp(a, "--hyp") != 0 && strcmp(a, "--ref") != 0 && strcmp(a, "--tok") != 0)
            return app_usage(&app_score, "unknown option '%s'", a);
        if (!v)
            return app_usage(&app_score, "%s needs a value", a);
        i++;
        if (strcmp(a, "--hyp") == 0) {
            j.hyp = v;
        } else if (strcmp(a, "--ref") == 0) {
            if (j.n_refs == MAX_REFS)
                return app_usage(&app_score, "more than %d references", MAX_REFS);
            j.ref[j.n_refs++] = v;
        } else {
            int k = 0;
            while (k < 3 && strcmp(v, toks[k]) != 0)
                k++;
            if (k == 3)
                return app_usage(&app_score, "--tok %s: 13a, none or char is needed", v);
            j.o.tok = (enum bleu_tok)k;
        }
    }
    if (!j.hyp || j.n_refs == 0)
        return app_usage(&app_score, "bleu needs --hyp FILE and --ref FILE");
    return app_fail(score_bleu(&j));
}

/* ---- triviaqa ---- */

struct qa_total {
    double em, f1, em_squad, f1_squad, f1_longbench, em_harness, contains;
    int64_t n;
};

static int score_line(struct qa_total *t, const struct json *line)
{
    static const char *const stops[] = {"\n", ".", ","};
    const struct json *p = json_get(line, "prediction"), *list = json_get(line, "aliases");
    struct qa_score s, first, cut;
    int64_t n = json_len(list);
    if (!json_str(p) || json_kind(list) != JSON_ARRAY || n < 1)
        return err_set(ERR_FORMAT, "an object with \"prediction\", a string, and \"aliases\", a list of strings, is needed");
    struct span *alias = calloc((size_t)n, sizeof *alias), text = {json_str(p), (size_t)json_len(p)};
    int rc = alias ? ERR_OK : err_set(ERR_NOMEM, "out of memory for %lld aliases", (long long)n);
    for (int64_t i = 0; i < n && rc == ERR_OK; i++) {
        const struct json *v = json_at(list, i);
        alias[i] = (struct span){json_str(v), (size_t)json_len(v)};
        if (!alias[i].s)
            rc = err_set(ERR_FORMAT, "element %lld of \"aliases\" is not a string", (long long)i);
    }
    if (rc == ERR_OK)
        rc = qa_score(&s, text, alias, n);
    if (rc == ERR_OK)
        rc = qa_score(&first, qa_first_line(text), alias, n);
    if (rc == ERR_OK)
        rc = qa_score(&cut, qa_cut(text, stops, 3), alias, n);
    free(alias);
    if (rc)
        return rc;
    t->em += s.em;
    t->f1 += s.f1;
    t->em_squad += s.em_squad;
    t->f1_squad += s.f1_squad;
    t->f1_longbench += first.f1_squad;
    t->em_harness += cut.em_harness;
    t->contains += s.contains;
    t->n++;
    return ERR_OK;
}

static int print_qa(const struct qa_total *t)
{
    struct buf b = {0};
    double n = (double)t->n / 100;
    int rc = buf_puts(&b, "{\n  \"name\": \"TriviaQA\",\n");
    const struct {
        const char *key;
        double x;
    } row[] = {{"exact_match", t->em},
               {"f1", t->f1},
               {"em_squad", t->em_squad},
               {"f1_squad", t->f1_squad},
               {"f1_longbench", t->f1_longbench},
               {"em_lmeval", t->em_harness},
               {"sub_em", t->contains}};
    for (size_t i = 0; i < sizeof row / sizeof *row && rc == ERR_OK; i++)
        rc = add_number(&b, row[i].key, row[i].x / n);
    if (rc == ERR_OK)
        rc = buf_printf(&b, "  \"denominator\": %lld\n}\n", (long long)t->n);
    return print(&b, rc);
}

static int score_triviaqa(const char *path)
{
    struct lines l;
    struct qa_total t = {0};
    int rc = lines_read(&l, path);
    for (int64_t i = 0; rc == ERR_OK && i < l.line.n; i++) {
        struct json_doc *d = NULL;
        char name[512];
        if (l.line.v[i].n == 0)
            continue;
        snprintf(name, sizeof name, "%s line %lld", path, (long long)i + 1);
        rc = json_parse(&d, l.line.v[i].s, l.line.v[i].n, name);
        if (rc == ERR_OK) {
            rc = score_line(&t, json_root(d));
            if (rc)
                err_prefix(rc, "%s", name);
        }
        json_close(d);
    }
    if (rc == ERR_OK && t.n == 0)
        rc = err_set(ERR_FORMAT, "%s: there is no prediction in it", path);
    if (rc == ERR_OK)
        rc = print_qa(&t);
    lines_free(&l);
    return rc;
}

static int run(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "bleu") == 0)
        return run_bleu(argc, argv);
    if (argc > 1 && strcmp(argv[1], "triviaqa") == 0) {
        if (argc != 4 || strcmp(argv[2], "--pred") != 0)
            return app_usage(&app_score, "triviaqa needs --pred FILE.jsonl");
        return app_fail(score_triviaqa(argv[3]));
    }
    return app_usage(&app_score, "bleu or triviaqa is needed");
}
