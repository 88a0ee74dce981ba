/* One region as an operator of ONNX Runtime, with the counters of the session it serves. */
#ifndef ORT_OPTIM_OPERATOR_H
#define ORT_OPTIM_OPERATOR_H

#include <stdatomic.h>

#include "ort.h"
#include "plan.h"

typedef _Atomic int64_t counter;

typedef struct operator{
    OrtCustomOp custom; /* first: ORT hands its address back to us */
    const OrtApi *api;
    const region *region;
    int64_t threads;
    counter kernels_created, kernels_alive;
    counter runs, failures, nanoseconds;
    counter packed_bytes;         /* of the kernels alive */
    counter workspace_bytes;      /* the most that a run took */
    counter workspaces_alive;     /* runs under way */
    counter *step_nanoseconds;    /* each step's share of `nanoseconds`; NULL: not asked for */
    char last_error[ERROR_BYTES]; /* under the shared lock */
}
operator;

/* Fills in everything but `step_nanoseconds`. */
void describe_operator(operator* op, const OrtApi *api, const plan *plan, const region *region);

/* A status with this text, which also goes into `last_error`. */
OrtStatus *refuse(operator* op, const char *format, ...);

/* The same with the text of a status that ORT gave us, which is passed on; NULL stays NULL. */
OrtStatus *note_failure(operator* op, OrtStatus *status);

/* Kernels alive in the whole process. */
int64_t kernels_alive(void);

OrtStatus *ORT_CALL create_kernel(const OrtCustomOp *custom, const OrtApi *api,
                                  const OrtKernelInfo *info, void **out);
OrtStatus *ORT_CALL run_kernel(void *opaque, OrtKernelContext *context);
void ORT_CALL destroy_kernel(void *opaque);
OrtStatus *ORT_CALL infer_shapes(const OrtCustomOp *custom, OrtShapeInferContext *context);

#endif
