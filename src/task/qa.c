/* Normal forms, exact match and F1. */
#include "task/qa.h"

#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/utf8.h"
#include "task/ws.h"
#include "text/lower.h"

static const char *find(const char *s, size_t n, const char *part, size_t k)
{
    for (const char *end = s + n; k > 0 && (size_t)(end - s) >= k; s++) {
        s = memchr(s, part[0], (size_t)(end - s) - k + 1);
        if (!s || memcmp(s, part, k) == 0)
            return s;
    }
    return NULL;
}

static bool is_punct(uint32_t cp)
{
    return cp < 0x80 && cp != 0 && strchr("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", (int)cp) != NULL;
}

enum form { FORM_TRIVIAQA, FORM_SQUAD, FORM_HARNESS };

/* Lower case with punctuation replaced or deleted. */
static int strip_marks(const char *s, size_t n, enum form form, struct buf *out)
{
    struct buf low = {0};
    struct buf spaced = {0};
    int rc = buf_add(&spaced, s, n);
    for (size_t i = 0; rc == ERR_OK && form == FORM_TRIVIAQA && i < n; i++)
        if (spaced.data[i] == '_')
            spaced.data[i] = ' ';
    if (rc == ERR_OK)
        rc = text_lower(buf_text(&spaced), spaced.len, &low);
    for (size_t i = 0; i < low.len && rc == ERR_OK;) {
        uint32_t cp = 0;
        int k = utf8_decode(low.data + i, low.len - i, &cp);
        size_t step = k > 0 ? (size_t)k : 1;
        bool quote = form == FORM_TRIVIAQA && k > 0 && (cp == 0x2018 || cp == 0x2019 || cp == 0xb4);
        if (quote || (k > 0 && is_punct(cp)))
            rc = form == FORM_TRIVIAQA ? buf_puts(out, " ") : ERR_OK;
        else
            rc = buf_add(out, low.data + i, step);
        i += step;
    }
    buf_free(&low);
    buf_free(&spaced);
    return rc;
}

/* \b(a|an|the)\b -> " " */
static int drop_articles(const char *s, size_t n, struct buf *out)
{
    int rc = ERR_OK;
    for (size_t i = 0; i < n && rc == ERR_OK;) {
        uint32_t cp = 0;
        size_t end = i;
        for (int k = 1; k > 0 && end < n;) { /* the run of word characters from i on */
            k = utf8_decode(s + end, n - end, &cp);
            if (k <= 0 || !text_is_word(cp))
                break;
            end += (size_t)k;
        }
        size_t len = end - i;
        bool article =
            (len == 1 && s[i] == 'a') || (len == 2 && memcmp(s + i, "an", 2) == 0) || (len == 3 && memcmp(s + i, "the", 3) == 0);
        if (len == 0) {
            int k = utf8_decode(s + i, n - i, &cp);
            len = k > 0 ? (size_t)k : 1;
        }
        rc = article ? buf_puts(out, " ") : buf_add(out, s + i, len);
        i += len;
    }
    return rc;
}

static int join_words(const char *s, size_t n, struct buf *out)
{
    size_t at = 0, len;
    const char *w;
    int rc = ERR_OK;
    for (bool first = true; rc == ERR_OK && ws_next(s, n, &at, &w, &len); first = false) {
        rc = first ? ERR_OK : buf_puts(out, " ");
        if (rc == ERR_OK)
            rc = buf_add(out, w, len);
    }
    return rc;
}

static int normalise(const char *s, size_t n, enum form form, struct buf *out)
{
    struct buf marks = {0}, plain = {0};
    int rc = strip_marks(s, n, form, form == FORM_HARNESS ? out : &marks);
    if (rc == ERR_OK && form != FORM_HARNESS)
        rc = drop_articles(buf_text(&marks), marks.len, &plain);
    if (rc == ERR_OK && form != FORM_HARNESS)
        rc = join_words(buf_text(&plain), plain.len, out);
    buf_free(&marks);
    buf_free(&plain);
    return rc;
}

int qa_normalise_triviaqa(const char *s, size_t n, struct buf *out)
{
    return normalise(s, n, FORM_TRIVIAQA, out);
}

int qa_normalise_squad(const char *s, size_t n, struct buf *out)
{
    return normalise(s, n, FORM_SQUAD, out);
}

int qa_normalise_harness(const char *s, size_t n, struct buf *out)
{
    return normalise(s, n, FORM_HARNESS, out);
}

struct overlap {
    int64_t common, predicted, wanted;
};

/* Words in common, with repetitions. */
static int overlap(struct overlap *out, const struct buf *a, const struct buf *b)
{
    struct spans list[2] = {{0}};
    struct ngrams g[2] = {{0}};
    int rc = spans_split(&list[0], buf_text(a), a->len);
    if (rc == ERR_OK)
        rc = spans_split(&list[1], buf_text(b), b->len);
    if (rc == ERR_OK)
        rc = ngrams_of_words(g, list, 2);
    if (rc == ERR_OK)
        *out = (struct overlap){ngrams_match(&g[0], &g[1], 1, 1), g[0].n, g[1].n};
    for (int i = 0; i < 2; i++) {
        spans_free(&list[i]);
        ngrams_free(&g[i]);
    }
    return rc;
}

static double f1(const struct overlap *o)
{
    if (o->common == 0)
        return 0;
    double p = (double)o->common / (double)o->predicted, r = (double)o->common / (double)o->wanted;
    return 2 * p * r / (p + r);
}

static bool equal(const struct buf *a, const struct buf *b)
{
    return a->len == b->len && memcmp(buf_text(a), buf_text(b), a->len) == 0;
}

static bool holds(const struct buf *text, const struct buf *part)
{
    return find(buf_text(text), text->len, buf_text(part), part->len) != NULL;
}

/* One alias, in all three forms. */
static int against(struct qa_score *out, const struct buf p[3], struct span alias)
{
    struct buf a[3] = {{0}};
    struct overlap o = {0};
    int rc = ERR_OK;
    for (int f = 0; f < 3 && rc == ERR_OK; f++)
        rc = normalise(alias.s, alias.n, (enum form)f, &a[f]);
    if (rc == ERR_OK)
        rc = overlap(&o, &p[FORM_TRIVIAQA], &a[FORM_TRIVIAQA]);
    if (rc)
        goto out;
    out->em |= equal(&p[FORM_TRIVIAQA], &a[FORM_TRIVIAQA]);
    out->em_squad |= equal(&p[FORM_SQUAD], &a[FORM_SQUAD]);
    out->em_harness |= equal(&p[FORM_HARNESS], &a[FORM_HARNESS]);
    out->contains |= holds(&p[FORM_TRIVIAQA], &a[FORM_TRIVIAQA]);
    if (f1(&o) > out->f1) {
        out->f1 = f1(&o);
        out->common = o.common;
        out->predicted = o.predicted;
        out->wanted = o.wanted;
    }
    rc = overlap(&o, &p[FORM_SQUAD], &a[FORM_SQUAD]);
    if (rc == ERR_OK && f1(&o) > out->f1_squad)
        out->f1_squad = f1(&o);
out:
    for (int f = 0; f < 3; f++)
        buf_free(&a[f]);
    return rc;
}

int qa_score(struct qa_score *out, struct span prediction, const struct span *aliases, int64_t n_aliases)
{
    struct buf p[3] = {{0}};
    int rc = ERR_OK;
    *out = (struct qa_score){0};
    for (int f = 0; f < 3 && rc == ERR_OK; f++)
        rc = normalise(prediction.s, prediction.n, (enum form)f, &p[f]);
    for (int64_t i = 0; i < n_aliases && rc == ERR_OK; i++)
        rc = against(out, p, aliases[i]);
    for (int f = 0; f < 3; f++)
        buf_free(&p[f]);
    return rc;
}

struct span qa_first_line(struct span s)
{
    while (s.n > 0 && s.s[0] == '\n') {
        s.s++;
        s.n--;
    }
    const char *nl = s.n ? memchr(s.s, '\n', s.n) : NULL;
    if (nl)
        s.n = (size_t)(nl - s.s);
    return s;
}

struct span qa_cut(struct span s, const char *const *stops, int n_stops)
{
    for (int i = 0; i < n_stops; i++) {
        const char *hit = find(s.s, s.n, stops[i], strlen(stops[i]));
        if (hit)
            s.n = (size_t)(hit - s.s);
    }
    ws_strip(&s.s, &s.n);
    return s;
}

/* Whole words: what stands between single blanks. */
static bool holds_words(const struct buf *text, const struct buf *part)
{
    const char *s = buf_text(text), *end = s + text->len;
    while (part->len > 0 && s < end) {
        const char *hit = find(s, (size_t)(end - s), part->data, part->len);
        if (!hit)
            return false;
        if ((hit == text->data || hit[-1] == ' ') && (hit + part->len == end || hit[part->len] == ' '))
            return true;
        s = hit + 1;
    }
    return false;
}

int qa_answer_in(struct span text, const struct span *aliases, int64_t n_aliases)
{
    struct buf t = {0}, a = {0};
    int rc = qa_normalise_triviaqa(text.s, text.n, &t), found = 0;
    for (int64_t i = 0; i < n_aliases && rc == ERR_OK && !found; i++) {
        buf_clear(&a);
        rc = qa_normalise_triviaqa(aliases[i].s, aliases[i].n, &a);
        found = rc == ERR_OK && holds_words(&t, &a);
    }
    buf_free(&t);
    buf_free(&a);
    return rc ? rc : found;
}
