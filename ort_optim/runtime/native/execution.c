/* The steps of a run, on one thread or on several. */
#include <string.h>

#include "run.h"

enum { SPINS_BEFORE_YIELD = 4000 };

void run_alone(const run *r, counter *nanoseconds) {
    int64_t start = nanoseconds ? now_ns() : 0;
    for (int64_t i = 0; i < r->steps->count; i++) {
        const step *step = &r->steps->all[i];
        void *const *pointers = r->pointers + step->first_pointer;
        const int64_t *arguments = r->arguments + step->first_value;
        int64_t tasks = r->tasks[i];
        for (int64_t task = 0; task < tasks; task++)
            step->function(pointers, arguments, task, r->scratch);
        if (nanoseconds) {
            int64_t now = now_ns();
            nanoseconds[i] += now - start;
            start = now;
        }
    }
}

/* Runs what is left of a step's tasks, beginning with the worker's own share: so a worker mostly
 * sees the part of each tensor that it made itself, and counters stay in its cache. */
static void run_tasks(const run *r, int64_t i, size_t worker, void *scratch) {
    const step *step = &r->steps->all[i];
    void *const *pointers = r->pointers + step->first_pointer;
    const int64_t *arguments = r->arguments + step->first_value;
    lone_counter *done = &r->progress[i * (1 + r->shares)];
    int64_t usual = r->tasks[i] / r->shares, larger = r->tasks[i] % r->shares, mine = 0;
    int64_t share = (int64_t)worker % r->shares;
    for (int64_t j = 0; j < r->shares; j++, share = share + 1 < r->shares ? share + 1 : 0) {
        int64_t first = usual * share + (share < larger ? share : larger);
        int64_t count = usual + (share < larger);
        counter *begun = &done[1 + share].value;
        int64_t next = atomic_load_explicit(begun, memory_order_relaxed);
        while (next < count &&
               (next = atomic_fetch_add_explicit(begun, 1, memory_order_relaxed)) < count) {
            step->function(pointers, arguments, first + next, scratch);
            mine++;
        }
    }
    if (mine) atomic_fetch_add_explicit(&done->value, mine, memory_order_acq_rel);
}

static void wait_for(counter *done, int64_t tasks) {
    for (int64_t spins = 0; atomic_load_explicit(done, memory_order_acquire) != tasks; spins++) {
        if (spins < SPINS_BEFORE_YIELD)
            relax_cpu();
        else
            yield_thread();
    }
}

/* One worker of a run. It never waits for a worker that has not begun, only for tasks that another
 * one is in the middle of: so any number of workers, even one after another on a single thread,
 * gets all steps done, and the end of a step costs one cache line going round. */
static void work(void *data, size_t worker) {
    const run *r = data;
    counter *nanoseconds = worker == 0 ? r->kernel->op->step_nanoseconds : NULL;
    unsigned char *scratch = r->scratch + (int64_t)worker * r->scratch_bytes;
    int64_t start = nanoseconds ? now_ns() : 0;
    for (int64_t i = 0; i < r->steps->count; i++) {
        counter *done = &r->progress[i * (1 + r->shares)].value;
        if (atomic_load_explicit(done, memory_order_acquire) != r->tasks[i]) {
            run_tasks(r, i, worker, scratch);
            wait_for(done, r->tasks[i]);
        }
        if (nanoseconds) {
            int64_t now = now_ns();
            nanoseconds[i] += now - start;
            start = now;
        }
    }
}

int64_t progress_bytes(const run *r) {
    if (r->workers <= 1) return 0;
    return r->steps->count * (1 + r->shares) * (int64_t)sizeof(lone_counter);
}

OrtStatus *run_together(run *r, const OrtKernelContext *context) {
    operator *op = r->kernel->op;
    memset(r->progress, 0, (size_t)progress_bytes(r));
    /* no batches: ORT then starts as many of its threads as there are workers */
    return note_failure(op, ort_parallel_for(op->api, context, work, (size_t)r->workers, 0, r));
}
