/* asterism generate: continues one prompt, with one attention method beside another. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/app.h"
#include "app/generate_print.h"
#include "attn/attn.h"
#include "base/arena.h"
#include "base/err.h"
#include "cfg/cfg.h"
#include "io/json.h"
#include "kernels/kern.h"
#include "model/gates.h"
#include "model/model.h"
#include "task/decode.h"
#include "task/generate.h"
#include "task/prompt.h"
#include "task/task.h"

static int run(int argc, char **argv);

const struct app_command app_generate = {
    .name = "generate",
    .brief = "continues a prompt, dense attention beside AST: the texts, time, memory, keys read, and what attends to what",
    .usage = "usage: asterism generate -m DIR -p PROMPT [options]\n\n"
             "  -m DIR            Hugging Face model folder\n"
             "  -p PROMPT         the text to continue (\"\\n\" stands for a newline); -f FILE: read it from a file\n"
             "  --max-new N       tokens at most (default 64); also -n N\n"
             "  --method M        an attention method, its options after it: --method 'ast keep=512 local=64'; may be given\n"
             "                    several times (default: dense and ast)\n"
             "  --gate FILE       trained gate weights for the methods that learn (untrained without it)\n"
             "  --sample          draw tokens (temperature 1) instead of taking the most probable one\n"
             "  --temperature T   draw at this temperature; --top-k K and --top-p P: among the most probable only\n"
             "  --seed S          of the draws (default 1): the same text for any method that gives the same logits\n"
             "  --beam K          beam search of this width; --length-penalty A (default 1): worth = log p / length ^ A\n"
             "  --stop TEXT       stop before this text (\"\\n\": at the end of the line); may be given several times\n"
             "  --pairs N         pairs of words that carry most attention (default 12, for prompts beyond 1024 tokens 0: finding\n"
             "                    them costs a pass over the keys for each 64 of them, layer and token)\n"
             "  --json            one JSON object instead of text\n"
             "  --no-bos          do not put the model's BOS token in front\n"
             "  --dtype T         weights, keys and values in memory: f32 (default) or bf16\n",
    .run = run,
};

enum { PAIRS = 12, PAIRS_PROMPT = 1024 }; /* shown by default; longest prompt that they are looked for in by default */
enum { MAX_METHODS = 8, MAX_STOPS = 8, MAX_WORDS = 32 };

struct options {
    const char *model, *prompt, *file, *gate, *method[MAX_METHODS];
    struct buf stop[MAX_STOPS];
    int n_methods, n_stops;
    int64_t n, pairs, seed;
    struct decode_opts how;
    bool no_bos, bf16, json;
};

/* "\n" written as two characters becomes a newline. */
static int unescape(const char *s, struct buf *out)
{
    int rc = ERR_OK;
    for (; *s && rc == ERR_OK; s++) {
        bool newline = s[0] == '\\' && s[1] == 'n';
        rc = newline ? buf_puts(out, "\n") : buf_add(out, s, 1);
        s += newline;
    }
    return rc;
}

/* ---- command line ---- */

struct number { /* an option with a number */
    const char *name;
    int64_t *whole; /* or */
    double *real;
    double min, max;
};

static int set_number(const struct number *n, const char *v)
{
    char *end;
    double x = strtod(v, &end);
    if (end == v || *end || !(x >= n->min && x <= n->max) || (n->whole && x != (double)(int64_t)x))
        return app_usage(&app_generate, "%s %s: a %snumber from %g to %g is needed", n->name, v, n->whole ? "whole " : "", n->min,
                         n->max);
    if (n->whole)
        *n->whole = (int64_t)x;
    else
        *n->real = x;
    return APP_OK;
}

static int set_text(struct options *o, const char *a, const char *v)
{
    if (!strcmp(a, "-m") || !strcmp(a, "--model"))
        o->model = v;
    else if (!strcmp(a, "-p") || !strcmp(a, "--prompt"))
        o->prompt = v;
    else if (!strcmp(a, "-f") || !strcmp(a, "--file"))
        o->file = v;
    else if (!strcmp(a, "--gate"))
        o->gate = v;
    else if (!strcmp(a, "--stop") && o->n_stops < MAX_STOPS)
        return app_fail(unescape(v, &o->stop[o->n_stops++]));
    else if (!strcmp(a, "--method") && o->n_methods < MAX_METHODS)
        o->method[o->n_methods++] = v;
    else if (!strcmp(a, "--dtype") && (!strcmp(v, "f32") || !strcmp(v, "bf16")))
        o->bf16 = !strcmp(v, "bf16");
    else
        return app_usage(&app_generate, "unknown option '%s %s'", a, v);
    return APP_OK;
}

static int set_option(struct options *o, const char *a, const char *v)
{
    const struct number numbers[] = {
        {"-n", &o->n, NULL, 1, 1e6},
        {"--max-new", &o->n, NULL, 1, 1e6},
        {"--pairs", &o->pairs, NULL, 0, 1e6},
        {"--seed", &o->seed, NULL, 0, 9e15},
        {"--top-k", &o->how.top_k, NULL, 0, 1e9},
        {"--beam", &o->how.beam, NULL, 1, DECODE_BEAMS},
        {"--temperature", NULL, &o->how.temperature, 0, 100},
        {"--top-p", NULL, &o->how.top_p, 0, 1},
        {"--length-penalty", NULL, &o->how.length_penalty, -10, 10},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        if (!strcmp(a, numbers[i].name))
            return set_number(&numbers[i], v);
    return set_text(o, a, v);
}

static bool set_flag(struct options *o, const char *a)
{
    bool sample = !strcmp(a, "--sample"), json = !strcmp(a, "--json"), no_bos = !strcmp(a, "--no-bos");
    if (sample && !(o->how.temperature > 0))
        o->how.temperature = 1;
    o->json = o->json || json;
    o->no_bos = o->no_bos || no_bos;
    return sample || json || no_bos;
}

static int read_options(struct options *o, int argc, char **argv)
{
    *o = (struct options){.n = 64, .pairs = -1, .seed = 1, .how = {.top_p = 1, .length_penalty = 1, .beam = 1}};
    for (int i = 1; i < argc; i++) {
        if (set_flag(o, argv[i]))
            continue;
        if (i + 1 == argc)
            return app_usage(&app_generate, "option '%s' is unknown or needs a value", argv[i]);
        int bad = set_option(o, argv[i], argv[i + 1]);
        if (bad)
            return bad;
        i++;
    }
    if (!o->model || !o->prompt == !o->file)
        return app_usage(&app_generate, "-m DIR and one of -p PROMPT and -f FILE are needed");
    if (decode_check(&o->how))
        return app_usage(&app_generate, "%s", err_text());
    if (o->n_methods == 0) {
        o->method[o->n_methods++] = "dense";
        o->method[o->n_methods++] = "ast";
    }
    return APP_OK;
}

static int encode_prompt(const struct options *o, const struct tok *tok, const struct model_info *info, struct tok_ids *ids)
{
    struct task_env env = {.bos = info->bos};
    struct buf text = {0};
    int rc = o->file ? buf_read_file(&text, o->file, 0) : unescape(o->prompt ? o->prompt : "", &text);
    if (rc == ERR_OK)
        rc = prompt_begin(ids, &env, !o->no_bos);
    if (rc == ERR_OK)
        rc = tok_encode(tok, buf_text(&text), text.len, false, ids);
    if (rc == ERR_OK && ids->n == 0)
        rc = err_set(ERR_ARG, "the prompt is empty and the model has no BOS token to start from");
    if (rc == ERR_OK && ids->n + o->n > info->context)
        rc = err_set(ERR_ARG, "%lld tokens of the prompt and %lld new ones exceed the model's context of %lld", (long long)ids->n,
                     (long long)o->n, (long long)info->context);
    buf_free(&text);
    return rc;
}

/* ---- one method ---- */

struct method { /* as it is set in the model */
    struct cfg *cfg;
    struct arena opts;
    struct gates *gates;
};

static void method_close(struct method *a)
{
    gates_close(a->gates);
    cfg_close(a->cfg);
    arena_close(&a->opts);
}

/* "ast keep=512": a name and its options. */
static int method_set(struct method *a, const struct options *o, const char *spec, struct model *m)
{
    char text[512], *word[MAX_WORDS], *save = NULL;
    int n = 0;
    *a = (struct method){0};
    if ((size_t)snprintf(text, sizeof text, "%s", spec) >= sizeof text)
        return err_set(ERR_ARG, "--method: %zu bytes are too many", strlen(spec));
    for (char *w = strtok_r(text, " ", &save); w && n < MAX_WORDS; w = strtok_r(NULL, " ", &save))
        word[n++] = w;
    const struct attn_method *impl = n > 0 ? attn_find(word[0]) : NULL;
    if (!impl)
        return attn_unknown(n > 0 ? word[0] : "");
    if (n > 1 && !impl->fields)
        return err_set(ERR_ARG, "method %s has no options: %s", impl->name, word[1]);
    int rc = arena_open(&a->opts, "options", 1 << 20);
    void *opts = rc || !impl->opts_size ? NULL : arena_alloc0(&a->opts, 1, impl->opts_size);
    if (rc == ERR_OK && impl->opts_size && !opts)
        rc = ERR_NOMEM;
    rc = rc ? rc : cfg_open(&a->cfg, NULL, (const char *const *)word + 1, n - 1);
    if (rc == ERR_OK && impl->fields)
        rc = cfg_load(a->cfg, "", impl->fields, opts);
    rc = rc ? rc : cfg_finish(a->cfg);
    if (rc == ERR_OK && o->gate && (impl->caps & ATTN_LEARNED))
        rc = gates_open(&a->gates, o->gate, model_info(m));
    return rc ? rc : model_set_attention(m, impl, opts, gates_params(a->gates));
}

static void add_keys(struct continuation *out, const struct attn_stats *s, int64_t layers)
{
    double seen = 0, causal = 0;
    for (int64_t l = 0; l < layers; l++) {
        seen += s[l].pairs_seen;
        causal += s[l].pairs_causal;
    }
    out->keys_read = causal > 0 ? seen / causal : 0;
}

/* The continuation under the method that is set. */
static int continue_prompt(const struct options *o, struct model *m, const struct tok *tok, const struct tok_ids *ids,
                           struct continuation *out)
{
    const struct model_info *info = model_info(m);
    struct arena step = {0};
    const char *stops[MAX_STOPS];
    for (int i = 0; i < o->n_stops; i++)
        stops[i] = buf_text(&o->stop[i]);
    struct attn_stats *stats = calloc((size_t)info->layers, sizeof *stats);
    size_t run = generate_bytes(m, &o->how, 1, ids->n, ids->n + o->n), trace = pairs_bytes(m, ids->n, o->n);
    int rc = stats ? arena_open(&step, "step", (run > trace ? run : trace) + ((size_t)1 << 20)) : err_set(ERR_NOMEM, "no memory");
    struct generate_seq q = {.prompt = ids->v, .n = ids->n, .max_new = o->n, .text = &out->text, .ids = &out->ids};
    struct generate_call c = {.model = m, .tok = tok, .seq = &q, .n_seq = 1, .how = &o->how, .seed = (uint64_t)o->seed};
    c.stop = stops;
    c.n_stop = o->n_stops;
    c.eos = info->eos;
    c.n_eos = info->n_eos;
    c.timer = &out->timer;
    c.stats = stats;
    c.step = &step;
    double t0 = timer_now();
    rc = rc ? rc : generate_run(&c);
    out->seconds = timer_now() - t0;
    out->first_s = q.first_s;
    out->prompt_tokens = ids->n;
    out->made = q.made;
    out->score = q.score;
    out->beam = o->how.beam > 1;
    out->cache_bytes = (double)model_cache_bytes(m, ids->n + o->n) * (double)o->how.beam;
    out->step_bytes = (double)step.peak;
    if (stats)
        add_keys(out, stats, info->layers);
    struct pairs_call p = {.model = m, .tok = tok, .prompt = ids, .made = &out->ids, .step = &step};
    p.most = o->pairs >= 0 ? o->pairs : ids->n <= PAIRS_PROMPT ? PAIRS : 0;
    if (rc == ERR_OK && p.most > 0)
        rc = pairs_find(&out->pairs, &p);
    free(stats);
    arena_close(&step);
    return rc;
}

/* ---- all of them ---- */

static int print_all(const struct options *o, struct model *m, const struct tok *tok, const struct tok_ids *ids)
{
    struct buf text = {0};
    int rc = ERR_OK;
    if (o->json)
        rc = buf_puts(&text, "{\"model\": ");
    if (o->json && rc == ERR_OK)
        rc = json_quote(&text, o->model, strlen(o->model));
    if (o->json && rc == ERR_OK)
        rc = buf_puts(&text, ", \"results\": [");
    for (int i = 0; i < o->n_methods && o->method[i] && rc == ERR_OK; i++) {
        struct method a;
        struct continuation c = {.method = o->method[i]};
        rc = method_set(&a, o, o->method[i], m);
        rc = rc ? rc : continue_prompt(o, m, tok, ids, &c);
        if (o->json && rc == ERR_OK)
            rc = buf_puts(&text, i ? ",\n  " : "\n  ");
        rc = rc ? rc : o->json ? continuation_json(&c, &text) : continuation_text(&c, &text);
        continuation_free(&c);
        method_close(&a);
        if (!o->json) { /* as soon as it is there */
            printf("%s", buf_text(&text));
            fflush(stdout);
            buf_clear(&text);
        }
    }
    if (o->json && rc == ERR_OK)
        printf("%s]}\n", buf_text(&text));
    buf_free(&text);
    return rc;
}

static int run(int argc, char **argv)
{
    struct options o;
    struct kern_table kern;
    struct model *m = NULL;
    struct tok *tok = NULL;
    struct tok_ids ids = {0};
    int bad = read_options(&o, argc, argv), rc = ERR_OK;
    if (!bad) {
        rc = kern_select(&kern, NULL) ? err_set(ERR_ARG, "AST_ISA names no instruction set that this CPU runs") : ERR_OK;
        enum kern_dtype t = o.bf16 ? KERN_BF16 : KERN_F32;
        struct model_open how = {.path = o.model, .dtype = t, .kv_dtype = t, .kern = &kern, .check_finite = true};
        rc = rc ? rc : tok_open(&tok, o.model);
        rc = rc ? rc : model_open(&m, &how);
        rc = rc ? rc : encode_prompt(&o, tok, model_info(m), &ids);
        rc = rc ? rc : print_all(&o, m, tok, &ids);
    }
    for (int i = 0; i < o.n_stops; i++)
        buf_free(&o.stop[i]);
    tok_ids_free(&ids);
    tok_close(tok);
    model_close(m);
    return bad ? bad : app_fail(rc);
}
