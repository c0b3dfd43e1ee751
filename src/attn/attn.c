/* The list of attention methods. */
#include "attn/attn.h"

#include <omp.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "cfg/cfg.h"

#define ATTN_METHOD(n) extern const struct attn_method attn_##n;
#include "attn/methods.def"
#undef ATTN_METHOD

static const struct attn_method *const methods[] = {
#define ATTN_METHOD(n) &attn_##n,
#include "attn/methods.def"
#undef ATTN_METHOD
};
enum { N_METHODS = sizeof methods / sizeof methods[0] };

const struct attn_method *attn_at(int i)
{
    return i >= 0 && i < N_METHODS ? methods[i] : NULL;
}

const struct attn_method *attn_find(const char *name)
{
    for (int i = 0; i < N_METHODS; i++)
        if (!strcmp(methods[i]->name, name))
            return methods[i];
    return NULL;
}

int attn_unknown(const char *name)
{
    const char *names[N_METHODS], *near;
    struct buf list = {0};
    for (int i = 0; i < N_METHODS; i++) {
        names[i] = methods[i]->name;
        buf_printf(&list, "%s%s", i ? ", " : "", names[i]);
    }
    near = cfg_nearest(name, names, N_METHODS);
    err_set(ERR_ARG, "there is no attention method '%s'%s%s%s; there are: %s", name, near ? ", did you mean '" : "",
            near ? near : "", near ? "'?" : "", buf_text(&list));
    buf_free(&list);
    return ERR_ARG;
}

int attn_threads(double products, int64_t items)
{
    enum { SERIAL = 1 << 17 }; /* some microseconds of one core */
    int most = omp_get_max_threads();
    return products < SERIAL ? 1 : items < most ? (int)items : most;
}
