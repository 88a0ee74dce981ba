/* The part of ONNX Runtime's C interface that this library uses, in our own words.
 *
 * ORT hands out a table of function pointers that only ever grows, so a function stays in its
 * slot from the version that introduced it; all slots here exist since API version 17 (ORT 1.17).
 * The structure OrtCustomOp grows in the same way: its `version` says how much of it is there. */
#ifndef ORT_OPTIM_ORT_H
#define ORT_OPTIM_ORT_H

#include <stddef.h>
#include <stdint.h>

#ifdef _WIN32
#define ORT_CALL __stdcall
#else
#define ORT_CALL
#endif

enum { ORT_VERSION = 17 };                       /* of the table and of OrtCustomOp */
enum { ORT_FAIL = 1, ORT_INVALID_ARGUMENT = 2 }; /* error codes */
enum { ORT_FLOAT = 1 };                          /* element type */

typedef struct OrtStatus OrtStatus; /* NULL is success */
typedef struct OrtValue OrtValue;
typedef struct OrtTensorTypeAndShapeInfo OrtTensorTypeAndShapeInfo;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtCustomOpDomain OrtCustomOpDomain;
typedef struct OrtKernelInfo OrtKernelInfo;
typedef struct OrtKernelContext OrtKernelContext;
typedef struct OrtShapeInferContext OrtShapeInferContext;

typedef void (*ort_slot)(void);
typedef struct OrtApi {
    ort_slot slots[275];
} OrtApi;

typedef struct OrtApiBase {
    const OrtApi *(ORT_CALL *get_api)(uint32_t version); /* NULL: this ORT is older */
    const char *(ORT_CALL *get_version_string)(void);
} OrtApiBase;

typedef struct OrtCustomOp OrtCustomOp;
struct OrtCustomOp {
    uint32_t version;
    void *(ORT_CALL *create_kernel)(const OrtCustomOp *, const OrtApi *, const OrtKernelInfo *);
    const char *(ORT_CALL *name)(const OrtCustomOp *);
    const char *(ORT_CALL *provider)(const OrtCustomOp *); /* NULL: the CPU's */
    int(ORT_CALL *input_type)(const OrtCustomOp *, size_t);
    size_t(ORT_CALL *input_count)(const OrtCustomOp *);
    int(ORT_CALL *output_type)(const OrtCustomOp *, size_t);
    size_t(ORT_CALL *output_count)(const OrtCustomOp *);
    void(ORT_CALL *compute)(void *, OrtKernelContext *);
    void(ORT_CALL *destroy)(void *);
    int(ORT_CALL *input_characteristic)(const OrtCustomOp *, size_t); /* 0: required */
    int(ORT_CALL *output_characteristic)(const OrtCustomOp *, size_t);
    int(ORT_CALL *input_memory)(const OrtCustomOp *, size_t); /* 0: the provider's own */
    int(ORT_CALL *variadic_input_arity)(const OrtCustomOp *);
    int(ORT_CALL *variadic_input_homogeneity)(const OrtCustomOp *);
    int(ORT_CALL *variadic_output_arity)(const OrtCustomOp *);
    int(ORT_CALL *variadic_output_homogeneity)(const OrtCustomOp *);
    OrtStatus *(ORT_CALL *create_kernel_v2)(const OrtCustomOp *, const OrtApi *,
                                            const OrtKernelInfo *, void **);
    OrtStatus *(ORT_CALL *compute_v2)(void *, OrtKernelContext *);
    OrtStatus *(ORT_CALL *infer_output_shape)(const OrtCustomOp *, OrtShapeInferContext *);
    int(ORT_CALL *start_version)(const OrtCustomOp *);
    int(ORT_CALL *end_version)(const OrtCustomOp *);
};

/* The function in a slot of `api`, by its result and the types of its parameters. */
#define ORT_SLOT(slot, result, ...) ((result(ORT_CALL *)(__VA_ARGS__))api->slots[slot])

static inline OrtStatus *ort_create_domain(const OrtApi *api, const char *domain,
                                           OrtCustomOpDomain **out) {
    return ORT_SLOT(26, OrtStatus *, const char *, OrtCustomOpDomain **)(domain, out);
}
static inline OrtStatus *ort_domain_add(const OrtApi *api, OrtCustomOpDomain *domain,
                                        const OrtCustomOp *op) {
    return ORT_SLOT(27, OrtStatus *, OrtCustomOpDomain *, const OrtCustomOp *)(domain, op);
}
static inline OrtStatus *ort_options_add(const OrtApi *api, OrtSessionOptions *options,
                                         OrtCustomOpDomain *domain) {
    return ORT_SLOT(28, OrtStatus *, OrtSessionOptions *, OrtCustomOpDomain *)(options, domain);
}
static inline OrtStatus *ort_tensor_data(const OrtApi *api, const OrtValue *value, void **out) {
    return ORT_SLOT(51, OrtStatus *, const OrtValue *, void **)(value, out);
}
static inline OrtStatus *ort_create_shape(const OrtApi *api, OrtTensorTypeAndShapeInfo **out) {
    return ORT_SLOT(57, OrtStatus *, OrtTensorTypeAndShapeInfo **)(out);
}
static inline OrtStatus *ort_set_type(const OrtApi *api, OrtTensorTypeAndShapeInfo *shape,
                                      int type) {
    return ORT_SLOT(58, OrtStatus *, OrtTensorTypeAndShapeInfo *, int)(shape, type);
}
static inline OrtStatus *ort_set_dims(const OrtApi *api, OrtTensorTypeAndShapeInfo *shape,
                                      const int64_t *dims, size_t count) {
    return ORT_SLOT(59, OrtStatus *, OrtTensorTypeAndShapeInfo *, const int64_t *, size_t)(
        shape, dims, count);
}
static inline OrtStatus *ort_get_type(const OrtApi *api, const OrtTensorTypeAndShapeInfo *shape,
                                      int *out) {
    return ORT_SLOT(60, OrtStatus *, const OrtTensorTypeAndShapeInfo *, int *)(shape, out);
}
static inline OrtStatus *ort_get_rank(const OrtApi *api, const OrtTensorTypeAndShapeInfo *shape,
                                      size_t *out) {
    return ORT_SLOT(61, OrtStatus *, const OrtTensorTypeAndShapeInfo *, size_t *)(shape, out);
}
static inline OrtStatus *ort_get_dims(const OrtApi *api, const OrtTensorTypeAndShapeInfo *shape,
                                      int64_t *dims, size_t count) {
    return ORT_SLOT(62, OrtStatus *, const OrtTensorTypeAndShapeInfo *, int64_t *, size_t)(
        shape, dims, count);
}
static inline OrtStatus *ort_get_symbols(const OrtApi *api, const OrtTensorTypeAndShapeInfo *shape,
                                         const char **names, size_t count) {
    return ORT_SLOT(63, OrtStatus *, const OrtTensorTypeAndShapeInfo *, const char **, size_t)(
        shape, names, count);
}
static inline OrtStatus *ort_value_shape(const OrtApi *api, const OrtValue *value,
                                         OrtTensorTypeAndShapeInfo **out) {
    return ORT_SLOT(65, OrtStatus *, const OrtValue *, OrtTensorTypeAndShapeInfo **)(value, out);
}
static inline OrtStatus *ort_get_input(const OrtApi *api, const OrtKernelContext *context,
                                       size_t index, const OrtValue **out) {
    return ORT_SLOT(90, OrtStatus *, const OrtKernelContext *, size_t, const OrtValue **)(
        context, index, out);
}
static inline OrtStatus *ort_get_output(const OrtApi *api, OrtKernelContext *context, size_t index,
                                        const int64_t *dims, size_t count, OrtValue **out) {
    return ORT_SLOT(91, OrtStatus *, OrtKernelContext *, size_t, const int64_t *, size_t,
                    OrtValue **)(context, index, dims, count, out);
}
static inline OrtStatus *ort_info_input_count(const OrtApi *api, const OrtKernelInfo *info,
                                              size_t *out) {
    return ORT_SLOT(230, OrtStatus *, const OrtKernelInfo *, size_t *)(info, out);
}
static inline OrtStatus *ort_constant_input(const OrtApi *api, const OrtKernelInfo *info,
                                            size_t index, int *is_constant, const OrtValue **out) {
    return ORT_SLOT(249, OrtStatus *, const OrtKernelInfo *, size_t, int *, const OrtValue **)(
        info, index, is_constant, out);
}
static inline OrtStatus *ort_inferred_input_count(const OrtApi *api,
                                                  const OrtShapeInferContext *context,
                                                  size_t *out) {
    return ORT_SLOT(267, OrtStatus *, const OrtShapeInferContext *, size_t *)(context, out);
}
static inline OrtStatus *ort_inferred_input(const OrtApi *api, const OrtShapeInferContext *context,
                                            size_t index, OrtTensorTypeAndShapeInfo **out) {
    return ORT_SLOT(268, OrtStatus *, const OrtShapeInferContext *, size_t,
                    OrtTensorTypeAndShapeInfo **)(context, index, out);
}
static inline OrtStatus *ort_infer_output(const OrtApi *api, const OrtShapeInferContext *context,
                                          size_t index, const OrtTensorTypeAndShapeInfo *shape) {
    return ORT_SLOT(270, OrtStatus *, const OrtShapeInferContext *, size_t,
                    const OrtTensorTypeAndShapeInfo *)(context, index, shape);
}
static inline OrtStatus *ort_set_symbols(const OrtApi *api, OrtTensorTypeAndShapeInfo *shape,
                                         const char **names, size_t count) {
    return ORT_SLOT(271, OrtStatus *, OrtTensorTypeAndShapeInfo *, const char **, size_t)(
        shape, names, count);
}
static inline OrtStatus *ort_parallel_for(const OrtApi *api, const OrtKernelContext *context,
                                          void (*fn)(void *, size_t), size_t total, size_t batches,
                                          void *data) {
    return ORT_SLOT(274, OrtStatus *, const OrtKernelContext *, void (*)(void *, size_t), size_t,
                    size_t, void *)(context, fn, total, batches, data);
}
static inline OrtStatus *ort_error(const OrtApi *api, int code, const char *text) {
    return ORT_SLOT(0, OrtStatus *, int, const char *)(code, text);
}
static inline const char *ort_error_text(const OrtApi *api, const OrtStatus *status) {
    return ORT_SLOT(2, const char *, const OrtStatus *)(status);
}
static inline void ort_release_status(const OrtApi *api, OrtStatus *status) {
    ORT_SLOT(93, void, OrtStatus *)(status);
}
static inline void ort_release_shape(const OrtApi *api, OrtTensorTypeAndShapeInfo *shape) {
    ORT_SLOT(99, void, OrtTensorTypeAndShapeInfo *)(shape);
}
static inline void ort_release_domain(const OrtApi *api, OrtCustomOpDomain *domain) {
    ORT_SLOT(101, void, OrtCustomOpDomain *)(domain);
}

#endif
