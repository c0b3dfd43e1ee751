/* Explainers of asterism show: each appends a page about one path to out. Local. The error is that of reading it; what was
 * appended before is shown all the same. */
#ifndef AST_APP_SHOW_H
#define AST_APP_SHOW_H

#include <stdbool.h>

struct buf;

/* checkpoints: show_model.c */
bool show_is_model(const char *path);
int show_model(struct buf *out, const char *path);
bool show_is_tokenizer(const char *path);
int show_tokenizer(struct buf *out, const char *path);
bool show_is_safetensors(const char *path);
int show_safetensors(struct buf *out, const char *path);
bool show_is_gates(const char *path); /* a safetensors file of trained gates */
int show_gates(struct buf *out, const char *path);

/* jobs and what they leave: show_job.c */
bool show_is_job(const char *path);
int show_job(struct buf *out, const char *path);
bool show_is_shards(const char *path); /* OUTPUT.shards/ */
int show_shards(struct buf *out, const char *path);
bool show_is_shard(const char *path);
int show_shard(struct buf *out, const char *path);

bool show_ends(const char *path, const char *with);

#endif
