/* One execution of a region: its sizes, buffers and arguments. */
#ifndef ORT_OPTIM_RUN_H
#define ORT_OPTIM_RUN_H

#include "operator.h"
#include "platform.h"
#include "workspace.h"

enum { SCRATCH_ALIGN_BYTES = 128 };
#define MAX_BYTES (INT64_C(1) << 46) /* of a workspace, or of the scratch of a worker */

typedef struct buffer {
    unsigned char *start;
    int64_t bytes;
} buffer;

typedef struct kernel {
    operator* op;
    const OrtApi *api;
    const region *region;
    buffer *packed; /* (packed_count), all in one block of memory */
    unsigned char *packed_memory;
    bool *is_constant;       /* (input_count) */
    int64_t *dims;           /* flat dims; those of constant inputs are known */
    counter workspace_bytes; /* of the last run: a good guess for the next */
} kernel;

/* A counter in a cache line of its own. How far the workers are with a step is told by one for the
 * tasks that are complete and one for each share of the tasks, which counts those begun. */
typedef struct lone_counter {
    counter value;
    char padding[LINE_BYTES - sizeof(counter)];
} lone_counter;

typedef struct run {
    kernel *kernel;
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
    int64_t scratch_bytes; /* of each worker */
    int64_t workers;
    workspace *workspace;
} run;

static inline int64_t dim_count(const region *region) {
    return region->first_dim[region->input_count];
}

/* Bytes of the tables that place_tables puts into a piece of memory. */
int64_t table_bytes(const region *region, const steps *steps);
void place_tables(run *r, unsigned char *memory);

/* Dims of a value that must be a float tensor of the input's rank. */
OrtStatus *read_shape(operator* op, const OrtValue *value, int64_t input, int64_t *dims);

/* The memory of a value with these dims. */
OrtStatus *read_data(operator* op, const OrtValue *value, int64_t input, buffer *buffer,
                     const int64_t *dims);

/* Sizes from the dims, and whether they are the ones the code was made for. */
OrtStatus *compute_and_guard(run *r, bool unknown_is_fine);

/* Tasks of all steps, scratch and workers. */
OrtStatus *size_steps(run *r, int64_t threads);

/* The argument arrays of all steps, once every buffer is known. */
OrtStatus *resolve(run *r);

/* All steps on this thread. `nanoseconds` of each are added to, unless it is NULL. */
void run_alone(const run *r, counter *nanoseconds);

/* All steps on ORT's threads, as many as the run has workers. */
OrtStatus *run_together(run *r, const OrtKernelContext *context);
int64_t progress_bytes(const run *r);

#endif
