/* Writing safetensors: the header says all before the first byte of data, then the data streams through, so that a file of
 * any size is written in little memory. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "io/file.h"
#include "io/json.h"
#include "io/safetensors.h"

struct st_writer {
    FILE *f;
    char path[FILE_PATH], temp[FILE_PATH];
    uint64_t declared, written; /* bytes of data */
};

static int decl_bytes(const struct st_decl *t, uint64_t *out)
{
    size_t size = st_dtype_size(t->dtype);
    AST_ASSERT(size > 0 && t->rank >= 0 && t->rank <= ST_MAX_RANK);
    uint64_t n = size;
    for (int i = 0; i < t->rank; i++) {
        AST_ASSERT(t->dim[i] >= 0);
        if (t->dim[i] && n > INT64_MAX / (uint64_t)t->dim[i])
            return err_set(ERR_ARG, "tensor \"%s\": the product of its shape is beyond 64 bits", t->name);
        n *= (uint64_t)t->dim[i];
    }
    *out = n;
    return ERR_OK;
}

static int put_metadata(struct buf *h, const char *const *pairs, int n)
{
    int rc = buf_puts(h, "\"__metadata__\":{");
    for (int i = 0; rc == ERR_OK && i < n; i++) {
        rc = i ? buf_puts(h, ",") : ERR_OK;
        rc = rc ? rc : json_quote(h, pairs[2 * i], strlen(pairs[2 * i]));
        rc = rc ? rc : buf_puts(h, ":");
        rc = rc ? rc : json_quote(h, pairs[2 * i + 1], strlen(pairs[2 * i + 1]));
    }
    return rc ? rc : buf_puts(h, "}");
}

static int put_tensor(struct buf *h, const struct st_decl *t, uint64_t *at)
{
    uint64_t n = 0;
    int rc = decl_bytes(t, &n);
    rc = rc ? rc : json_quote(h, t->name, strlen(t->name));
    rc = rc ? rc : buf_printf(h, ":{\"dtype\":\"%s\",\"shape\":[", st_dtype_name(t->dtype));
    for (int i = 0; rc == ERR_OK && i < t->rank; i++)
        rc = buf_printf(h, "%s%lld", i ? "," : "", (long long)t->dim[i]);
    rc = rc ? rc : buf_printf(h, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)*at, (unsigned long long)(*at + n));
    *at += n;
    return rc;
}

/* The length, the JSON, and spaces up to a multiple of 8, so that the data is aligned. */
static int build_header(struct buf *h, const struct st_decl *t, int64_t n, const char *const *pairs, int n_pairs, uint64_t *data)
{
    unsigned char len[8];
    int rc = buf_add(h, "\0\0\0\0\0\0\0\0{", 9);
    if (rc == ERR_OK && n_pairs > 0)
        rc = put_metadata(h, pairs, n_pairs);
    for (int64_t i = 0; rc == ERR_OK && i < n; i++) {
        rc = i || n_pairs > 0 ? buf_puts(h, ",") : ERR_OK;
        rc = rc ? rc : put_tensor(h, &t[i], data);
    }
    rc = rc ? rc : buf_puts(h, "}");
    while (rc == ERR_OK && h->len % 8)
        rc = buf_puts(h, " ");
    if (rc)
        return rc;
    for (int i = 0; i < 8; i++)
        len[i] = (unsigned char)((h->len - 8) >> 8 * i);
    memcpy(h->data, len, 8);
    return ERR_OK;
}

static int put(struct st_writer *w, const void *bytes, size_t n)
{
    if (n && fwrite(bytes, 1, n, w->f) != n)
        return err_set(ERR_IO, "%s: %s", w->temp, strerror(errno));
    return ERR_OK;
}

int st_create(struct st_writer **out, const char *path, const struct st_decl *t, int64_t n, const char *const *meta_pairs,
              int n_pairs)
{
    struct buf h = {0};
    char folder[FILE_PATH];
    *out = NULL;
    struct st_writer *w = calloc(1, sizeof *w);
    int rc = w ? file_folder(folder, path) : err_set(ERR_NOMEM, "%s: out of memory", path);
    rc = rc ? rc : file_temp_name(w->temp, path);
    if (rc)
        goto out;
    strcpy(w->path, path); /* shorter than temp, which fits */
    rc = build_header(&h, t, n, meta_pairs, n_pairs, &w->declared);
    rc = rc ? rc : file_folder_writable(folder);
    rc = rc ? rc : file_space(folder, (double)w->declared + (double)h.len);
    if (rc)
        goto out;
    w->f = fopen(w->temp, "wbx");
    rc = w->f ? put(w, h.data, h.len) : err_set(ERR_IO, "%s: %s", w->temp, strerror(errno));
    if (rc)
        goto out;
    *out = w;
    w = NULL;
out:
    st_abort(w);
    buf_free(&h);
    return rc;
}

int st_append(struct st_writer *w, const void *bytes, size_t n)
{
    w->written += n;
    if (w->written > w->declared)
        return err_set(ERR_FORMAT, "%s: more than the declared %llu bytes", w->path, (unsigned long long)w->declared);
    return put(w, bytes, n);
}

int st_commit(struct st_writer *w)
{
    int rc = ERR_OK;
    if (w->written != w->declared)
        rc = err_set(ERR_FORMAT, "%s: %llu bytes were declared and %llu written", w->path, (unsigned long long)w->declared,
                     (unsigned long long)w->written);
    rc = rc ? rc : file_sync(w->f, w->temp);
    if (fclose(w->f) != 0 && rc == ERR_OK)
        rc = err_set(ERR_IO, "%s: %s", w->temp, strerror(errno));
    w->f = NULL;
    if (rc == ERR_OK)
        rc = file_publish(w->temp, w->path);
    else
        unlink(w->temp);
    free(w);
    return rc;
}

void st_abort(struct st_writer *w)
{
    if (!w)
        return;
    if (w->f) {
        fclose(w->f);
        unlink(w->temp);
    }
    free(w);
}
