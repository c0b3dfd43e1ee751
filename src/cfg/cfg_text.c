/* Configuration text. libconfig 1.5 reads 5000000000 as 705032704 and says nothing: found here, before it parses. */
#include "cfg/cfg_text.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"

enum { DEPTH_MAX = 10, PATH_CAP = 4096 };

static int add_file(struct cfg_text *t, const char *path)
{
    char **v = realloc(t->file, (size_t)(t->n_files + 1) * sizeof *v);
    if (!v)
        return err_set(ERR_NOMEM, "%s: no memory to read it", path);
    t->file = v;
    v[t->n_files] = strdup(path);
    return v[t->n_files++] ? ERR_OK : err_set(ERR_NOMEM, "%s: no memory to read it", path);
}

static int add_line(struct cfg_text *t, const char *s, size_t n, int file, int line)
{
    if (t->n_lines == t->cap) {
        int cap = t->cap ? 2 * t->cap : 256;
        struct cfg_line *v = realloc(t->line, (size_t)cap * sizeof *v);
        if (!v)
            return err_set(ERR_NOMEM, "no memory for the configuration");
        t->line = v;
        t->cap = cap;
    }
    t->line[t->n_lines++] = (struct cfg_line){file, line};
    int rc = buf_add(&t->text, s, n);
    return rc ? rc : buf_add(&t->text, "\n", 1);
}

/* The path of `@include "path"`, or false. */
static bool is_include(const char *s, size_t n, char *out)
{
    size_t i = 0, k = 0;
    while (i < n && isspace((unsigned char)s[i]))
        i++;
    if (n - i < 8 || strncmp(s + i, "@include", 8))
        return false;
    for (i += 8; i < n && isspace((unsigned char)s[i]); i++)
        ;
    if (i >= n || s[i++] != '"')
        return false;
    while (i < n && s[i] != '"' && k < PATH_CAP - 1)
        out[k++] = s[i++];
    out[k] = '\0';
    return true;
}

/* Beside the file that includes, else as it stands. */
static void resolve(const char *from, const char *name, char *out)
{
    const char *slash = strrchr(from, '/');
    size_t folder = name[0] == '/' || !slash ? 0 : (size_t)(slash - from) + 1, n = strlen(name);
    out[0] = '\0';
    if (folder + n < PATH_CAP) {
        memcpy(out, from, folder);
        memcpy(out + folder, name, n + 1);
    }
    if (access(out, R_OK))
        memcpy(out, name, n + 1);
}

static int read_file(struct cfg_text *t, const char *path, int depth)
{
    struct buf b = {0};
    char name[PATH_CAP], full[PATH_CAP];
    int file = t->n_files, line = 0;
    int rc = depth > DEPTH_MAX ? err_set(ERR_ARG, "%s: more than %d files include each other", path, DEPTH_MAX) : ERR_OK;
    rc = rc ? rc : add_file(t, path);
    rc = rc ? rc : buf_read_file(&b, path, 1 << 26);
    if (!rc && strlen(buf_text(&b)) != b.len)
        rc = err_set(ERR_FORMAT, "%s: not a text file", path);
    for (const char *s = buf_text(&b); *s && !rc;) {
        size_t n = strcspn(s, "\n");
        line++;
        if (is_include(s, n, name)) {
            resolve(path, name, full);
            rc = access(full, R_OK) ? err_set(ERR_IO, "%s:%d: @include \"%s\": %s", path, line, name, strerror(errno))
                                    : read_file(t, full, depth + 1);
        } else {
            rc = add_line(t, s, n, file, line);
        }
        s += n + (s[n] == '\n');
    }
    buf_free(&b);
    return rc;
}

void cfg_text_where(const struct cfg_text *t, int line, char *out, size_t cap)
{
    if (!t || line < 1 || line > t->n_lines)
        snprintf(out, cap, "command line");
    else
        snprintf(out, cap, "%s:%d", t->file[t->line[line - 1].file], t->line[line - 1].line);
}

/* Past a string or comment that begins at s; s itself if none does. */
static const char *skip(const char *s)
{
    if (*s == '"') {
        for (s++; *s && *s != '"'; s++)
            s += *s == '\\' && s[1];
        return *s ? s + 1 : s;
    }
    if (*s == '#' || (s[0] == '/' && s[1] == '/'))
        return s + strcspn(s, "\n");
    if (s[0] == '/' && s[1] == '*') {
        const char *end = strstr(s + 2, "*/");
        return end ? end + 2 : s + strlen(s);
    }
    return s;
}

static bool word(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '-' || c == '*';
}

/* An integer that libconfig would wrap: digits alone, no L, outside 32 bits. */
static bool wraps(const char *s, size_t n)
{
    char text[80];
    char *end;
    if (n >= sizeof text)
        return true;
    memcpy(text, s, n);
    text[n] = '\0';
    bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    errno = 0;
    unsigned long long v = strtoull(text, &end, hex ? 16 : 10);
    if (*end)
        return false; /* a float, or has its L */
    return errno || v > (s[-1] == '-' ? 2147483648ULL : 2147483647ULL);
}

int cfg_text_check(const struct cfg_text *t, const char *text)
{
    char where[PATH_CAP + 32], key[128] = "";
    int line = 1;
    for (const char *s = text; *s;) {
        const char *after = skip(s);
        if (after != s) {
            for (; s < after; s++)
                line += *s == '\n';
        } else if (isdigit((unsigned char)*s)) {
            size_t n = strspn(s, "0123456789abcdefABCDEFxX.LlEe");
            if ((s > text) && wraps(s, n)) {
                cfg_text_where(t, line, where, sizeof where);
                return err_set(ERR_ARG, "%s: %s = %.*s does not fit 32 bits: write %.*sL for a 64-bit integer", where, key, (int)n,
                               s, (int)n, s);
            }
            s += n;
        } else if (word(*s)) {
            size_t n = 0;
            while (word(s[n]))
                n++;
            if (*s != '-')
                snprintf(key, sizeof key, "%.*s", (int)n, s);
            s += *s == '-' ? 1 : n;
        } else {
            line += *s++ == '\n';
        }
    }
    return ERR_OK;
}

int cfg_text_read(struct cfg_text *t, const char *path)
{
    *t = (struct cfg_text){0};
    int rc = read_file(t, path, 0);
    return rc ? rc : cfg_text_check(t, buf_text(&t->text));
}

void cfg_text_free(struct cfg_text *t)
{
    for (int i = 0; i < t->n_files; i++)
        free(t->file[i]);
    free(t->file);
    free(t->line);
    buf_free(&t->text);
    *t = (struct cfg_text){0};
}
