/* Patterns: a fixed string, or a regular expression.
 * Hugging Face compiles with Oniguruma (Ruby's dialect), we with PCRE2; where the two read a pattern differently it is
 * rewritten, and what cannot be rewritten is refused:
 *
 *     \s \S     White_Space: PCRE2 adds U+180E             \w \W \b \B   PCRE2 leaves out marks
 *     \h \H     hexadecimal digits: PCRE2 reads blanks     (?m)    dot matches newline: (?s); ^ and $ are always multi-line
 *     [:punct:] and others   Unicode properties            [a[bc]]  a union: [abc]; [a[^b]] and [a&&b] are refused         */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "text/tok_impl.h"

struct regex {
    pcre2_code *code;
    bool jit;
};
struct regex_run {
    pcre2_match_data *data;
    pcre2_match_context *limits;
};

enum {
    PATTERN_MAX = 1 << 16,
    MATCH_STEPS = 10000000, /* PCRE2's own default, for short texts */
    MATCH_STEPS_BYTE = 32,  /* more for long ones: a run of white space is walked back once per alternative */
    HEAP_KIB = 256 << 10
};

/* Inside a class; outside, Oniguruma also takes the superscripts and fractions of Latin-1 for word characters. */
#define WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
#define WORD_OUT WORD "\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}"

/* What an escape becomes; inside a class without the brackets, and the negated ones stay PCRE2's own there. */
static const char *escape(char c, bool in_class)
{
    switch (c) {
    case 'b': return in_class ? NULL : "(?:(?<=[" WORD_OUT "])(?![" WORD_OUT "])|(?<![" WORD_OUT "])(?=[" WORD_OUT "]))";
    case 'B': return in_class ? NULL : "(?:(?<=[" WORD_OUT "])(?=[" WORD_OUT "])|(?<![" WORD_OUT "])(?![" WORD_OUT "]))";
    case 's': return in_class ? "\\t-\\r\\x{85}\\p{Z}" : "[\\t-\\r\\x{85}\\p{Z}]";
    case 'w': return in_class ? WORD : "[" WORD_OUT "]";
    case 'h': return in_class ? "0-9a-fA-F" : "[0-9a-fA-F]";
    case 'S': return in_class ? NULL : "[^\\t-\\r\\x{85}\\p{Z}]";
    case 'W': return in_class ? NULL : "[^" WORD_OUT "]";
    case 'H': return in_class ? NULL : "[^0-9a-fA-F]";
    default: return NULL;
    }
}

/* "(?im-x:" or "(?i)": its length up to the ':' or ')', 0 if s does not start so. */
static size_t flag_group(const char *s, size_t n)
{
    size_t k = 2;
    if (n < 4 || s[0] != '(' || s[1] != '?')
        return 0;
    while (k < n && (s[k] == 'i' || s[k] == 'm' || s[k] == 'x' || s[k] == '-'))
        k++;
    return k > 2 && k < n && (s[k] == ':' || s[k] == ')') ? k : 0;
}

/* "[:alpha:]" inside a class: its length, 0 if s does not start so. */
static size_t posix_class(const char *s, size_t n)
{
    size_t k = 2;
    if (n < 5 || s[0] != '[' || s[1] != ':')
        return 0;
    while (k < n && (s[k] == '^' || (s[k] >= 'a' && s[k] <= 'z')))
        k++;
    return k + 1 < n && s[k] == ':' && s[k + 1] == ']' ? k + 2 : 0;
}

/* "[:alpha:]" and others: Oniguruma goes by Unicode properties where PCRE2 goes by categories. NULL: they agree. */
static const char *posix_content(const char *s, size_t n)
{
    static const struct {
        const char *name, *content;
    } all[] = {{"[:punct:]", "\\p{P}\\p{S}"},
               {"[:alpha:]", "\\p{Alphabetic}"},
               {"[:alnum:]", "\\p{Alphabetic}\\p{Nd}"},
               {"[:word:]", WORD},
               {"[:upper:]", "\\p{Uppercase}"},
               {"[:lower:]", "\\p{Lowercase}"},
               {"[:blank:]", "\\t\\p{Zs}"},
               {"[:space:]", "\\t-\\r\\x{85}\\p{Z}"}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (strlen(all[i].name) == n && memcmp(s, all[i].name, n) == 0)
            return all[i].content;
    return NULL;
}

/* One element inside a class; depth: of classes in classes. */
static int64_t translate_class(struct buf *out, const char *s, size_t n, int *depth, const char *who)
{
    size_t posix = posix_class(s, n);
    int rc;
    if (posix) {
        const char *content = posix_content(s, posix);
        rc = content ? buf_puts(out, content) : buf_add(out, s, posix);
        return rc ? rc : (int64_t)posix;
    }
    if ((s[0] == '[' && n > 1 && s[1] == '^') || (s[0] == '&' && n > 1 && s[1] == '&'))
        return err_set(ERR_FORMAT, "%s: operations on character classes ([a[^b]], [a&&b]) are not supported in a regex", who);
    if (s[0] == '[') {
        (*depth)++;
        return 1;
    }
    if (s[0] == ']' && --*depth > 0)
        return 1;
    rc = buf_add(out, s, 1);
    return rc ? rc : 1;
}

/* One element of a pattern at s: appends its translation, returns the bytes read, or an error. */
static int64_t translate_one(struct buf *out, const char *s, size_t n, int *depth, const char *who)
{
    size_t k = 1;
    int rc = ERR_OK;
    if (s[0] == '\\' && n > 1) {
        const char *e = escape(s[1], *depth > 0);
        rc = e ? buf_puts(out, e) : buf_add(out, s, 2);
        return rc ? rc : 2;
    }
    if (*depth > 0)
        return translate_class(out, s, n, depth, who);
    if (s[0] == '[') {
        *depth = 1;
        k += n > k && s[k] == '^'; /* a bracket that comes first stands for itself */
        k += n > k && s[k] == ']';
    }
    size_t flags = flag_group(s, n);
    for (size_t i = 0; i < flags && rc == ERR_OK; i++)
        rc = buf_add(out, s[i] == 'm' ? "s" : s + i, 1);
    if (flags == 0)
        rc = buf_add(out, s, k);
    return rc ? rc : (int64_t)(flags ? flags : k);
}

static int translate(struct buf *out, const char *s, size_t n, const char *who)
{
    int depth = 0;
    for (size_t i = 0; i < n;) {
        int64_t k = translate_one(out, s + i, n - i, &depth, who);
        if (k < 0)
            return (int)k;
        i += (size_t)k;
    }
    return ERR_OK;
}

static void regex_free(struct regex *re)
{
    if (re)
        pcre2_code_free(re->code);
    free(re);
}

static int regex_compile(struct regex **out, const char *s, size_t n, const char *who)
{
    int rc = ERR_OK, code = 0;
    PCRE2_SIZE at = 0;
    struct buf text = {0};
    pcre2_compile_context *ctx = NULL;
    struct regex *re = calloc(1, sizeof *re);
    if (!re)
        return err_set(ERR_NOMEM, "out of memory for a regex");
    if (n > PATTERN_MAX)
        rc = err_set(ERR_FORMAT, "%s: a regex of %zu bytes, at most %d are allowed", who, n, PATTERN_MAX);
    if (rc == ERR_OK)
        rc = translate(&text, s, n, who);
    if (rc)
        goto out;
    ctx = pcre2_compile_context_create(NULL);
    if (!ctx) {
        rc = err_set(ERR_NOMEM, "out of memory for a regex");
        goto out;
    }
    pcre2_set_newline(ctx, PCRE2_NEWLINE_LF);
    re->code = pcre2_compile((PCRE2_SPTR)buf_text(&text), text.len,
                             PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &code, &at, ctx);
    if (!re->code) {
        PCRE2_UCHAR why[128] = "";
        pcre2_get_error_message(code, why, sizeof why);
        rc = err_set(ERR_FORMAT, "%s: the regex \"%.200s\" does not compile: %s (at byte %zu of \"%.200s\")", who, s, (char *)why,
                     (size_t)at, buf_text(&text));
        goto out;
    }
    re->jit = pcre2_jit_compile(re->code, PCRE2_JIT_COMPLETE) == 0; /* if not: the interpreter, with the same result */
    *out = re;
    re = NULL;
out:
    regex_free(re);
    pcre2_compile_context_free(ctx);
    buf_free(&text);
    return rc;
}

int pattern_set(struct pattern *p, const char *text, size_t n, bool regex, const char *who)
{
    p->text = malloc(n + 1);
    if (!p->text)
        return err_set(ERR_NOMEM, "out of memory for a pattern");
    memcpy(p->text, text, n);
    p->text[n] = '\0';
    p->n = n;
    return regex ? regex_compile(&p->re, p->text, n, who) : ERR_OK;
}

int pattern_parse(struct pattern *p, const struct json_doc *d, const struct json *o, const char *who)
{
    const struct json *v = o;
    bool regex = false;
    if (json_kind(o) == JSON_OBJECT) {
        regex = json_get(o, "Regex") != NULL;
        v = json_get(o, regex ? "Regex" : "String");
    }
    const char *text = v ? json_str(v) : NULL;
    if (!text)
        return err_set(ERR_FORMAT, "%s: %s needs \"pattern\": {\"String\": \"...\"} or {\"Regex\": \"...\"}", json_name(d), who);
    return pattern_set(p, text, (size_t)json_len(v), regex, json_name(d));
}

void pattern_free(struct pattern *p)
{
    free(p->text);
    regex_free(p->re);
    *p = (struct pattern){0};
}

void regex_run_free(struct regex_run *r)
{
    if (!r)
        return;
    pcre2_match_data_free(r->data);
    pcre2_match_context_free(r->limits);
    free(r);
}

static int run_open(struct regex_run **out)
{
    struct regex_run *r = calloc(1, sizeof *r);
    if (r) {
        r->data = pcre2_match_data_create(1, NULL);
        r->limits = pcre2_match_context_create(NULL);
    }
    if (!r || !r->data || !r->limits) {
        regex_run_free(r);
        return err_set(ERR_NOMEM, "out of memory for matching a regex");
    }
    pcre2_set_heap_limit(r->limits, HEAP_KIB);
    *out = r;
    return ERR_OK;
}

/* 1, 0 or an error, as pattern_next. */
static int next_regex(struct matches *m)
{
    const struct regex *re = m->pattern->re;
    int got = PCRE2_ERROR_JIT_STACKLIMIT, rc = *m->run ? ERR_OK : run_open(m->run);
    struct regex_run *r = *m->run;
    if (rc || !r)
        return rc;
    uint64_t steps = MATCH_STEPS + (uint64_t)m->n * MATCH_STEPS_BYTE;
    pcre2_set_match_limit(r->limits, steps > UINT32_MAX ? UINT32_MAX : (uint32_t)steps);
    if (re->jit)
        got = pcre2_jit_match(re->code, (PCRE2_SPTR)m->s, m->n, m->from, 0, r->data, r->limits);
    if (got == PCRE2_ERROR_JIT_STACKLIMIT) /* the interpreter takes its stack from the heap */
        got = pcre2_match(re->code, (PCRE2_SPTR)m->s, m->n, m->from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, r->data, r->limits);
    if (got == PCRE2_ERROR_NOMATCH)
        return 0;
    if (got < 0) {
        PCRE2_UCHAR why[128] = "";
        pcre2_get_error_message(got, why, sizeof why);
        return err_set(ERR_FORMAT, "the regex \"%.200s\" fails at byte %zu of a text of %zu bytes: %s", m->pattern->text, m->from,
                       m->n, (char *)why);
    }
    const PCRE2_SIZE *o = pcre2_get_ovector_pointer(r->data);
    if (o[0] < m->from || o[1] < o[0] || o[1] > m->n) /* \K can do that */
        return err_set(ERR_FORMAT, "the regex \"%.200s\" matches backwards at byte %zu", m->pattern->text, m->from);
    m->at = o[0];
    m->end = o[1];
    return 1;
}

static int next_string(struct matches *m)
{
    const struct pattern *p = m->pattern;
    const char *stop = m->s + m->n;
    for (const char *at = m->s + m->from; p->n > 0 && (size_t)(stop - at) >= p->n; at++) {
        at = memchr(at, p->text[0], (size_t)(stop - at) - p->n + 1);
        if (!at)
            return 0;
        if (memcmp(at, p->text, p->n) == 0) {
            m->at = (size_t)(at - m->s);
            m->end = m->at + p->n;
            return 1;
        }
    }
    return 0;
}

int pattern_next(struct matches *m)
{
    while (m->from <= m->n) {
        int got = m->pattern->re ? next_regex(m) : next_string(m);
        if (got <= 0)
            return got;
        if (m->at == m->end && m->any && m->end == m->from) { /* empty, and right after a match: one character on */
            uint32_t cp;
            m->from += m->from < m->n ? (size_t)char_next(m->s + m->from, &cp) : 1;
            m->any = false;
            continue;
        }
        m->from = m->end;
        m->any = true;
        return 1;
    }
    return 0;
}
