/* Kernels for the tests of the native library: enough to see sizes, packing, tasks and scratch. */
typedef long long i64;

/* packed[i] = weights[i]; values: count. One task. */
void pack(void *const *pointers, const i64 *values, i64 task, void *scratch) {
    (void)task, (void)scratch;
    for (i64 i = 0; i < values[0]; i++)
        ((float *)pointers[0])[i] = ((const float *)pointers[1])[i];
}

/* to[plane] = max(from[plane] * scale[plane % channels], 0); values: plane size, channels.
 * One task per plane. Goes through scratch, of at least the plane's size. */
void scale_relu(void *const *pointers, const i64 *values, i64 task, void *scratch) {
    const float *from = (const float *)pointers[0] + task * values[0];
    const float *scale = pointers[1];
    float *to = (float *)pointers[2] + task * values[0];
    volatile float *own = scratch;
    for (i64 i = 0; i < values[0]; i++) own[i] = from[i] * scale[task % values[1]];
    for (i64 i = 0; i < values[0]; i++) to[i] = own[i] > 0.0f ? own[i] : 0.0f;
}

/* to = a + b; values: plane size. One task per plane. */
void add(void *const *pointers, const i64 *values, i64 task, void *scratch) {
    (void)scratch;
    const float *a = (const float *)pointers[0] + task * values[0];
    const float *b = (const float *)pointers[1] + task * values[0];
    float *to = (float *)pointers[2] + task * values[0];
    for (i64 i = 0; i < values[0]; i++) to[i] = a[i] + b[i];
}

void nothing(void *const *pointers, const i64 *values, i64 task, void *scratch) {
    (void)pointers, (void)values, (void)task, (void)scratch;
}
