// Cross-entropy of some rows of logits, which become their gradients where they lie or beside it.

constexpr int LOSS_THREADS = 512;

// loss = ln Σ exp(y) − y_target with y = cap tanh(z/cap), or y = z where the cap is 0; with a gradient asked for,
// dz = scale (softmax(y) − [target]) (1 − (y/cap)²). `gradients` may be the logits themselves.
template <class T>
DEVICE void cross_entropy(const float* logits, const uint32_t* targets, float* losses, T* gradients, int width,
                          float cap, float scale, int gradient) {
    const float* z = logits + block_x() * width;
    T* dz = gradients + block_x() * width;
    int target = static_cast<int>(targets[block_x()]);
    float chosen = z[target];
    if (cap != 0) chosen = cap * tanhf(chosen / cap);
    // One reading gives each thread its largest and the sum below it.
    float most = -INFINITY, sum = 0;
    for (int c = thread(); c < width; c += threads()) {
        float y = cap != 0 ? cap * tanhf(z[c] / cap) : z[c];
        if (y > most) {
            sum = sum * expf(most - y) + 1;
            most = y;
        } else {
            sum += expf(y - most);
        }
    }
    float whole = block_most(most);
    sum = block_sum(most == -INFINITY ? 0 : sum * expf(most - whole));
    if (thread() == 0) losses[block_x()] = logf(sum) + (whole - chosen);
    if (!gradient) return;
    for (int c = thread(); c < width; c += threads()) {
        float share = cap != 0 ? tanhf(z[c] / cap) : 0, y = cap != 0 ? cap * share : z[c];
        float d = expf(y - whole) * (scale / sum) - (c == target ? scale : 0);
        dz[c] = rounded<T>(d * (1 - share * share));
    }
}
#define CROSS_ENTROPY(T)                                                                                          \
    (const float* logits, const uint32_t* targets, float* losses, T* gradients, int width, float cap, float scale, \
     int gradient)
BOTH(cross_entropy, LOSS_THREADS, CROSS_ENTROPY,
     (logits, targets, losses, gradients, width, cap, scale, gradient))
