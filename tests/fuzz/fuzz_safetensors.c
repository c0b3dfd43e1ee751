/* libFuzzer target: a .safetensors file or, if it begins with "{\"", a model.safetensors.index.json beside one sound file.
 * What opens must be readable from its first tensor's first byte to its last one's last. tests/unit/test_st_seeds.c replays
 * the seeds and mutations of them in every test run. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "io/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char fuzz_folder[64];

static void fuzz_clean_up(void)
{
    static const char *const names[] = {"1.safetensors", "model.safetensors", "model.safetensors.index.json"};
    char path[128];
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", fuzz_folder, names[i]);
        unlink(path);
    }
    rmdir(fuzz_folder);
}

static void fuzz_put(const char *name, const void *bytes, size_t n)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", fuzz_folder, name);
    FILE *f = fopen(path, "wb");
    AST_ASSERT(f && fwrite(bytes, 1, n, f) == n && fclose(f) == 0);
}

/* Once a process: a folder in memory and a sound file that indices can name. */
static void fuzz_set_up(void)
{
    struct stat st;
    static const char sound[] = "\x38\0\0\0\0\0\0\0{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}   "
                                "xy";
    if (fuzz_folder[0])
        return;
    snprintf(fuzz_folder, sizeof fuzz_folder, "%s/ast-fuzz-XXXXXX", stat("/dev/shm", &st) == 0 ? "/dev/shm" : "/tmp");
    AST_ASSERT(mkdtemp(fuzz_folder));
    atexit(fuzz_clean_up);
    fuzz_put("1.safetensors", sound, sizeof sound - 1);
}

static void fuzz_read(const struct safetensors *s)
{
    volatile unsigned sum = 0; /* so that the bytes are really read */
    size_t bytes = 0;
    for (int64_t i = 0; i < st_count(s); i++) {
        const struct st_tensor *t = st_at(s, i);
        const unsigned char *p = t->data;
        AST_ASSERT(st_find(s, t->name) == t && t->rank >= 0 && t->rank <= ST_MAX_RANK);
        for (size_t k = 0; k < t->bytes; k++)
            sum = sum + p[k];
        bytes += t->bytes;
        st_done_with(t);
    }
    AST_ASSERT(bytes <= st_file_bytes(s) && !st_find(s, "no such tensor"));
    const char *format = st_metadata(s, "format");
    sum = sum + (format ? (unsigned char)format[0] : 0);
    char hex[65];
    AST_ASSERT(st_sha256(s, hex) == ERR_OK && strlen(hex) == 64);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char single[] = "model.safetensors", index[] = "model.safetensors.index.json";
    struct safetensors *s = NULL;
    char path[128];
    fuzz_set_up();
    bool is_index = size > 1 && data[0] == '{' && data[1] == '"';
    fuzz_put(is_index ? index : single, data, size);
    snprintf(path, sizeof path, "%s/%s", fuzz_folder, is_index ? index : single);
    if (st_open(&s, path) == ERR_OK)
        fuzz_read(s);
    else
        AST_ASSERT(err_text()[0] != '\0' && s == NULL); /* never a failure without a sentence */
    err_clear();
    st_close(s);
    return 0;
}
