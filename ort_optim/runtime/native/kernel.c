/* What happens when ORT runs a region's kernel. */
#include <string.h>

#include "run.h"

static int64_t max_size(const run *r, const sizes *sizes) {
    int64_t largest = 0;
    for (int64_t i = 0; i < sizes->count; i++) {
        int64_t value = r->values[sizes->all[i]];
        if (value < 0) return -1; /* unknown ones are negative too */
        if (value > largest) largest = value;
    }
    return largest;
}

static OrtStatus *read_inputs(run *r, const OrtKernelContext *context) {
    kernel *k = r->kernel;
    operator *op = k->op;
    for (int64_t i = 0; i < k->region->input_count; i++) {
        r->buffers[INPUT][i] = (buffer){NULL, -1};
        if (k->is_constant[i] && !k->region->is_read[i]) continue;
        const OrtValue *value = NULL;
        OrtStatus *status = note_failure(op, ort_get_input(k->api, context, (size_t)i, &value));
        if (status) return status;
        int64_t *dims = r->dims + k->region->first_dim[i];
        if (!k->is_constant[i]) status = read_shape(op, value, i, dims);
        if (!status) status = read_data(op, value, i, &r->buffers[INPUT][i], dims);
        if (status) return status;
    }
    return NULL;
}

/* Where the arena's slots, the progress of steps and the scratch of workers stand in the workspace,
 * which grows if it must. */
static OrtStatus *lay_out(run *r) {
    const region *region = r->kernel->region;
    operator *op = r->kernel->op;
    buffer *slots = r->buffers[ARENA];
    int64_t tables = table_bytes(region, r->steps), bytes = tables;
    for (int64_t i = 0; i < region->slot_count; i++) {
        slots[i].bytes = max_size(r, &region->slots[i]);
        if (slots[i].bytes < 0 || slots[i].bytes > MAX_BYTES - bytes)
            return refuse(op, "arena slot %lld has %lld bytes", (long long)i,
                          (long long)slots[i].bytes);
        bytes += round_up(slots[i].bytes, LINE_BYTES);
    }
    int64_t progress_at = bytes;
    int64_t scratch_at = round_up(progress_at + progress_bytes(r), SCRATCH_ALIGN_BYTES);
    bytes = scratch_at + r->scratch_bytes * r->workers; /* at most 2^46 bytes by 2^10 threads */
    if (bytes > r->workspace->bytes) {
        workspace *larger = exchange_workspace(r->workspace, bytes, tables);
        if (!larger) return refuse(op, "no memory for a workspace of %lld bytes", (long long)bytes);
        r->workspace = larger;
        place_tables(r, larger->memory);
        slots = r->buffers[ARENA];
    }
    r->kernel->workspace_bytes = bytes;
    if (bytes > op->workspace_bytes) op->workspace_bytes = bytes;
    int64_t at = tables;
    for (int64_t i = 0; i < region->slot_count; i++) {
        slots[i].start = r->workspace->memory + at;
        at += round_up(slots[i].bytes, LINE_BYTES);
    }
    r->progress = (lone_counter *)(r->workspace->memory + progress_at);
    r->scratch = r->workspace->memory + scratch_at;
    return NULL;
}

static OrtStatus *make_outputs(run *r, OrtKernelContext *context) {
    operator *op = r->kernel->op;
    for (int64_t i = 0; i < op->region->output_count; i++) {
        const sizes *output = &op->region->outputs[i];
        buffer *buffer = &r->buffers[OUTPUT][i];
        int64_t dims[MAX_RANK];
        buffer->bytes = sizeof(float);
        for (int64_t axis = 0; axis < output->count; axis++) {
            dims[axis] = r->values[output->all[axis]];
            if (dims[axis] < 0 || !multiply_sizes(buffer->bytes, dims[axis], &buffer->bytes))
                return refuse(op, "output %lld would have %lld on axis %lld", (long long)i,
                              (long long)dims[axis], (long long)axis);
        }
        OrtValue *value = NULL;
        void *data = NULL;
        OrtStatus *status = note_failure(
            op, ort_get_output(op->api, context, (size_t)i, dims, (size_t)output->count, &value));
        if (status) return status;
        if (!value) return refuse(op, "output %lld is not wanted, but computed", (long long)i);
        status = note_failure(op, ort_tensor_data(op->api, value, &data));
        if (status) return status;
        buffer->start = data;
    }
    return NULL;
}

static OrtStatus *run_region(run *r, OrtKernelContext *context) {
    operator *op = r->kernel->op;
    memcpy(r->dims, r->kernel->dims, (size_t)dim_count(op->region) * sizeof(int64_t));
    OrtStatus *status = read_inputs(r, context);
    if (!status) status = compute_and_guard(r, false);
    if (!status) status = size_steps(r, op->threads);
    if (!status) status = lay_out(r);
    if (!status) status = make_outputs(r, context);
    if (!status) status = resolve(r);
    if (status) return status;
    if (r->workers <= 1) {
        run_alone(r, op->step_nanoseconds);
        return NULL;
    }
    return run_together(r, context);
}

OrtStatus *ORT_CALL run_kernel(void *opaque, OrtKernelContext *context) {
    kernel *k = opaque;
    operator *op = k->op;
    int64_t start = now_ns();
    int64_t tables = table_bytes(k->region, &k->region->run);
    int64_t guess = k->workspace_bytes;
    run r = {.kernel = k, .steps = &k->region->run};
    r.workspace = take_workspace(guess > tables ? guess : tables);
    if (!r.workspace) return refuse(op, "no memory for a workspace");
    atomic_fetch_add_explicit(&op->workspaces_alive, 1, memory_order_relaxed);
    place_tables(&r, r.workspace->memory);
    OrtStatus *status = run_region(&r, context);
    return_workspace(r.workspace);
    atomic_fetch_sub_explicit(&op->workspaces_alive, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&op->runs, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&op->nanoseconds, now_ns() - start, memory_order_relaxed);
    return status;
}
