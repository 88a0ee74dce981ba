/* What differs between operating systems and compilers. */
#ifndef ORT_OPTIM_PLATFORM_H
#define ORT_OPTIM_PLATFORM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

#ifdef _MSC_VER
#define THREAD_LOCAL __declspec(thread)
#else
#define THREAD_LOCAL _Thread_local
#endif

enum { LINE_BYTES = 64 };

/* One lock for all that the process shares; held for a few instructions at a time. */
void lock_shared(void);
void unlock_shared(void);

/* Memory at a multiple of LINE_BYTES, on huge pages where it is large; NULL if there is none. */
void *take_memory(size_t bytes);
void free_memory(void *memory);

int64_t now_ns(void);
void relax_cpu(void);    /* in a loop that waits for another thread's next store */
void yield_thread(void); /* when that took too long */

/* A file of machine code, mapped for reading and running. */
typedef struct mapping {
    const unsigned char *start;
    int64_t bytes;
    uint64_t device, inode;
} mapping;

/* Maps a regular file that only its owner, who is the user, may write. On failure gives what is
 * wrong; `found` then has nothing to unmap. */
const char *map_code(const char *path, mapping *found);
void unmap_code(mapping *code);

/* False where the result does not fit; `out` is then unspecified. */
static inline bool add_sizes(int64_t a, int64_t b, int64_t *out) {
#ifdef _MSC_VER
    if (b >= 0 ? a > INT64_MAX - b : a < INT64_MIN - b) return false;
    *out = a + b;
    return true;
#else
    return !__builtin_add_overflow(a, b, out);
#endif
}

static inline bool subtract_sizes(int64_t a, int64_t b, int64_t *out) {
#ifdef _MSC_VER
    if (b >= 0 ? a < INT64_MIN + b : a > INT64_MAX + b) return false;
    *out = a - b;
    return true;
#else
    return !__builtin_sub_overflow(a, b, out);
#endif
}

static inline bool multiply_sizes(int64_t a, int64_t b, int64_t *out) {
#ifdef _MSC_VER
    if (a != 0 && b != 0) {
        if ((a == -1 && b == INT64_MIN) || (b == -1 && a == INT64_MIN)) return false;
        int64_t product = (int64_t)((uint64_t)a * (uint64_t)b);
        if (product / b != a) return false;
        *out = product;
        return true;
    }
    *out = 0;
    return true;
#else
    return !__builtin_mul_overflow(a, b, out);
#endif
}

#endif
