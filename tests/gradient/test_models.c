/* Every parameter of every architecture against finite differences along its own gradient: d loss / dh at w + h g/|g| must be
 * |g|. The loss is a sum of floats near 10 a token; with steps that change it by 0.1 central differences with one extrapolation
 * (Richardson 1911) hold to 1e-3. */
#include "base/arena.h"
#include "base/err.h"
#include "io/file.h"
#include "kernels/linear.h"
#include "tests/t.h"
#include "train/net.h"

#define GOLDEN "../shared/golden/models"
enum { N = 45 };

static struct kern_table kern;
static struct arena step;
static const char *path;
static struct net *n;
static struct back_rule rule[MODEL_MAX_LAYERS];
static double kl; /* weight of the divergence from the model as it was read */

static double loss(bool backward)
{
    int32_t token[N], target[N];
    int64_t at[4] = {0, 17, 18, N}; /* one sequence is a single token */
    for (int i = 0; i < N; i++) {
        token[i] = (i * 37 + 11) % 256;
        target[i] = i == 16 || i == N - 1 ? -1 : (i * 53 + 5) % 256;
    }
    struct net_step s = {.b = &(struct model_batch){.n_seq = 3, .at = at, .token = token, .target = target}};
    s.rule = rule, s.backward = backward, s.ce = 1 - kl, s.kl = kl;
    T_EQ(net_step(n, &s, &step), ERR_OK);
    T_CHECK(s.divergence >= -1e-4);
    return s.ce * s.loss + kl * s.divergence;
}

/* Loss with the parameter moved by h along u (unit length). */
static double moved(const struct train_param *p, const float *w, const float *u, double h)
{
    for (int64_t i = 0; i < p->n; i++)
        p->w[i] = (float)((double)w[i] + h * (double)u[i]);
    net_refresh(n);
    double l = loss(false);
    memcpy(p->w, w, (size_t)p->n * sizeof *w);
    return l;
}

static void check_param(const struct train_param *p)
{
    double norm = 0;
    float *w = ARENA_NEW(&step, p->n, float), *u = ARENA_NEW(&step, p->n, float);
    memcpy(w, p->w, (size_t)p->n * sizeof *w);
    for (int64_t i = 0; i < p->n; i++)
        norm += (double)p->g[i] * (double)p->g[i];
    norm = sqrt(norm);
    if (strstr(p->name, ".k.b")) { /* a bias of all keys moves every logit of a row alike, where nothing rotates it */
        T_CHECK(isfinite(norm));
        return;
    }
    T_CHECK(norm > 0);
    for (int64_t i = 0; i < p->n; i++)
        u[i] = (float)((double)p->g[i] / norm);
    double h = fmin(0.1 / norm, 0.02);
    double one = (moved(p, w, u, h) - moved(p, w, u, -h)) / (2 * h),
           two = (moved(p, w, u, 2 * h) - moved(p, w, u, -2 * h)) / (4 * h);
    double slope = (4 * one - two) / 3;
    if (!(fabs(slope / norm - 1) <= 1e-3))
        T_FAIL("%s, %s: slope %g, gradient %g", path, p->name, slope, norm);
}

static void check_model(unsigned train)
{
    if (net_open(&n, &(struct net_how){.path = path, .kern = &kern, .train = train, .rank = 3, .seed = 5})) {
        T_FAIL("%s", err_text());
        err_clear();
        return;
    }
    if (train & NET_ADAPTERS || kl > 0) /* B = 0 would leave A without a gradient, the model itself the divergence */
        for (int64_t i = 0; i < n->params.n; i++)
            for (int64_t j = 0; j < n->params.at[i].n; j++)
                n->params.at[i].w[j] += (float)(0.02 * sin((double)(3 * j + i)));
    net_refresh(n);
    loss(true);
    for (int64_t i = 0; i < n->params.n; i++) {
        size_t mark = arena_mark(&step);
        check_param(&n->params.at[i]);
        arena_release(&step, mark);
    }
    net_close(n);
    n = NULL;
}

static void gradients_are_slopes_of_the_loss(void)
{
    check_model(NET_WEIGHTS);
}

static void gradients_of_adapters_are_slopes_of_the_loss(void)
{
    check_model(NET_ADAPTERS);
}

static void the_divergence_from_the_dense_model_has_its_gradient(void)
{
    kl = 0.999;
    check_model(NET_WEIGHTS);
    kl = 0;
}

static void gradients_under_a_window_are_slopes_of_the_loss(void)
{
    for (int l = 0; l < MODEL_MAX_LAYERS; l++)
        rule[l].keep = 9, rule[l].sinks = 2;
    check_model(NET_WEIGHTS);
    memset(rule, 0, sizeof rule);
}

static void gradients_add_up_over_calls(void)
{
    if (net_open(&n, &(struct net_how){.path = path, .kern = &kern, .train = NET_WEIGHTS}))
        return;
    loss(true);
    float once = n->params.at[2].g[0];
    loss(true);
    T_NEAR(n->params.at[2].g[0], 2 * once, 1e-6);
    net_close(n);
}

int main(int argc, char **argv)
{
    static const char *const cases[] = {"llama-gqa", "llama-yarn-rope", "mistral-swa", "qwen2", "qwen3", "gpt2", "gpt-neox"};
    t_start(&argc, &argv);
    kern_select(&kern, NULL);
    kern_threads(1); /* tiny matrices by the thousand */
    if (arena_open(&step, "step", (size_t)1 << 30))
        return 1;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char folder[FILE_PATH], label[128];
        snprintf(folder, sizeof folder, "%s/%s", GOLDEN, cases[i]);
        snprintf(label, sizeof label, "gradients_are_slopes_of_the_loss: %s", cases[i]);
        path = folder;
        if (!file_exists(folder)) {
            t_skip(label, "skipped: " GOLDEN " is not there");
            continue;
        }
        t_run(label, gradients_are_slopes_of_the_loss);
        if (i == 0) {
            T_RUN(gradients_of_adapters_are_slopes_of_the_loss);
            T_RUN(the_divergence_from_the_dense_model_has_its_gradient);
            T_RUN(gradients_under_a_window_are_slopes_of_the_loss);
            T_RUN(gradients_add_up_over_calls);
        }
    }
    arena_close(&step);
    return t_done();
}
