/* One layer of a model as a ternary matrix. */
#include <stdlib.h>

#include "base/checked.h"
#include "base/error.h"
#include "model/open_model.h"
#include "nn/ternary_weights.h"
#include "tern/pack.h"

static tern_status make_matrix(tern_matrix **out, const tern_node *node, const tern_ternary_weights *w,
                               tern_packing packing, int8_t *trits, uint8_t *packed, size_t bytes, tern_error *err) {
    TERN_TRY(tern_ternary_take_trits(w, node, trits, err));
    TERN_TRY(tern_pack(packed, bytes, packing, trits, w->rows, w->cols, err));
    const tern_packed *p = &node->packed;
    tern_matrix_desc desc = {.rows = w->rows,
                             .cols = w->cols,
                             .packing = packing,
                             .packed = packed,
                             .packed_bytes = bytes,
                             .scale_kind = tern_ternary_scale_kind(w),
                             .scales = p->bytes ? p->scales : w->scales,
                             .exponents = p->bytes ? p->exponents : w->rule.exponent,
                             .scale_count = w->scale_count,
                             .group = w->group};
    return tern_matrix_create(out, &desc, err);
}

tern_status tern_model_layer_matrix(tern_matrix **out, const tern_model *model, size_t i, tern_packing packing,
                                    tern_error *err) {
    TERN_CHECK_ARGUMENT(out && model, err, "%s is NULL", out ? "model" : "out");
    *out = NULL;
    TERN_CHECK_ARGUMENT(tern_model_layer_is_ternary(model, i), err, "node %zu has no ternary weights", i);
    const tern_node *node = &model->file.graph->node[i];
    const tern_ternary_weights *w = tern_plan_ternary(model->plan, i);
    if (w->groups != 1)
        return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE, "%s has a matrix for each of its %zu groups",
                         node->name, w->groups);
    size_t bytes;
    TERN_TRY(tern_packed_bytes(&bytes, packing, w->rows, w->cols, err));
    uint8_t *packed = malloc(bytes);
    int8_t *room = malloc(w->rows * w->cols);
    tern_status status = packed && room
                             ? make_matrix(out, node, w, packing, room, packed, bytes, err)
                             : tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "%s: no memory to pack it", node->name);
    free(room);
    free(packed);
    return status;
}
