/* One layer of a model as a ternary matrix. */
#include <stdlib.h>

#include "base/checked.h"
#include "base/error.h"
#include "model/open_model.h"
#include "nn/ternary_weights.h"
#include "tern/pack.h"

/* The trits [rows][cols]: the layer's own, or unpacked into `room`. */
static tern_status trits_of(const int8_t **trits, int8_t *room, const tern_node *node, const tern_ternary_weights *w,
                            tern_error *err) {
    const tern_packed *p = &node->packed;
    *trits = w->trits ? w->trits : room;
    return w->trits ? TERN_OK : tern_unpack(room, p->packing, p->bytes, p->byte_count, w->rows, w->cols, err);
}

static tern_status make_matrix(tern_matrix **out, const tern_node *node, const tern_ternary_weights *w,
                               tern_packing packing, int8_t *room, uint8_t *packed, size_t bytes, tern_error *err) {
    const int8_t *trits;
    TERN_TRY(trits_of(&trits, room, node, w, err));
    TERN_TRY(tern_pack(packed, bytes, packing, trits, w->rows, w->cols, err));
    int per_row = w->granularity == TERN_PER_ROW;
    tern_matrix_desc desc = {.rows = w->rows,
                             .cols = w->cols,
                             .packing = packing,
                             .packed = packed,
                             .packed_bytes = bytes,
                             .scale_kind = per_row ? TERN_SCALE_ROW : TERN_SCALE_TENSOR,
                             .scales = w->trits ? w->scales : node->packed.scales,
                             .scale_count = per_row ? w->rows : 1};
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
