/* AdamW against its definition in double; schedules at their corners. */
#include "base/arena.h"
#include "base/err.h"
#include "base/rng.h"
#include "tests/t.h"
#include "train/adamw.h"

enum { N = 70000, STEPS = 5, LOOK = 97 }; /* N: enough for several threads */

static void it_is_the_published_algorithm(void)
{
    struct arena run;
    struct train_params p;
    struct adamw a;
    const struct train_shape shape = {.rank = 2, .dim = {N / 10, 10}};
    const struct adamw_opts o = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1};
    double w[LOOK], m[LOOK] = {0}, v[LOOK] = {0};
    T_CHECK(arena_open(&run, "run", (size_t)64 << 20) == ERR_OK);
    T_CHECK(train_params_alloc(&p, 2, &run) == ERR_OK);
    float *x = ARENA_NEW(&run, N, float), *y = ARENA_NEW(&run, N, float);
    T_CHECK(train_params_add(&p, "decays", &shape, x, &run) == ERR_OK && train_params_add(&p, "stays", &shape, y, &run) == ERR_OK);
    T_CHECK(train_params_find(&p, "stays") == &p.at[1] && !train_params_find(&p, "none"));
    T_EQ(train_params_total(&p), 2 * N);
    p.at[0].decay = true;
    p.at[1].lr = 0; /* must not move */
    for (int i = 0; i < N; i++)
        x[i] = y[i] = (float)rng_normal(1, 0, (uint64_t)i);
    for (int i = 0; i < LOOK; i++)
        w[i] = (double)x[i * (N / LOOK)];
    T_CHECK(adamw_alloc(&a, &p, &run) == ERR_OK);
    for (int s = 0; s < STEPS; s++) {
        for (int i = 0; i < N; i++)
            p.at[0].g[i] = p.at[1].g[i] = (float)rng_normal(2, (uint64_t)s, (uint64_t)i);
        adamw_step(&a, &p, &o, &(struct adamw_at){.step = s, .lr = 0.01, .scale = 0.5});
        for (int i = 0; i < LOOK; i++) {
            double g = 0.5 * (double)p.at[0].g[i * (N / LOOK)];
            w[i] *= 1 - 0.01 * 0.1;
            m[i] = 0.9 * m[i] + 0.1 * g;
            v[i] = 0.95 * v[i] + 0.05 * g * g;
            w[i] -= 0.01 * (m[i] / (1 - pow(0.9, s + 1))) / (sqrt(v[i] / (1 - pow(0.95, s + 1))) + 1e-8);
        }
        train_params_zero_grad(&p);
        T_CHECK(p.at[0].g[N - 1] == 0);
    }
    for (int i = 0; i < LOOK; i++)
        T_NEAR(x[i * (N / LOOK)], w[i], 2e-6);
    for (int i = 0; i < N; i++)
        if (y[i] != (float)rng_normal(1, 0, (uint64_t)i)) {
            T_FAIL("a learning rate of 0 has moved element %d", i);
            break;
        }
    arena_close(&run);
}

static void learning_rates_rise_and_fall(void)
{
    struct schedule s = {.kind = SCHEDULE_COSINE, .steps = 110, .warmup = 10, .lr = 2, .end = 0.1};
    T_NEAR(schedule_lr(&s, 0), 0.2, 1e-12);
    T_NEAR(schedule_lr(&s, 9), 2, 1e-12);
    T_NEAR(schedule_lr(&s, 10), 2, 1e-12);
    T_NEAR(schedule_lr(&s, 60), 0.2 + 1.8 / 2, 1e-12);
    T_NEAR(schedule_lr(&s, 110), 0.2, 1e-12);
    s.kind = SCHEDULE_LINEAR;
    T_NEAR(schedule_lr(&s, 35), 0.2 + 1.8 * 0.75, 1e-12);
    s.kind = SCHEDULE_CONSTANT;
    T_NEAR(schedule_lr(&s, 109), 2, 1e-12);
    s.warmup = 0;
    s.kind = SCHEDULE_LINEAR;
    T_NEAR(schedule_lr(&s, 0), 2, 1e-12);
}

static void temperatures_fall_until_the_soft_phase_ends(void)
{
    T_NEAR(schedule_temperature(1, 0.01, 0, 101), 1, 1e-12);
    T_NEAR(schedule_temperature(1, 0.01, 50, 101), 0.1, 1e-12);
    T_NEAR(schedule_temperature(1, 0.01, 100, 101), 0.01, 1e-12);
    T_NEAR(schedule_temperature(1, 0.01, 150, 101), 0.01, 1e-12);
    T_NEAR(schedule_temperature(1, 0.01, 0, 0), 0.01, 1e-12);
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    T_RUN(it_is_the_published_algorithm);
    T_RUN(learning_rates_rise_and_fall);
    T_RUN(temperatures_fall_until_the_soft_phase_ends);
    return t_done();
}
