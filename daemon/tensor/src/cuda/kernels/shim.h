// What the kernels are written in. NVIDIA's compiler takes them as CUDA; any C++ compiler takes the same text with the
// emulation, so that what the kernels compute can be proven where there is no GPU.
#pragma once
#include <float.h>
#include <math.h>
#include <stdint.h>

#ifdef __CUDACC__
#include <cuda_bf16.h>

using bf16 = __nv_bfloat16;

#define DEVICE __device__ __forceinline__
#define UNROLL _Pragma("unroll")
#define UNROLL_TWICE _Pragma("unroll 2")
// A kernel under a name of its own, run by at most so many threads a block.
#define KERNEL(name, threads, parameters, call) \
    extern "C" __global__ void __launch_bounds__(threads) name parameters { call; }
// The block's shared memory, of the size that the launch gives.
#define SHARED(type, name)                  \
    extern __shared__ uint4 moat_shared[]; \
    type* name = reinterpret_cast<type*>(moat_shared)
#define SHARED_ARRAY(type, name, count) __shared__ type name[count]

DEVICE int thread() { return threadIdx.x; }
DEVICE int threads() { return blockDim.x; }
DEVICE int64_t block_x() { return blockIdx.x; }
DEVICE int64_t blocks_x() { return gridDim.x; }
DEVICE int block_y() { return blockIdx.y; }
DEVICE int blocks_y() { return gridDim.y; }
DEVICE int block_z() { return blockIdx.z; }
DEVICE void sync_block() { __syncthreads(); }
DEVICE void sync_warp() { __syncwarp(); }
DEVICE float shuffle_xor(float value, int mask) { return __shfl_xor_sync(~0u, value, mask); }
DEVICE float shuffle(float value, int lane) { return __shfl_sync(~0u, value, lane); }

DEVICE float number(float x) { return x; }
DEVICE float number(bf16 x) { return __bfloat162float(x); }
template <class T> DEVICE T rounded(float x);
template <> DEVICE float rounded<float>(float x) { return x; }
template <> DEVICE bf16 rounded<bf16>(float x) { return __float2bfloat16_rn(x); }

// e^x as exactly as the numbers that it is for.
template <class T> DEVICE float exponential(float x);
template <> DEVICE float exponential<float>(float x) { return expf(x); }
template <> DEVICE float exponential<bf16>(float x) { return __expf(x); }

// Two numbers that lie side by side, the first in the low half.
DEVICE uint32_t two(const bf16* from) { return *reinterpret_cast<const uint32_t*>(from); }
DEVICE uint32_t two(float low, float high) {
    __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<uint32_t*>(&both);
}

// d += a b with a 16 x 16 by rows and b 16 x 8 by columns, divided among a warp as the PTX ISA says under
// "Matrix fragments for mma.m16n8k16 with floating point type".
DEVICE void multiply_add(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// What the emulation has a shorter way for.
DEVICE bool multiplied_at_once(float (&)[4], const float (&)[8], const float (&)[4]) { return false; }

// Two 8 x 8 matrices in shared memory, transposed on the way: lane i names row i % 8 of matrix i / 8 % 2.
DEVICE void load_transposed(uint32_t (&to)[2], const bf16* row) {
    unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(to[0]), "=r"(to[1])
                 : "r"(address)
                 : "memory");
}
#else
#include "emulation.h"
#endif

constexpr int WARP = 32;

DEVICE int lane() { return thread() % WARP; }
DEVICE int warp() { return thread() / WARP; }

DEVICE float warp_sum(float value) {
    for (int mask = WARP / 2; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
    return value;
}

// The sum over a block's threads, in one order, for all of them. All must call it.
DEVICE float block_sum(float value) {
    SHARED_ARRAY(float, parts, WARP);
    value = warp_sum(value);
    sync_block();
    if (lane() == 0) parts[warp()] = value;
    sync_block();
    float sum = 0;
    for (int part = 0; part < threads() / WARP; part++) sum += parts[part];
    return sum;
}

// The largest over a block's threads, for all of them. All must call it.
DEVICE float block_most(float value) {
    SHARED_ARRAY(float, parts, WARP);
    for (int mask = WARP / 2; mask > 0; mask /= 2) value = fmaxf(value, shuffle_xor(value, mask));
    sync_block();
    if (lane() == 0) parts[warp()] = value;
    sync_block();
    float most = parts[0];
    for (int part = 1; part < threads() / WARP; part++) most = fmaxf(most, parts[part]);
    return most;
}
