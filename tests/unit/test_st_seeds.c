/* The seeds of the safetensors fuzz target and mutations of them: nothing may crash; the sound ones open. */
#include "tests/t.h"

#include "tests/fuzz/fuzz_safetensors.c"
#include "tests/fuzz/replay.h"

static void seeds_and_their_mutations_do_not_crash(void)
{
    T_CHECK(replay_folder("tests/fuzz/seeds/safetensors", 300) >= 18);
}

/* Else the seeds test nothing beyond the first check. */
static void sound_seeds_open_and_the_others_do_not(void)
{
    static const char *const names[] = {"empty",         "one",           "types",       "index",          "hole",
                                        "overlap",       "duplicate",     "overflow",    "product",        "cut-short",
                                        "length-absurd", "length-beyond", "deep",        "beyond-64-bits", "lfs",
                                        "index-twice",   "index-outside", "index-itself"};
    for (int i = 0; i < (int)(sizeof names / sizeof *names); i++) {
        char path[256], to[256];
        bool index = strncmp(names[i], "index", 5) == 0;
        struct safetensors *s = NULL;
        snprintf(path, sizeof path, "tests/fuzz/seeds/safetensors/%s", names[i]);
        snprintf(to, sizeof to, "%s/%s", fuzz_folder, index ? "model.safetensors.index.json" : "model.safetensors");
        T_EQ(file_copy(path, to), ERR_OK);
        int rc = st_open(&s, to);
        if ((rc == ERR_OK) != (i < 4))
            T_FAIL("%s: %d %s", names[i], rc, err_text());
        err_clear();
        st_close(s);
    }
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    T_RUN(seeds_and_their_mutations_do_not_crash);
    T_RUN(sound_seeds_open_and_the_others_do_not);
    return t_done();
}
