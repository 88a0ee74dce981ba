/* A region's kernel: its weights are packed when a session is made, and freed with it. */
#include <stdlib.h>
#include <string.h>

#include "run.h"

static counter alive; /* kernels of this process */

int64_t kernels_alive(void) {
    return alive;
}

/* The inputs that are constant: their dims, and for packing their data. */
static OrtStatus *read_constants(kernel *k, const OrtKernelInfo *info, buffer *inputs) {
    operator *op = k->op;
    size_t found = 0;
    OrtStatus *status = note_failure(op, ort_info_input_count(k->api, info, &found));
    if (status) return status;
    if (found != (size_t)k->region->input_count)
        return refuse(op, "it has %lld inputs, compiled for %lld", (long long)found,
                      (long long)k->region->input_count);
    for (int64_t i = 0; i < k->region->input_count; i++) {
        int is_constant = 0;
        const OrtValue *value = NULL;
        status =
            note_failure(op, ort_constant_input(k->api, info, (size_t)i, &is_constant, &value));
        if (status) return status;
        int64_t *dims = k->dims + k->region->first_dim[i];
        inputs[i] = (buffer){NULL, -1};
        if (is_constant && value) {
            k->is_constant[i] = true;
            status = read_shape(op, value, i, dims);
            if (!status) status = read_data(op, value, i, &inputs[i], dims);
            if (status) return status;
        } else {
            for (int64_t flat = k->region->first_dim[i]; flat < k->region->first_dim[i + 1]; flat++)
                k->dims[flat] = SIZE_UNKNOWN;
        }
    }
    return NULL;
}

static OrtStatus *take_packed(kernel *k) {
    const region *region = k->region;
    int64_t bytes = region->packed_at[region->packed_count];
    if (!bytes) return NULL;
    k->packed_memory = take_memory((size_t)bytes);
    if (!k->packed_memory)
        return refuse(k->op, "no memory for %lld bytes of weights", (long long)bytes);
    atomic_fetch_add(&k->op->packed_bytes, bytes);
    for (int64_t i = 0; i < region->packed_count; i++)
        k->packed[i] = (buffer){k->packed_memory + region->packed_at[i], region->packed_bytes[i]};
    return NULL;
}

/* Packing may use constant inputs only, and sizes that follow from them. */
static OrtStatus *check_pack_steps(const run *r) {
    operator *op = r->kernel->op;
    for (int64_t i = 0; i < r->steps->count; i++) {
        const step *step = &r->steps->all[i];
        for (int64_t j = 0; j < step->pointer_count; j++)
            if (step->pointers[j].kind == INPUT && !r->kernel->is_constant[step->pointers[j].index])
                return refuse(op, "input %lld is no constant, so %s can't pack it",
                              (long long)step->pointers[j].index, step->label);
        for (int64_t j = 0; j < step->value_count; j++)
            if (r->values[step->values[j]] == SIZE_UNKNOWN)
                return refuse(op, "a size that packing (%s) needs is no constant", step->label);
    }
    return NULL;
}

static OrtStatus *pack(run *r, const OrtKernelInfo *info) {
    kernel *k = r->kernel;
    OrtStatus *status = read_constants(k, info, r->buffers[INPUT]);
    if (status) return status;
    memcpy(r->dims, k->dims, (size_t)dim_count(k->region) * sizeof(int64_t));
    status = compute_and_guard(r, true);
    if (!status) status = take_packed(k);
    if (!status) status = check_pack_steps(r);
    if (!status) status = size_steps(r, 1);
    if (!status) status = resolve(r);
    if (status) return status;
    r->scratch = take_memory((size_t)r->scratch_bytes);
    if (!r->scratch) return refuse(k->op, "no memory to pack weights");
    run_alone(r, NULL);
    free_memory(r->scratch);
    return NULL;
}

static void free_kernel(kernel *k) {
    if (k->packed_memory)
        atomic_fetch_sub(&k->op->packed_bytes, k->region->packed_at[k->region->packed_count]);
    free_memory(k->packed_memory);
    free(k->packed);
    free(k->is_constant);
    free(k->dims);
    free(k);
}

OrtStatus *ORT_CALL create_kernel(const OrtCustomOp *custom, const OrtApi *api,
                                  const OrtKernelInfo *info, void **out) {
    operator *op = (operator *)custom;
    const region *region = op->region;
    *out = NULL;
    kernel *k = calloc(1, sizeof *k);
    unsigned char *tables = calloc(1, (size_t)table_bytes(region, &region->pack));
    if (k) {
        *k = (kernel){.op = op, .api = api, .region = region};
        k->packed = calloc((size_t)region->packed_count + 1, sizeof *k->packed);
        k->is_constant = calloc((size_t)region->input_count, sizeof *k->is_constant);
        k->dims = calloc((size_t)dim_count(region) + 1, sizeof *k->dims);
    }
    OrtStatus *status;
    if (!k || !tables || !k->packed || !k->is_constant || !k->dims) {
        status = refuse(op, "no memory for its kernel");
    } else {
        run packing = {.kernel = k, .steps = &region->pack};
        place_tables(&packing, tables);
        status = pack(&packing, info);
    }
    free(tables);
    if (status) {
        if (k) free_kernel(k);
        return status;
    }
    atomic_fetch_add(&op->kernels_created, 1);
    atomic_fetch_add(&op->kernels_alive, 1);
    atomic_fetch_add(&alive, 1);
    *out = k;
    return NULL;
}

void ORT_CALL destroy_kernel(void *opaque) {
    kernel *k = opaque;
    if (!k) return;
    atomic_fetch_sub(&k->op->kernels_alive, 1);
    free_kernel(k);
    if (atomic_fetch_sub(&alive, 1) == 1) drop_workspaces();
}
