/* What packing and running have in common: tables, shapes, sizes, and the arguments of steps. */
#include "run.h"

#include <stddef.h>

enum {
    MAX_SHARES = 8,
    MAX_TASKS = 1 << 26, /* of a step; more is a mistake, and would look like a hang */
};

int64_t table_bytes(const region *region, const steps *steps) {
    int64_t words = dim_count(region) + region->row_count + steps->pointer_count +
                    steps->value_count + steps->count;
    int64_t buffers = region->input_count + region->output_count + region->slot_count;
    return round_up(words * 8 + buffers * (int64_t)sizeof(buffer), LINE_BYTES);
}

void place_tables(run *r, unsigned char *memory) {
    const region *region = r->kernel->region;
    buffer *buffers = (buffer *)memory;
    r->buffers[INPUT] = buffers;
    r->buffers[OUTPUT] = r->buffers[INPUT] + region->input_count;
    r->buffers[ARENA] = r->buffers[OUTPUT] + region->output_count;
    r->buffers[PACKED] = r->kernel->packed;
    int64_t *words = (int64_t *)(r->buffers[ARENA] + region->slot_count);
    r->dims = words;
    r->values = r->dims + dim_count(region);
    r->arguments = r->values + region->row_count;
    r->tasks = r->arguments + r->steps->value_count;
    r->pointers = (void **)(r->tasks + r->steps->count);
}

OrtStatus *read_shape(operator *op, const OrtValue *value, int64_t input, int64_t *dims) {
    const OrtApi *api = op->api;
    int64_t rank = op->region->first_dim[input + 1] - op->region->first_dim[input];
    OrtTensorTypeAndShapeInfo *shape = NULL;
    if (!value) return refuse(op, "input %lld is missing", (long long)input);
    OrtStatus *status = note_failure(op, ort_value_shape(api, value, &shape));
    if (status) return status;
    size_t found = 0;
    int type = 0;
    status = note_failure(op, ort_get_rank(api, shape, &found));
    if (!status) status = note_failure(op, ort_get_type(api, shape, &type));
    if (!status && type != ORT_FLOAT)
        status = refuse(op, "input %lld has element type %d, not float", (long long)input, type);
    if (!status && found != (size_t)rank)
        status = refuse(op, "input %lld has rank %lld, compiled for %lld", (long long)input,
                        (long long)found, (long long)rank);
    if (!status) status = note_failure(op, ort_get_dims(api, shape, dims, found));
    ort_release_shape(api, shape);
    return status;
}

OrtStatus *read_data(operator *op, const OrtValue *value, int64_t input, buffer *buffer,
                     const int64_t *dims) {
    void *data = NULL;
    OrtStatus *status = note_failure(op, ort_tensor_data(op->api, value, &data));
    int64_t bytes = sizeof(float);
    int64_t rank = op->region->first_dim[input + 1] - op->region->first_dim[input];
    for (int64_t axis = 0; axis < rank; axis++) bytes *= dims[axis]; /* ORT holds them: they fit */
    buffer->start = data;
    buffer->bytes = bytes;
    return status;
}

OrtStatus *compute_and_guard(run *r, bool unknown_is_fine) {
    operator *op = r->kernel->op;
    const region *region = op->region;
    int64_t at = 0;
    const char *wrong =
        compute_sizes(region->rows, region->row_count, r->dims, op->threads, r->values, &at);
    if (wrong) return refuse(op, "size %lld %s", (long long)at, wrong);
    for (int64_t i = 0; i < region->guard_count; i++) {
        const guard *guard = &region->guards[i];
        int64_t found = r->values[guard->size];
        if (found == guard->value || (unknown_is_fine && found == SIZE_UNKNOWN)) continue;
        const size_row *row = &region->rows[guard->size];
        if (row->operation != ROW_DIM)
            return refuse(op, "size %lld is %lld, compiled for %lld", (long long)guard->size,
                          (long long)found, (long long)guard->value);
        int64_t input, axis;
        locate_dim(region, row->a, &input, &axis);
        return refuse(op, "input %lld has %lld on axis %lld, compiled for %lld", (long long)input,
                      (long long)found, (long long)axis, (long long)guard->value);
    }
    return NULL;
}

OrtStatus *size_steps(run *r, int64_t threads) {
    operator *op = r->kernel->op;
    int64_t most_tasks = 0;
    r->scratch_bytes = 0;
    for (int64_t i = 0; i < r->steps->count; i++) {
        const step *step = &r->steps->all[i];
        r->tasks[i] = r->values[step->tasks];
        int64_t scratch = r->values[step->scratch_bytes];
        if (r->tasks[i] < 0 || r->tasks[i] > MAX_TASKS || scratch < 0 || scratch > MAX_BYTES)
            return refuse(op, "step %s has %lld tasks, %lld bytes of scratch", step->label,
                          (long long)r->tasks[i], (long long)scratch);
        if (r->tasks[i] > most_tasks) most_tasks = r->tasks[i];
        if (scratch > r->scratch_bytes) r->scratch_bytes = scratch;
    }
    r->scratch_bytes = round_up(r->scratch_bytes, SCRATCH_ALIGN_BYTES);
    r->workers = most_tasks < threads ? most_tasks : threads;
    r->shares = r->workers < MAX_SHARES ? r->workers : MAX_SHARES;
    return NULL;
}

OrtStatus *resolve(run *r) {
    operator *op = r->kernel->op;
    for (int64_t i = 0; i < r->steps->count; i++) {
        const step *step = &r->steps->all[i];
        if (!r->tasks[i]) continue; /* of an empty batch, whose tensors have no bytes to point to */
        void **pointers = r->pointers + step->first_pointer;
        for (int64_t j = 0; j < step->pointer_count; j++) {
            const pointer *pointer = &step->pointers[j];
            const buffer *buffer = &r->buffers[pointer->kind][pointer->index];
            int64_t offset = r->values[pointer->offset];
            if (offset < 0 || offset > buffer->bytes)
                return refuse(op, "step %s: pointer %lld is at byte %lld of %lld", step->label,
                              (long long)j, (long long)offset, (long long)buffer->bytes);
            pointers[j] = buffer->start + offset;
        }
        int64_t *arguments = r->arguments + step->first_value;
        for (int64_t j = 0; j < step->value_count; j++) arguments[j] = r->values[step->values[j]];
    }
    return NULL;
}
