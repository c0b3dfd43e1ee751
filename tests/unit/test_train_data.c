/* Training text: what is read comes out again, every token once an epoch; answers alone are learned where asked. */
#include <stdint.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "text/tok.h"
#include "tests/t.h"
#include "train/data.h"

static const char *const model = "data/asterism-S";
static char path[] = "/tmp/asterism-data-XXXXXX";
static struct tok *tok;

static void write_text(const char *text)
{
    FILE *f = fopen(path, "w");
    T_CHECK(f != NULL);
    if (f) {
        fputs(text, f);
        fclose(f);
    }
}

static int read_back(struct train_data **d, struct data_opts *o)
{
    static const char *const files[] = {path};
    o->files = (struct cfg_strs){1, files};
    o->separator = o->separator ? o->separator : "<|endoftext|>";
    o->answer_after = o->answer_after ? o->answer_after : "";
    o->answer_until = o->answer_until ? o->answer_until : "";
    return data_open(d, o, tok, 5, NULL);
}

static void number_text(char *out, size_t cap)
{
    size_t at = 0;
    for (int doc = 0; doc < 40; doc++) {
        for (int i = 0; i <= doc % 7; i++)
            at += (size_t)snprintf(out + at, cap - at, "number %d of document %d. ", i, doc);
        at += (size_t)snprintf(out + at, cap - at, "<|endoftext|>");
    }
}

/* How often each id comes. */
static void count(int64_t *n, const int32_t *v, int64_t many)
{
    for (int64_t i = 0; i < many; i++)
        if (v[i] >= 0)
            n[v[i]]++;
}

static void every_epoch_has_every_token_in_another_order(void)
{
    static char text[20000];
    static int64_t got[2][1 << 15], want[1 << 15];
    static int32_t token[2][4096], target[32];
    struct train_data *d = NULL;
    struct tok_ids all = {0};
    number_text(text, sizeof text);
    write_text(text);
    T_CHECK(tok_encode(tok, text, strlen(text), false, &all) == ERR_OK);
    struct data_opts o = {.length = 32};
    T_CHECK(read_back(&d, &o) == ERR_OK);
    T_EQ(data_documents(d), 40);
    T_EQ(data_tokens(d), all.n);
    T_EQ(data_windows(d), (all.n - 1) / 32);
    count(want, all.v, all.n);
    int64_t windows = data_windows(d), missing[2] = {0};
    for (int e = 0; e < 2; e++)
        for (int64_t w = 0; w < windows; w++) {
            data_window(d, e * windows + w, token[e] + w * 32, target);
            for (int i = 0; i < 31; i++)
                T_CHECK(target[i] == token[e][w * 32 + i + 1]);
            T_CHECK(target[31] >= 0);
        }
    T_CHECK(memcmp(token[0], token[1], (size_t)windows * 32 * sizeof(int32_t)) != 0);
    for (int e = 0; e < 2; e++) {
        count(got[e], token[e], windows * 32);
        for (int i = 0; i < 1 << 15; i++) {
            T_CHECK(got[e][i] <= want[i]);
            missing[e] += want[i] - got[e][i];
        }
        T_EQ(missing[e], all.n - windows * 32); /* the tail of this order */
    }
    int32_t again[32];
    data_window(d, 3, again, target); /* back in the first epoch */
    T_CHECK(!memcmp(again, token[0] + 3 * 32, sizeof again));
    tok_ids_free(&all);
    data_close(d);
}

/* The text of what is to be learned, through the targets of one window over the whole text. */
static void learned(struct train_data *d, int64_t length, struct buf *out)
{
    static int32_t token[4096], target[4096];
    int32_t ids[4096];
    int64_t n = 0;
    data_window(d, 0, token, target);
    for (int64_t i = 0; i < length; i++)
        if (target[i] >= 0)
            ids[n++] = target[i];
    T_CHECK(tok_decode(tok, ids, n, false, out) == ERR_OK);
}

static void only_answers_are_learned(void)
{
    struct train_data *d = NULL;
    struct buf b = {0};
    write_text("A long text.\n\nQuestion: who?\nAnswer: Ann\n\nQuestion: where?\nAnswer: in Ulm\n");
    struct data_opts o = {.length = 2, .answer_after = "Answer:", .answer_until = "\n"};
    T_CHECK(read_back(&d, &o) == ERR_OK);
    int64_t n = data_tokens(d);
    data_close(d);
    o.length = n - 1;
    T_CHECK(read_back(&d, &o) == ERR_OK);
    learned(d, n - 1, &b);
    T_STR(buf_text(&b), " Ann\n in Ulm\n<|endoftext|>");
    data_close(d);
    buf_free(&b);
    write_text("Translate 'x'\nEin Satz.\nNoch einer.");
    o = (struct data_opts){.length = 2, .answer_after = "'\n"};
    T_CHECK(read_back(&d, &o) == ERR_OK);
    n = data_tokens(d);
    data_close(d);
    o.length = n - 1;
    T_CHECK(read_back(&d, &o) == ERR_OK);
    learned(d, n - 1, &b);
    T_STR(buf_text(&b), "Ein Satz.\nNoch einer.<|endoftext|>");
    data_close(d);
    buf_free(&b);
}

static void what_cannot_be_is_one_sentence(void)
{
    struct train_data *d = NULL;
    write_text("short");
    struct data_opts o = {.length = 512};
    T_EQ(read_back(&d, &o), ERR_ARG);
    if (!strstr(err_text(), "less than one sequence of 512"))
        T_FAIL("%s", err_text());
    err_clear();
    o.separator = "<nothing>";
    T_EQ(read_back(&d, &o), ERR_ARG);
    T_CHECK(strstr(err_text(), "not a token") != NULL);
    err_clear();
    write_text("bad \xff utf-8");
    o.separator = NULL;
    T_EQ(read_back(&d, &o), ERR_FORMAT);
    T_CHECK(strstr(err_text(), path) != NULL);
    err_clear();
    T_CHECK(d == NULL);
    data_close(NULL);
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    int fd = mkstemp(path);
    if (fd < 0 || tok_open(&tok, model))
        T_FAIL("%s", err_text());
    close(fd);
    T_RUN(every_epoch_has_every_token_in_another_order);
    T_RUN(only_answers_are_learned);
    T_RUN(what_cannot_be_is_one_sentence);
    tok_close(tok);
    unlink(path);
    return t_done();
}
