/* Tokenizer speed on one core: opening, encoding, decoding; best of several runs. Skips what is not here. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/timer.h"
#include "text/tok.h"

enum { REPEAT = 5 };

static double encode_best(const struct tok *t, const struct buf *text, struct tok_ids *ids)
{
    double best = 1e30;
    for (int i = 0; i < REPEAT; i++) {
        double start = timer_now();
        ids->n = 0;
        if (tok_encode(t, buf_text(text), text->len, false, ids))
            return -1;
        double s = timer_now() - start;
        best = s < best ? s : best;
    }
    return best;
}

static int one(const char *model, const char *path)
{
    struct tok *t = NULL;
    struct buf text = {0}, back = {0};
    struct tok_ids ids = {0};
    double start = timer_now();
    int rc = tok_open(&t, model);
    double open_s = timer_now() - start;
    if (rc == ERR_OK)
        rc = buf_read_file(&text, path, 0);
    if (rc == ERR_OK) {
        double s = encode_best(t, &text, &ids);
        start = timer_now();
        rc = s < 0 ? ERR_FORMAT : tok_decode(t, ids.v, ids.n, false, &back);
        double decode_s = timer_now() - start;
        printf("%-44s %-18s open %6.3f s  encode %7.2f MB/s  decode %7.2f MB/s  %lld ids\n", model,
               path + sizeof "../shared/data/eval", open_s, (double)text.len / s / 1e6, (double)text.len / decode_s / 1e6,
               (long long)ids.n);
    }
    if (rc)
        printf("%s: %s\n", model, err_text());
    tok_ids_free(&ids);
    buf_free(&text);
    buf_free(&back);
    tok_close(t);
    return rc;
}

int main(void)
{
    static const char *const models[] = {"../shared/models/asterism-M",
                                         "../shared/golden/tokenizers/gpt2",
                                         "../shared/golden/tokenizers/gpt-neox",
                                         "../shared/golden/tokenizers/starcoder",
                                         "../shared/golden/tokenizers/llama2",
                                         "../shared/golden/tokenizers/llama3-style",
                                         "../shared/golden/tokenizers/qwen2-style"};
    static const char *const texts[] = {"../shared/data/eval/wiki.test.tokens", "../shared/data/eval/newstest2014.de"};
    int rc = 0;
    for (size_t m = 0; m < sizeof models / sizeof models[0]; m++)
        for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
            if (access(models[m], R_OK) || access(texts[i], R_OK))
                printf("%s on %s: skipped, not here\n", models[m], texts[i]);
            else
                rc = one(models[m], texts[i]) ? 1 : rc;
        }
    return rc;
}
