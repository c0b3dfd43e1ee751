/* A model folder explained. */
#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "model/model.h"

int model_describe(struct buf *out, const char *path)
{
    struct model_info i;
    char f32[32], bf16[32];
    int rc = model_peek(&i, path);
    if (rc)
        return rc;
    log_bytes(4.0 * (double)i.parameters, f32, sizeof f32);
    log_bytes(2.0 * (double)i.parameters, bf16, sizeof bf16);
    return buf_printf(out,
                      "%s: a %s model, %.1f million parameters\n"
                      "  layers      %lld of width %lld, MLP %lld\n"
                      "  attention   %lld heads of %lld, %lld key/value heads%s\n"
                      "  vocabulary  %lld%s\n"
                      "  context     %lld tokens\n"
                      "  weights     %s as f32, %s as bf16\n",
                      path, i.arch, (double)i.parameters / 1e6, (long long)i.layers, (long long)i.hidden, (long long)i.mlp,
                      (long long)i.heads, (long long)i.dim, (long long)i.kv_heads, i.window ? ", sliding window" : "",
                      (long long)i.vocab, i.tied ? ", head tied to the embedding" : "", (long long)i.context, f32, bf16);
}
