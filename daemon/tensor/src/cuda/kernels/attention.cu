// Attention of packed segments in tiles, with the softmax as it goes (Dao et al., "FlashAttention-2", arXiv 2307.08691):
// scores are never in memory. Four warps take 16 rows each of a tile of their own and go along the tiles of the other
// side. The backward of queries and that of keys are two launches, each with the scores computed again, so that no sum
// depends on who comes first.
//
// Products are of 16 x 16 by 16 x 8, divided among a warp as tensor cores have it: in bf16 they are theirs, in f32 they
// are made of shuffles. Lane l holds of a result the rows l/4 and l/4 + 8, and of each the columns 2(l%4) and the next.

template <class T> struct Left;
template <class T> struct Right;
template <> struct Left<bf16> {
    uint32_t r[4];
};
template <> struct Right<bf16> {
    uint32_t r[2];
};
template <> struct Left<float> {
    float r[8];
};
template <> struct Right<float> {
    float r[4];
};

// Rows of a tile as the left side.
DEVICE Left<bf16> left(const bf16* tile, int pitch) {
    const bf16* at = tile + lane() / 4 * pitch + lane() % 4 * 2;
    return {{two(at), two(at + 8 * pitch), two(at + 8), two(at + 8 * pitch + 8)}};
}
DEVICE Left<float> left(const float* tile, int pitch) {
    const float* at = tile + lane() / 4 * pitch + lane() % 4 * 2;
    const float* below = at + 8 * pitch;
    return {{at[0], at[1], below[0], below[1], at[8], at[9], below[8], below[9]}};
}

// Two results side by side as the left side of the next product: the lanes hold what they need already.
DEVICE Left<bf16> left_of(bf16, const float (&a)[4], const float (&b)[4]) {
    return {{two(a[0], a[1]), two(a[2], a[3]), two(b[0], b[1]), two(b[2], b[3])}};
}
DEVICE Left<float> left_of(float, const float (&a)[4], const float (&b)[4]) {
    return {{a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]}};
}

// Rows of a tile as the columns of the right side.
DEVICE Right<bf16> right(const bf16* tile, int pitch) {
    const bf16* at = tile + lane() / 4 * pitch + lane() % 4 * 2;
    return {{two(at), two(at + 8)}};
}
DEVICE Right<float> right(const float* tile, int pitch) {
    const float* at = tile + lane() / 4 * pitch + lane() % 4 * 2;
    return {{at[0], at[1], at[8], at[9]}};
}

// Rows of a tile as the rows of the right side.
DEVICE Right<bf16> right_rows(const bf16* tile, int pitch) {
    Right<bf16> made;
    load_transposed(made.r, tile + lane() % 16 * pitch);
    return made;
}
DEVICE Right<float> right_rows(const float* tile, int pitch) {
    const float* at = tile + lane() % 4 * 2 * pitch + lane() / 4;
    return {{at[0], at[pitch], at[8 * pitch], at[9 * pitch]}};
}

DEVICE void multiply_add(float (&d)[4], const Left<bf16>& a, const Right<bf16>& b) { multiply_add(d, a.r, b.r); }
// In f32, each of the sixteen terms from the lane that holds it.
DEVICE void multiply_add(float (&d)[4], const Left<float>& a, const Right<float>& b) {
    if (multiplied_at_once(d, a.r, b.r)) return;
    int row = lane() & ~3, column = lane() % 4 * 8;
    UNROLL
    for (int k = 0; k < 16; k++) {
        int holder = k % 8 / 2, place = k % 2 + k / 8 * 4;
        float upper = shuffle(a.r[place], row + holder), lower = shuffle(a.r[place + 2], row + holder);
        float first = shuffle(b.r[k % 2 + k / 8 * 2], column + holder);
        float second = shuffle(b.r[k % 2 + k / 8 * 2], column + 4 + holder);
        d[0] += upper * first, d[1] += upper * second, d[2] += lower * first, d[3] += lower * second;
    }
}

struct Attention {
    const void *q, *k, *v;  // rows of heads, each qkv_stride from the last
    void* o;                // o_stride
    float* sums;            // ln Σ exp(s), [head][row]
    const void* d_o;        // d_stride
    const float* deltas;    // [head][row]
    void *dq, *dk, *dv;     // qkv_stride
    const int* tiles;       // start and length of a tile's segment, and the tile's first row in it
    int64_t qkv_stride, o_stride, d_stride;
    int rows, heads, key_heads, width, window;
    float scale, cap;
};

// Numbers from one row of a tile to the next: 16 bytes more than a head, so that rows begin in other banks.
template <class T, int HEAD> constexpr int PITCH_OF = HEAD + 16 / static_cast<int>(sizeof(T));

// Rows `first` to `first + ROWS` of one head, zeros behind `end` and beyond the head's width.
template <class T, int HEAD, int ROWS>
DEVICE void load_tile(T* tile, const T* head, int64_t stride, int first, int end, int width) {
    constexpr int PITCH = PITCH_OF<T, HEAD>, PIECE = 16 / sizeof(T), PIECES = HEAD / PIECE;
    bool aligned = width % PIECE == 0 && stride % PIECE == 0 && reinterpret_cast<uintptr_t>(head) % 16 == 0;
    if (aligned) {
        for (int at = thread(); at < ROWS * PIECES; at += threads()) {
            int row = at / PIECES, column = at % PIECES * PIECE;
            uint4 piece = {0, 0, 0, 0};
            if (first + row < end && column < width)
                piece = *reinterpret_cast<const uint4*>(head + (first + row) * stride + column);
            *reinterpret_cast<uint4*>(tile + row * PITCH + column) = piece;
        }
        return;
    }
    for (int at = thread(); at < ROWS * HEAD; at += threads()) {
        int row = at / HEAD, column = at % HEAD;
        bool inside = first + row < end && column < width;
        tile[row * PITCH + column] = inside ? head[(first + row) * stride + column] : rounded<T>(0);
    }
}

// Scores of two positions: scaled, and capped where there is a cap.
DEVICE float score(float product, const Attention& a) {
    float s = product * a.scale;
    return a.cap == 0 ? s : a.cap * tanhf(s / a.cap);
}

DEVICE bool sees(int query, int key, const Attention& a, int length) {
    return key <= query && key > query - a.window && query < length;
}

// Whether these columns of a head are there: tensor cores are quicker than the question.
template <class T> DEVICE bool needed(int column, const Attention& a) { return sizeof(T) == 2 || column < a.width; }

// Sums over the four lanes that hold a row.
DEVICE float row_sum(float value) {
    value += shuffle_xor(value, 1);
    return value + shuffle_xor(value, 2);
}
DEVICE float row_most(float value) {
    value = fmaxf(value, shuffle_xor(value, 1));
    return fmaxf(value, shuffle_xor(value, 2));
}

// Columns of a head that one block gives: wide heads are divided among blocks, since registers hold no more.
template <int HEAD> constexpr int OUTPUTS_OF = HEAD < 128 ? HEAD : 128;

template <class T, int HEAD, int WARPS, int COLUMNS> DEVICE void attention(const Attention& a) {
    constexpr int ROWS = 16 * WARPS, PITCH = PITCH_OF<T, HEAD>, OUT = OUTPUTS_OF<HEAD>;
    SHARED(T, queries);
    T *keys = queries + ROWS * PITCH, *values = keys + COLUMNS * PITCH;
    int start = a.tiles[3 * block_x()], length = a.tiles[3 * block_x() + 1], first = a.tiles[3 * block_x() + 2];
    int head = block_y(), key_head = head / (a.heads / a.key_heads), part = block_z() * OUT;
    const T* q = static_cast<const T*>(a.q) + start * a.qkv_stride + head * a.width;
    const T* k = static_cast<const T*>(a.k) + start * a.qkv_stride + key_head * a.width;
    const T* v = static_cast<const T*>(a.v) + start * a.qkv_stride + key_head * a.width;
    load_tile<T, HEAD, ROWS>(queries, q, a.qkv_stride, first, length, a.width);
    const T* own = queries + 16 * warp() * PITCH;
    int row = first + 16 * warp() + lane() / 4;
    float most[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0}, out[OUT / 8][4] = {};

    int end = first + ROWS < length ? first + ROWS : length;
    int begin = first - a.window + 1 > 0 ? first - a.window + 1 : 0;
    for (int key0 = begin; key0 < end; key0 += COLUMNS) {
        sync_block();
        load_tile<T, HEAD, COLUMNS>(keys, k, a.qkv_stride, key0, length, a.width);
        load_tile<T, HEAD, COLUMNS>(values, v, a.qkv_stride, key0, length, a.width);
        sync_block();
        if (first + 16 * warp() >= length) continue;
        float s[COLUMNS / 8][4] = {};
        UNROLL_TWICE
        for (int inner = 0; inner < a.width; inner += 16) {
            Left<T> rows = left(own + inner, PITCH);
            UNROLL
            for (int n = 0; n < COLUMNS / 8; n++)
                multiply_add(s[n], rows, right(keys + n * 8 * PITCH + inner, PITCH));
        }
        float largest[2] = {most[0], most[1]};
        UNROLL
        for (int n = 0; n < COLUMNS / 8; n++) {
            UNROLL
            for (int i = 0; i < 4; i++) {
                int key = key0 + n * 8 + lane() % 4 * 2 + i % 2;
                s[n][i] = sees(row + i / 2 * 8, key, a, length) ? score(s[n][i], a) : -INFINITY;
                largest[i / 2] = fmaxf(largest[i / 2], s[n][i]);
            }
        }
        UNROLL
        for (int half = 0; half < 2; half++) {
            largest[half] = row_most(largest[half]);
            // A row that has seen no key yet has nothing to be smaller than.
            float base = largest[half] == -INFINITY ? 0 : largest[half];
            float shrink = exponential<T>(most[half] - base);
            most[half] = largest[half];
            sum[half] *= shrink;
            UNROLL
            for (int n = 0; n < OUT / 8; n++) out[n][2 * half] *= shrink, out[n][2 * half + 1] *= shrink;
            UNROLL
            for (int n = 0; n < COLUMNS / 8; n++) {
                UNROLL
                for (int i = 2 * half; i < 2 * half + 2; i++) {
                    s[n][i] = exponential<T>(s[n][i] - base);
                    sum[half] += s[n][i];
                }
            }
        }
        UNROLL
        for (int inner = 0; inner < COLUMNS; inner += 16) {
            Left<T> shares = left_of(T(), s[inner / 8], s[inner / 8 + 1]);
            UNROLL
            for (int n = 0; n < OUT / 8; n++) {
                if (!needed<T>(part + n * 8, a)) continue;
                multiply_add(out[n], shares, right_rows(values + inner * PITCH + part + n * 8, PITCH));
            }
        }
    }
    T* o = static_cast<T*>(a.o) + start * a.o_stride + head * a.width;
    UNROLL
    for (int half = 0; half < 2; half++) {
        float whole = row_sum(sum[half]);
        int query = row + 8 * half;
        if (query >= length) continue;
        UNROLL
        for (int n = 0; n < OUT / 8; n++) {
            UNROLL
            for (int i = 0; i < 2; i++) {
                int column = part + n * 8 + lane() % 4 * 2 + i;
                if (column < a.width) o[query * a.o_stride + column] = rounded<T>(out[n][2 * half + i] / whole);
            }
        }
        if (block_z() == 0 && lane() % 4 == 0)
            a.sums[static_cast<int64_t>(head) * a.rows + start + query] = most[half] + logf(whole);
    }
}

// dq where the own rows are queries; dk and dv where they are keys. With s and p as before, and δ of each query:
// dv = Σ pᵀ do, ds = scale p (do·v − δ)(1 − (s/c)²), dq = Σ ds k, dk = Σ dsᵀ q.
template <class T, int HEAD, int WARPS, int COLUMNS, bool KEYS> DEVICE void attention_backward(const Attention& a) {
    constexpr int ROWS = 16 * WARPS, PITCH = PITCH_OF<T, HEAD>, OUT = OUTPUTS_OF<HEAD>;
    SHARED(T, own);
    T *own_d = own + ROWS * PITCH, *other = own_d + ROWS * PITCH, *other_d = other + COLUMNS * PITCH;
    float *sums = reinterpret_cast<float*>(other_d + COLUMNS * PITCH), *deltas = sums + COLUMNS;
    int start = a.tiles[3 * block_x()], length = a.tiles[3 * block_x() + 1], first = a.tiles[3 * block_x() + 2];
    int group = a.heads / a.key_heads, part = block_z() * OUT;
    int key_head = KEYS ? block_y() : block_y() / group;
    const T* k = static_cast<const T*>(a.k) + start * a.qkv_stride + key_head * a.width;
    const T* v = static_cast<const T*>(a.v) + start * a.qkv_stride + key_head * a.width;
    int first_head = KEYS ? key_head * group : block_y(), last_head = KEYS ? first_head + group : first_head + 1;
    int row = first + 16 * warp() + lane() / 4;
    float from_score[OUT / 8][4] = {}, from_share[KEYS ? OUT / 8 : 1][4] = {};

    int64_t reach = static_cast<int64_t>(first) + ROWS + (KEYS ? a.window - 1 : 0);
    int end = reach < length ? static_cast<int>(reach) : length;
    int begin = KEYS ? first : first - a.window + 1 > 0 ? first - a.window + 1 : 0;
    for (int head = first_head; head < last_head; head++) {
        const T* q = static_cast<const T*>(a.q) + start * a.qkv_stride + head * a.width;
        const T* d_o = static_cast<const T*>(a.d_o) + start * a.d_stride + head * a.width;
        const float* head_sums = a.sums + static_cast<int64_t>(head) * a.rows + start;
        const float* head_deltas = a.deltas + static_cast<int64_t>(head) * a.rows + start;
        if (head == first_head) {
            load_tile<T, HEAD, ROWS>(own, KEYS ? k : q, a.qkv_stride, first, length, a.width);
            load_tile<T, HEAD, ROWS>(own_d, KEYS ? v : d_o, KEYS ? a.qkv_stride : a.d_stride, first, length, a.width);
        }
        float row_sums[2] = {0, 0}, row_deltas[2] = {0, 0};
        UNROLL
        for (int half = 0; half < 2 && !KEYS; half++) {
            if (row + 8 * half >= length) continue;
            row_sums[half] = head_sums[row + 8 * half], row_deltas[half] = head_deltas[row + 8 * half];
        }
        for (int other0 = begin; other0 < end; other0 += COLUMNS) {
            sync_block();
            load_tile<T, HEAD, COLUMNS>(other, KEYS ? q : k, a.qkv_stride, other0, length, a.width);
            load_tile<T, HEAD, COLUMNS>(other_d, KEYS ? d_o : v, KEYS ? a.d_stride : a.qkv_stride, other0, length,
                                        a.width);
            for (int at = thread(); at < COLUMNS && KEYS; at += threads()) {
                bool inside = other0 + at < length;
                sums[at] = inside ? head_sums[other0 + at] : 0;
                deltas[at] = inside ? head_deltas[other0 + at] : 0;
            }
            sync_block();
            if (first + 16 * warp() >= length) continue;
            float s[COLUMNS / 8][4] = {}, d[COLUMNS / 8][4] = {};
            UNROLL_TWICE
            for (int inner = 0; inner < a.width; inner += 16) {
                Left<T> rows = left(own + 16 * warp() * PITCH + inner, PITCH);
                Left<T> d_rows = left(own_d + 16 * warp() * PITCH + inner, PITCH);
                UNROLL
                for (int n = 0; n < COLUMNS / 8; n++) {
                    multiply_add(s[n], rows, right(other + n * 8 * PITCH + inner, PITCH));
                    multiply_add(d[n], d_rows, right(other_d + n * 8 * PITCH + inner, PITCH));
                }
            }
            UNROLL
            for (int n = 0; n < COLUMNS / 8; n++) {
                UNROLL
                for (int i = 0; i < 4; i++) {
                    int across = n * 8 + lane() % 4 * 2 + i % 2, down = row + i / 2 * 8;
                    int query = KEYS ? other0 + across : down, key = KEYS ? down : other0 + across;
                    float capped = score(s[n][i], a), share = a.cap == 0 ? 0 : capped / a.cap;
                    float sum = KEYS ? sums[across] : row_sums[i / 2];
                    float delta = KEYS ? deltas[across] : row_deltas[i / 2];
                    float p = sees(query, key, a, length) ? exponential<T>(capped - sum) : 0;
                    s[n][i] = p;
                    d[n][i] = p * (d[n][i] - delta) * a.scale * (1 - share * share);
                }
            }
            UNROLL
            for (int inner = 0; inner < COLUMNS; inner += 16) {
                Left<T> scores = left_of(T(), d[inner / 8], d[inner / 8 + 1]);
                Left<T> shares = left_of(T(), s[inner / 8], s[inner / 8 + 1]);
                UNROLL
                for (int n = 0; n < OUT / 8; n++) {
                    int at = inner * PITCH + part + n * 8;
                    if (!needed<T>(part + n * 8, a)) continue;
                    multiply_add(from_score[n], scores, right_rows(other + at, PITCH));
                    if (KEYS) multiply_add(from_share[KEYS ? n : 0], shares, right_rows(other_d + at, PITCH));
                }
            }
        }
    }
    int64_t at_head = start * a.qkv_stride + (KEYS ? key_head : first_head) * a.width;
    UNROLL
    for (int i = 0; i < 4; i++) {
        int down = row + i / 2 * 8;
        if (down >= length) continue;
        UNROLL
        for (int n = 0; n < OUT / 8; n++) {
            int column = part + n * 8 + lane() % 4 * 2 + i % 2;
            if (column >= a.width) continue;
            int64_t at = at_head + down * a.qkv_stride + column;
            static_cast<T*>(KEYS ? a.dk : a.dq)[at] = rounded<T>(from_score[n][i]);
            if (KEYS) static_cast<T*>(a.dv)[at] = rounded<T>(from_share[KEYS ? n : 0][i]);
        }
    }
}

// Tiles as large as registers and 99 KiB of shared memory hold; `cuda/attention.rs` has the same table.
#define ATTENTION(name, T, head, warps, columns, back_warps, back_columns)                                        \
    KERNEL(attention_##name##_##head, 32 * warps, (Attention a), (attention<T, head, warps, columns>(a)))          \
    KERNEL(attention_queries_##name##_##head, 32 * back_warps, (Attention a),                                      \
           (attention_backward<T, head, back_warps, back_columns, false>(a)))                                      \
    KERNEL(attention_keys_##name##_##head, 32 * back_warps, (Attention a),                                         \
           (attention_backward<T, head, back_warps, back_columns, true>(a)))

ATTENTION(f32, float, 64, 4, 32, 4, 32)
ATTENTION(f32, float, 128, 4, 32, 4, 16)
ATTENTION(f32, float, 256, 4, 16, 2, 16)
ATTENTION(bf16, bf16, 64, 4, 64, 4, 64)
ATTENTION(bf16, bf16, 128, 4, 64, 4, 32)
ATTENTION(bf16, bf16, 256, 4, 32, 4, 16)
