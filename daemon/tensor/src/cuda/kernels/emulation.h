// CUDA's execution in ordinary C++: the threads of a block are fibers of one thread, which run until they wait for each
// other. Shared memory begins as NaN, and the order in which threads run can be turned round: a kernel that lacks a
// barrier, or reads what nobody wrote, gives other numbers then.
#pragma once
#include <string.h>

#define DEVICE static inline
#define UNROLL
#define UNROLL_TWICE
#define KERNEL(name, threads, parameters, call) \
    static void name parameters { call; }       \
    static emulation::Entry entry_##name(#name, threads, emulation::caller<decltype(&name), &name>);
#define SHARED(type, name) type* name = reinterpret_cast<type*>(emulation::shared)
#define SHARED_ARRAY(type, name, count) static type name[count]

struct bf16 {
    uint16_t bits;
};

struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};

namespace emulation {
constexpr int MOST_THREADS = 1024;

struct Barrier {
    int waiting;
    int turn;
};

// What the lanes of a warp show each other; two of it, so that one barrier does for each exchange.
struct Warp {
    Barrier barrier;
    alignas(16) unsigned char slots[2][32][64];
};

extern char* shared;
extern int current, count;
extern bool turned;
extern int64_t grid[3], block[3];
extern Barrier block_barrier;
extern Warp warps[MOST_THREADS / 32];
extern int parity[MOST_THREADS];

void wait(Barrier& barrier, int threads);

// Shows a value to the warp's other lanes, and returns what each of them shows.
template <class V> static inline const V* exchange(const V& mine) {
    static_assert(sizeof(V) <= 64, "a slot holds 64 bytes");
    Warp& warp = warps[current / 32];
    int which = parity[current] ^= 1;
    memcpy(warp.slots[which][current % 32], &mine, sizeof(V));
    wait(warp.barrier, 32);
    return reinterpret_cast<const V*>(warp.slots[which]);
}

template <class V> static inline V shown_by(const V* first, int lane) {
    V value;
    memcpy(&value, reinterpret_cast<const unsigned char*>(first) + 64 * lane, sizeof(V));
    return value;
}

using Call = void (*)(void** arguments);

struct Entry {
    Entry(const char* name, int threads, Call call);
};

template <class F, F function> struct Caller;
template <class... A, void (*function)(A...)> struct Caller<void (*)(A...), function> {
    template <int... I> struct Places {};
    template <int N, int... I> struct Make : Make<N - 1, N - 1, I...> {};
    template <int... I> struct Make<0, I...> {
        using Type = Places<I...>;
    };
    template <int... I> static void with(void** arguments, Places<I...>) {
        function(*reinterpret_cast<typename Plain<A>::Type*>(arguments[I])...);
    }
    template <class V> struct Plain {
        using Type = V;
    };
    static void run(void** arguments) { with(arguments, typename Make<sizeof...(A)>::Type()); }
};
template <class F, F function> static void caller(void** arguments) { Caller<F, function>::run(arguments); }
}  // namespace emulation

DEVICE int thread() { return emulation::current; }
DEVICE int threads() { return emulation::count; }
DEVICE int64_t block_x() { return emulation::block[0]; }
DEVICE int64_t blocks_x() { return emulation::grid[0]; }
DEVICE int block_y() { return static_cast<int>(emulation::block[1]); }
DEVICE int blocks_y() { return static_cast<int>(emulation::grid[1]); }
DEVICE int block_z() { return static_cast<int>(emulation::block[2]); }
DEVICE void sync_block() { emulation::wait(emulation::block_barrier, emulation::count); }
DEVICE void sync_warp() { emulation::wait(emulation::warps[emulation::current / 32].barrier, 32); }
DEVICE float shuffle(float value, int lane) { return emulation::shown_by(emulation::exchange(value), lane); }
DEVICE float shuffle_xor(float value, int mask) { return shuffle(value, (thread() % 32) ^ mask); }

DEVICE float number(float x) { return x; }
DEVICE float number(bf16 x) {
    uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
template <class T> static inline T rounded(float x);
template <> inline float rounded<float>(float x) { return x; }
// To the nearest, to the even one of two.
template <> inline bf16 rounded<bf16>(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return bf16{0x7fff};
    return bf16{static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}
template <class T> static inline float exponential(float x) { return expf(x); }

DEVICE uint32_t two(const bf16* from) {
    uint32_t both;
    memcpy(&both, from, 4);
    return both;
}
DEVICE uint32_t two(float low, float high) {
    return rounded<bf16>(low).bits | static_cast<uint32_t>(rounded<bf16>(high).bits) << 16;
}

DEVICE float half_of(uint32_t both, int half) {
    return number(bf16{static_cast<uint16_t>(both >> (16 * half))});
}

DEVICE void multiply_add(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    struct Both {
        uint32_t a[4], b[2];
    } mine;
    memcpy(mine.a, a, sizeof a);
    memcpy(mine.b, b, sizeof b);
    const Both* all = emulation::exchange(mine);
    int group = thread() % 32 / 4, place = thread() % 4;
    for (int index = 0; index < 4; index++) {
        int row = group + index / 2 * 8, column = 2 * place + index % 2;
        for (int k = 0; k < 16; k++) {
            Both left = emulation::shown_by(all, row % 8 * 4 + k % 8 / 2);
            Both right = emulation::shown_by(all, column * 4 + k % 8 / 2);
            d[index] += half_of(left.a[row / 8 + k / 8 * 2], k % 2) * half_of(right.b[k / 8], k % 2);
        }
    }
}

// The same product in f32 from one exchange rather than 64 shuffles, in the same order; with threads turned round the shuffles
// themselves, which must give the same bits.
DEVICE bool multiplied_at_once(float (&d)[4], const float (&a)[8], const float (&b)[4]) {
    if (emulation::turned) return false;
    struct Both {
        float a[8], b[4];
    } mine;
    memcpy(mine.a, a, sizeof a);
    memcpy(mine.b, b, sizeof b);
    const Both* all = emulation::exchange(mine);
    int group = thread() % 32 / 4, place = thread() % 4;
    for (int k = 0; k < 16; k++) {
        int holder = k % 8 / 2, term = k % 2 + k / 8 * 4;
        Both left = emulation::shown_by(all, group * 4 + holder);
        float first = emulation::shown_by(all, 2 * place * 4 + holder).b[k % 2 + k / 8 * 2];
        float second = emulation::shown_by(all, (2 * place + 1) * 4 + holder).b[k % 2 + k / 8 * 2];
        d[0] += left.a[term] * first, d[1] += left.a[term] * second;
        d[2] += left.a[term + 2] * first, d[3] += left.a[term + 2] * second;
    }
    return true;
}

DEVICE void load_transposed(uint32_t (&to)[2], const bf16* row) {
    const bf16* const* rows = emulation::exchange(row);
    int group = thread() % 32 / 4, place = thread() % 4;
    for (int matrix = 0; matrix < 2; matrix++) {
        uint32_t low = emulation::shown_by(rows, 8 * matrix + 2 * place)[group].bits;
        uint32_t high = emulation::shown_by(rows, 8 * matrix + 2 * place + 1)[group].bits;
        to[matrix] = low | high << 16;
    }
}
