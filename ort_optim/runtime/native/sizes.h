/* The size program of a region: rows computed in order, each from input dims and earlier rows. */
#ifndef ORT_OPTIM_SIZES_H
#define ORT_OPTIM_SIZES_H

#include <stdint.h>

#define SIZE_UNKNOWN INT64_MIN /* a dim that shape inference does not know, and what follows */

typedef enum size_operation {
    ROW_CONST, /* a: the value */
    ROW_DIM,   /* a: position among the dims of all inputs, one after another */
    ROW_THREADS,
    ROW_ADD, /* from here on a and b are earlier rows */
    ROW_SUB,
    ROW_MUL,
    ROW_FLOORDIV,
    ROW_CEILDIV,
    ROW_MIN,
    ROW_MAX,
    ROW_OPERATIONS,
} size_operation;

typedef struct size_row {
    int64_t operation, a, b;
} size_row;

/* Computes `values` of all rows. NULL, or what is wrong with row `*at`. */
const char *compute_sizes(const size_row *rows, int64_t count, const int64_t *dims, int64_t threads,
                          int64_t *values, int64_t *at);

#endif
