/* Random checkpoints: shapes, statistics, the same values for any number of shards, refusals. */
#include "tests/t.h"

#include <unistd.h>

#include "base/err.h"
#include "io/file.h"
#include "io/json.h"
#include "io/random_ckpt.h"

static char dir[64];

static const char *in_dir(const char *name)
{
    static char path[4][128];
    static int i;
    i = (i + 1) % 4;
    snprintf(path[i], sizeof path[i], "%s/%s", dir, name);
    return path[i];
}

static const struct random_shape small = {.hidden = 48,
                                          .layers = 2,
                                          .heads = 6,
                                          .kv_heads = 2,
                                          .head_dim = 10,
                                          .mlp = 100,
                                          .vocab = 301,
                                          .positions = 64,
                                          .rope_theta = 1e4};

static struct safetensors *make(const char *name, enum st_dtype dtype, int64_t shards, const char *like, uint64_t seed)
{
    struct safetensors *s = NULL;
    int64_t n = 0;
    size_t bytes = 0;
    struct random_ckpt r = {.folder = in_dir(name), .like = like, .shape = small, .dtype = dtype, .seed = seed, .shards = shards};
    err_clear();
    if (random_write(&r, &n, &bytes) || st_open(&s, r.folder))
        T_FAIL("%s", err_text());
    return s;
}

static double half(uint16_t h)
{
    int e = h >> 10 & 31, m = h & 1023;
    double v = e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
    return h & 0x8000 ? -v : v;
}

static double value(const struct st_tensor *t, int64_t i)
{
    float f = 0;
    uint16_t h;
    uint32_t u;
    if (t->dtype == ST_F32) {
        memcpy(&f, (const char *)t->data + 4 * i, 4);
        return (double)f;
    }
    memcpy(&h, (const char *)t->data + 2 * i, 2);
    if (t->dtype == ST_F16)
        return half(h);
    u = (uint32_t)h << 16;
    memcpy(&f, &u, 4);
    return (double)f;
}

static void weights_have_their_shapes_and_deviation(void)
{
    const enum st_dtype types[] = {ST_F32, ST_BF16, ST_F16};
    for (int k = 0; k < 3; k++) {
        char name[8] = {(char)('a' + k), 0};
        struct safetensors *s = make(name, types[k], 1, NULL, 1);
        if (!s)
            return;
        T_EQ(st_count(s), 2 * 9 + 3);
        const struct st_tensor *t = st_find(s, "model.layers.1.self_attn.k_proj.weight");
        T_CHECK(t && t->dtype == types[k] && t->dim[0] == 20 && t->dim[1] == 48);
        t = st_find(s, "model.embed_tokens.weight");
        T_CHECK(t && t->dim[0] == 301 && t->dim[1] == 48);
        double sum = 0, square = 0;
        int64_t n = 301 * 48;
        for (int64_t i = 0; t && i < n; i++) {
            double v = value(t, i);
            sum += v;
            square += v * v;
        }
        T_NEAR(sum / (double)n, 0, 6 * 0.02 / sqrt((double)n)); /* six standard errors */
        T_NEAR(sqrt(square / (double)n) / 0.02, 1, 6 / sqrt(2.0 * (double)n));
        t = st_find(s, "model.norm.weight");
        T_CHECK(t && t->rank == 1 && t->dim[0] == 48);
        T_NEAR(t ? value(t, 47) : 0, 1, 0);
        st_close(s);
    }
}

static void narrow_types_are_the_rounded_wide_one(void)
{
    struct safetensors *s[3] = {NULL};
    double worst[3] = {0};
    st_close(make("r0", ST_F32, 1, NULL, 3));
    st_close(make("r1", ST_BF16, 1, NULL, 3));
    st_close(make("r2", ST_F16, 1, NULL, 3));
    for (int k = 0; k < 3; k++)
        T_EQ(st_open(&s[k], in_dir(k == 0 ? "r0" : k == 1 ? "r1" : "r2")), 0);
    for (int64_t i = 0; i < 301 * 48; i++)
        for (int k = 1; k < 3; k++) {
            double want = value(st_find(s[0], "lm_head.weight"), i), got = value(st_find(s[k], "lm_head.weight"), i);
            worst[k] = fmax(worst[k], fabs(got - want) / fmax(fabs(want), 0x1p-14));
        }
    T_CHECK(worst[1] > 0 && worst[1] <= 0x1p-8 * (1 + 1e-6)); /* half a unit of the last of 8 bits */
    T_CHECK(worst[2] > 0 && worst[2] <= 0x1p-11 * (1 + 1e-6));
    for (int k = 0; k < 3; k++)
        st_close(s[k]);
}

static void shards_change_nothing_and_seeds_do(void)
{
    struct safetensors *one = make("s1", ST_BF16, 1, NULL, 9), *five = make("s5", ST_BF16, 5, NULL, 9);
    struct safetensors *other = make("s6", ST_BF16, 1, NULL, 10);
    if (!one || !five || !other)
        return;
    T_EQ(st_count(five), st_count(one));
    int differ = 0, same = 0;
    for (int64_t i = 0; i < st_count(one); i++) {
        const struct st_tensor *a = st_at(one, i), *b = st_find(five, a->name), *c = st_find(other, a->name);
        differ += !b || a->bytes != b->bytes || memcmp(a->data, b->data, a->bytes) != 0;
        same += a->rank > 1 && memcmp(a->data, c->data, a->bytes) == 0;
    }
    T_EQ(differ, 0);
    T_EQ(same, 0);
    const struct st_tensor *q0 = st_find(one, "model.layers.0.self_attn.q_proj.weight");
    const struct st_tensor *q1 = st_find(one, "model.layers.1.self_attn.q_proj.weight");
    T_CHECK(q0 && q1 && memcmp(q0->data, q1->data, q0->bytes) != 0); /* layers differ */
    T_CHECK(file_exists(in_dir("s5/model-00005-of-00005.safetensors")));
    st_close(one);
    st_close(five);
    st_close(other);
}

static void another_checkpoint_is_imitated(void)
{
    struct safetensors *a = make("l1", ST_F32, 2, NULL, 1);
    struct safetensors *b = make("l2", ST_OTHER, 1, in_dir("l1"), 2);
    if (!a || !b)
        return;
    T_EQ(st_count(b), st_count(a));
    for (int64_t i = 0; i < st_count(a); i++) {
        const struct st_tensor *x = st_at(a, i), *y = st_find(b, x->name);
        T_CHECK(y && y->bytes == x->bytes && y->dtype == x->dtype && y->rank == x->rank);
    }
    T_CHECK(file_exists(in_dir("l2/config.json")));
    st_close(a);
    st_close(b);
}

static void what_cannot_be_is_refused(void)
{
    int64_t n;
    size_t bytes;
    struct random_ckpt r = {.folder = in_dir("x"), .shape = small, .dtype = ST_F32, .shards = 22};
    err_clear();
    T_EQ(random_write(&r, &n, &bytes), ERR_ARG);
    T_CHECK(strstr(err_text(), "22 shards of 21 tensors"));
    err_clear();
    struct random_shape s = small;
    s.kv_heads = 4;
    T_EQ(random_check(&s), ERR_ARG);
    err_clear();
    st_close(make("y", ST_F32, 1, NULL, 1));
    r.folder = in_dir("y");
    r.shards = 1;
    T_EQ(random_write(&r, &n, &bytes), ERR_ARG);
    T_CHECK(strstr(err_text(), "not overwritten"));
    err_clear();
}

int main(int argc, char **argv)
{
    char cmd[80];
    t_start(&argc, &argv);
    snprintf(dir, sizeof dir, "/tmp/ast-rnd-XXXXXX");
    if (!mkdtemp(dir))
        return 1;
    T_RUN(weights_have_their_shapes_and_deviation);
    T_RUN(narrow_types_are_the_rounded_wide_one);
    T_RUN(shards_change_nothing_and_seeds_do);
    T_RUN(another_checkpoint_is_imitated);
    T_RUN(what_cannot_be_is_refused);
    snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
    return system(cmd) != 0 || t_done();
}
