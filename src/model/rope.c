/* Rotary frequencies. Formulas stand beside each variant; both spellings of config.json are read in one place. */
#include "model/rope.h"

#include <math.h>
#include <string.h>

#include "base/err.h"
#include "io/json.h"

static const char *const names[] = {"none", "default", "linear", "dynamic", "llama3", "yarn"};

const char *rope_name(enum rope_kind k)
{
    return names[k];
}

static int kind_of(const struct json_doc *d, const char *word, enum rope_kind *out)
{
    for (int k = ROPE_DEFAULT; k <= ROPE_YARN; k++)
        if (!strcmp(word, names[k])) {
            *out = (enum rope_kind)k;
            return ERR_OK;
        }
    return err_set(ERR_FORMAT, "%s: rope_type = \"%s\" is not one that is computed here: default, linear, dynamic, llama3, yarn",
                   json_name(d), word);
}

/* The object with the parameters, or NULL: rope_parameters, rope_scaling, or rope_parameters' entry for full attention. */
static const struct json *source(const struct json_doc *d)
{
    const struct json *root = json_root(d), *p = json_get(root, "rope_parameters");
    const struct json *full = p ? json_get(p, "full_attention") : NULL;
    if (full)
        return full;
    return p ? p : json_get(root, "rope_scaling");
}

static int check_source(const struct json_doc *d)
{
    const struct json *p = source(d), *all = json_get(json_root(d), "rope_parameters");
    if (p && json_kind(p) != JSON_OBJECT)
        return err_set(ERR_FORMAT, "%s: rope_parameters (rope_scaling) must be an object or null", json_name(d));
    if (all && json_get(all, "sliding_attention"))
        return err_set(ERR_FORMAT, "%s: rope_parameters differ by layer type, which is not computed here", json_name(d));
    return ERR_OK;
}

static int read_llama3(struct rope *out, const struct json_doc *d, const struct json *p)
{
    int rc = json_real(d, p, "low_freq_factor", (double)NAN, 1e-6, 1e6, &out->low);
    if (!rc)
        rc = json_real(d, p, "high_freq_factor", (double)NAN, 1e-6, 1e6, &out->high);
    if (rc)
        return rc;
    if (isnan(out->low) || isnan(out->high) || out->low >= out->high)
        return err_set(ERR_FORMAT, "%s: rope type llama3 needs low_freq_factor < high_freq_factor, both given", json_name(d));
    if (!json_get(p, "original_max_position_embeddings"))
        return err_set(ERR_FORMAT, "%s: rope type llama3 needs original_max_position_embeddings", json_name(d));
    return ERR_OK;
}

static double yarn_scale(double factor, double mscale)
{
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

static int read_yarn(struct rope *out, const struct json_doc *d, const struct json *p)
{
    double attention = 0, mscale = 0, all_dim = 0;
    int rc = json_real(d, p, "beta_fast", 32, 1e-3, 1e6, &out->high);
    if (!rc)
        rc = json_real(d, p, "beta_slow", 1, 1e-3, 1e6, &out->low);
    if (!rc)
        rc = json_real(d, p, "attention_factor", 0, 0, 1e3, &attention);
    if (!rc)
        rc = json_real(d, p, "mscale", 0, 0, 1e3, &mscale);
    if (!rc)
        rc = json_real(d, p, "mscale_all_dim", 0, 0, 1e3, &all_dim);
    if (!rc)
        rc = json_bool(d, p, "truncate", true, &out->truncate);
    if (rc)
        return rc;
    if (attention > 0)
        out->attention = attention;
    else if (mscale > 0 && all_dim > 0)
        out->attention = yarn_scale(out->factor, mscale) / yarn_scale(out->factor, all_dim);
    else
        out->attention = yarn_scale(out->factor, 1);
    return ERR_OK;
}

static int read_scaling(struct rope *out, const struct json_doc *d, const struct json *p, int64_t context)
{
    const char *word = NULL;
    int rc = json_string(d, p, "rope_type", NULL, &word);
    if (!rc && !word)
        rc = json_string(d, p, "type", "default", &word);
    if (!rc)
        rc = kind_of(d, word, &out->kind);
    if (rc || out->kind == ROPE_DEFAULT)
        return rc;
    rc = json_real(d, p, "factor", (double)NAN, 1e-3, 1e6, &out->factor);
    if (rc)
        return rc;
    if (isnan(out->factor))
        return err_set(ERR_FORMAT, "%s: rope type %s needs a factor", json_name(d), word);
    rc = json_int(d, p, "original_max_position_embeddings", context, 1, INT64_C(1) << 30, &out->original);
    if (rc)
        return rc;
    if (out->kind == ROPE_DYNAMIC)
        out->original = context; /* the rule is written in terms of max_position_embeddings */
    if (out->kind == ROPE_LLAMA3)
        return read_llama3(out, d, p);
    return out->kind == ROPE_YARN ? read_yarn(out, d, p) : ERR_OK;
}

/* The type of the checkpoint; unknown words are no business of ours. */
static int read_stored(struct rope *out, const struct json_doc *d)
{
    const char *word = NULL;
    int rc = json_string(d, json_root(d), "dtype", NULL, &word);
    if (!rc && !word)
        rc = json_string(d, json_root(d), "torch_dtype", "float32", &word);
    if (rc)
        return rc;
    out->stored = !strcmp(word, "bfloat16") ? ROPE_BF16 : !strcmp(word, "float16") ? ROPE_F16 : ROPE_FLOAT;
    return ERR_OK;
}

int rope_read(struct rope *out, const struct json_doc *d, int64_t dim, int64_t context, double def_theta, double def_partial)
{
    double partial = def_partial;
    *out = (struct rope){.kind = ROPE_DEFAULT, .factor = 1, .attention = 1, .original = context};
    int rc = check_source(d);
    if (!rc)
        rc = read_stored(out, d);
    if (rc)
        return rc;
    const struct json *root = json_root(d), *p = source(d);
    rc = json_real(d, root, "rope_theta", def_theta, 1, 1e12, &out->theta);
    if (!rc && p)
        rc = json_real(d, p, "rope_theta", out->theta, 1, 1e12, &out->theta);
    if (!rc)
        rc = json_real(d, root, "partial_rotary_factor", def_partial, 0, 1, &partial);
    if (!rc && p)
        rc = json_real(d, p, "partial_rotary_factor", partial, 0, 1, &partial);
    if (!rc && p)
        rc = read_scaling(out, d, p, context);
    if (rc)
        return rc;
    out->rot = (int64_t)((double)dim * partial);
    if (out->rot < 2 || out->rot % 2)
        return err_set(ERR_FORMAT, "%s: %lld of a head's %lld dims would be rotated; an even number of at least 2 is needed",
                       json_name(d), (long long)out->rot, (long long)dim);
    if (out->theta <= 1)
        return err_set(ERR_FORMAT, "%s: rope_theta = %g must be above 1", json_name(d), out->theta);
    return ERR_OK;
}

/* Peng et al. 2023: the dim whose wave turns `turns` times over the original context. */
static double yarn_dim(const struct rope *r, double turns)
{
    return (double)r->rot * log((double)r->original / (turns * 2 * M_PI)) / (2 * log(r->theta));
}

static double yarn_freq(const struct rope *r, int64_t i, double inv)
{
    double low = yarn_dim(r, r->high), high = yarn_dim(r, r->low);
    if (r->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, (double)(r->rot - 1));
    if (low == high)
        high += 0.001;
    double ramp = fmin(fmax(((double)i - low) / (high - low), 0), 1);
    return inv / r->factor * ramp + inv * (1 - ramp);
}

/* Llama 3.1: long waves are slowed by factor, short ones kept, a linear blend between. */
static double llama3_freq(const struct rope *r, double inv)
{
    double wave = 2 * M_PI / inv, context = (double)r->original;
    if (wave < context / r->high)
        return inv;
    if (wave > context / r->low)
        return inv / r->factor;
    double t = (context / wave - r->low) / (r->high - r->low);
    return (1 - t) * inv / r->factor + t * inv;
}

/* To `bits` bits of significand (the leading one counted in), ties to even; f16's subnormals lie on a grid of 2^-24. */
static float rounded(float x, int bits, double grid)
{
    int e;
    double m = ldexp(frexp((double)x, &e), bits), step = ldexp(1, e - bits);
    return (float)(step < grid ? rint((double)x / grid) * grid : rint(m) * step);
}

void rope_freq(const struct rope *r, int64_t n, float *freq)
{
    double theta = r->theta, d = (double)r->rot;
    /* d = 2 has one frequency, 1, whatever theta is. */
    if (r->kind == ROPE_DYNAMIC && n > r->original && r->rot > 2)
        theta *= pow(r->factor * (double)n / (double)r->original - (r->factor - 1), d / (d - 2));
    for (int64_t i = 0; i < r->rot / 2; i++) {
        double inv = pow(theta, -2 * (double)i / d);
        if (r->kind == ROPE_LINEAR)
            inv /= r->factor;
        else if (r->kind == ROPE_LLAMA3)
            inv = llama3_freq(r, inv);
        else if (r->kind == ROPE_YARN)
            inv = yarn_freq(r, i, inv);
        freq[i] = (float)inv;
        if (r->round == ROPE_BF16)
            freq[i] = rounded(freq[i], 8, 0);
        else if (r->round == ROPE_F16)
            freq[i] = rounded(freq[i], 11, 0x1p-24);
    }
}

void rope_angles(const struct rope *r, const float *freq, int64_t position, float *cs, float *sn)
{
    float by = (float)r->attention;
    for (int64_t i = 0; i < r->rot / 2; i++) {
        float angle = (float)position * freq[i];
        cs[i] = cosf(angle) * by;
        sn[i] = sinf(angle) * by;
    }
}
