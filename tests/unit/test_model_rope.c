/* Rotary frequencies against values computed in double from the published formulas. */
#include "base/err.h"
#include "io/json.h"
#include "model/rope.h"
#include "tests/t.h"

static struct rope rope_of(const char *config, int64_t dim, int64_t context)
{
    struct json_doc *d = NULL;
    struct rope r = {0};
    T_EQ(json_parse(&d, config, strlen(config), "config.json"), ERR_OK);
    T_EQ(rope_read(&r, d, dim, context, 10000, 1), ERR_OK);
    json_close(d);
    return r;
}

static void refused(const char *config, const char *why)
{
    struct json_doc *d = NULL;
    struct rope r;
    T_EQ(json_parse(&d, config, strlen(config), "config.json"), ERR_OK);
    T_EQ(rope_read(&r, d, 64, 512, 10000, 1), ERR_FORMAT);
    if (!strstr(err_text(), why))
        T_FAIL("%s", err_text());
    err_clear();
    json_close(d);
}

static void near(double got, double want)
{
    T_NEAR(got / want, 1, 2e-6);
}

static void llama3_slows_long_waves(void)
{
    struct rope r = rope_of(
                    "{\"rope_theta\": 500000, \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1, "
                    "\"high_freq_factor\": 4, \"original_max_position_embeddings\": 8192}}",
                    128, 131072),
                plain = r;
    float f[64], g[64];
    plain.kind = ROPE_DEFAULT;
    rope_freq(&r, 0, f);
    rope_freq(&plain, 0, g);
    near((double)f[0], 1);
    near((double)f[1], 0.8146172339);
    near((double)f[32], 5.248461610e-4);
    near((double)f[63], 3.068925989e-7);
    near((double)f[28] / (double)g[28], 1);
    near((double)f[29] / (double)g[29], 0.828168);
    near((double)f[34] / (double)g[34], 0.190211);
    near((double)f[35] / (double)g[35], 0.125);
}

static void yarn_blends_and_scales_attention(void)
{
    struct rope r = rope_of("{\"rope_parameters\": {\"rope_type\": \"yarn\", \"rope_theta\": 1000000, \"factor\": 4, "
                            "\"original_max_position_embeddings\": 32768}}",
                            128, 131072),
                plain = r;
    float f[64], g[64];
    plain.kind = ROPE_DEFAULT;
    rope_freq(&r, 0, f);
    rope_freq(&plain, 0, g);
    near(r.attention, 1.138629436);
    near((double)f[23] / (double)g[23], 1);
    T_NEAR((double)f[24] / (double)g[24], 0.955882, 1e-5);
    T_NEAR((double)f[30] / (double)g[30], 0.691176, 1e-5);
    T_NEAR((double)f[39] / (double)g[39], 0.294118, 1e-5);
    near((double)f[40] / (double)g[40], 0.25);
    r = rope_of("{\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4, \"mscale\": 1, \"mscale_all_dim\": 1}}", 128, 4096);
    near(r.attention, 1);
}

static void dynamic_depends_on_the_length(void)
{
    struct rope r = rope_of("{\"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2.0}}", 128, 4096);
    float f[64], g[64];
    rope_freq(&r, 8192, f);
    near((double)f[1], 0.8509942913);
    near((double)f[32], 5.723381508e-3);
    near((double)f[63], 3.849273282e-5);
    rope_freq(&r, 4096, f);
    r.kind = ROPE_DEFAULT;
    rope_freq(&r, 4096, g);
    T_CHECK(!memcmp(f, g, sizeof f));
}

static void linear_divides(void)
{
    struct rope r = rope_of("{\"rope_parameters\": {\"rope_type\": \"linear\", \"factor\": 4}}", 16, 512);
    float f[8];
    rope_freq(&r, 0, f);
    near((double)f[0], 0.25);
}

static void frequencies_round_to_the_stored_type_on_request(void)
{
    struct rope r = rope_of("{\"torch_dtype\": \"bfloat16\"}", 64, 512);
    float f[32];
    T_EQ(r.stored, ROPE_BF16);
    T_EQ(r.round, ROPE_FLOAT);
    r.round = r.stored;
    rope_freq(&r, 0, f);
    T_NEAR(f[1], 0.75, 1e-9); /* 0.74989... to 8 bits */
    r = rope_of("{\"dtype\": \"float16\"}", 64, 512);
    r.round = r.stored;
    rope_freq(&r, 0, f);
    T_NEAR(f[1], 1536.0 / 2048, 1e-9);
    T_NEAR((double)f[31] * 0x1p24, rint((double)f[31] * 0x1p24), 1e-9);
}

static void what_is_missing_or_absurd_is_named(void)
{
    refused("{\"rope_scaling\": {\"type\": \"longrope\", \"factor\": 2}}", "longrope");
    refused("{\"rope_scaling\": {\"type\": \"linear\"}}", "factor");
    refused("{\"rope_scaling\": 3}", "must be an object");
    refused("{\"rope_theta\": \"big\"}", "rope_theta");
    refused("{\"rope_theta\": 1}", "rope_theta");
    refused("{\"rope_scaling\": {\"type\": \"llama3\", \"factor\": 8}}", "low_freq_factor");
    refused("{\"partial_rotary_factor\": 0.01}", "even number");
    refused("{\"rope_parameters\": {\"full_attention\": {}, \"sliding_attention\": {}}}", "layer type");
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    T_RUN(llama3_slows_long_waves);
    T_RUN(yarn_blends_and_scales_attention);
    T_RUN(dynamic_depends_on_the_length);
    T_RUN(linear_divides);
    T_RUN(frequencies_round_to_the_stored_type_on_request);
    T_RUN(what_is_missing_or_absurd_is_named);
    return t_done();
}
