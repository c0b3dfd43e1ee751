/* Gradients of whole models against transformers': loss to 1e-6, every tensor to 1e-4 of its largest entry, on every
 * instruction set of this CPU. */
#include "base/arena.h"
#include "base/err.h"
#include "io/file.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "kernels/kern.h"
#include "tests/t.h"
#include "train/net.h"

#define GOLDEN "../shared/golden/models"
enum { N = 129 };

static struct kern_table kern;
static struct arena step;
static const char *path;

static float f32_at(const struct st_tensor *t, int64_t i)
{
    float v;
    memcpy(&v, (const char *)t->data + i * 4, sizeof v);
    return v;
}

/* One tensor's gradient; the golden's loss is a mean over `count` tokens. */
static void compare(const struct net *n, const struct st_tensor *t, double count)
{
    int64_t size = 1;
    double most = 0, worst = 0;
    for (int i = 0; i < t->rank; i++)
        size *= t->dim[i];
    float *got = ARENA_NEW(&step, size, float);
    T_EQ(net_tensor(n, t->name + strlen("grad."), true, got), ERR_OK);
    for (int64_t i = 0; i < size; i++) {
        double want = (double)f32_at(t, i), off = fabs((double)got[i] / count - want);
        most = fmax(most, fabs(want));
        worst = off <= worst ? worst : off; /* a NaN sticks */
    }
    if (!(worst <= 1e-4 * most))
        T_FAIL("%s, %s: off by %g of %g", path, t->name, worst, most);
}

static void gradients_equal_transformers(void)
{
    char file[FILE_PATH];
    struct safetensors *st = NULL;
    struct json_doc *doc = NULL;
    struct net *n = NULL;
    double loss = 0;
    snprintf(file, sizeof file, "%s/expected.safetensors", path);
    T_EQ(st_open(&st, file), ERR_OK);
    snprintf(file, sizeof file, "%s/expected.json", path);
    T_EQ(json_read(&doc, file), ERR_OK);
    T_EQ(json_real(doc, json_root(doc), "loss_129", NAN, -1e9, 1e9, &loss), ERR_OK);
    if (net_open(&n, &(struct net_how){.path = path, .kern = &kern, .train = NET_WEIGHTS}))
        T_FAIL("%s", err_text());
    const struct st_tensor *ids = st ? st_find(st, "ids_129") : NULL;
    if (n && ids && doc) {
        int32_t token[N], target[N];
        int64_t at[2] = {0, N};
        for (int i = 0; i < N; i++) {
            int64_t v;
            memcpy(&v, (const char *)ids->data + i * 8, sizeof v);
            token[i] = (int32_t)v;
            target[i] = -1;
            if (i)
                target[i - 1] = token[i];
        }
        struct back_rule rule[MODEL_MAX_LAYERS] = {{.mask = BACK_DENSE}};
        struct net_step s = {.b = &(struct model_batch){.n_seq = 1, .at = at, .token = token, .target = target}};
        s.rule = rule, s.backward = true, s.ce = 1;
        size_t bound = net_step_bytes(n, rule, N, N, false), before = step.peak = step.used;
        T_EQ(net_step(n, &s, &step), ERR_OK);
        T_CHECK(step.peak - before <= bound);
        T_EQ(s.count, N - 1);
        T_NEAR(s.loss / s.count / loss, 1, 1e-6);
        int64_t seen = 0;
        for (int64_t i = 0; i < st_count(st); i++)
            if (!strncmp(st_at(st, i)->name, "grad.", 5)) {
                compare(n, st_at(st, i), s.count);
                seen++;
            }
        T_CHECK(seen > 20);
    }
    err_clear();
    net_close(n);
    st_close(st);
    json_close(doc);
    arena_release(&step, 0);
}

int main(int argc, char **argv)
{
    static const char *const cases[] = {"llama-gqa", "qwen2", "gpt2"};
    t_start(&argc, &argv);
    if (arena_open(&step, "step", (size_t)1 << 30))
        return 1;
    for (int isa = 0; isa < kern_isa_count(); isa++)
        for (int i = 0; i < 3; i++) {
            char folder[FILE_PATH], label[128];
            snprintf(folder, sizeof folder, "%s/%s", GOLDEN, cases[i]);
            snprintf(label, sizeof label, "gradients_equal_transformers: %s, %s", cases[i], kern_isa_name(isa));
            path = folder;
            if (!kern_isa_runs(isa) || !file_exists(folder)) {
                t_skip(label, kern_isa_runs(isa) ? "skipped: " GOLDEN " is not there" : "skipped: this CPU cannot run it");
                continue;
            }
            kern_select(&kern, kern_isa_name(isa));
            t_run(label, gradients_equal_transformers);
        }
    arena_close(&step);
    return t_done();
}
