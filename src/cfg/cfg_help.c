/* Option tables for people: --help, defaults as text, near misses. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "cfg/cfg.h"
#include "cfg/cfg_value.h"

static int least(int a, int b, int c)
{
    int m = a < b ? a : b;
    return m < c ? m : c;
}

/* Edit distance; source: Wagner & Fischer 1974. Words beyond 63 bytes are cut. */
static int distance(const char *a, const char *b)
{
    enum { MAX = 63 };
    int row[MAX + 1], n = (int)strnlen(a, MAX), m = (int)strnlen(b, MAX);
    for (int j = 0; j <= m; j++)
        row[j] = j;
    for (int i = 1; i <= n; i++) {
        int corner = row[0];
        row[0] = i;
        for (int j = 1; j <= m; j++) {
            int up = row[j];
            row[j] = least(up + 1, row[j - 1] + 1, corner + (a[i - 1] != b[j - 1]));
            corner = up;
        }
    }
    return row[m];
}

const char *cfg_nearest(const char *w, const char *const *candidates, int n)
{
    const char *best = NULL;
    int limit = (int)strlen(w) / 3 + 1, least_so_far = limit + 1;
    for (int i = 0; i < n; i++) {
        int d = distance(w, candidates[i]);
        if (d < least_so_far) {
            least_so_far = d;
            best = candidates[i];
        }
    }
    return best;
}

static void range(FILE *f, const struct cfg_field *x)
{
    bool low = x->min > -1e300, high = x->max < 1e300;
    if (x->type != CFG_T_INT && x->type != CFG_T_REAL && x->type != CFG_T_INTS && x->type != CFG_T_REALS)
        return;
    if (low && high)
        fprintf(f, " (%.10g to %.10g)", x->min, x->max);
    else if (low)
        fprintf(f, " (at least %.10g)", x->min);
    else if (high)
        fprintf(f, " (at most %.10g)", x->max);
}

void cfg_help(FILE *f, const char *indent, const struct cfg_field *fields)
{
    for (const struct cfg_field *x = fields; x->name; x++) {
        struct buf b = {0};
        int rc = x->required ? buf_puts(&b, "...") : cfg_value_default(x, &b);
        int n = fprintf(f, "%s%s = %s", indent, x->name, rc ? "?" : buf_text(&b));
        fprintf(f, "%*s%s", n < 34 ? 34 - n : 2, "", x->help ? x->help : "");
        range(f, x);
        if (x->choices)
            fprintf(f, " (%s)", x->choices);
        fprintf(f, "%s\n", x->required ? " [required]" : "");
        buf_free(&b);
    }
}
