/* Windows: lm-evaluation-harness's own vectors, and what every rule promises. */
#include "base/err.h"
#include "base/rng.h"
#include "task/windows.h"
#include "tests/t.h"

/* inputs from..to, targets first..last, as positions; -1 is the token in front */
struct want {
    int64_t from, to, first, last;
};

static void check(const struct window_list *w, int64_t i, struct want x)
{
    if (i < 0)
        i += w->n;
    const struct window *v = &w->v[i];
    T_EQ(v->at, x.from);
    T_EQ(v->at + v->len - 1, x.to);
    T_EQ(v->at + v->first + 1, x.first);
    T_EQ(v->at + v->first + v->scored, x.last);
    T_EQ(v->bos, x.from == -1);
}

static struct window_list rolling(int64_t n, int64_t length, int64_t context)
{
    struct window_list w = {0};
    struct window_rule r = {.length = length, .context = context, .bos = true};
    T_EQ(windows_rolling(&w, 0, n, &r), ERR_OK);
    return w;
}

static void rolling_windows_equal_the_harness(void)
{
    struct window_list w = rolling(34, 10, 1);
    T_EQ(w.n, 4);
    check(&w, 0, (struct want){-1, 8, 0, 9});
    check(&w, 1, (struct want){9, 18, 10, 19});
    check(&w, 2, (struct want){19, 28, 20, 29});
    check(&w, 3, (struct want){23, 32, 30, 33});
    windows_free(&w);
    w = rolling(34, 10, 8);
    T_EQ(w.n, 9);
    check(&w, 0, (struct want){-1, 8, 0, 9});
    check(&w, 1, (struct want){2, 11, 10, 12});
    check(&w, 2, (struct want){5, 14, 13, 15});
    check(&w, -1, (struct want){23, 32, 31, 33});
    windows_free(&w);
    w = rolling(34, 10, 10);
    T_EQ(w.n, 25);
    check(&w, 1, (struct want){0, 9, 10, 10});
    check(&w, 2, (struct want){1, 10, 11, 11});
    check(&w, -1, (struct want){23, 32, 33, 33});
    windows_free(&w);
    w = rolling(30, 10, 1);
    T_EQ(w.n, 3);
    check(&w, 2, (struct want){19, 28, 20, 29});
    windows_free(&w);
    w = rolling(10, 10, 1);
    T_EQ(w.n, 1);
    windows_free(&w);
    w = rolling(11, 10, 1);
    T_EQ(w.n, 2);
    check(&w, 1, (struct want){0, 9, 10, 10});
    windows_free(&w);
    w = rolling(4, 2, 1);
    T_EQ(w.n, 2);
    check(&w, 0, (struct want){-1, 0, 0, 1});
    check(&w, 1, (struct want){1, 2, 2, 3});
    windows_free(&w);
    w = rolling(0, 10, 1);
    T_EQ(w.n, 0);
    windows_free(&w);
}

static void rolling_without_bos_predicts_all_but_the_first(void)
{
    struct window_list w = {0};
    struct window_rule r = {.length = 10, .context = 1};
    T_EQ(windows_rolling(&w, 0, 25, &r), ERR_OK);
    T_EQ(w.n, 3);
    check(&w, 0, (struct want){0, 9, 1, 10});
    check(&w, 1, (struct want){10, 19, 11, 20});
    check(&w, 2, (struct want){14, 23, 21, 24});
    windows_free(&w);
    T_EQ(windows_rolling(&w, 0, 1, &r), ERR_OK);
    T_EQ(w.n, 0);
    windows_free(&w);
}

static void disjoint_windows_score_their_own_tokens(void)
{
    struct window_list w = {0};
    struct window_rule r = {.length = 8};
    T_EQ(windows_disjoint(&w, 0, 20, &r, false), ERR_OK);
    T_EQ(w.n, 3);
    check(&w, 0, (struct want){0, 7, 1, 7});
    check(&w, 2, (struct want){16, 19, 17, 19});
    windows_free(&w);
    T_EQ(windows_disjoint(&w, 0, 20, &r, true), ERR_OK);
    T_EQ(w.n, 2);
    windows_free(&w);
    r.bos = true;
    T_EQ(windows_disjoint(&w, 0, 20, &r, false), ERR_OK);
    T_EQ(w.n, 3);
    for (int64_t i = 0; i < w.n; i++) { /* BOS and then all but the last: every token is predicted */
        T_CHECK(w.v[i].bos);
        T_EQ(w.v[i].at, 8 * i - 1);
        T_EQ(w.v[i].scored, i < 2 ? 8 : 4);
    }
    windows_free(&w);
    r.bos = false; /* a last window of one token predicts nothing */
    T_EQ(windows_disjoint(&w, 0, 17, &r, false), ERR_OK);
    T_EQ(w.n, 2);
    windows_free(&w);
}

static void second_halves_are_llama_cpps(void)
{
    struct window_list w = {0};
    struct window_rule r = {.length = 512, .bos = true};
    T_EQ(windows_second_half(&w, 0, 1100, &r), ERR_OK);
    T_EQ(w.n, 2);
    T_EQ(w.v[1].at, 512);
    T_EQ(w.v[1].first, 256);
    T_EQ(w.v[1].scored, 255);
    T_CHECK(w.v[1].bos);
    windows_free(&w);
    T_EQ(windows_second_half(&w, 0, 1023, &r), ERR_ARG);
    err_clear();
}

/* Every token but the first is predicted exactly once, from within its window. */
static void overlapping_rules_cover_the_stream_once(void)
{
    for (uint64_t k = 0; k < 400; k++) {
        int64_t n = 1 + rng_below(3, k, 0, 90), length = 2 + rng_below(3, k, 1, 20);
        struct window_rule r = {
            .length = length, .stride = 1 + rng_below(3, k, 2, length), .context = 1 + rng_below(3, k, 3, length)};
        for (int rule = 0; rule < 3; rule++) {
            struct window_list w = {0};
            int seen[91] = {0};
            int rc = rule == 0   ? windows_strided(&w, 0, n, &r)
                     : rule == 1 ? windows_overlap(&w, 0, n, &r)
                                 : windows_rolling(&w, 0, n, &r);
            T_EQ(rc, ERR_OK);
            for (int64_t i = 0; i < w.n; i++) {
                const struct window *v = &w.v[i];
                T_CHECK(v->at >= 0 && v->len <= length && v->first >= 0 && v->first + v->scored <= v->len && v->scored > 0);
                for (int64_t j = v->first; j < v->first + v->scored; j++)
                    seen[v->at + j + 1]++;
            }
            for (int64_t t = 1; t < n; t++)
                /* stride = length: the first token of each strided window has nothing in front of it */
                T_EQ(seen[t], !(rule == 0 && r.stride == length && t % length == 0));
            T_EQ(seen[0], 0);
            windows_free(&w);
        }
    }
}

static void bad_lengths_are_refused(void)
{
    struct window_list w = {0};
    struct window_rule r = {.length = 1, .stride = 1, .context = 1};
    T_EQ(windows_disjoint(&w, 0, 9, &r, false), ERR_ARG);
    err_clear();
    r = (struct window_rule){.length = 4, .stride = 5, .context = 5};
    T_EQ(windows_strided(&w, 0, 9, &r), ERR_ARG);
    err_clear();
    T_EQ(windows_rolling(&w, 0, 9, &r), ERR_ARG);
    err_clear();
    T_EQ(windows_overlap(&w, 0, 9, &r), ERR_ARG);
    err_clear();
    windows_free(&w);
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    T_RUN(rolling_windows_equal_the_harness);
    T_RUN(rolling_without_bos_predicts_all_but_the_first);
    T_RUN(disjoint_windows_score_their_own_tokens);
    T_RUN(second_halves_are_llama_cpps);
    T_RUN(overlapping_rules_cover_the_stream_once);
    T_RUN(bad_lengths_are_refused);
    return t_done();
}
