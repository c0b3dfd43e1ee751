/* Fixed attention patterns as data, and one driver that runs any of them exactly, at a cost of what the pattern sees.
 *
 * What token t of a head sees is a union of parts, in this order and made disjoint (j is a key, f the first that the
 * architecture's own window allows):
 *
 *     sinks            f <= j < sink                                   a span of the keys themselves
 *     columns          j in the column set                             a panel: columns packed side by side
 *     picked blocks    whatever pick() says, blocks of 16 keys         lists of blocks
 *     local            begin(t) <= j <= t                              a span of the keys themselves
 *     strided          j = t - m stride, 0 <= m <= reach               panels of keys j mod stride, one a residue
 *
 * all but the last with j < begin(t), and sinks excluded from columns and picks. So every part is a contiguous range of
 * packed keys and runs through the dense tile kernels: no element masks, no work on what is not seen. Panels are copies of
 * keys and values that grow with the sequence, in the method's state; their layout does not depend on its length:
 *
 *     tokens | fixed columns of each panel | record 0 | record 1 ...    record = 16 keys and 16 values of every slot
 *
 * A pattern with stride has one slot a residue, one with periodic columns one. A method may keep bytes of its own before all
 * that (own_bytes) and in each record (record_bytes). Rows of one tile come from one unit: the
 * query heads of a KV group whose pattern is the same. The strided part has tiles of its own (tokens of one residue) and
 * is merged through the log-sum-exp. What a row gets depends to the bit on its own keys alone. */
#ifndef AST_ATTN_PATTERN_H
#define AST_ATTN_PATTERN_H

#include "attn/attn.h"

struct pattern {               /* of one query head; zero-initialised before it is filled: compared as bytes */
    int64_t window;            /* local: the last `window` tokens, itself included; 0: no such part */
    int64_t block, blocks;     /* local: the token's own block of `block` tokens and the blocks-1 before it */
    int64_t sink;              /* the first tokens */
    int64_t stride, reach;     /* stride 0: none */
    int64_t period, from, to;  /* columns from <= j mod period < to; period 0: none */
    int64_t n_col;             /* given columns, ascending: all see them, and they see all before them (global tokens) */
    const int64_t *col;        /* (n_col,); not together with periodic columns */
    int64_t picks, pick_block; /* at most `picks` blocks of pick_block tokens, the same for all tokens of such a block */
    int64_t head;              /* who picks: model-wide index, or 0 where heads are alike */
    int full;                  /* everything: dense */
    int turn;                  /* sinks at their distance in a cache of sink + window keys (StreamingLLM) */
};

/* Facts about token t; first: the first key that the architecture's window allows (pattern_first). Pure. */
int64_t pattern_first(const struct attn_shape *s, int64_t t);
int64_t pattern_begin(const struct pattern *p, int64_t first, int64_t t); /* of the local part; t + 1: none */
bool pattern_is_column(const struct pattern *p, int64_t j);
int64_t pattern_columns(const struct pattern *p, int64_t x);             /* columns below x */
int64_t pattern_strided(const struct pattern *p, int64_t r, int64_t x);  /* keys j = r mod stride below x, given columns excluded */
int64_t pattern_keys(const struct pattern *p, int64_t first, int64_t t); /* seen by t, picked blocks excluded */

struct pattern_run;
struct pattern_unit;

struct pattern_ops {
    int variants; /* patterns a head may have; more than 1: the caller chooses between them as it goes */
    /* Pattern number `variant` of query head `head` (model-wide). */
    void (*of)(const void *opts, const struct attn_shape *s, int64_t head, int variant, struct pattern *out);
    /* Kernel blocks (16 keys) that token t sees besides, ascending, below begin(t), none holding a sink. Room for
     * picks pick_block / 16. For pick_block = 16 and own lists of each row, see pick_row. NULL: no picks. */
    int64_t (*pick)(const void *opts, const struct attn_shape *s, const struct pattern *p, int64_t t, int32_t *list);
    /* The same for one query head and token, by scores: used instead of pick. (q: its query; work: pick_work() bytes.) */
    int64_t (*pick_row)(const struct pattern_run *r, const struct pattern_unit *u, const float *q, int64_t t, int32_t *list,
                        void *work);
    size_t (*pick_work)(const void *opts, const struct attn_shape *s, int64_t max_tokens);
    size_t (*own_bytes)(const void *opts, const struct attn_shape *s);    /* NULL: none */
    size_t (*record_bytes)(const void *opts, const struct attn_shape *s); /* NULL: none; needs a strided variant */
};

enum { PATTERN_PANELS = 256 };

struct pattern_panel {                   /* columns or residues of one KV head */
    struct pattern p;                    /* only what names the keys: stride, period, columns */
    int64_t kv_head, slot, slots, fixed; /* slots of a record: first and how many; first block of given columns */
};

struct pattern_unit { /* query heads that share keys and pattern */
    struct pattern p;
    int64_t kv_head, n, tokens; /* heads; tokens of a tile */
    const int32_t *head;        /* (n,) this rank's index */
    int panel[2];               /* strided, columns; -1: none */
};

struct pattern_size { /* of one thread's room */
    int64_t dim, half, list;
    size_t work;
};

struct pattern_run {
    struct attn_call *c;
    const struct pattern_ops *ops;
    struct pattern_panel *panel;
    int64_t most; /* room in panel */
    int n_panels;
    int64_t slots, extra, fixed; /* of a record: panels' slots, and as many as hold record_bytes; blocks of given columns */
    size_t own;                  /* own_bytes, rounded up */
    struct pattern_unit *unit;
    int n_units;
    int32_t *head;    /* (H,) unit after unit */
    float *out, *lse; /* (.., H, d), (.., H): rows of the chunk from row0 on */
    int64_t row0;
    unsigned char *lanes;
    size_t lane;
    struct pattern_size size;
    int threads;
    double pairs, tiles_dense, tiles_gather; /* counted by attend */
    size_t mark;
    void *more; /* the method's own */
};

/* ERR_ARG: what this shape does not allow. */
int pattern_check(const struct pattern_ops *ops, const void *opts, const struct attn_shape *s);
size_t pattern_state_bytes(const struct pattern_ops *ops, const void *opts, const struct attn_shape *s, int64_t max_tokens);
size_t pattern_scratch(const struct pattern_ops *ops, const void *opts, const struct attn_shape *s, int64_t n, int64_t max_tokens);
void pattern_cost(const struct pattern_ops *ops, const void *opts, const struct attn_shape *s, const int64_t span[2],
                  struct attn_cost *out); /* span: pos, n; variant 0 */

/* A whole call: open, attend with variant 0, statistics, close. */
int pattern_call(struct attn_call *c, const struct pattern_ops *ops);

/* The parts. open takes memory from the step arena and adds the chunk's keys to the panels; close releases it.
 * attend: tokens i .. i+n-1 of the chunk; variant (H,) of each of this rank's heads, NULL: 0. */
int pattern_open(struct pattern_run *r, struct attn_call *c, const struct pattern_ops *ops);
void pattern_attend(struct pattern_run *r, const int32_t *variant, int64_t i, int64_t n);
void pattern_close(struct pattern_run *r);

/* For the driver's own files: a slot as a store whose block b is kernel block b * step; key number x of the slot in the
 * coordinates of that store. */
struct pattern_view {
    struct kern_kv kv;
    int64_t step;
};
void *pattern_own(const struct pattern_run *r);                    /* own_bytes of the state */
void *pattern_record(const struct pattern_run *r, int64_t record); /* record_bytes of a record */
struct pattern_view pattern_view_of(const struct pattern_run *r, const struct pattern_panel *p, int64_t sub);
int64_t pattern_at_view(const struct pattern_view *v, int64_t x);

/* Every panel that any head and variant may need, in one order, whatever the choice; those of one pattern (strided and
 * columns, -1: none); the chunk's keys into one panel. */
void pattern_list_panels(struct pattern_run *r);
void pattern_panels_of(struct pattern_run *r, const struct pattern *p, int64_t kv_head, int panel[2]);
void pattern_feed(const struct pattern_run *r, const struct pattern_panel *p);

#endif
