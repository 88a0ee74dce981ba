#include "workspace.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "platform.h"

static workspace *idle; /* under the shared lock, like the counts */
static int64_t block_count, block_bytes;

/* Unlinks the best block for `bytes`: the smallest that is large enough, else the largest. */
static workspace *unlink_best(int64_t bytes) {
    workspace **best = NULL;
    for (workspace **link = &idle; *link; link = &(*link)->next) {
        int64_t size = (*link)->bytes;
        int64_t best_size = best ? (*best)->bytes : -1;
        if (best_size < bytes ? size > best_size : size >= bytes && size < best_size) best = link;
    }
    if (!best) return NULL;
    workspace *found = *best;
    *best = found->next;
    return found;
}

static void destroy(workspace *block) {
    free_memory(block->memory);
    free(block);
}

static void change_counts(int64_t blocks, int64_t bytes) {
    lock_shared();
    block_count += blocks;
    block_bytes += bytes;
    unlock_shared();
}

workspace *take_workspace(int64_t bytes) {
    lock_shared();
    workspace *found = unlink_best(bytes);
    unlock_shared();
    if (!found || found->bytes < bytes) {
        if (found) {
            change_counts(-1, -found->bytes);
            destroy(found);
        }
        found = malloc(sizeof(workspace));
        unsigned char *memory = found ? take_memory((size_t)bytes) : NULL;
        if (!memory) {
            free(found);
            return NULL;
        }
        *found = (workspace){NULL, bytes, memory};
        change_counts(1, bytes);
    }
#ifdef ORT_OPTIM_POISON
    memset(found->memory, 0xff, (size_t)found->bytes); /* every float is a NaN */
#endif
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
    for (workspace *block = unused; block; block = block->next) {
        block_count--;
        block_bytes -= block->bytes;
    }
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
