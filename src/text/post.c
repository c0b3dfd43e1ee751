/* Post-processors: which ids stand before and after a text. One row of the table each. */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "text/tok_impl.h"

void post_free(struct post *p)
{
    tok_ids_free(&p->before);
    tok_ids_free(&p->after);
}

static int bad(const struct json_doc *d, const char *what)
{
    return err_set(ERR_FORMAT, "%s: post_processor: %s", json_name(d), what);
}

static int push_checked(struct tok_ids *ids, const struct json_doc *d, const struct json *v)
{
    int64_t id;
    if (!v || json_kind(v) != JSON_INT || !json_as_int(v, &id) || id < 0 || id > TOK_ID_MAX)
        return bad(d, "an id is not an integer from 0 on");
    return tok_ids_push(ids, (int32_t)id);
}

/* The ids of {"SpecialToken": {"id": name}}, as special_tokens lists them. */
static int template_special(struct tok_ids *ids, const struct json_doc *d, const struct json *o, const struct json *special)
{
    const struct json *name = json_get(json_get(o, "SpecialToken"), "id");
    const char *key = name ? json_str(name) : NULL;
    const struct json *list = key && special ? json_get(json_get(special, key), "ids") : NULL;
    if (!list || json_kind(list) != JSON_ARRAY)
        return err_set(ERR_FORMAT,
                       "%s: post_processor: special token \"%.60s\" of the template has no list of ids in special_tokens",
                       json_name(d), key ? key : "");
    for (int64_t i = 0; i < json_len(list); i++) {
        int rc = push_checked(ids, d, json_at(list, i));
        if (rc)
            return rc;
    }
    return ERR_OK;
}

/* before, then A once, then after. */
static int template(struct post *p, const struct json_doc *d, const struct json *o)
{
    const struct json *single = json_get(o, "single"), *special = json_get(o, "special_tokens");
    bool seen = false;
    int rc = !single || json_kind(single) != JSON_ARRAY ? bad(d, "TemplateProcessing needs the list \"single\"") : ERR_OK;
    for (int64_t i = 0; i < json_len(single) && rc == ERR_OK; i++) {
        const struct json *piece = json_at(single, i),
                          *seq = piece && json_kind(piece) == JSON_OBJECT ? json_get(piece, "Sequence") : NULL;
        if (seq) {
            const struct json *which = json_get(seq, "id");
            const char *name = which ? json_str(which) : NULL;
            if (seen || !name || strcmp(name, "A") != 0)
                rc = bad(d, "the template \"single\" must hold sequence A once and nothing else");
            seen = true;
        } else if (piece && json_kind(piece) == JSON_OBJECT)
            rc = template_special(seen ? &p->after : &p->before, d, piece, special);
        else
            rc = bad(d, "an element of \"single\" is not an object");
    }
    return rc || seen ? rc : bad(d, "the template \"single\" lacks sequence A");
}

static int pair_id(struct tok_ids *ids, const struct json_doc *d, const struct json *o, const char *key)
{
    const struct json *pair = json_get(o, key);
    if (!pair || json_kind(pair) != JSON_ARRAY || json_len(pair) != 2)
        return err_set(ERR_FORMAT, "%s: post_processor: \"%s\" must be [token, id]", json_name(d), key);
    return push_checked(ids, d, json_at(pair, 1));
}

static int cls_sep(struct post *p, const struct json_doc *d, const struct json *o)
{
    int rc = pair_id(&p->before, d, o, "cls");
    return rc ? rc : pair_id(&p->after, d, o, "sep");
}

static int no_ids(struct post *p, const struct json_doc *d, const struct json *o)
{
    (void)p, (void)d, (void)o; /* ByteLevel trims offsets, which we do not report */
    return ERR_OK;
}

static const struct {
    const char *name;
    int (*parse)(struct post *p, const struct json_doc *d, const struct json *o);
} kinds[] = {{"TemplateProcessing", template}, {"ByteLevel", no_ids}, {"BertProcessing", cls_sep}, {"RobertaProcessing", cls_sep}};
enum { N_KINDS = sizeof kinds / sizeof kinds[0] };

/* One processor's ids become p's. Hugging Face gives a second one the first one's tokens as a pair of texts: refused. */
static int take(struct post *p, const struct json_doc *d, struct post *one)
{
    if (one->before.n + one->after.n == 0)
        return ERR_OK;
    if (p->before.n + p->after.n > 0)
        return bad(d, "two processors that add ids in one Sequence are not supported");
    struct post old = *p;
    *p = *one;
    *one = old;
    return ERR_OK;
}

static int parse(struct post *p, const struct json_doc *d, const struct json *o, int depth)
{
    const char *type = NULL;
    if (!o || json_kind(o) == JSON_NULL)
        return ERR_OK;
    int rc = json_kind(o) == JSON_OBJECT ? json_string(d, o, "type", NULL, &type) : ERR_OK;
    if (rc)
        return rc;
    if (!type)
        return bad(d, "an object with a \"type\" is needed");
    if (strcmp(type, "Sequence") == 0) {
        const struct json *list = json_get(o, "processors");
        if (!list || json_kind(list) != JSON_ARRAY || depth >= TOK_DEPTH)
            return bad(d, "a Sequence needs the list \"processors\", not too deeply nested");
        for (int64_t i = 0; i < json_len(list) && rc == ERR_OK; i++)
            rc = json_kind(json_at(list, i)) == JSON_OBJECT ? parse(p, d, json_at(list, i), depth + 1)
                                                            : bad(d, "an element of \"processors\" is not an object");
        return rc;
    }
    for (int i = 0; i < N_KINDS; i++) {
        if (strcmp(type, kinds[i].name) != 0)
            continue;
        struct post one = {0};
        rc = kinds[i].parse(&one, d, o);
        if (rc == ERR_OK)
            rc = take(p, d, &one);
        post_free(&one);
        return rc;
    }
    return err_set(ERR_FORMAT, "%s: the post_processor '%.60s' is not supported; there are %s, %s, %s, %s, Sequence", json_name(d),
                   type, kinds[0].name, kinds[1].name, kinds[2].name, kinds[3].name);
}

int post_parse(struct post *p, const struct json_doc *d, const struct json *o)
{
    return parse(p, d, o, 0);
}
