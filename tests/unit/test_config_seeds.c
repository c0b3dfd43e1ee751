/* The seeds of the config.json fuzz target and mutations of them: nothing may crash; the sound ones of an architecture
 * that is there are accepted. */
#include "tests/t.h"

#include "tests/fuzz/fuzz_config.c"
#include "tests/fuzz/replay.h"

static void seeds_and_their_mutations_do_not_crash(void)
{
    T_CHECK(replay_folder("tests/fuzz/seeds/config", 300) >= 15);
}

/* Else the seeds test nothing beyond the first check. */
static void sound_seeds_are_accepted_and_the_others_are_not(void)
{
    static const char *const names[] = {"llama",   "llama3",  "yarn",          "dynamic",     "linear",
                                        "mistral", "qwen2",   "qwen3",         "gpt2",        "gpt-neox",
                                        "nulls",   "refused", "large-numbers", "wrong-types", "not-an-object"};
    for (int i = 0; i < (int)(sizeof names / sizeof *names); i++) {
        char path[256];
        struct json_doc *d = NULL;
        const struct model_arch *arch = NULL;
        static struct model_shape shape;
        snprintf(path, sizeof path, "tests/fuzz/seeds/config/%s", names[i]);
        T_EQ(json_read(&d, path), ERR_OK);
        int rc = d ? config_shape(d, &arch, &shape) : ERR_IO;
        if ((rc == ERR_OK) != (i < 11))
            T_FAIL("%s: %d %s", names[i], rc, err_text());
        err_clear();
        json_close(d);
    }
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    T_RUN(seeds_and_their_mutations_do_not_crash);
    T_RUN(sound_seeds_are_accepted_and_the_others_are_not);
    return t_done();
}
