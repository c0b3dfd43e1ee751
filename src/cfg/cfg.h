/* Jobs and configs: libconfig files read into plain structs by tables of typed, documented options.
 *
 * One table gives parsing, default, range check, --help, the unknown-key error and the record kept with the results:
 *
 *     struct window_opts { int64_t width; };
 *     static const struct cfg_field fields[] = {
 *         CFG_INT(struct window_opts, width, 256, 1, 1e9, "keys seen, itself included"),
 *         CFG_END,
 *     };
 *     struct window_opts o;
 *     rc = cfg_load(cfg, "methods.[0]", fields, &o);
 *
 * A group is named by its libconfig path: "" the file's own level, "run", "tasks.[2]", "tasks.[2].prompt".
 * Several tables may be loaded from one group (common options, then the plug-in's own). */
#ifndef AST_CFG_CFG_H
#define AST_CFG_CFG_H

#include <float.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct buf;
struct cfg;

enum cfg_type { CFG_T_END, CFG_T_INT, CFG_T_REAL, CFG_T_BOOL, CFG_T_STR, CFG_T_ENUM, CFG_T_INTS, CFG_T_REALS, CFG_T_STRS };

struct cfg_ints {
    int64_t n;
    const int64_t *v; /* owned by the cfg */
};
struct cfg_reals {
    int64_t n;
    const double *v;
};
struct cfg_strs {
    int64_t n;
    const char *const *v;
};

struct cfg_field {
    const char *name;
    enum cfg_type type;
    size_t at;           /* offset in the options struct */
    double def_num;      /* default of INT, REAL, BOOL; of ENUM: the index */
    const char *def_str; /* default of STR (NULL: required); of INTS, REALS, STRS as written: "512, 2048" */
    double min, max;     /* of INT, REAL and of each element of INTS, REALS */
    const char *choices; /* of ENUM: "f32|bf16|auto" */
    bool required;
    const char *help; /* one line */
};

/* clang-format off */
/* Members: int64_t; double; bool; const char *; int (index of the choice); struct cfg_ints, cfg_reals, cfg_strs. */
#define CFG_INT(s, f, def, lo, hi, text)  {.name = #f, .type = CFG_T_INT, .at = offsetof(s, f), .def_num = (def), .min = (lo), .max = (hi), .help = (text)}
#define CFG_REAL(s, f, def, lo, hi, text) {.name = #f, .type = CFG_T_REAL, .at = offsetof(s, f), .def_num = (def), .min = (lo), .max = (hi), .help = (text)}
#define CFG_BOOL(s, f, def, text)         {.name = #f, .type = CFG_T_BOOL, .at = offsetof(s, f), .def_num = (def), .help = (text)}
#define CFG_STR(s, f, def, text)          {.name = #f, .type = CFG_T_STR, .at = offsetof(s, f), .def_str = (def), .help = (text)}
#define CFG_STR_REQ(s, f, text)           {.name = #f, .type = CFG_T_STR, .at = offsetof(s, f), .required = true, .help = (text)}
#define CFG_ENUM(s, f, def, list, text)   {.name = #f, .type = CFG_T_ENUM, .at = offsetof(s, f), .def_num = (def), .choices = (list), .help = (text)}
#define CFG_INTS(s, f, def, lo, hi, text) {.name = #f, .type = CFG_T_INTS, .at = offsetof(s, f), .def_str = (def), .min = (lo), .max = (hi), .help = (text)}
#define CFG_REALS(s, f, def, lo, hi, text) {.name = #f, .type = CFG_T_REALS, .at = offsetof(s, f), .def_str = (def), .min = (lo), .max = (hi), .help = (text)}
#define CFG_STRS(s, f, def, text)         {.name = #f, .type = CFG_T_STRS, .at = offsetof(s, f), .def_str = (def), .help = (text)}
#define CFG_END                           {.name = NULL, .type = CFG_T_END}
/* clang-format on */

/* Reads a file (its @include paths are relative to the file that includes, then to the working directory) and applies
 * "path.key=value" overrides. path NULL: overrides alone. Errors name file and line: ERR_IO, ERR_ARG. */
int cfg_open(struct cfg **out, const char *path, const char *const *overrides, int n_overrides);
void cfg_close(struct cfg *c); /* NULL is fine; strings and lists that were loaded end here */

/* Elements of the list at path; 1 for a single group; -1 if there is nothing. */
int cfg_count(const struct cfg *c, const char *path);

/* Fills opts from the group (absent group: all defaults) and records every value with its origin.
 * Missing required keys, wrong types, fractions for integers, values out of range and integers that libconfig has
 * wrapped are ERR_ARG with file, line, key, value and what would be right. */
int cfg_load(struct cfg *c, const char *group, const struct cfg_field *fields, void *opts);

/* Only the defaults, without a file. */
int cfg_defaults(const struct cfg_field *fields, void *opts);

/* A key or group that no cfg_load asked for is ERR_ARG, with the nearest name that exists. Call it after all loads. */
int cfg_finish(struct cfg *c);

/* The record of cfg_load: resolved options in order, one each. text is libconfig syntax; origin is "default",
 * "FILE:LINE" or "command line". Returns false past the end. */
struct cfg_record {
    const char *group, *key, *text, *origin;
    const char *help; /* the field's; "" if it has none */
};
bool cfg_record_at(const struct cfg *c, int i, struct cfg_record *out);

/* All resolved options as libconfig text, one line each with its origin as a comment. */
int cfg_print(const struct cfg *c, struct buf *out);

/* The original text of the file and of what it includes; "" without a file. */
const char *cfg_source(const struct cfg *c);
const char *cfg_path(const struct cfg *c);

/* "name = default   help (range)" for each field. */
void cfg_help(FILE *f, const char *indent, const struct cfg_field *fields);

/* The candidate nearest to word by edit distance, or NULL if none is near: "did you mean ...". Also for plug-in names. */
const char *cfg_nearest(const char *word, const char *const *candidates, int n);

#endif
