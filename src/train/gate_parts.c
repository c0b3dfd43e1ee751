/* Units are the first dimension of every gate tensor, so that a rank's are one piece of it. */
#include "train/gate_parts.h"

#include <string.h>

#include "base/arena.h"
#include "base/err.h"
#include "comm/comm.h"

int gate_parts_cut(struct attn_params *own, const struct attn_params *all, const struct comm_group *g, struct arena *run)
{
    int64_t rank = g ? g->rank : 0, size = g ? g->size : 1;
    *own = *all;
    own->units /= size, own->heads /= size, own->kv_heads /= size;
    own->layer = ARENA_NEW0(run, own->layers, struct gate_layer);
    for (int64_t l = 0; own->layer && l < own->layers; l++)
        for (int i = 0; i < GATE_TENSORS; i++) {
            struct gate_tensor of, to;
            gate_tensor_at(all, l, i, &of);
            gate_tensor_at(own, l, i, &to);
            *to.data = *of.data ? *of.data + rank * gate_tensor_size(&to) : NULL;
        }
    return own->layer ? ERR_OK : ERR_NOMEM;
}

/* Only this rank's units stay; summed, they are whole. */
void gate_parts_gather(const struct attn_params *own, const struct attn_params *all, const struct comm_group *g)
{
    for (int64_t l = 0; g && g->size > 1 && l < all->layers; l++)
        for (int i = 0; i < GATE_TENSORS; i++) {
            struct gate_tensor whole, part;
            gate_tensor_at(all, l, i, &whole);
            gate_tensor_at(own, l, i, &part);
            int64_t each = gate_tensor_size(&part);
            if (!*whole.data)
                continue;
            for (int r = 0; r < g->size; r++)
                if (r != g->rank)
                    memset(*whole.data + r * each, 0, (size_t)each * sizeof(float));
            comm_sum_f32(g, *whole.data, gate_tensor_size(&whole));
        }
}
