/* asterism generate: continues one prompt, with one attention method beside another. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/app.h"
#include "attn/attn.h"
#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "base/timer.h"
#include "cfg/cfg.h"
#include "kernels/kern.h"
#include "model/model.h"
#include "task/generate.h"
#include "task/prompt.h"
#include "task/task.h"
#include "text/tok.h"

static int run(int argc, char **argv);

const struct app_command app_generate = {
    .name = "generate",
    .brief = "continues a prompt greedily, one attention method beside another: the texts, time and memory",
    .usage = "usage: asterism generate -m DIR -p PROMPT [options]\n\n"
             "  -m DIR          Hugging Face model folder\n"
             "  -p PROMPT       the text to continue (\"\\n\" stands for a newline); -f FILE: read it from a file\n"
             "  -n N            tokens at most (default 64)\n"
             "  --method M      an attention method with its default options; may be given several times (default: dense)\n"
             "  --stop TEXT     stop before this text (\"\\n\": at the end of the line)\n"
             "  --no-bos        do not put the model's BOS token in front\n"
             "  --dtype T       weights, keys and values in memory: f32 (default) or bf16\n",
    .run = run,
};

enum { MAX_METHODS = 8 };

struct options {
    const char *model, *prompt, *file, *stop, *method[MAX_METHODS];
    int n_methods;
    int64_t n;
    bool no_bos, bf16;
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

static int set_option(struct options *o, const char *a, const char *v)
{
    if (!strcmp(a, "-m") || !strcmp(a, "--model"))
        o->model = v;
    else if (!strcmp(a, "-p") || !strcmp(a, "--prompt"))
        o->prompt = v;
    else if (!strcmp(a, "-f") || !strcmp(a, "--file"))
        o->file = v;
    else if (!strcmp(a, "--stop"))
        o->stop = v;
    else if (!strcmp(a, "--method") && o->n_methods < MAX_METHODS)
        o->method[o->n_methods++] = v;
    else if (!strcmp(a, "--dtype") && (!strcmp(v, "f32") || !strcmp(v, "bf16")))
        o->bf16 = !strcmp(v, "bf16");
    else if (!strcmp(a, "-n")) {
        char *end;
        o->n = strtoll(v, &end, 10);
        if (*end || o->n < 1 || o->n > 1000000)
            return app_usage(&app_generate, "-n %s: a number of tokens from 1 to 1000000 is needed", v);
    } else
        return app_usage(&app_generate, "unknown option '%s %s'", a, v);
    return APP_OK;
}

static int read_options(struct options *o, int argc, char **argv)
{
    *o = (struct options){.n = 64};
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--no-bos")) {
            o->no_bos = true;
            continue;
        }
        if (i + 1 == argc)
            return app_usage(&app_generate, "option '%s' needs a value", argv[i]);
        int bad = set_option(o, argv[i], argv[i + 1]);
        if (bad)
            return bad;
        i++;
    }
    if (!o->model || !o->prompt == !o->file)
        return app_usage(&app_generate, "-m DIR and one of -p PROMPT and -f FILE are needed");
    if (o->n_methods == 0)
        o->method[o->n_methods++] = "dense";
    return APP_OK;
}

static int encode_prompt(const struct options *o, const struct tok *tok, const struct model_info *info, struct tok_ids *ids)
{
    struct task_env env = {.bos = info->bos};
    struct buf text = {0};
    int rc = o->file ? buf_read_file(&text, o->file, 0) : unescape(o->prompt, &text);
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

static int set_method(struct model *m, const char *name, struct arena *a)
{
    const struct attn_method *method = attn_find(name);
    if (!method)
        return attn_unknown(name);
    void *opts = method->opts_size ? arena_alloc0(a, 1, method->opts_size) : NULL;
    if (method->opts_size && !opts)
        return ERR_NOMEM;
    int rc = method->fields ? cfg_defaults(method->fields, opts) : ERR_OK;
    return rc ? rc : model_set_attention(m, method, opts, NULL);
}

static int continue_with(const struct options *o, const char *method, struct model *m, const struct tok *tok,
                         const struct tok_ids *ids)
{
    const struct model_info *info = model_info(m);
    struct arena opts = {0}, step = {0};
    struct buf text = {0}, stop = {0};
    struct timer timer = {{0}};
    int rc = arena_open(&opts, "options", 1 << 20);
    if (rc == ERR_OK)
        rc = set_method(m, method, &opts);
    if (rc == ERR_OK)
        rc = arena_open(&step, "step", generate_bytes(m, NULL, 1, ids->n, ids->n + o->n) + ((size_t)1 << 20));
    if (rc == ERR_OK && o->stop)
        rc = unescape(o->stop, &stop);
    const char *stops[] = {buf_text(&stop)};
    struct generate_seq q = {.prompt = ids->v, .n = ids->n, .max_new = o->n, .text = &text};
    struct generate_call c = {.model = m,
                              .tok = tok,
                              .seq = &q,
                              .n_seq = 1,
                              .stop = stops,
                              .n_stop = o->stop != NULL,
                              .eos = info->eos,
                              .n_eos = info->n_eos,
                              .timer = &timer,
                              .step = &step};
    double t0 = timer_now();
    if (rc == ERR_OK)
        rc = generate_run(&c);
    double s = timer_now() - t0;
    if (rc == ERR_OK) {
        char cache[32], work[32];
        log_bytes((double)model_cache_bytes(m, ids->n + o->n), cache, sizeof cache);
        log_bytes((double)step.peak, work, sizeof work);
        printf("--- %s: %lld tokens after %lld in %.2f s (attention %.2f s), cache %s, activations %s\n%s\n", method,
               (long long)q.made, (long long)ids->n, s, timer.s[TIMER_ATTN], cache, work, buf_text(&text));
    }
    buf_free(&text);
    buf_free(&stop);
    arena_close(&step);
    arena_close(&opts);
    return rc;
}

static int run(int argc, char **argv)
{
    struct options o;
    struct kern_table kern;
    struct model *m = NULL;
    struct tok *tok = NULL;
    struct tok_ids ids = {0};
    int bad = read_options(&o, argc, argv);
    if (bad)
        return bad;
    int rc = kern_select(&kern, NULL) ? err_set(ERR_ARG, "AST_ISA names no instruction set that this CPU runs") : ERR_OK;
    enum kern_dtype t = o.bf16 ? KERN_BF16 : KERN_F32;
    if (rc == ERR_OK)
        rc = tok_open(&tok, o.model);
    if (rc == ERR_OK)
        rc = model_open(&m, &(struct model_open){.path = o.model, .dtype = t, .kv_dtype = t, .kern = &kern, .check_finite = true});
    if (rc == ERR_OK)
        rc = encode_prompt(&o, tok, model_info(m), &ids);
    for (int i = 0; i < o.n_methods && rc == ERR_OK; i++)
        rc = continue_with(&o, o.method[i], m, tok, &ids);
    tok_ids_free(&ids);
    tok_close(tok);
    model_close(m);
    return app_fail(rc);
}
