/* asterism bench: this machine's limits, kernels and engine against them, and another engine in turn with ours. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/app.h"
#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "bench/bench.h"
#include "build_info.h"
#include "comm/comm.h"
#include "io/file.h"
#include "io/random_ckpt.h"

static int run(int argc, char **argv);

const struct app_command app_bench = {
    .name = "bench",
    .brief = "this machine's limits, and how close kernels and engine come to them",
    .usage =
        "usage: asterism bench [-m MODEL ... | --preset NAME ...] [OPTIONS]\n\n"
        "Measures what this machine can do at most (multiply-adds in registers, reads by working-set size), then each\n"
        "kernel and the whole engine (prefill by length; decoding 1 and 16 sequences at 64 tokens of context), each in turn\n"
        "with its limit: the roofline, the longer of operations / peak and bytes / bandwidth. ratio 1: nothing left to gain.\n"
        "Under mpirun the ranks are one tensor-parallel group; limits and rates are sums over them.\n\n"
        "  -m MODEL           a Hugging Face folder; may be repeated\n"
        "  --preset NAME      125m (default), 1.1b or tiny: random weights, written to $TMPDIR and removed afterwards\n"
        "  --only PART        kernels, engine or peaks\n"
        "  --match TEXT       only what has TEXT in its name: 'linear bf16', 'decode'\n"
        "  --quick            seconds instead of minutes: small sizes, 3 rounds, the model of data/asterism-S\n"
        "  --lengths N,N,...  prefill lengths, default 512,2048,8192 (--quick: 256)\n"
        "  --dtype T,T        f32,bf16: of weights, keys and values; default both\n"
        "  --rounds N         default 5\n"
        "  --threads N        of a rank; default: the cores divided by the ranks on the node\n"
        "  --out FILE         also as columns of an HDF5 file\n\n"
        "  --peer 'COMMAND'   instead of kernels and engine: runs COMMAND (a shell line) in turn with ours, --rounds times, and\n"
        "                     prints the median ratio of tokens a second. COMMAND does the same work: the first model, type\n"
        "                     and length here. Its figure is the last number of the last line that matches\n"
        "  --peer-match RE    extended regular expression, default 'tok(en)?s?/s|t/s'\n"
        "  --peer-what W      prefill (default), decode (1 sequence) or decode16\n"
        "                     e.g. --peer 'llama-bench -m x.gguf -p 512 -n 0 -t 2 -o json' --peer-match avg_ts\n\n"
        "AST_ISA=avx2 and AST_ISA=ref measure the other kernels.\n",
    .run = run,
};

enum { LIST = 16 };

struct args {
    struct bench_opts o;
    int64_t length[LIST];
    const char *model[LIST], *preset[LIST];
    char temp[LIST][FILE_PATH]; /* folders of the presets, "" if not made */
    int n_presets;
    const char *out;
};

static int set_number(const char *option, const char *text, int64_t min, int64_t max, int64_t *out)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (errno || end == text || *end || v < min || v > max)
        return err_set(ERR_ARG, "%s %s: a whole number from %lld to %lld is needed", option, text, (long long)min, (long long)max);
    *out = v;
    return ERR_OK;
}

static int set_lengths(struct args *a, const char *text)
{
    char part[32];
    int rc = ERR_OK;
    a->o.n_lengths = 0;
    while (!rc && *text) {
        size_t n = strcspn(text, ",");
        snprintf(part, sizeof part, "%.*s", (int)(n < sizeof part ? n : sizeof part - 1), text);
        if (a->o.n_lengths == LIST)
            return err_set(ERR_ARG, "--lengths: more than %d", LIST);
        rc = set_number("--lengths", part, 1, 1 << 24, &a->length[a->o.n_lengths++]);
        text += n + (text[n] == ',');
    }
    return rc ? rc : a->o.n_lengths ? ERR_OK : err_set(ERR_ARG, "--lengths is empty; e.g. --lengths 512,2048");
}

static int set_types(struct bench_opts *o, const char *text)
{
    o->dtype[KERN_F32] = strcmp(text, "f32") == 0 || strcmp(text, "f32,bf16") == 0 || strcmp(text, "bf16,f32") == 0;
    o->dtype[KERN_BF16] = strcmp(text, "bf16") == 0 || strcmp(text, "f32,bf16") == 0 || strcmp(text, "bf16,f32") == 0;
    return o->dtype[0] || o->dtype[1] ? ERR_OK : err_set(ERR_ARG, "--dtype %s: f32, bf16 or f32,bf16 is needed", text);
}

static int set_only(struct bench_opts *o, const char *text)
{
    o->kernels = strcmp(text, "kernels") == 0;
    o->engine = strcmp(text, "engine") == 0;
    return o->kernels || o->engine || strcmp(text, "peaks") == 0
               ? ERR_OK
               : err_set(ERR_ARG, "--only %s: kernels, engine or peaks is needed", text);
}

static int set_what(struct bench_opts *o, const char *text)
{
    o->peer_what = text;
    return strcmp(text, "prefill") == 0 || strcmp(text, "decode") == 0 || strcmp(text, "decode16") == 0
               ? ERR_OK
               : err_set(ERR_ARG, "--peer-what %s: prefill, decode or decode16 is needed", text);
}

static int set_path(const char *option, const char **list, int *n, const char *value)
{
    if (*n == LIST)
        return err_set(ERR_ARG, "%s: more than %d", option, LIST);
    list[(*n)++] = value;
    return ERR_OK;
}

/* An option with a value. */
static int set(struct args *a, const char *option, const char *value)
{
    int64_t v = 0;
    int rc;
    struct random_shape shape;
    if (strcmp(option, "-m") == 0)
        return set_path(option, a->model, &a->o.n_models, value);
    if (strcmp(option, "--preset") == 0)
        return random_preset(&shape, value) ? ERR_ARG : set_path(option, a->preset, &a->n_presets, value);
    if (strcmp(option, "--only") == 0)
        return set_only(&a->o, value);
    if (strcmp(option, "--lengths") == 0)
        return set_lengths(a, value);
    if (strcmp(option, "--dtype") == 0)
        return set_types(&a->o, value);
    if (strcmp(option, "--peer-what") == 0)
        return set_what(&a->o, value);
    if (strcmp(option, "--rounds") == 0 || strcmp(option, "--threads") == 0) {
        bool threads = option[2] == 't';
        rc = set_number(option, value, 1, threads ? 4096 : BENCH_ROUNDS, &v);
        *(threads ? &a->o.threads : &a->o.rounds) = (int)v;
        return rc;
    }
    if (strcmp(option, "--out") == 0)
        a->out = value;
    else if (strcmp(option, "--match") == 0)
        a->o.match = value;
    else if (strcmp(option, "--peer") == 0)
        a->o.peer = value;
    else if (strcmp(option, "--peer-match") == 0)
        a->o.peer_match = value;
    else
        return err_set(ERR_ARG, "unknown option '%s'", option);
    return ERR_OK;
}

static int parse(int argc, char **argv, struct args *a)
{
    a->o = (struct bench_opts){.kernels = true, .engine = true, .dtype = {true, true}, .length = a->length, .model = a->model};
    a->o.peer_match = "tok(en)?s?/s|t/s";
    a->o.peer_what = "prefill";
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--quick") == 0) {
            a->o.quick = true;
            continue;
        }
        if (i + 1 == argc)
            return err_set(ERR_ARG, "'%s' is unknown, or its value is missing", argv[i]);
        int rc = set(a, argv[i], argv[i + 1]);
        if (rc)
            return rc;
        i++;
    }
    if (!a->o.n_lengths)
        set_lengths(a, a->o.quick ? "256" : "512,2048,8192");
    if (!a->o.rounds)
        a->o.rounds = a->o.quick ? 3 : 5;
    if (!a->o.n_models && !a->n_presets && a->o.quick && file_is_folder("data/asterism-S"))
        return set_path("-m", a->model, &a->o.n_models, "data/asterism-S");
    if (!a->o.n_models && !a->n_presets)
        return set_path("--preset", a->preset, &a->n_presets, a->o.quick ? "tiny" : "125m");
    return ERR_OK;
}

/* ---- models that are made for the run ---- */

static int make_folder(char folder[FILE_PATH], const char *preset)
{
    const char *tmp = getenv("TMPDIR");
    char name[128];
    snprintf(name, sizeof name, "asterism-bench-%s-XXXXXX", preset);
    int rc = file_join(folder, tmp && tmp[0] ? tmp : "/tmp", name);
    if (rc)
        return rc;
    if (!mkdtemp(folder)) {
        rc = err_set(ERR_IO, "%s: %s; TMPDIR names another place", folder, strerror(errno));
        folder[0] = '\0';
    }
    return rc;
}

static int make_model(char folder[FILE_PATH], const char *preset)
{
    struct random_ckpt r = {.folder = folder, .dtype = ST_BF16, .seed = 1, .shards = 1};
    int64_t params;
    size_t bytes;
    int rc = make_folder(folder, preset);
    if (!rc)
        rc = random_preset(&r.shape, preset);
    if (!rc) {
        r.shape.kv_heads = r.shape.kv_heads ? r.shape.kv_heads : r.shape.heads;
        r.shape.head_dim = r.shape.hidden / r.shape.heads;
        log_info("writing random weights to %s", folder);
        rc = random_write(&r, &params, &bytes);
    }
    return rc;
}

/* Collective: rank 0 writes, all learn where. */
static int make_models(struct args *a, const struct comm_group *world)
{
    int rc = ERR_OK;
    for (int i = 0; !rc && a->o.engine && i < a->n_presets; i++) {
        if (!world || world->rank == 0)
            rc = make_model(a->temp[i], a->preset[i]);
        rc = comm_agree(world, rc);
        comm_bcast(world, a->temp[i], sizeof a->temp[i], 0);
        if (!rc)
            rc = set_path("--preset", a->model, &a->o.n_models, a->temp[i]);
    }
    return rc;
}

static void remove_models(struct args *a, const struct comm_group *world)
{
    static const char *const files[] = {"model.safetensors", "config.json"};
    char path[FILE_PATH];
    comm_barrier(world);
    for (int i = 0; i < a->n_presets && (!world || world->rank == 0); i++) {
        if (!a->temp[i][0])
            continue;
        for (int f = 0; f < 2; f++)
            if (!file_join(path, a->temp[i], files[f]))
                unlink(path);
        if (rmdir(a->temp[i]))
            log_warn("%s could not be removed: %s", a->temp[i], strerror(errno));
    }
}

/* ---- */

/* "AMD EPYC 9B14", or "" */
static void cpu_name(char *out, size_t cap)
{
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");
    out[0] = '\0';
    while (f && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && colon) {
            line[strcspn(line, "\n")] = '\0';
            snprintf(out, cap, "%s", colon + 1 + (colon[1] == ' '));
            break;
        }
    }
    if (f)
        fclose(f);
}

static int measure(struct args *a, const struct comm_group *world)
{
    struct bench b;
    char host[256] = "", cpu[256];
    int rc = bench_open(&b, &a->o, world, !world || world->rank == 0 ? stdout : NULL);
    rc = comm_agree(world, rc);
    if (!rc)
        rc = bench_run(&b);
    gethostname(host, sizeof host - 1);
    cpu_name(cpu, sizeof cpu);
    const char *about[] = {
        "git_revision", BUILD_REVISION, "compiler", BUILD_COMPILER, "cflags", BUILD_CFLAGS, "host", host, "cpu", cpu, NULL};
    if (!rc && a->out)
        rc = bench_save(&b, a->out, about);
    bench_close(&b);
    return rc;
}

static int run(int argc, char **argv)
{
    struct comm_group *world = NULL;
    struct args *a = calloc(1, sizeof *a);
    int code, node_rank, node_size, rc = comm_start(&argc, &argv, &world);
    AST_ASSERT(a != NULL);
    log_setup(world ? world->rank : 0, LOG_INFO);
    if (!rc)
        rc = comm_agree(world, parse(argc, argv, a));
    if (rc == ERR_ARG && (!world || world->rank == 0)) {
        code = app_usage(&app_bench, "%s", err_text());
        goto out;
    }
    if (!rc) {
        comm_node(world, &node_rank, &node_size);
        if (!a->o.threads)
            a->o.threads = mem_cores() >= node_size ? mem_cores() / node_size : 1;
        rc = make_models(a, world);
    }
    if (!rc)
        rc = measure(a, world);
    remove_models(a, world);
    code = app_fail(rc);
out:
    free(a);
    comm_free(world);
    comm_stop();
    return code;
}
