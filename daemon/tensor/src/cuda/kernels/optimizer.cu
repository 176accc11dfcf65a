// What a step does to what is trained. Masters, gradients and moments are f32.

// A tensor's rows, rounded, to where products read them.
template <class T> DEVICE void place(const float* from, T* to, int64_t stride, int width) {
    int c = column();
    if (c < width) to[block_x() * stride + c] = rounded<T>(from[block_x() * width + c]);
}
#define PLACE(T) (const float* from, T* to, int64_t stride, int width)
BOTH(place, ROW_THREADS, PLACE, (from, to, stride, width))

struct Step {
    float keep, size, first, beta2, second, correction, epsilon;
};

// AdamW in the order of torch: m += (1−β₁)(g − m), v = β₂ v + (1−β₂) g², θ = keep θ − size m / (√v / correction + ε).
KERNEL(adamw_f32, ROW_THREADS, (float* theta, const float* g, float* m, float* v, int64_t count, Step step), {
    int64_t at = block_x() * threads() + thread();
    if (at < count) {
        float first = m[at] + step.first * (g[at] - m[at]);
        float second = step.beta2 * v[at] + step.second * g[at] * g[at];
        m[at] = first;
        v[at] = second;
        theta[at] = step.keep * theta[at] - step.size * first / (sqrtf(second) / step.correction + step.epsilon);
    }
})

constexpr int SQUARES = 16;

// The sum of squares of each block's part, in f64, to be added up in order.
KERNEL(squares_f32, ROW_THREADS, (const float* x, int64_t count, double* sums), {
    SHARED_ARRAY(double, parts, ROW_THREADS);
    double sum = 0;
    for (int part = 0; part < SQUARES; part++) {
        int64_t at = (block_x() * SQUARES + part) * threads() + thread();
        if (at < count) sum += static_cast<double>(x[at]) * x[at];
    }
    parts[thread()] = sum;
    sync_block();
    for (int half = threads() / 2; half > 0; half /= 2) {
        if (thread() < half) parts[thread()] += parts[thread() + half];
        sync_block();
    }
    if (thread() == 0) sums[block_x()] = parts[0];
})
