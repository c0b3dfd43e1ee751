/* Filling in prompts. */
#include "task/prompt.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "task/task.h"

static int unknown(struct span word, const struct prompt_slot *slots, int n_slots)
{
    struct buf list = {0};
    for (int i = 0; i < n_slots; i++)
        if (buf_printf(&list, "%s{%s}", i ? ", " : "", slots[i].name))
            break;
    int rc = err_set(ERR_ARG, "the prompt template has {%.*s}; there are %s", (int)word.n, word.s, buf_text(&list));
    buf_free(&list);
    return rc;
}

/* {name}: lower-case letters only, so that other braces may stand in a template. */
static size_t slot_length(const char *s, size_t n)
{
    size_t k = 1;
    while (k < n && s[k] >= 'a' && s[k] <= 'z')
        k++;
    return k > 1 && k < n && s[k] == '}' ? k + 1 : 0;
}

int prompt_fill(struct buf *out, struct span form, const struct prompt_slot *slots, int n_slots)
{
    int rc = ERR_OK;
    for (size_t i = 0; i < form.n && rc == ERR_OK;) {
        size_t k = form.s[i] == '{' ? slot_length(form.s + i, form.n - i) : 0;
        if (k == 0) {
            rc = buf_add(out, form.s + i++, 1);
            continue;
        }
        struct span word = {form.s + i + 1, k - 2};
        int s = 0;
        while (s < n_slots && (strlen(slots[s].name) != word.n || memcmp(slots[s].name, word.s, word.n) != 0))
            s++;
        rc = s < n_slots ? buf_add(out, slots[s].value.s, slots[s].value.n) : unknown(word, slots, n_slots);
        i += k;
    }
    return rc;
}

int prompt_append(struct tok_ids *to, const int32_t *from, int64_t n)
{
    if (to->n + n > to->cap) {
        int64_t cap = to->n + n + to->cap;
        int32_t *v = realloc(to->v, (size_t)cap * sizeof *v);
        if (!v)
            return err_set(ERR_NOMEM, "out of memory for a prompt of %lld tokens", (long long)(to->n + n));
        to->v = v;
        to->cap = cap;
    }
    if (n > 0)
        memcpy(to->v + to->n, from, (size_t)n * sizeof *from);
    to->n += n;
    return ERR_OK;
}

int prompt_begin(struct tok_ids *ids, const struct task_env *env, bool bos)
{
    int32_t id = (int32_t)env->bos;
    return bos && id >= 0 ? prompt_append(ids, &id, 1) : ERR_OK;
}
