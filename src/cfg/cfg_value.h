/* Values of option tables: from text or numbers into a member, and back to text. Knows nothing of libconfig. */
#ifndef AST_CFG_CFG_VALUE_H
#define AST_CFG_CFG_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct cfg_field;

/* A value as found: one element, or several. */
struct cfg_item {
    enum { CFG_ITEM_INT, CFG_ITEM_REAL, CFG_ITEM_BOOL, CFG_ITEM_STR } kind;
    int64_t i;
    double r;
    const char *s;
};

/* Memory that lives as long as its owner. */
typedef void *cfg_alloc(void *owner, size_t bytes);

/* Sets the member of opts from n items (list: they were written as a list). ERR_ARG with where, key, value and what would
 * be right; ERR_NOMEM. */
struct cfg_found {
    const char *where;
    const struct cfg_item *item;
    int n;
    bool list;
};
int cfg_value_set(const struct cfg_field *f, void *opts, const struct cfg_found *v, cfg_alloc *alloc, void *owner);

/* Sets the default. */
int cfg_value_set_default(const struct cfg_field *f, void *opts, cfg_alloc *alloc, void *owner);

/* The member, or the default, in libconfig syntax. */
int cfg_value_text(const struct cfg_field *f, const void *opts, struct buf *out);
int cfg_value_default(const struct cfg_field *f, struct buf *out);

#endif
