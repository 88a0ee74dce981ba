#include "sizes.h"

#include <stdbool.h>

#include "platform.h"

static bool floor_divide(int64_t a, int64_t b, int64_t *out) {
    if (b == 0 || (a == INT64_MIN && b == -1)) return false;
    *out = a / b - (a % b != 0 && (a < 0) != (b < 0));
    return true;
}

static bool ceil_divide(int64_t a, int64_t b, int64_t *out) {
    if (b == 0 || (a == INT64_MIN && b == -1)) return false;
    *out = a / b + (a % b != 0 && (a < 0) == (b < 0));
    return true;
}

static bool combine(int64_t operation, int64_t a, int64_t b, int64_t *out) {
    switch (operation) {
        case ROW_ADD: return add_sizes(a, b, out);
        case ROW_SUB: return subtract_sizes(a, b, out);
        case ROW_MUL: return multiply_sizes(a, b, out);
        case ROW_FLOORDIV: return floor_divide(a, b, out);
        case ROW_CEILDIV: return ceil_divide(a, b, out);
        case ROW_MIN: *out = a < b ? a : b; return true;
        default: *out = a > b ? a : b; return true;
    }
}

const char *compute_sizes(const size_row *rows, int64_t count, const int64_t *dims, int64_t threads,
                          int64_t *values, int64_t *at) {
    for (int64_t i = 0; i < count; i++) {
        const size_row *row = &rows[i];
        if (row->operation == ROW_CONST) {
            values[i] = row->a;
        } else if (row->operation == ROW_DIM) {
            values[i] = dims[row->a];
        } else if (row->operation == ROW_THREADS) {
            values[i] = threads;
        } else {
            int64_t a = values[row->a], b = values[row->b];
            if (a == SIZE_UNKNOWN || b == SIZE_UNKNOWN) {
                values[i] = SIZE_UNKNOWN;
            } else if (!combine(row->operation, a, b, &values[i]) || values[i] == SIZE_UNKNOWN) {
                *at = i;
                return row->operation == ROW_FLOORDIV || row->operation == ROW_CEILDIV
                           ? "divides by zero"
                           : "does not fit 64 bits";
            }
        }
    }
    return NULL;
}
