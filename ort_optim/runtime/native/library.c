/* What the library exports: staging a plan, ORT's entry point, and the counters.
 *
 * A registration is the set of operators that one staged plan became. ORT keeps pointers to them
 * for as long as any SessionOptions or session lives and never says when that ends, so they are
 * never freed. One whose sessions are all gone serves the next session of the same plan: a process
 * that opens and closes a model a thousand times has one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "operator.h"
#include "plan.h"
#include "platform.h"
#include "workspace.h"

enum { COUNTERS = 8 };

/* A plan by the bytes it was read from. */
typedef struct known_plan {
    struct known_plan *next;
    void *blob;
    int64_t blob_bytes;
    const plan *plan;
} known_plan;

typedef struct registration {
    struct registration *next;
    int64_t id;
    const known_plan *known;
    const OrtApi *api; /* NULL until ORT has taken it */
    OrtCustomOpDomain *domain;
    operator *operators; /* (known->plan->region_count) */
} registration;

static known_plan *known_plans; /* these three under the shared lock */
static registration *registrations;
static int64_t last_id;

static THREAD_LOCAL const known_plan *pending;
static THREAD_LOCAL int64_t pending_id;
static THREAD_LOCAL char stage_error[ERROR_BYTES];

static const known_plan *find_known(const void *blob, int64_t bytes) {
    const known_plan *found = known_plans;
    while (found && (found->blob_bytes != bytes || memcmp(found->blob, blob, (size_t)bytes)))
        found = found->next;
    return found;
}

static const known_plan *intern_plan(const void *blob, int64_t bytes) {
    lock_shared();
    const known_plan *found = find_known(blob, bytes);
    unlock_shared();
    if (found) return found;
    const plan *plan = read_plan(blob, bytes, stage_error);
    if (!plan) return NULL;
    known_plan *fresh = malloc(sizeof *fresh);
    void *copy = malloc((size_t)bytes);
    if (!fresh || !copy) {
        free(fresh);
        free(copy);
        snprintf(stage_error, sizeof stage_error, "no memory for the plan");
        return NULL;
    }
    memcpy(copy, blob, (size_t)bytes);
    /* Two threads may read the same plan at once; the second one's then stays unused. */
    lock_shared();
    *fresh = (known_plan){known_plans, copy, bytes, plan};
    known_plans = fresh;
    unlock_shared();
    return fresh;
}

/* Checks a plan and sets it ready for the next RegisterCustomOps on this thread. NULL, or what is
 * wrong, which stays readable until the next call on this thread. */
EXPORT const char *ort_optim_stage(const void *blob, int64_t bytes) {
    pending = NULL;
    stage_error[0] = 0;
    if (!blob || bytes <= 0) return "the plan is empty";
    pending = intern_plan(blob, bytes);
    if (!pending) return stage_error;
    lock_shared();
    pending_id = ++last_id;
    unlock_shared();
    return NULL;
}

/* The number, unique in this process, of what this thread staged last: the key to its counters. */
EXPORT int64_t ort_optim_registration(void) {
    return pending_id;
}

static bool is_idle(const registration *r) {
    int64_t created = 0, alive = 0;
    for (int64_t i = 0; i < r->known->plan->region_count; i++) {
        created += r->operators[i].kernels_created;
        alive += r->operators[i].kernels_alive;
    }
    return created > 0 && alive == 0;
}

static void reset_counters(registration *r) {
    for (int64_t i = 0; i < r->known->plan->region_count; i++) {
        operator *op = &r->operators[i];
        op->kernels_created = op->runs = op->failures = op->nanoseconds = op->workspace_bytes = 0;
        op->last_error[0] = 0;
        for (int64_t j = 0; op->step_nanoseconds && j < op->region->run.count; j++)
            op->step_nanoseconds[j] = 0;
    }
}

static registration *recycle(const OrtApi *api) {
    registration *found = registrations;
    lock_shared();
    for (found = registrations; found; found = found->next)
        if (found->known == pending && found->api == api && is_idle(found)) {
            found->id = pending_id;
            reset_counters(found);
            break;
        }
    unlock_shared();
    return found;
}

static void free_registration(registration *r) {
    if (r->domain) ort_release_domain(r->api, r->domain);
    for (int64_t i = 0; r->operators && i < r->known->plan->region_count; i++)
        free((void *)r->operators[i].step_nanoseconds);
    free(r->operators);
    free(r);
}

static OrtStatus *make_registration(const OrtApi *api, registration **out) {
    const plan *plan = pending->plan;
    registration *fresh = calloc(1, sizeof *fresh);
    if (fresh) fresh->operators = calloc((size_t)plan->region_count + 1, sizeof(operator));
    if (!fresh || !fresh->operators) {
        free(fresh);
        return ort_error(api, ORT_FAIL, "ort_optim: no memory to register regions");
    }
    fresh->id = pending_id;
    fresh->known = pending;
    fresh->api = api;
    OrtStatus *status = ort_create_domain(api, "ort_optim", &fresh->domain);
    for (int64_t i = 0; !status && i < plan->region_count; i++) {
        operator *op = &fresh->operators[i];
        describe_operator(op, api, plan, &plan->regions[i]);
        if (plan->times_steps) {
            op->step_nanoseconds = calloc((size_t)op->region->run.count + 1, sizeof(counter));
            if (!op->step_nanoseconds)
                status = ort_error(api, ORT_FAIL, "ort_optim: no memory to register regions");
        }
        if (!status) status = ort_domain_add(api, fresh->domain, &op->custom);
    }
    if (status) {
        free_registration(fresh);
        return status;
    }
    *out = fresh;
    return NULL;
}

/* What ORT calls when the library is registered in `options`. */
EXPORT OrtStatus *ORT_CALL RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base) {
    const OrtApi *api = base->get_api(ORT_VERSION);
    if (!api)
        return ort_error(base->get_api(1), ORT_FAIL, "ort_optim: needs ONNX Runtime 1.17 or later");
    if (!pending)
        return ort_error(api, ORT_FAIL,
                         "ort_optim: no plan is staged on this thread; use "
                         "ort_optim.session_options instead of registering the library yourself");
    registration *known = recycle(api), *fresh = NULL;
    OrtStatus *status = known ? NULL : make_registration(api, &fresh);
    if (!status) status = ort_options_add(api, options, (known ? known : fresh)->domain);
    pending = NULL;
    if (status) {
        if (fresh) free_registration(fresh);
        return status;
    }
    if (fresh) {
        lock_shared();
        fresh->next = registrations;
        registrations = fresh;
        unlock_shared();
    }
    return NULL;
}

static operator *find_operator(int64_t id, const char *region) {
    operator *found = NULL;
    lock_shared();
    registration *r = registrations;
    while (r && r->id != id) r = r->next;
    for (int64_t i = 0; r && i < r->known->plan->region_count; i++)
        if (!strcmp(r->operators[i].region->name, region)) found = &r->operators[i];
    unlock_shared();
    return found;
}

/* Counters of one region of one registration, in this order; false where there is none such:
 * kernels created, kernels alive, runs, failures, bytes of packed weights, bytes of the largest
 * workspace, nanoseconds in runs, runs under way. */
EXPORT int ort_optim_counters(int64_t id, const char *region, int64_t out[COUNTERS]) {
    const operator *op = find_operator(id, region);
    if (!op) return 0;
    const int64_t found[COUNTERS] = {
        op->kernels_created, op->kernels_alive,   op->runs,        op->failures,
        op->packed_bytes,    op->workspace_bytes, op->nanoseconds, op->workspaces_alive,
    };
    memcpy(out, found, sizeof found);
    return 1;
}

/* Nanoseconds of a region's steps, up to `count` of them; how many it has, 0 where the plan did not
 * ask for them. */
EXPORT int64_t ort_optim_step_times(int64_t id, const char *region, int64_t *out, int64_t count) {
    const operator *op = find_operator(id, region);
    if (!op || !op->step_nanoseconds) return 0;
    for (int64_t i = 0; i < count && i < op->region->run.count; i++)
        out[i] = op->step_nanoseconds[i];
    return op->region->run.count;
}

/* The last error of a region, empty if there was none; false where there is no such region. */
EXPORT int ort_optim_last_error(int64_t id, const char *region, char *text, int64_t bytes) {
    operator *op = find_operator(id, region);
    if (!op || bytes <= 0) return 0;
    lock_shared();
    snprintf(text, (size_t)bytes, "%s", op->last_error);
    unlock_shared();
    return 1;
}

/* Of the whole process: kernels alive, workspaces, their bytes, bytes of mapped code, plans,
 * registrations; the rest is 0. */
EXPORT void ort_optim_totals(int64_t out[COUNTERS]) {
    memset(out, 0, COUNTERS * sizeof *out);
    out[0] = kernels_alive();
    count_workspaces(&out[1], &out[2]);
    out[3] = mapped_code_bytes();
    lock_shared();
    for (const known_plan *p = known_plans; p; p = p->next) out[4]++;
    for (const registration *r = registrations; r; r = r->next) out[5]++;
    unlock_shared();
}
