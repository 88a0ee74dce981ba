#include "operator.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "platform.h"

static const operator *from(const OrtCustomOp *custom) {
    return (const operator *)custom;
}

static const char *ORT_CALL name(const OrtCustomOp *custom) {
    return from(custom)->region->name;
}

static const char *ORT_CALL provider(const OrtCustomOp *custom) {
    (void)custom;
    return NULL;
}

static int ORT_CALL tensor_type(const OrtCustomOp *custom, size_t index) {
    (void)custom, (void)index;
    return ORT_FLOAT;
}

static size_t ORT_CALL input_count(const OrtCustomOp *custom) {
    return (size_t)from(custom)->region->input_count;
}

static size_t ORT_CALL output_count(const OrtCustomOp *custom) {
    return (size_t)from(custom)->region->output_count;
}

static int ORT_CALL usual(const OrtCustomOp *custom, size_t index) {
    (void)custom, (void)index;
    return 0;
}

void describe_operator(operator *op, const OrtApi *api, const plan *plan, const region *region) {
    memset(op, 0, sizeof *op);
    op->custom = (OrtCustomOp){
        .version = ORT_VERSION,
        .name = name,
        .provider = provider,
        .input_type = tensor_type,
        .input_count = input_count,
        .output_type = tensor_type,
        .output_count = output_count,
        .destroy = destroy_kernel,
        .input_characteristic = usual,
        .output_characteristic = usual,
        .input_memory = usual,
        .create_kernel_v2 = create_kernel,
        .compute_v2 = run_kernel,
        .infer_output_shape = infer_shapes,
    };
    op->api = api;
    op->region = region;
    op->threads = plan->threads;
}

static void remember(operator *op, const char *text) {
    atomic_fetch_add_explicit(&op->failures, 1, memory_order_relaxed);
    lock_shared();
    snprintf(op->last_error, ERROR_BYTES, "%s", text);
    unlock_shared();
}

OrtStatus *refuse(operator *op, const char *format, ...) {
    char text[ERROR_BYTES];
    int used = snprintf(text, sizeof text, "ort_optim region %s: ", op->region->name);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text + used, sizeof text - (size_t)used, format, arguments);
    va_end(arguments);
    remember(op, text);
    return ort_error(op->api, ORT_INVALID_ARGUMENT, text);
}

OrtStatus *note_failure(operator *op, OrtStatus *status) {
    if (status) remember(op, ort_error_text(op->api, status));
    return status;
}
