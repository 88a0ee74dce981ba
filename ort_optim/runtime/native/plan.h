/* A model's regions as the library executes them, read from the blob that Python wrote.
 *
 * Everything is checked when the blob is read, so that running it checks only what depends on the
 * shapes at run time. A plan never changes and lives until the process ends, as ORT may. */
#ifndef ORT_OPTIM_PLAN_H
#define ORT_OPTIM_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "sizes.h"

typedef void (*kernel_function)(void *const *pointers, const int64_t *values, int64_t task,
                                void *scratch);

enum { MAX_RANK = 16 };

typedef enum buffer_kind { INPUT, OUTPUT, PACKED, ARENA, BUFFER_KINDS } buffer_kind;

/* "size" below is a row of the region's size program, a "flat dim" a position among the dims of
 * all its inputs. */
typedef struct pointer {
    int64_t kind, index;
    int64_t offset; /* size, in bytes */
} pointer;

typedef struct step {
    kernel_function function;
    const pointer *pointers;
    const int64_t *values; /* sizes */
    int64_t pointer_count, value_count;
    int64_t first_pointer, first_value; /* where this step's arguments stand among all steps' */
    int64_t tasks, scratch_bytes;       /* sizes */
    const char *label;
} step;

typedef struct steps {
    const step *all;
    int64_t count, pointer_count, value_count; /* the latter two summed over the steps */
} steps;

typedef struct guard {
    int64_t size, value;
} guard;

typedef struct sizes {
    const int64_t *all;
    int64_t count;
} sizes;

typedef struct region {
    const char *name;
    int64_t input_count, output_count, row_count, guard_count, packed_count, slot_count;
    const int64_t *first_dim; /* (input_count + 1): flat dims of input i are [i], [i + 1] */
    const bool *is_read;      /* (input_count): some step of a run points into it */
    const sizes *outputs;     /* each output's dims */
    const size_row *rows;
    const guard *guards;
    const int64_t *packed_at;    /* (packed_count + 1): byte offsets in one block of memory */
    const int64_t *packed_bytes; /* (packed_count) */
    const sizes *slots;          /* sizes, in bytes, of the tensors that each slot holds in turn */
    steps pack, run;
} region;

typedef struct plan {
    int64_t threads;
    bool times_steps;
    const region *regions;
    int64_t region_count;
} plan;

enum { ERROR_BYTES = 512 };

/* NULL, with the reason in `error`, where the blob or a code file is not as it must be. */
const plan *read_plan(const void *blob, int64_t bytes, char error[ERROR_BYTES]);

/* The input and axis that a flat dim belongs to. */
void locate_dim(const region *region, int64_t flat_dim, int64_t *input, int64_t *axis);

/* Bytes of code files that plans have mapped; each file counts once. */
int64_t mapped_code_bytes(void);

static inline int64_t round_up(int64_t value, int64_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

#endif
