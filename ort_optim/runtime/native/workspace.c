#include "workspace.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "platform.h"

static workspace *idle; /* under the shared lock, like the counts */
static int64_t block_count, block_bytes;

static void change_counts(int64_t blocks, int64_t bytes) {
    lock_shared();
    block_count += blocks;
    block_bytes += bytes;
    unlock_shared();
}

static workspace *create(int64_t bytes) {
    workspace *fresh = malloc(sizeof(workspace));
    unsigned char *memory = fresh ? take_memory((size_t)bytes) : NULL;
    if (!memory) {
        free(fresh);
        return NULL;
    }
    *fresh = (workspace){NULL, bytes, memory};
    change_counts(1, bytes);
    return fresh;
}

static void destroy(workspace *block) {
    change_counts(-1, -block->bytes);
    free_memory(block->memory);
    free(block);
}

/* Takes the best idle block for `bytes`: the smallest that is large enough, else the largest. */
static workspace *take_idle(int64_t bytes) {
    workspace **best = NULL;
    lock_shared();
    for (workspace **link = &idle; *link; link = &(*link)->next) {
        int64_t size = (*link)->bytes, best_size = best ? (*best)->bytes : -1;
        if (best_size < bytes ? size > best_size : size >= bytes && size < best_size) best = link;
    }
    workspace *found = best ? *best : NULL;
    if (found) *best = found->next;
    unlock_shared();
    return found;
}

/* In the builds that tests use, what a kernel reads before it was written is not a number. */
static void poison(workspace *block) {
#ifdef ORT_OPTIM_POISON
    memset(block->memory, 0xff, (size_t)block->bytes);
#else
    (void)block;
#endif
}

workspace *take_workspace(int64_t bytes) {
    workspace *found = take_idle(bytes);
    if (found && found->bytes < bytes) {
        destroy(found);
        found = NULL;
    }
    if (!found) found = create(bytes);
    if (found) poison(found);
    return found;
}

workspace *exchange_workspace(workspace *taken, int64_t bytes, int64_t kept_bytes) {
    workspace *found = take_idle(bytes);
    bool is_new = !found || found->bytes < bytes;
    if (found && is_new) return_workspace(found);
    if (is_new) found = create(bytes);
    if (!found) return NULL;
    poison(found);
    memcpy(found->memory, taken->memory, (size_t)kept_bytes);
    if (is_new)
        destroy(taken); /* so that runs which grow do not leave a small block each */
    else
        return_workspace(taken);
    return found;
}

void return_workspace(workspace *taken) {
    lock_shared();
    taken->next = idle;
    idle = taken;
    unlock_shared();
}

void drop_workspaces(void) {
    lock_shared();
    workspace *unused = idle;
    idle = NULL;
    unlock_shared();
    while (unused) {
        workspace *next = unused->next;
        destroy(unused);
        unused = next;
    }
}

void count_workspaces(int64_t *blocks, int64_t *bytes) {
    lock_shared();
    *blocks = block_count;
    *bytes = block_bytes;
    unlock_shared();
}
