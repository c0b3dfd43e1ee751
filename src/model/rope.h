/* Rotary position embedding: frequencies of the variants that checkpoints name in config.json.
 *   source   Su et al. 2021 (RoFormer) eq. 34; Chen et al. 2023 (linear); Peng et al. 2023 (YaRN, dynamic NTK);
 *            Llama 3.1's piecewise scaling. Half-split pairs: (i, i + rot/2). */
#ifndef AST_MODEL_ROPE_H
#define AST_MODEL_ROPE_H

#include <stdbool.h>
#include <stdint.h>

struct json_doc;

enum rope_kind { ROPE_NONE, ROPE_DEFAULT, ROPE_LINEAR, ROPE_DYNAMIC, ROPE_LLAMA3, ROPE_YARN };

enum rope_round { ROPE_FLOAT, ROPE_BF16, ROPE_F16 }; /* what the frequencies are rounded to */

struct rope {
    enum rope_kind kind;
    int64_t rot; /* rotated dims of a head, even */
    double theta, factor;
    int64_t original;       /* the context the frequencies were trained for */
    double low, high;       /* llama3: low_freq_factor, high_freq_factor; yarn: beta_slow, beta_fast */
    double attention;       /* cos and sin are multiplied by it; 1 but for yarn */
    bool truncate;          /* yarn: whole dims as ramp ends */
    enum rope_round stored; /* the type that config.json names: dtype or torch_dtype */
    enum rope_round round;  /* FLOAT, unless the model is to be as one that was cast to that type as a whole */
};

/* Reads both dialects (rope_theta + rope_scaling; rope_parameters). dim: head width; context:
 * max_position_embeddings; def_theta, def_partial: the architecture's defaults. ERR_FORMAT. */
int rope_read(struct rope *out, const struct json_doc *config, int64_t dim, int64_t context, double def_theta, double def_partial);

/* freq (rot/2,): radians a position, for a sequence of n tokens (only `dynamic` depends on n). */
void rope_freq(const struct rope *r, int64_t n, float *freq);

/* cs, sn (rot/2,): cos and sin at a position, attention factor included. Angles in float, as the checkpoints' own
 * software computes them. */
void rope_angles(const struct rope *r, const float *freq, int64_t position, float *cs, float *sn);

const char *rope_name(enum rope_kind k); /* "default", "linear", ... */

#endif
