// Heads of q and k, normed and turned by position, where they lie in their rows: a warp takes a head of a row. Rows hold
// the query heads, the key heads, then those of v, which only go through.

struct Heads {
    const float* cos;        // [positions][pairs]
    const float* sin;
    const int* positions;    // of each row in its segment
    const float* q_weight;   // of the norm of each head; null where heads are not normed
    const float* k_weight;
    int query, key, width, pairs;
    float epsilon;
};

constexpr int HEAD_THREADS = 128;

// The head that a warp takes.
DEVICE int head_of() { return block_y() * (threads() / WARP) + warp(); }

// 1/√(mean(x²) + ε) of a head.
template <class T> DEVICE float head_scale(const T* x, const Heads& heads) {
    float squares = 0;
    for (int c = lane(); c < heads.width; c += WARP) squares += number(x[c]) * number(x[c]);
    return 1 / sqrtf(warp_sum(squares) / heads.width + heads.epsilon);
}

// out = R(N(rows)): pairs (j, j + pairs) by position * frequency_j, what lies behind them as it is.
template <class T> DEVICE void turn(const T* rows, T* out, int64_t stride, const Heads& heads) {
    int head = head_of();
    if (head >= heads.query + 2 * heads.key) return;
    int64_t at = block_x() * stride + static_cast<int64_t>(head) * heads.width;
    const T* x = rows + at;
    T* y = out + at;
    bool turned = head < heads.query + heads.key;
    const float* weight = head < heads.query ? heads.q_weight : heads.k_weight;
    if (!turned) weight = nullptr;
    float scale = weight == nullptr ? 1 : head_scale(x, heads);
    int64_t angle = static_cast<int64_t>(heads.positions[block_x()]) * heads.pairs;
    int pairs = turned ? heads.pairs : 0;
    for (int c = lane(); c < pairs; c += WARP) {
        float low = number(x[c]) * scale, high = number(x[c + pairs]) * scale;
        if (weight != nullptr) low *= weight[c], high *= weight[c + pairs];
        float cos = heads.cos[angle + c], sin = heads.sin[angle + c];
        y[c] = rounded<T>(low * cos - high * sin);
        y[c + pairs] = rounded<T>(high * cos + low * sin);
    }
    for (int c = 2 * pairs + lane(); c < heads.width; c += WARP)
        y[c] = weight == nullptr ? x[c] : rounded<T>(number(x[c]) * scale * weight[c]);
}
#define TURN(T) (const T* rows, T* out, int64_t stride, Heads heads)
BOTH(turn, HEAD_THREADS, TURN, (rows, out, stride, heads))

// The gradient before turning and norm, in place; `rows` are what the norm had before it.
template <class T> DEVICE void turn_back(T* gradients, const T* rows, int64_t stride, const Heads& heads) {
    int head = head_of();
    if (head >= heads.query + heads.key) return;
    int64_t at = block_x() * stride + static_cast<int64_t>(head) * heads.width;
    T* d = gradients + at;
    const float* weight = head < heads.query ? heads.q_weight : heads.k_weight;
    int64_t angle = static_cast<int64_t>(heads.positions[block_x()]) * heads.pairs;
    int pairs = heads.pairs;
    for (int c = lane(); c < pairs; c += WARP) {
        float low = number(d[c]), high = number(d[c + pairs]);
        float cos = heads.cos[angle + c], sin = -heads.sin[angle + c];
        d[c] = rounded<T>(low * cos - high * sin);
        d[c + pairs] = rounded<T>(high * cos + low * sin);
    }
    if (weight == nullptr) return;
    // Each lane reads below what it wrote itself only where pairs and lanes fall together: wait for the others.
    sync_warp();
    const T* x = rows + at;
    float scale = head_scale(x, heads), sum = 0;
    for (int c = lane(); c < heads.width; c += WARP) sum += weight[c] * number(d[c]) * number(x[c]);
    float back = warp_sum(sum) * scale * scale * scale / heads.width;
    for (int c = lane(); c < heads.width; c += WARP)
        d[c] = rounded<T>(scale * weight[c] * number(d[c]) - number(x[c]) * back);
}
#define TURN_BACK(T) (T* gradients, const T* rows, int64_t stride, Heads heads)
BOTH(turn_back, HEAD_THREADS, TURN_BACK, (gradients, rows, stride, heads))

// δ = Σ do o of each head and row, [head][row].
template <class T>
DEVICE void deltas(const T* o, int64_t o_stride, const T* d_o, int64_t d_stride, float* out, int heads, int width) {
    int head = head_of();
    if (head >= heads) return;
    o += block_x() * o_stride + head * width, d_o += block_x() * d_stride + head * width;
    float sum = 0;
    for (int c = lane(); c < width; c += WARP) sum += number(o[c]) * number(d_o[c]);
    sum = warp_sum(sum);
    if (lane() == 0) out[head * blocks_x() + block_x()] = sum;
}
#define DELTAS(T) (const T* o, int64_t o_stride, const T* d_o, int64_t d_stride, float* out, int heads, int width)
BOTH(deltas, HEAD_THREADS, DELTAS, (o, o_stride, d_o, d_stride, out, heads, width))
