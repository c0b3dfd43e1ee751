/* The complete table of plain kernels: what the others are measured against, and what runs where nothing else does. */
#include "kernels/ref/ref.h"

extern const struct kern_table kern_ref;

const struct kern_table kern_ref = {
    .isa = "ref",
#define KERN_ENTRY(e) .e = ref_##e,
#include "kernels/entries.def"
#undef KERN_ENTRY
};
