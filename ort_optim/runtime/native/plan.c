/* Reading a blob: 64-bit little-endian words, in the order in which `runtime/blob.py` writes them.
 *
 * reader         position and first error; after an error every word reads as 0
 * store          the memory of one plan, freed whole if the blob turns out to be bad
 * read_*         one function per structure of plan.h
 * code files     interned for the process by device and inode */
#include "plan.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "platform.h"

#define MAGIC INT64_C(0x314d4954504f5452) /* "RTOPTIM1" */
enum {
    MAX_THREADS = 1024,
    MAX_NAME_BYTES = 255,
    MAX_PATH_BYTES = 4096,
    CODE_HEADER_BYTES = 64, /* what a code file begins with; no function starts in it */
};

typedef struct chunk {
    struct chunk *next;
} chunk;

typedef struct reader {
    const unsigned char *at, *end;
    chunk *store;
    const char *region; /* for messages: the one being read */
    char *error;        /* ERROR_BYTES, empty as long as all is well */
} reader;

/* A code file that some plan uses. */
typedef struct code_file {
    struct code_file *next;
    mapping code;
    int64_t users; /* plans */
} code_file;

static code_file *code_files;

static void fail(reader *r, const char *format, ...) {
    if (r->error[0]) return;
    int used = r->region ? snprintf(r->error, ERROR_BYTES, "region %s: ", r->region) : 0;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(r->error + used, ERROR_BYTES - (size_t)used, format, arguments);
    va_end(arguments);
    r->at = r->end;
}

static bool is_good(const reader *r) {
    return !r->error[0];
}

/* Room for `count` zeroed elements; NULL only after an error. */
static void *store(reader *r, int64_t count, size_t element_bytes) {
    chunk *taken = calloc(1, sizeof(chunk) + (size_t)(count ? count : 1) * element_bytes);
    if (!taken) {
        fail(r, "no memory for the plan");
        return NULL;
    }
    taken->next = r->store;
    r->store = taken;
    return taken + 1;
}

static void free_store(chunk *first) {
    while (first) {
        chunk *next = first->next;
        free(first);
        first = next;
    }
}

static int64_t read_word(reader *r) {
    if (r->end - r->at < 8) {
        fail(r, "the blob ends too early");
        return 0;
    }
    uint64_t word = 0;
    for (int i = 7; i >= 0; i--) word = word << 8 | r->at[i];
    r->at += 8;
    return (int64_t)word;
}

/* A word in [low, high). */
static int64_t read_in(reader *r, int64_t low, int64_t high, const char *what) {
    int64_t word = read_word(r);
    if (word >= low && word < high) return word;
    fail(r, "%s %lld is not in [%lld, %lld)", what, (long long)word, (long long)low,
         (long long)high);
    return 0;
}

/* How many elements follow, each of at least `words` words: never more than the blob can hold. */
static int64_t read_count(reader *r, int64_t words, const char *what) {
    return read_in(r, 0, (r->end - r->at) / 8 / words + 1, what);
}

static const char *read_text(reader *r, int64_t limit, const char *what) {
    int64_t bytes = read_in(r, 0, limit + 1, what);
    int64_t padded = round_up(bytes, 8);
    if (r->end - r->at < padded) fail(r, "the blob ends too early");
    char *text = store(r, bytes + 1, 1);
    if (!is_good(r)) return "";
    memcpy(text, r->at, (size_t)bytes);
    if (memchr(text, 0, (size_t)bytes)) fail(r, "%s has a zero byte", what);
    r->at += padded;
    return text;
}

static const char *read_name(reader *r, const char *what) {
    const char *name = read_text(r, MAX_NAME_BYTES, what);
    if (is_good(r) && !name[0]) fail(r, "%s is empty", what);
    for (const char *c = name; *c; c++)
        if (!((*c >= '0' && *c <= '9') || (*c >= 'A' && *c <= 'Z') || (*c >= 'a' && *c <= 'z') ||
              *c == '_'))
            fail(r, "%s has other characters than letters, digits and _", what);
    return name;
}

/* `count` words in [0, limit). */
static const int64_t *read_indices(reader *r, int64_t count, int64_t limit, const char *what) {
    int64_t *all = store(r, count, sizeof(int64_t));
    for (int64_t i = 0; is_good(r) && i < count; i++) all[i] = read_in(r, 0, limit, what);
    return all;
}

static sizes read_sizes(reader *r, int64_t limit_count, int64_t row_count, const char *what) {
    sizes found = {NULL, read_count(r, 1, what)};
    if (found.count > limit_count) fail(r, "%s: there are %lld", what, (long long)found.count);
    found.all = read_indices(r, found.count, row_count, what);
    return found;
}

static const sizes *read_size_lists(reader *r, int64_t count, int64_t limit_count,
                                    int64_t row_count, const char *what) {
    sizes *all = store(r, count, sizeof(sizes));
    for (int64_t i = 0; is_good(r) && i < count; i++)
        all[i] = read_sizes(r, limit_count, row_count, what);
    return all;
}

static const size_row *read_rows(reader *r, const region *region) {
    size_row *rows = store(r, region->row_count, sizeof(size_row));
    for (int64_t i = 0; is_good(r) && i < region->row_count; i++) {
        rows[i].operation = read_in(r, 0, ROW_OPERATIONS, "operation");
        if (rows[i].operation == ROW_CONST) {
            rows[i].a = read_in(r, SIZE_UNKNOWN + 1, INT64_MAX, "constant");
            read_word(r);
        } else if (rows[i].operation == ROW_DIM) {
            int64_t input = read_in(r, 0, region->input_count, "input of a dim");
            if (!is_good(r)) break;
            int64_t first = region->first_dim[input];
            rows[i].a = first + read_in(r, 0, region->first_dim[input + 1] - first, "axis");
        } else if (rows[i].operation == ROW_THREADS) {
            read_word(r);
            read_word(r);
        } else {
            rows[i].a = read_in(r, 0, i, "row used by a later row");
            rows[i].b = read_in(r, 0, i, "row used by a later row");
        }
    }
    return rows;
}

static void read_inputs(reader *r, region *region) {
    region->input_count = read_count(r, 1, "count of inputs");
    int64_t *first_dim = store(r, region->input_count + 1, sizeof(int64_t));
    bool *is_read = store(r, region->input_count, sizeof(bool));
    for (int64_t i = 0; is_good(r) && i < region->input_count; i++)
        first_dim[i + 1] = first_dim[i] + read_in(r, 0, MAX_RANK + 1, "rank");
    region->first_dim = first_dim;
    region->is_read = is_read;
}

static void read_packed(reader *r, region *region) {
    region->packed_count = read_count(r, 1, "count of packed weights");
    int64_t *at = store(r, region->packed_count + 1, sizeof(int64_t));
    int64_t *bytes = store(r, region->packed_count, sizeof(int64_t));
    for (int64_t i = 0; is_good(r) && i < region->packed_count; i++) {
        bytes[i] = read_in(r, 0, INT64_C(1) << 40, "bytes of a packed weight");
        if (!add_sizes(at[i], round_up(bytes[i], LINE_BYTES), &at[i + 1]))
            fail(r, "the packed weights are too large");
    }
    region->packed_at = at;
    region->packed_bytes = bytes;
}

static const pointer *read_pointers(reader *r, int64_t count, const region *region, bool packs) {
    const int64_t limits[BUFFER_KINDS] = {
        [INPUT] = region->input_count,
        [OUTPUT] = packs ? 0 : region->output_count,
        [PACKED] = region->packed_count,
        [ARENA] = packs ? 0 : region->slot_count,
    };
    pointer *all = store(r, count, sizeof(pointer));
    for (int64_t i = 0; is_good(r) && i < count; i++) {
        all[i].kind = read_in(r, 0, BUFFER_KINDS, "kind of a pointer");
        all[i].index = read_in(r, 0, limits[all[i].kind], "buffer of a pointer");
        all[i].offset = read_in(r, 0, region->row_count, "offset of a pointer");
        if (is_good(r) && all[i].kind == INPUT && !packs)
            ((bool *)region->is_read)[all[i].index] = true;
    }
    return all;
}

static steps read_steps(reader *r, const region *region, const mapping *code, int64_t code_count,
                        bool packs) {
    steps found = {NULL, read_count(r, 7, "count of steps"), 0, 0};
    step *all = store(r, found.count, sizeof(step));
    for (int64_t i = 0; is_good(r) && i < found.count; i++) {
        step *s = &all[i];
        s->label = read_text(r, MAX_NAME_BYTES, "label");
        int64_t image = read_in(r, 0, code_count, "code file of a step");
        if (!is_good(r)) break;
        int64_t entry = read_in(r, CODE_HEADER_BYTES, code[image].bytes, "entry of a step");
        s->function = (kernel_function)(uintptr_t)(code[image].start + entry);
        s->tasks = read_in(r, 0, region->row_count, "tasks of a step");
        s->scratch_bytes = read_in(r, 0, region->row_count, "scratch of a step");
        s->pointer_count = read_count(r, 3, "pointers of a step");
        s->pointers = read_pointers(r, s->pointer_count, region, packs);
        s->value_count = read_count(r, 1, "values of a step");
        s->values = read_indices(r, s->value_count, region->row_count, "value of a step");
        s->first_pointer = found.pointer_count;
        s->first_value = found.value_count;
        found.pointer_count += s->pointer_count;
        found.value_count += s->value_count;
    }
    found.all = all;
    return found;
}

static void read_guards(reader *r, region *region) {
    region->guard_count = read_count(r, 2, "count of guards");
    guard *all = store(r, region->guard_count, sizeof(guard));
    for (int64_t i = 0; is_good(r) && i < region->guard_count; i++) {
        all[i].size = read_in(r, 0, region->row_count, "size of a guard");
        all[i].value = read_word(r);
    }
    region->guards = all;
}

static void read_region(reader *r, region *region, const mapping *code, int64_t code_count) {
    r->region = NULL;
    region->name = read_name(r, "name of a region");
    if (is_good(r)) r->region = region->name;
    read_inputs(r, region);
    region->row_count = read_count(r, 3, "count of sizes");
    region->rows = read_rows(r, region);
    region->output_count = read_count(r, 1, "count of outputs");
    region->outputs =
        read_size_lists(r, region->output_count, MAX_RANK, region->row_count, "dims of an output");
    read_guards(r, region);
    read_packed(r, region);
    region->slot_count = read_count(r, 1, "count of slots");
    region->slots =
        read_size_lists(r, region->slot_count, INT32_MAX, region->row_count, "sizes of a slot");
    region->pack = read_steps(r, region, code, code_count, true);
    region->run = read_steps(r, region, code, code_count, false);
    if (is_good(r) && !(region->input_count && region->output_count))
        fail(r, "a region needs inputs and outputs");
}

static const region *read_regions(reader *r, int64_t count, const mapping *code,
                                  int64_t code_count) {
    region *all = store(r, count, sizeof(region));
    for (int64_t i = 0; is_good(r) && i < count; i++) {
        read_region(r, &all[i], code, code_count);
        for (int64_t j = 0; is_good(r) && j < i; j++)
            if (!strcmp(all[i].name, all[j].name)) fail(r, "the name occurs twice");
    }
    r->region = NULL;
    return all;
}

/* The file's code, mapped once for the whole process. */
static mapping intern_code(reader *r, const char *path) {
    mapping fresh = {0};
    const char *wrong = map_code(path, &fresh);
    if (wrong) {
        fail(r, "code file %s %s", path, wrong);
        return fresh;
    }
    code_file *room = malloc(sizeof(code_file));
    lock_shared();
    code_file *known = code_files;
    while (known && (known->code.inode != fresh.inode || known->code.device != fresh.device ||
                     known->code.bytes != fresh.bytes))
        known = known->next;
    if (!known && room) {
        *room = (code_file){code_files, fresh, 0};
        known = code_files = room;
        room = NULL;
        fresh.start = NULL;
    }
    if (known) known->users++;
    unlock_shared();
    if (fresh.start) unmap_code(&fresh);
    free(room);
    if (known) return known->code;
    fail(r, "no memory for the plan");
    return (mapping){0};
}

static void release_code(const mapping *code, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        code_file *unused = NULL;
        lock_shared();
        for (code_file **link = &code_files; *link; link = &(*link)->next)
            if ((*link)->code.start == code[i].start) {
                if (--(*link)->users == 0) {
                    unused = *link;
                    *link = unused->next;
                }
                break;
            }
        unlock_shared();
        if (unused) unmap_code(&unused->code);
        free(unused);
    }
}

const plan *read_plan(const void *blob, int64_t bytes, char error[ERROR_BYTES]) {
    error[0] = 0;
    reader r = {blob, (const unsigned char *)blob + (bytes > 0 ? bytes : 0), NULL, NULL, error};
    if (read_word(&r) != MAGIC) fail(&r, "this is no plan, or one of another version");
    if (is_good(&r) && read_word(&r) != bytes) fail(&r, "the blob has lost its end");
    plan *found = store(&r, 1, sizeof(plan));
    int64_t threads = read_in(&r, 1, MAX_THREADS + 1, "threads");
    bool times_steps = read_in(&r, 0, 2, "times_steps");
    int64_t code_count = read_count(&r, 1, "count of code files");
    mapping *code = store(&r, code_count, sizeof(mapping));
    int64_t mapped = 0;
    for (; is_good(&r) && mapped < code_count; mapped++) {
        const char *path = read_text(&r, MAX_PATH_BYTES, "path");
        if (is_good(&r)) code[mapped] = intern_code(&r, path);
        if (!is_good(&r)) break;
    }
    int64_t region_count = read_count(&r, 10, "count of regions");
    const region *regions = read_regions(&r, region_count, code, code_count);
    if (is_good(&r) && r.at != r.end) fail(&r, "the blob is too long");
    if (is_good(&r)) {
        *found = (plan){threads, times_steps, regions, region_count};
        return found;
    }
    if (code) release_code(code, mapped);
    free_store(r.store);
    return NULL;
}

void locate_dim(const region *region, int64_t flat_dim, int64_t *input, int64_t *axis) {
    int64_t i = 0;
    while (flat_dim >= region->first_dim[i + 1]) i++;
    *input = i;
    *axis = flat_dim - region->first_dim[i];
}

int64_t mapped_code_bytes(void) {
    int64_t bytes = 0;
    lock_shared();
    for (const code_file *file = code_files; file; file = file->next) bytes += file->code.bytes;
    unlock_shared();
    return bytes;
}
