// What goes over rows: lookups, norms, biases, gated units. A block takes a row, or a part of its columns. The residual
// stream and its gradient are f32; what goes into a product is T.

// A kernel for both kinds of numbers.
#define BOTH(name, threads, parameters_of, arguments)                             \
    KERNEL(name##_f32, threads, parameters_of(float), name<float> arguments)      \
    KERNEL(name##_bf16, threads, parameters_of(bf16), name<bf16> arguments)

constexpr int ROW_THREADS = 256;

// out[r] = factor table[index[r]].
template <class T>
DEVICE void gather(const T* table, const uint32_t* index, float* out, int width, float factor) {
    const T* from = table + static_cast<int64_t>(index[block_x()]) * width;
    for (int c = thread(); c < width; c += threads()) out[block_x() * width + c] = factor * number(from[c]);
}
#define GATHER(T) (const T* table, const uint32_t* index, float* out, int width, float factor)
BOTH(gather, ROW_THREADS, GATHER, (table, index, out, width, factor))

// 1/√(mean(x²) + ε) of a row, for all threads of its block.
DEVICE float norm_scale(const float* x, int width, float epsilon) {
    float squares = 0;
    for (int c = thread(); c < width; c += threads()) squares += x[c] * x[c];
    return 1 / sqrtf(block_sum(squares) / width + epsilon);
}

// The row that a block takes: its own, or the one that the index names.
DEVICE int64_t row_of(const uint32_t* index) { return index == nullptr ? block_x() : index[block_x()]; }

// y = s x w.
template <class T>
DEVICE void norm(const float* x, const uint32_t* index, const float* weight, T* y, int64_t stride, int width,
                 float epsilon) {
    x += row_of(index) * width;
    y += block_x() * stride;
    float scale = norm_scale(x, width, epsilon);
    for (int c = thread(); c < width; c += threads()) y[c] = rounded<T>(x[c] * scale * weight[c]);
}
#define NORM(T) \
    (const float* x, const uint32_t* index, const float* weight, T* y, int64_t stride, int width, float epsilon)
BOTH(norm, ROW_THREADS, NORM, (x, index, weight, y, stride, width, epsilon))

// y = x + s raw w, with the scale of the raw rows.
DEVICE void add_norm(const float* x, const float* raw, const float* weight, float* y, int width, float epsilon) {
    int64_t row = block_x() * width;
    float scale = norm_scale(raw + row, width, epsilon);
    for (int c = thread(); c < width; c += threads()) y[row + c] = x[row + c] + raw[row + c] * scale * weight[c];
}
KERNEL(add_norm_f32, ROW_THREADS,
       (const float* x, const float* raw, const float* weight, float* y, int width, float epsilon),
       add_norm(x, raw, weight, y, width, epsilon))

// What a norm's backward multiplies a row x by: s³/n Σ(w dy x).
DEVICE float norm_back(const float* x, const float* weight, const float* dy, int width, float scale) {
    float sum = 0;
    for (int c = thread(); c < width; c += threads()) sum += weight[c] * dy[c] * x[c];
    return block_sum(sum) * scale * scale * scale / width;
}

// dx += s w dy − x s³/n Σ(w dy x), with x and dx of the row that the index names.
DEVICE void norm_backward_add(const float* x, const uint32_t* index, const float* weight, const float* dy, float* dx,
                              int width, float epsilon) {
    int64_t row = row_of(index) * width;
    x += row, dx += row, dy += block_x() * width;
    float scale = norm_scale(x, width, epsilon);
    float back = norm_back(x, weight, dy, width, scale);
    for (int c = thread(); c < width; c += threads()) dx[c] += scale * weight[c] * dy[c] - x[c] * back;
}
KERNEL(norm_backward_add_f32, ROW_THREADS,
       (const float* x, const uint32_t* index, const float* weight, const float* dy, float* dx, int width,
        float epsilon),
       norm_backward_add(x, index, weight, dy, dx, width, epsilon))

// The same in place of what was there, for the product that follows.
template <class T>
DEVICE void norm_backward(const float* x, const float* weight, const float* dy, T* dx, int64_t stride, int width,
                          float epsilon) {
    x += block_x() * width, dy += block_x() * width, dx += block_x() * stride;
    float scale = norm_scale(x, width, epsilon);
    float back = norm_back(x, weight, dy, width, scale);
    for (int c = thread(); c < width; c += threads())
        dx[c] = rounded<T>(scale * weight[c] * dy[c] - x[c] * back);
}
#define NORM_BACKWARD(T) \
    (const float* x, const float* weight, const float* dy, T* dx, int64_t stride, int width, float epsilon)
BOTH(norm_backward, ROW_THREADS, NORM_BACKWARD, (x, weight, dy, dx, stride, width, epsilon))

// The column that a thread takes, of a grid whose first axis is rows and whose second is parts of them.
DEVICE int column() { return block_y() * threads() + thread(); }

// y = x rounded.
template <class T> DEVICE void cast(const float* x, T* y, int64_t stride, int width) {
    int c = column();
    if (c < width) y[block_x() * stride + c] = rounded<T>(x[block_x() * width + c]);
}
#define CAST(T) (const float* x, T* y, int64_t stride, int width)
BOTH(cast, ROW_THREADS, CAST, (x, y, stride, width))

// y += bias, for each row.
template <class T> DEVICE void add_bias(T* y, int64_t stride, const float* bias, int width) {
    int c = column();
    if (c < width) {
        T* at = y + block_x() * stride + c;
        *at = rounded<T>(number(*at) + bias[c]);
    }
}
#define ADD_BIAS(T) (T* y, int64_t stride, const float* bias, int width)
BOTH(add_bias, ROW_THREADS, ADD_BIAS, (y, stride, bias, width))

// x *= factor.
KERNEL(scale_f32, ROW_THREADS, (float* x, int64_t count, float factor), {
    int64_t place = block_x() * threads() + thread();
    if (place < count) x[place] *= factor;
})

// h(g) of g σ(h(g)), and its slope: g itself, or GELU's by its tanh (Hendrycks and Gimpel).
DEVICE float gate_argument(bool gelu, float g) {
    return gelu ? 1.5957691216057308f * (g + 0.044715f * g * g * g) : g;
}
DEVICE float gate_slope(bool gelu, float g) {
    return gelu ? 1.5957691216057308f * (1 + 3 * 0.044715f * g * g) : 1;
}
DEVICE float sigmoid(float x) { return 1 / (1 + expf(-x)); }

// a = g σ(h(g)) u of rows that hold g and u side by side.
template <class T>
DEVICE void glu(const T* both, int64_t stride, T* out, int64_t out_stride, int width, int gelu) {
    int c = column();
    if (c >= width) return;
    float g = number(both[block_x() * stride + c]), u = number(both[block_x() * stride + width + c]);
    out[block_x() * out_stride + c] = rounded<T>(g * sigmoid(gate_argument(gelu, g)) * u);
}
#define GLU(T) (const T* both, int64_t stride, T* out, int64_t out_stride, int width, int gelu)
BOTH(glu, ROW_THREADS, GLU, (both, stride, out, out_stride, width, gelu))

// dg = da u σ (1 + g (1 − σ) h'(g)) over g, du = da g σ over u, and a, again, over da.
template <class T> DEVICE void glu_backward(T* both, int64_t stride, T* da, int64_t da_stride, int width, int gelu) {
    int c = column();
    if (c >= width) return;
    T *gate = both + block_x() * stride + c, *up = gate + width, *d = da + block_x() * da_stride + c;
    float g = number(*gate), u = number(*up), gradient = number(*d);
    float s = sigmoid(gate_argument(gelu, g));
    *gate = rounded<T>(gradient * u * s * (1 + g * (1 - s) * gate_slope(gelu, g)));
    *up = rounded<T>(gradient * g * s);
    *d = rounded<T>(g * s * u);
}
#define GLU_BACKWARD(T) (T* both, int64_t stride, T* da, int64_t da_stride, int width, int gelu)
BOTH(glu_backward, ROW_THREADS, GLU_BACKWARD, (both, stride, da, da_stride, width, gelu))
