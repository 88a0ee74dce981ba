/* A region at work: packs its weights when a session is made, then runs its steps.
 *
 * run               one execution: sizes, buffers and arguments, all inside one workspace
 * prepare, resolve  what packing and running have in common: sizes, guards, arguments of steps
 * work              what each worker does: all steps in order, sharing the tasks of each
 * create_kernel, run_kernel, destroy_kernel    what ORT calls */
#include <stdlib.h>
#include <string.h>

#include "operator.h"
#include "platform.h"
#include "workspace.h"

enum {
    SCRATCH_ALIGN_BYTES = 128,
    SPINS_BEFORE_YIELD = 4000,
    MAX_SHARES = 8,
    MAX_TASKS = 1 << 26, /* of a step; more is a mistake, and would look like a hang */
};
static const int64_t MAX_BYTES = INT64_C(1) << 46; /* of a workspace or a part of it */


typedef struct buffer {
    unsigned char *start;
    int64_t bytes;
} buffer;

typedef struct kernel {
    operator *op;
    const OrtApi *api;
    const region *region;
    buffer *packed;               /* (packed_count), all in one block of memory */
    unsigned char *packed_memory;
    bool *is_constant;            /* (input_count) */
    int64_t *dims;                /* flat dims; those of constant inputs are known */
    counter workspace_bytes;      /* of the largest run so far: a good guess for the next */
} kernel;

/* A counter in a cache line of its own. How far the workers are with a step is told by one for the
 * tasks that are complete and one for each share of the tasks, which counts those begun. */
typedef struct lone_counter {
    counter value;
    char padding[LINE_BYTES - sizeof(counter)];
} lone_counter;

typedef struct run {
    const kernel *kernel;
    const steps *steps;
    int64_t *dims;                 /* flat dims */
    int64_t *values;               /* (row_count) results of the size program */
    buffer *buffers[BUFFER_KINDS]; /* by kind and index */
    void **pointers;               /* of all steps, one after another */
    int64_t *arguments;            /* of all steps, one after another */
    int64_t *tasks;                /* (steps) */
    lone_counter *progress;        /* (steps, 1 + shares); only where there are several workers */
    int64_t shares;                /* into which the tasks of a step are cut */
    unsigned char *scratch;
    int64_t scratch_bytes;         /* of each worker */
    int64_t workers;
    workspace *workspace;
} run;

static counter alive; /* kernels of this process */

int64_t kernels_alive(void) { return alive; }

static int64_t dim_count(const region *region) { return region->first_dim[region->input_count]; }

/* Bytes of a run's tables, which stand at the start of its workspace. */
static int64_t table_bytes(const region *region, const steps *steps) {
    int64_t words = dim_count(region) + region->row_count + steps->pointer_count +
                    steps->value_count + steps->count;
    int64_t buffers = region->input_count + region->output_count + region->slot_count;
    return round_up(words * 8 + buffers * (int64_t)sizeof(buffer), LINE_BYTES);
}

static void place_tables(run *r, unsigned char *memory) {
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

static int64_t max_size(const run *r, const sizes *sizes) {
    int64_t largest = 0;
    for (int64_t i = 0; i < sizes->count; i++) {
        int64_t value = r->values[sizes->all[i]];
        if (value < 0) return -1; /* unknown ones are negative too */
        if (value > largest) largest = value;
    }
    return largest;
}

/* Sizes from the dims, and whether they are the ones the code was made for. */
static OrtStatus *prepare(run *r, bool unknown_is_fine) {
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

/* Tasks of all steps, scratch and workers. */
static OrtStatus *size_steps(run *r, int64_t threads) {
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

/* The argument arrays of all steps, once every buffer is known. */
static OrtStatus *resolve(run *r) {
    operator *op = r->kernel->op;
    for (int64_t i = 0; i < r->steps->count; i++) {
        const step *step = &r->steps->all[i];
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

static void run_alone(const run *r, counter *nanoseconds) {
    int64_t start = nanoseconds ? now_ns() : 0;
    for (int64_t i = 0; i < r->steps->count; i++) {
        const step *step = &r->steps->all[i];
        void *const *pointers = r->pointers + step->first_pointer;
        const int64_t *arguments = r->arguments + step->first_value;
        int64_t tasks = r->tasks[i];
        for (int64_t task = 0; task < tasks; task++)
            step->function(pointers, arguments, task, r->scratch);
        if (nanoseconds) {
            int64_t now = now_ns();
            nanoseconds[i] += now - start;
            start = now;
        }
    }
}

/* Runs what is left of a step's tasks, beginning with the worker's own share: so a worker mostly
 * sees the part of each tensor that it made itself, and counters stay in its cache. */
static void run_tasks(const run *r, int64_t i, size_t worker, void *scratch) {
    const step *step = &r->steps->all[i];
    void *const *pointers = r->pointers + step->first_pointer;
    const int64_t *arguments = r->arguments + step->first_value;
    lone_counter *done = &r->progress[i * (1 + r->shares)];
    int64_t usual = r->tasks[i] / r->shares, larger = r->tasks[i] % r->shares, mine = 0;
    int64_t share = (int64_t)worker % r->shares;
    for (int64_t j = 0; j < r->shares; j++, share = share + 1 < r->shares ? share + 1 : 0) {
        int64_t first = usual * share + (share < larger ? share : larger);
        int64_t count = usual + (share < larger);
        counter *begun = &done[1 + share].value;
        int64_t next = atomic_load_explicit(begun, memory_order_relaxed);
        while (next < count &&
               (next = atomic_fetch_add_explicit(begun, 1, memory_order_relaxed)) < count) {
            step->function(pointers, arguments, first + next, scratch);
            mine++;
        }
    }
    if (mine) atomic_fetch_add_explicit(&done->value, mine, memory_order_acq_rel);
}

static void wait_for(counter *done, int64_t tasks) {
    for (int64_t spins = 0; atomic_load_explicit(done, memory_order_acquire) != tasks; spins++) {
        if (spins < SPINS_BEFORE_YIELD)
            relax_cpu();
        else
            yield_thread();
    }
}

/* One worker of a run. It never waits for a worker that has not begun, only for tasks that another
 * one is in the middle of: so any number of workers, even one after another on a single thread,
 * gets all steps done, and the end of a step costs one cache line going round. */
static void work(void *data, size_t worker) {
    const run *r = data;
    counter *nanoseconds = worker == 0 ? r->kernel->op->step_nanoseconds : NULL;
    unsigned char *scratch = r->scratch + (int64_t)worker * r->scratch_bytes;
    int64_t start = nanoseconds ? now_ns() : 0;
    for (int64_t i = 0; i < r->steps->count; i++) {
        counter *done = &r->progress[i * (1 + r->shares)].value;
        if (atomic_load_explicit(done, memory_order_acquire) != r->tasks[i]) {
            run_tasks(r, i, worker, scratch);
            wait_for(done, r->tasks[i]);
        }
        if (nanoseconds) {
            int64_t now = now_ns();
            nanoseconds[i] += now - start;
            start = now;
        }
    }
}

/* --- creating ----------------------------------------------------------------------------- */

static OrtStatus *read_shape(operator *op, const OrtValue *value, int64_t input, int64_t *dims) {
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

static OrtStatus *read_data(operator *op, const OrtValue *value, int64_t input, buffer *buffer,
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
        status = note_failure(op, ort_constant_input(k->api, info, (size_t)i, &is_constant, &value));
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
            if (step->pointers[j].kind == INPUT &&
                !r->kernel->is_constant[step->pointers[j].index])
                return refuse(op, "input %lld is no constant, so %s can't pack it",
                              (long long)step->pointers[j].index, step->label);
        for (int64_t j = 0; j < step->value_count; j++)
            if (r->values[step->values[j]] == SIZE_UNKNOWN)
                return refuse(op, "a size that packing (%s) needs is no constant", step->label);
    }
    return NULL;
}

static OrtStatus *pack(run *r, const OrtKernelInfo *info) {
    kernel *k = (kernel *)r->kernel;
    OrtStatus *status = read_constants(k, info, r->buffers[INPUT]);
    if (status) return status;
    memcpy(r->dims, k->dims, (size_t)dim_count(k->region) * sizeof(int64_t));
    status = prepare(r, true);
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

/* --- running ------------------------------------------------------------------------------ */

static OrtStatus *read_inputs(run *r, const OrtKernelContext *context) {
    const kernel *k = r->kernel;
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

static int64_t progress_bytes(const run *r) {
    return r->workers <= 1 ? 0
                           : r->steps->count * (1 + r->shares) * (int64_t)sizeof(lone_counter);
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
        workspace *larger = take_workspace(bytes);
        if (!larger)
            return refuse(op, "no memory for a workspace of %lld bytes", (long long)bytes);
        memcpy(larger->memory, r->workspace->memory, (size_t)tables);
        return_workspace(r->workspace);
        r->workspace = larger;
        place_tables(r, larger->memory);
        slots = r->buffers[ARENA];
    }
    if (bytes > r->kernel->workspace_bytes) {
        ((kernel *)r->kernel)->workspace_bytes = bytes;
        if (bytes > op->workspace_bytes) op->workspace_bytes = bytes;
    }
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
    if (!status) status = prepare(r, false);
    if (!status) status = size_steps(r, op->threads);
    if (!status) status = lay_out(r);
    if (!status) status = make_outputs(r, context);
    if (!status) status = resolve(r);
    if (status) return status;
    if (r->workers <= 1) {
        run_alone(r, op->step_nanoseconds);
        return NULL;
    }
    memset(r->progress, 0, (size_t)progress_bytes(r));
    return note_failure(
        op, ort_parallel_for(op->api, context, work, (size_t)r->workers, 0, r));
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
