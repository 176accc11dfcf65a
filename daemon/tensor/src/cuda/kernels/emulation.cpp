// Runs the kernels on this processor: see emulation.h.
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

#include <mutex>
#include <vector>

#include "all.cu"

namespace emulation {
constexpr size_t STACK = 256 << 10;
constexpr size_t GUARD = 64;

char* shared;
int current, count;
bool turned;
int64_t grid[3], block[3];
Barrier block_barrier;
Warp warps[MOST_THREADS / 32];
int parity[MOST_THREADS];

namespace {
struct Fiber {
    ucontext_t start;
    jmp_buf at;
    bool begun, done;
};

struct Named {
    const char* name;
    int threads;
    Call call;
};

std::vector<Named>& entries() {
    static std::vector<Named> all;
    return all;
}

Fiber fibers[MOST_THREADS];
jmp_buf scheduler;
Call body;
void** given;
// Counts barriers that opened and threads that ended: where a round adds none, nobody can go on.
unsigned long moved;

__attribute__((noinline)) void yield() {
    if (_setjmp(fibers[current].at) == 0) _longjmp(scheduler, 1);
}

void fiber() {
    for (;;) {
        body(given);
        fibers[current].done = true;
        moved++;
        yield();
    }
}

__attribute__((noinline)) void resume(int place) {
    Fiber& next = fibers[place];
    current = place;
    if (_setjmp(scheduler) != 0) return;
    if (next.begun) _longjmp(next.at, 1);
    next.begun = true;
    getcontext(&next.start);
    next.start.uc_stack.ss_sp = malloc(STACK);
    next.start.uc_stack.ss_size = STACK;
    next.start.uc_link = nullptr;
    makecontext(&next.start, fiber, 0);
    setcontext(&next.start);
}

// Whether all threads of a block came to their ends.
bool run_block() {
    for (int place = 0; place < count; place++) fibers[place].done = false;
    for (;;) {
        unsigned long before = moved;
        bool all = true;
        for (int step = 0; step < count; step++) {
            int place = turned ? count - 1 - step : step;
            if (fibers[place].done) continue;
            resume(place);
            all = all && fibers[place].done;
        }
        if (all) return true;
        if (moved == before) return false;
    }
}
}  // namespace

Entry::Entry(const char* name, int threads, Call call) { entries().push_back({name, threads, call}); }

void wait(Barrier& barrier, int threads) {
    int turn = barrier.turn;
    if (++barrier.waiting == threads) {
        barrier.waiting = 0;
        barrier.turn++;
        moved++;
        return;
    }
    while (barrier.turn == turn) yield();
}
}  // namespace emulation

// 0, or what went wrong: 1 no such kernel, 2 too many threads, 3 threads that wait for ever, 4 shared memory overrun.
extern "C" int moat_emulated_launch(const char* name, const uint32_t* grid, uint32_t threads, size_t shared,
                                    void** arguments, int turned_round) {
    using namespace emulation;
    static std::mutex one;
    std::lock_guard<std::mutex> lock(one);
    const Named* found = nullptr;
    for (const Named& entry : entries())
        if (strcmp(entry.name, name) == 0) found = &entry;
    if (found == nullptr) return 1;
    if (static_cast<int>(threads) > found->threads || threads % 32 != 0) return 2;
    std::vector<uint4> room((shared + GUARD + 15) / 16 + 1);
    char* bytes = reinterpret_cast<char*>(room.data());
    emulation::shared = bytes;
    count = static_cast<int>(threads);
    turned = turned_round != 0;
    body = found->call;
    given = arguments;
    for (int axis = 0; axis < 3; axis++) emulation::grid[axis] = grid[axis];
    memset(parity, 0, sizeof parity);
    int64_t blocks = static_cast<int64_t>(grid[0]) * grid[1] * grid[2];
    for (int64_t step = 0; step < blocks; step++) {
        int64_t place = turned ? blocks - 1 - step : step;
        block[0] = place % grid[0];
        block[1] = place / grid[0] % grid[1];
        block[2] = place / grid[0] / grid[1];
        memset(bytes, 0xff, shared);
        memset(bytes + shared, 0xa5, GUARD);
        if (!run_block()) return 3;
        for (size_t over = 0; over < GUARD; over++)
            if (static_cast<unsigned char>(bytes[shared + over]) != 0xa5) return 4;
    }
    return 0;
}

// The name of the kernel at a place, or null behind the last.
extern "C" const char* moat_emulated_name(size_t place) {
    return place < emulation::entries().size() ? emulation::entries()[place].name : nullptr;
}
