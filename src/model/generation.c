/* generation_config.json: the tokens that begin and end a text, where a checkpoint says them apart from config.json. */
#include "base/err.h"
#include "io/file.h"
#include "io/json.h"
#include "model/arch.h"

/* transformers' generate() stops at what stands here, and only without it at config.json's: chat models list several. */
int config_generation(const char *path, struct model_shape *s)
{
    char file[FILE_PATH];
    struct json_doc *d = NULL;
    struct model_shape g = {.vocab = s->vocab, .bos = -1};
    int rc = file_join(file, path, "generation_config.json");
    if (rc || !file_exists(file))
        return rc;
    rc = json_read(&d, file);
    if (!rc && json_kind(json_root(d)) != JSON_OBJECT)
        rc = err_set(ERR_FORMAT, "%s: an object is needed", file);
    rc = rc ? rc : config_eos(d, &g);
    json_close(d);
    if (!rc && g.n_eos > 0) {
        s->n_eos = g.n_eos;
        for (int64_t i = 0; i < g.n_eos; i++)
            s->eos[i] = g.eos[i];
        s->eos_from = "generation_config.json";
    }
    if (!rc && s->bos < 0 && g.bos >= 0) {
        s->bos = g.bos;
        s->bos_from = "generation_config.json";
    }
    return rc;
}
