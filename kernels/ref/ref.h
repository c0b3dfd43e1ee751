/* Prototypes of the plain kernels, private to this folder. What each does stands in kernels/kern.h. */
#ifndef AST_KERNELS_REF_REF_H
#define AST_KERNELS_REF_REF_H

#include "kernels/kern.h"

float ref_dot(const float *x, const float *y, int64_t n);
void ref_axpy(float *y, float a, const float *x, int64_t n);
void ref_add(float *y, const float *x, int64_t n);
void ref_scale(float *y, float a, int64_t n);
bool ref_all_finite(const float *x, int64_t n);
int64_t ref_argmax(const float *x, int64_t n);

void ref_f32_from_bf16(float *y, const void *x, int64_t n);
void ref_f32_from_f16(float *y, const void *x, int64_t n);
void ref_bf16_from_f32(uint16_t *y, const float *x, int64_t n);

void ref_rms_norm(float *y, const float *x, const float *w, int64_t n, float eps);
void ref_layer_norm(float *y, const float *x, const float *w, const float *b, int64_t n, float eps);

void ref_silu_mul(float *y, const float *gate, const float *up, int64_t n);
void ref_gelu_mul(float *y, const float *gate, const float *up, int64_t n, bool tanh_form);
void ref_silu(float *x, int64_t n);
void ref_gelu(float *x, int64_t n, bool tanh_form);
void ref_relu(float *x, int64_t n);
void ref_rope(float *x, const float *cs, const float *sn, int64_t rot);

float ref_exp_row(float *y, const float *x, int64_t n, float *sum);
void ref_lse_update(const float *x, int64_t n, float *m, double *s);

void ref_kv_append(struct kern_kv *kv, const float *k, const float *v, int64_t stride, int64_t n);
void ref_kv_keys(const struct kern_kv *kv, int64_t first, int64_t n, float *out);
void ref_kv_values(const struct kern_kv *kv, int64_t first, int64_t n, float *out);

void ref_tile_begin(const struct kern_tile *t);
void ref_tile_dense(const struct kern_tile *t, const struct kern_kv *kv, int64_t block0, int64_t block1);
void ref_tile_blocks(const struct kern_tile *t, const struct kern_kv *kv, const int32_t *block, const uint64_t *mask, int64_t n);
void ref_tile_gather(const struct kern_tile *t, const struct kern_kv *kv, const int64_t *ptr, const int32_t *block);
void ref_tile_halves(const struct kern_tile *t, const struct kern_kv *kv, const int32_t *half, const uint64_t *mask, int64_t n);
void ref_tile_end(const struct kern_tile *t, float *lse);

void ref_rows_matmul(const struct kern_rows *c);
void ref_block_scores(const struct kern_scores *c);
int64_t ref_topk(const float *s, int64_t n, int64_t k, int32_t *idx, float *work, struct kern_guess *guess);
void ref_running_mean(const struct kern_mean *c);
void ref_pool_rows(const struct kern_pool *c);
void ref_list_scores(const struct kern_list *c);
void ref_list_mix(const struct kern_list *c);
void ref_lay_few(const struct kern_lay *c);
void ref_gemm(const struct kern_gemm *g);
void ref_panel(const struct kern_panel *c);
void ref_silu_grad(const struct kern_act_grad *c);
void ref_gelu_grad(const struct kern_act_grad *c, bool tanh_form);
float ref_biased_max(const float *s, const float *bias, int64_t blocks);
float ref_biased_exp(float *s, const float *bias, int64_t blocks, float shift);
void ref_softmax_grad(float *dp, const float *p, float dot, int64_t blocks, float *sums);
void ref_soft_sums(const struct kern_soft *c, float *sum, float *slope);
void ref_soft_logs(const struct kern_soft *c, float *log_m, float *log_1m);
double ref_peak(enum kern_dtype t, int64_t n);

#endif
