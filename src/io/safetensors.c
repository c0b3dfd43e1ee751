/* Reading safetensors: map a file, let the JSON door read its header, believe nothing it says until it adds up.
 *
 * What is checked, after the format's README: the header's length (at most 100,000,000 bytes, within the file), that it
 * begins with '{', no duplicate key, every shape's product against its offsets, and that the tensors, in order of their
 * offsets, cover the data without hole or overlap up to the file's last byte. */
#include "io/safetensors.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "io/file.h"
#include "io/json.h"
#include "io/sha.h"

enum { MAX_HEADER = 100000000 };

struct shard {
    char *path;
    unsigned char *map; /* NULL while not open */
    size_t bytes;
    uint64_t id[6];          /* of st_identify */
    struct json_doc *header; /* owns the tensors' names */
    const unsigned char *data;
    size_t data_bytes;
};

struct safetensors {
    struct shard *shard; /* sorted by name */
    int64_t n_shards;
    struct st_tensor *tensor; /* in file order */
    int64_t n_tensors, cap;
    int64_t *slot; /* hash table of indices + 1; 0: empty */
    uint64_t n_slots;
};

/* ---- element types ---- */

static const struct {
    const char *name;
    enum st_dtype type;
    size_t bytes;
} dtypes[] = {
    {"F64", ST_F64, 8},   {"F32", ST_F32, 4},       {"F16", ST_F16, 2},       {"BF16", ST_BF16, 2},
    {"I64", ST_I64, 8},   {"I32", ST_I32, 4},       {"I16", ST_I16, 2},       {"I8", ST_I8, 1},
    {"U8", ST_U8, 1},     {"BOOL", ST_BOOL, 1},     {"U64", ST_OTHER, 8},     {"U32", ST_OTHER, 4},
    {"U16", ST_OTHER, 2}, {"F8_E4M3", ST_OTHER, 1}, {"F8_E5M2", ST_OTHER, 1}, {"C64", ST_OTHER, 8},
};
enum { N_DTYPES = sizeof dtypes / sizeof *dtypes };

size_t st_dtype_size(enum st_dtype t)
{
    for (int i = 0; i < N_DTYPES && t != ST_OTHER; i++)
        if (dtypes[i].type == t)
            return dtypes[i].bytes;
    return 0;
}

const char *st_dtype_name(enum st_dtype t)
{
    for (int i = 0; i < N_DTYPES && t != ST_OTHER; i++)
        if (dtypes[i].type == t)
            return dtypes[i].name;
    return "other";
}

/* ---- one tensor ---- */

static int bad(const struct st_tensor *t, const char *what)
{
    return err_set(ERR_FORMAT, "%s: tensor \"%s\": %s", t->file, t->name, what);
}

static int read_shape(struct st_tensor *t, const struct json *shape, int64_t *n)
{
    if (json_kind(shape) != JSON_ARRAY)
        return bad(t, "shape is missing or not a list");
    if (json_len(shape) > ST_MAX_RANK)
        return err_set(ERR_FORMAT, "%s: tensor \"%s\" has %lld dimensions, at most %d are supported", t->file, t->name,
                       (long long)json_len(shape), ST_MAX_RANK);
    t->rank = (int)json_len(shape);
    *n = 1;
    for (int i = 0; i < t->rank; i++) {
        const struct json *v = json_at(shape, i);
        if (json_kind(v) != JSON_INT || !json_as_int(v, &t->dim[i]) || t->dim[i] < 0)
            return bad(t, "a dimension is not a whole number from 0 on");
        if (t->dim[i] && *n > INT64_MAX / t->dim[i])
            return bad(t, "the product of its shape is beyond 64 bits");
        *n *= t->dim[i];
    }
    return ERR_OK;
}

static int read_offsets(const struct st_tensor *t, const struct json *v, int64_t at[2])
{
    if (json_kind(v) != JSON_ARRAY || json_len(v) != 2)
        return bad(t, "data_offsets is missing or not a list of two");
    for (int i = 0; i < 2; i++)
        if (json_kind(json_at(v, i)) != JSON_INT || !json_as_int(json_at(v, i), &at[i]) || at[i] < 0)
            return bad(t, "an offset is not a whole number from 0 on");
    return at[0] <= at[1] ? ERR_OK : bad(t, "it ends before it begins");
}

static int read_tensor(struct st_tensor *t, const struct shard *f, const char *name, const struct json *entry)
{
    int64_t n = 0, at[2] = {0};
    size_t size = 0;
    *t = (struct st_tensor){.name = name, .file = f->path, .dtype = ST_OTHER};
    t->dtype_name = json_str(json_get(entry, "dtype"));
    if (!t->dtype_name)
        return bad(t, "dtype is missing or not a string");
    for (int i = 0; i < N_DTYPES; i++)
        if (strcmp(dtypes[i].name, t->dtype_name) == 0) {
            t->dtype = dtypes[i].type;
            size = dtypes[i].bytes;
        }
    int rc = read_shape(t, json_get(entry, "shape"), &n);
    if (rc == ERR_OK)
        rc = read_offsets(t, json_get(entry, "data_offsets"), at);
    if (rc)
        return rc;
    if ((uint64_t)at[1] > f->data_bytes)
        return err_set(ERR_FORMAT, "%s: tensor \"%s\" ends at byte %lld of the data, which has %zu: the file is cut short", t->file,
                       name, (long long)at[1], f->data_bytes);
    /* An unknown dtype's size is unknown; its place is checked all the same. */
    if (size && (n > INT64_MAX / (int64_t)size || n * (int64_t)size != at[1] - at[0]))
        return err_set(ERR_FORMAT, "%s: tensor \"%s\" takes %lld bytes and its shape of %lld %s asks for %.0f", t->file, name,
                       (long long)(at[1] - at[0]), (long long)n, t->dtype_name, (double)n * (double)size);
    t->data = f->data + at[0];
    t->bytes = (size_t)(at[1] - at[0]);
    return ERR_OK;
}

/* ---- one file ---- */

static int map_file(struct shard *f)
{
    struct stat st;
    int rc = file_readable(f->path);
    if (rc)
        return rc;
    int fd = open(f->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) {
        rc = err_set(ERR_IO, "%s: %s", f->path, strerror(errno));
        goto out;
    }
    if (st.st_size < 8) {
        rc = err_set(ERR_FORMAT, "%s: %lld bytes are too few for a safetensors file", f->path, (long long)st.st_size);
        goto out;
    }
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED) {
        rc = err_set(ERR_IO, "%s: cannot be mapped: %s", f->path, strerror(errno));
        goto out;
    }
    f->map = p;
    f->bytes = (size_t)st.st_size;
    f->id[0] = (uint64_t)st.st_dev;
    f->id[1] = (uint64_t)st.st_ino;
    f->id[2] = (uint64_t)st.st_mtim.tv_sec;
    f->id[3] = (uint64_t)st.st_mtim.tv_nsec;
    f->id[4] = (uint64_t)st.st_ctim.tv_sec; /* that of the last change is at anyone's will, this one is not */
    f->id[5] = (uint64_t)st.st_ctim.tv_nsec;
out:
    if (fd >= 0)
        close(fd);
    return rc;
}

static int read_header(struct shard *f)
{
    char name[FILE_PATH];
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--)
        n = n << 8 | f->map[i];
    if (memcmp(f->map, "version ", 8) == 0)
        return err_set(ERR_FORMAT, "%s: is a Git LFS pointer, not the weights; fetch them with: git lfs pull", f->path);
    if (n > MAX_HEADER)
        return err_set(ERR_FORMAT, "%s: not a safetensors file: its header would have %llu bytes, %d are the most", f->path,
                       (unsigned long long)n, MAX_HEADER);
    if (n > f->bytes - 8)
        return err_set(ERR_FORMAT, "%s: the header has %llu bytes but the file only %zu: it is cut short", f->path,
                       (unsigned long long)n, f->bytes);
    if (n == 0 || f->map[8] != '{')
        return err_set(ERR_FORMAT, "%s: the header does not begin with '{'", f->path);
    f->data = f->map + 8 + n;
    f->data_bytes = f->bytes - 8 - n;
    int rc = file_join(name, f->path, "header");
    return rc ? rc : json_parse(&f->header, (const char *)f->map + 8, n, name);
}

static int check_metadata(const struct shard *f, const struct json *meta)
{
    if (meta && json_kind(meta) != JSON_OBJECT)
        return err_set(ERR_FORMAT, "%s: __metadata__ is not an object", f->path);
    for (void *it = json_first(meta); it; it = json_next(meta, it))
        if (!json_str(json_value(it)))
            return err_set(ERR_FORMAT, "%s: __metadata__ \"%s\" is not a string", f->path, json_key(it));
    return ERR_OK;
}

static int by_place(const void *a, const void *b)
{
    const struct st_tensor *x = a, *y = b;
    const char *xb = x->data, *yb = y->data;
    if (xb != yb)
        return xb < yb ? -1 : 1;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int check_cover(const struct shard *f, const struct st_tensor *t, int64_t n)
{
    const unsigned char *end = f->data;
    for (int64_t i = 0; i < n; i++) {
        const unsigned char *at = t[i].data;
        if (at != end)
            return err_set(ERR_FORMAT, "%s: tensor \"%s\" %s", f->path, t[i].name,
                           at < end ? "overlaps another" : "leaves a hole before it");
        end = at + t[i].bytes;
    }
    if (end != f->data + f->data_bytes)
        return err_set(ERR_FORMAT, "%s: %zu bytes after the last tensor belong to none", f->path,
                       (size_t)(f->data + f->data_bytes - end));
    return ERR_OK;
}

static int grow(struct safetensors *s, int64_t extra)
{
    int64_t need = s->n_tensors + extra;
    if (need <= s->cap)
        return ERR_OK;
    struct st_tensor *t = realloc(s->tensor, (size_t)need * sizeof *t);
    if (!t)
        return err_set(ERR_NOMEM, "out of memory for the names of %lld tensors", (long long)need);
    s->tensor = t;
    s->cap = need;
    return ERR_OK;
}

static int add_shard(struct safetensors *s, struct shard *f)
{
    int rc = map_file(f);
    if (rc == ERR_OK)
        rc = read_header(f);
    if (rc)
        return rc;
    const struct json *root = json_root(f->header);
    rc = check_metadata(f, json_get(root, "__metadata__"));
    if (rc == ERR_OK)
        rc = grow(s, json_len(root));
    int64_t first = s->n_tensors;
    for (void *it = json_first(root); rc == ERR_OK && it; it = json_next(root, it))
        if (strcmp(json_key(it), "__metadata__") != 0)
            rc = read_tensor(&s->tensor[s->n_tensors++], f, json_key(it), json_value(it));
    if (rc || s->n_tensors == first)
        return rc ? rc : check_cover(f, NULL, 0);
    qsort(s->tensor + first, (size_t)(s->n_tensors - first), sizeof *s->tensor, by_place);
    return check_cover(f, s->tensor + first, s->n_tensors - first);
}

/* ---- the whole ---- */

/* FNV-1a, 64 bits: http://www.isthe.com/chongo/tech/comp/fnv/ */
static uint64_t hash(const char *name)
{
    uint64_t h = 14695981039346656037u;
    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * 1099511628211u;
    return h ^ h >> 32;
}

/* The slot that holds name, or the empty one where it belongs. */
static int64_t *slot_of(const struct safetensors *s, const char *name)
{
    uint64_t i = hash(name) & (s->n_slots - 1);
    while (s->slot[i] && strcmp(s->tensor[s->slot[i] - 1].name, name) != 0)
        i = (i + 1) & (s->n_slots - 1);
    return &s->slot[i];
}

static int index_names(struct safetensors *s)
{
    s->n_slots = 16;
    while (s->n_slots < 2 * (uint64_t)s->n_tensors)
        s->n_slots *= 2;
    s->slot = calloc(s->n_slots, sizeof *s->slot);
    if (!s->slot)
        return err_set(ERR_NOMEM, "out of memory for the names of %lld tensors", (long long)s->n_tensors);
    for (int64_t i = 0; i < s->n_tensors; i++) {
        int64_t *at = slot_of(s, s->tensor[i].name);
        if (*at)
            return err_set(ERR_FORMAT, "%s: tensor \"%s\" stands in %s as well", s->tensor[i].file, s->tensor[i].name,
                           s->tensor[*at - 1].file);
        *at = i + 1;
    }
    return ERR_OK;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct shard *)a)->path, ((const struct shard *)b)->path);
}

/* The files that the index names, each once, sorted. Paths stay inside the index's folder. */
static int list_shards(struct safetensors *s, const char *folder, const char *index, const struct json *map)
{
    char path[FILE_PATH];
    int64_t n = json_len(map), used = 0;
    s->shard = calloc((size_t)n, sizeof *s->shard);
    if (!s->shard)
        return err_set(ERR_NOMEM, "%s: out of memory", index);
    for (void *it = json_first(map); it; it = json_next(map, it)) {
        const char *name = json_str(json_value(it));
        if (!name || !*name || strchr(name, '/') || strcmp(name, "..") == 0 || strlen(name) != (size_t)json_len(json_value(it)))
            return err_set(ERR_FORMAT, "%s: tensor \"%s\": \"%s\" is not a file's name in this folder", index, json_key(it),
                           name ? name : "");
        int rc = file_join(path, folder, name);
        if (rc)
            return rc;
        if (s->n_shards && strcmp(s->shard[s->n_shards - 1].path, path) == 0)
            continue; /* most maps list one file's tensors together */
        s->shard[s->n_shards].path = strdup(path);
        if (!s->shard[s->n_shards++].path)
            return err_set(ERR_NOMEM, "%s: out of memory", index);
    }
    qsort(s->shard, (size_t)s->n_shards, sizeof *s->shard, by_path);
    for (int64_t i = 1; i < s->n_shards; i++)
        if (strcmp(s->shard[used].path, s->shard[i].path) == 0)
            free(s->shard[i].path);
        else
            s->shard[++used] = s->shard[i];
    memset(s->shard + used + 1, 0, (size_t)(s->n_shards - used - 1) * sizeof *s->shard);
    s->n_shards = used + 1;
    return ERR_OK;
}

static int check_map(const struct safetensors *s, const char *index, const struct json *map)
{
    for (void *it = json_first(map); it; it = json_next(map, it)) {
        const struct st_tensor *t = st_find(s, json_key(it));
        const char *file = json_str(json_value(it));
        if (!t || strcmp(file_base(t->file), file) != 0)
            return err_set(ERR_FORMAT, "%s: tensor \"%s\" is not in %s", index, json_key(it), file);
    }
    return ERR_OK;
}

static int open_index(struct safetensors *s, const char *path)
{
    char folder[FILE_PATH];
    struct json_doc *d = NULL;
    const struct json *map = NULL;
    int rc = file_folder(folder, path);
    if (rc == ERR_OK)
        rc = json_read(&d, path);
    if (rc)
        goto out;
    map = json_get(json_root(d), "weight_map");
    if (json_kind(map) != JSON_OBJECT || json_len(map) == 0) {
        rc = err_set(ERR_FORMAT, "%s: weight_map is missing or empty", path);
        goto out;
    }
    rc = list_shards(s, folder, path, map);
    for (int64_t i = 0; rc == ERR_OK && i < s->n_shards; i++) {
        rc = add_shard(s, &s->shard[i]);
        if (rc == ERR_IO && !file_exists(s->shard[i].path))
            rc = err_prefix(rc, "%s names a file that is not there", path);
    }
    if (rc == ERR_OK)
        rc = index_names(s);
    if (rc == ERR_OK)
        rc = check_map(s, path, map);
out:
    json_close(d);
    return rc;
}

static int open_single(struct safetensors *s, const char *path)
{
    s->shard = calloc(1, sizeof *s->shard);
    if (s->shard)
        s->shard->path = strdup(path);
    if (!s->shard || !s->shard->path)
        return err_set(ERR_NOMEM, "%s: out of memory", path);
    s->n_shards = 1;
    int rc = add_shard(s, s->shard);
    return rc ? rc : index_names(s);
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

static bool other_format(const char *name)
{
    static const char *const ends[] = {".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5", ".gguf"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (ends_with(name, ends[i]))
            return true;
    return false;
}

static int refuse_format(const char *path)
{
    return err_set(ERR_FORMAT,
                   "%s: not safetensors; convert it once with Python: from transformers import AutoModelForCausalLM as A; "
                   "A.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER, safe_serialization=True)",
                   path);
}

/* The folder has neither of the two names that we look for: says what it has instead. */
static int explain_folder(const char *folder)
{
    char other[256] = "", safe[256] = "", path[FILE_PATH];
    DIR *d = opendir(folder);
    if (!d)
        return err_set(ERR_IO, "%s: %s", folder, strerror(errno));
    for (struct dirent *e = readdir(d); e; e = readdir(d)) {
        if (ends_with(e->d_name, ".safetensors"))
            snprintf(safe, sizeof safe, "%s", e->d_name);
        else if (other_format(e->d_name))
            snprintf(other, sizeof other, "%s", e->d_name);
    }
    closedir(d);
    int rc = file_join(path, folder, other);
    if (rc)
        return rc;
    if (*safe)
        return err_set(ERR_FORMAT, "%s: has %s but neither model.safetensors nor model.safetensors.index.json", folder, safe);
    if (*other)
        return refuse_format(path);
    return err_set(ERR_IO, "%s: has neither model.safetensors nor model.safetensors.index.json", folder);
}

static int open_any(struct safetensors *s, const char *path)
{
    char file[FILE_PATH];
    if (!file_is_folder(path))
        return ends_with(path, ".json") ? open_index(s, path) : other_format(path) ? refuse_format(path) : open_single(s, path);
    int rc = file_join(file, path, "model.safetensors");
    if (rc == ERR_OK && file_exists(file))
        return open_single(s, file);
    if (rc == ERR_OK)
        rc = file_join(file, path, "model.safetensors.index.json");
    if (rc == ERR_OK && file_exists(file))
        return open_index(s, file);
    return rc ? rc : explain_folder(path);
}

int st_open(struct safetensors **out, const char *path)
{
    *out = NULL;
    struct safetensors *s = calloc(1, sizeof *s);
    if (!s)
        return err_set(ERR_NOMEM, "%s: out of memory", path);
    int rc = open_any(s, path);
    if (rc)
        st_close(s);
    else
        *out = s;
    return rc;
}

void st_close(struct safetensors *s)
{
    if (!s)
        return;
    for (int64_t i = 0; i < s->n_shards; i++) {
        if (s->shard[i].map)
            munmap(s->shard[i].map, s->shard[i].bytes);
        json_close(s->shard[i].header);
        free(s->shard[i].path);
    }
    free(s->shard);
    free(s->tensor);
    free(s->slot);
    free(s);
}

int64_t st_count(const struct safetensors *s)
{
    return s->n_tensors;
}

const struct st_tensor *st_at(const struct safetensors *s, int64_t i)
{
    return i >= 0 && i < s->n_tensors ? &s->tensor[i] : NULL;
}

const struct st_tensor *st_find(const struct safetensors *s, const char *name)
{
    int64_t i = *slot_of(s, name);
    return i ? &s->tensor[i - 1] : NULL;
}

const char *st_metadata(const struct safetensors *s, const char *key)
{
    const char *v = NULL;
    for (int64_t i = 0; !v && i < s->n_shards; i++)
        v = json_str(json_get(json_get(json_root(s->shard[i].header), "__metadata__"), key));
    return v;
}

size_t st_file_bytes(const struct safetensors *s)
{
    size_t n = 0;
    for (int64_t i = 0; i < s->n_shards; i++)
        n += s->shard[i].bytes;
    return n;
}

/* Whole pages inside [p, p + n) leave this process; the page cache may keep them. */
static void drop_pages(const void *p, size_t n)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = ((uintptr_t)p + page - 1) & ~(page - 1), to = ((uintptr_t)p + n) & ~(page - 1);
    if (to > from)
        madvise((void *)from, to - from, MADV_DONTNEED); /* advice: nothing is lost if it is refused */
}

void st_done_with(const struct st_tensor *t)
{
    drop_pages(t->data, t->bytes);
}

void st_identify(const struct safetensors *s, struct sha *to)
{
    for (int64_t i = 0; i < s->n_shards; i++) {
        sha_add(to, s->shard[i].id, sizeof s->shard[i].id);
        sha_add(to, &s->shard[i].bytes, sizeof s->shard[i].bytes);
    }
}

int st_sha256(const struct safetensors *s, char out[65])
{
    const size_t step = 16 << 20;
    struct sha *sha;
    int rc = sha_open(&sha);
    if (rc)
        return rc;
    for (int64_t i = 0; i < s->n_shards; i++)
        for (size_t at = 0; at < s->shard[i].bytes; at += step) {
            size_t n = s->shard[i].bytes - at < step ? s->shard[i].bytes - at : step;
            sha_add(sha, s->shard[i].map + at, n);
            drop_pages(s->shard[i].map + at, n);
        }
    sha_close(sha, out);
    return ERR_OK;
}
