/* Shape inference: the size program on the dims that ORT knows. */
#include <stdio.h>
#include <stdlib.h>

#include "operator.h"

enum { SYMBOL_BYTES = 40 };

/* ORT drops the status that inference gives and never frees it, so all ends here. */
static bool is_done(const OrtApi *api, OrtStatus *status) {
    if (!status) return true;
    ort_release_status(api, status);
    return false;
}

/* Reads one input's dims and their symbols. An input whose rank is not the one expected has
 * unknown dims: so ORT shows those of unknown rank, and the run will refuse the others. */
static void read_dims(const OrtApi *api, const OrtShapeInferContext *context, size_t input,
                      size_t rank, int64_t *dims, const char **symbols) {
    for (size_t axis = 0; axis < rank; axis++) dims[axis] = SIZE_UNKNOWN, symbols[axis] = "";
    OrtTensorTypeAndShapeInfo *shape = NULL;
    size_t found = 0;
    if (rank == 0 || !is_done(api, ort_inferred_input(api, context, input, &shape)) || !shape ||
        !is_done(api, ort_get_rank(api, shape, &found)) || found != rank)
        return;
    int64_t known[MAX_RANK];
    if (!is_done(api, ort_get_dims(api, shape, known, rank))) return;
    for (size_t axis = 0; axis < rank; axis++)
        if (known[axis] >= 0) dims[axis] = known[axis];
    if (!is_done(api, ort_get_symbols(api, shape, symbols, rank)))
        for (size_t axis = 0; axis < rank; axis++) symbols[axis] = "";
}

/* An unknown dim needs a name, and two sizes that may differ must never share one. */
static const char *symbol_of(const size_row *row, const char **symbols, char room[SYMBOL_BYTES]) {
    static counter made;
    if (row->operation == ROW_DIM && symbols[row->a] && symbols[row->a][0]) return symbols[row->a];
    snprintf(room, SYMBOL_BYTES, "ort_optim_%lld", (long long)atomic_fetch_add(&made, 1));
    return room;
}

static void infer_output(const operator *op, const OrtShapeInferContext *context, size_t index,
                         const int64_t *values, const char **symbols) {
    const OrtApi *api = op->api;
    const sizes *output = &op->region->outputs[index];
    int64_t dims[MAX_RANK];
    const char *names[MAX_RANK];
    char rooms[MAX_RANK][SYMBOL_BYTES];
    for (int64_t axis = 0; axis < output->count; axis++) {
        int64_t size = output->all[axis];
        bool is_known = values && values[size] >= 0;
        dims[axis] = is_known ? values[size] : -1;
        names[axis] = is_known ? "" : symbol_of(&op->region->rows[size], symbols, rooms[axis]);
    }
    OrtTensorTypeAndShapeInfo *shape = NULL;
    size_t rank = (size_t)output->count;
    if (!is_done(api, ort_create_shape(api, &shape))) return;
    if (is_done(api, ort_set_type(api, shape, ORT_FLOAT)) &&
        is_done(api, ort_set_dims(api, shape, dims, rank)) &&
        is_done(api, ort_set_symbols(api, shape, names, rank)))
        is_done(api, ort_infer_output(api, context, index, shape));
    ort_release_shape(api, shape);
}

OrtStatus *ORT_CALL infer_shapes(const OrtCustomOp *custom, OrtShapeInferContext *context) {
    const operator *op = (const operator *)custom;
    const region *region = op->region;
    size_t dim_count = (size_t)region->first_dim[region->input_count];
    size_t found = 0;
    int64_t *dims = calloc(dim_count + 1, sizeof *dims);
    const char **symbols = calloc(dim_count + 1, sizeof *symbols);
    int64_t *values = calloc((size_t)region->row_count + 1, sizeof *values);
    if (dims && symbols && values &&
        is_done(op->api, ort_inferred_input_count(op->api, context, &found)) &&
        found == (size_t)region->input_count) {
        for (size_t i = 0; i < found; i++) {
            int64_t first = region->first_dim[i];
            read_dims(op->api, context, i, (size_t)(region->first_dim[i + 1] - first), dims + first,
                      symbols + first);
        }
        int64_t bad_row;
        bool is_sound =
            !compute_sizes(region->rows, region->row_count, dims, op->threads, values, &bad_row);
        for (size_t i = 0; i < (size_t)region->output_count; i++)
            infer_output(op, context, i, is_sound ? values : NULL, symbols);
    }
    free(dims);
    free(symbols);
    free(values);
    return NULL;
}
