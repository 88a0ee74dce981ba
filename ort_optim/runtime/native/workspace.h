/* Memory for runs: one pool for the process, from which every concurrent run takes one block. */
#ifndef ORT_OPTIM_WORKSPACE_H
#define ORT_OPTIM_WORKSPACE_H

#include <stdint.h>

typedef struct workspace {
    struct workspace *next;
    int64_t bytes;
    unsigned char *memory;
} workspace;

/* The smallest free block of at least `bytes`, or a new one; NULL if there is no memory. */
workspace *take_workspace(int64_t bytes);

/* A block of at least `bytes` in exchange for `taken`, whose first `kept_bytes` it begins with;
 * NULL if there is no memory, and `taken` stays the caller's. */
workspace *exchange_workspace(workspace *taken, int64_t bytes, int64_t kept_bytes);
void return_workspace(workspace *taken);

/* Frees the blocks that no run has; for when no kernel is left. */
void drop_workspaces(void);

/* All blocks, taken or not. */
void count_workspaces(int64_t *blocks, int64_t *bytes);

#endif
