// Enough of CUDA for g++ to compile the kernels in graph/cuda and gnn/cuda and to run them on the CPU: one block after
// the other, the threads of a block as fibers that change places at barriers.
#pragma once
#include <cmath>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ucontext.h>
#include <vector>

#define RINGWATCH_HOST 1
#define __global__
#define __device__
#define __forceinline__ inline
#define __noinline__
#define __restrict__
#define __launch_bounds__(...)
#define __shared__ static

struct dim3 {
    unsigned x, y, z;
};
static dim3 threadIdx, blockIdx, blockDim, gridDim;

inline int __clzll(long long value) { return __builtin_clzll((unsigned long long)value); }

template <class T> T atomicMax(T* at, T value) {
    T was = *at;
    if (value > was) *at = value;
    return was;
}
template <class T> T atomicMin(T* at, T value) {
    T was = *at;
    if (value < was) *at = value;
    return was;
}
template <class T> T atomicAdd(T* at, T value) {
    T was = *at;
    *at = was + value;
    return was;
}
template <class T> T atomicCAS(T* at, T expected, T value) {
    T was = *at;
    if (was == expected) *at = value;
    return was;
}
template <class T> T __ldg(const T* at) { return *at; }

namespace shim {
using Kernel = void (*)(const void*);
constexpr size_t STACK = 1 << 17;

struct Fiber {  // made once: making one asks the kernel of the system, going on with one does not
    ucontext_t first;
    jmp_buf at;  // where it goes on
    std::vector<char> stack = std::vector<char>(STACK);
    bool begun = false, done = true;
};
static std::vector<Fiber*> fibers;
static jmp_buf scheduler;
static Fiber* running = nullptr;
static Kernel kernel;
static const void* argument;

static void begin() {
    while (true) {
        kernel(argument);
        running->done = true;
        if (_setjmp(running->at) == 0) _longjmp(scheduler, 1);
    }
}

// Let a fiber run up to its next barrier, or its end.
static void run(unsigned thread) {
    running = fibers[thread];
    threadIdx.x = thread;
    if (_setjmp(scheduler) == 0) {
        if (running->begun) _longjmp(running->at, 1);
        running->begun = true;
        getcontext(&running->first);
        running->first.uc_stack.ss_sp = running->stack.data();
        running->first.uc_stack.ss_size = STACK;
        running->first.uc_link = nullptr;
        makecontext(&running->first, begin, 0);
        setcontext(&running->first);
    }
    running = nullptr;
}

static bool backwards;  // blocks and threads from the last to the first: what depends on their order shows

static void block(unsigned threads) {
    while (fibers.size() < threads) fibers.push_back(new Fiber);
    auto turn = [&](unsigned i) { return backwards ? threads - 1 - i : i; };
    // A kernel whose first thread meets no barrier has none: its threads are plain calls.
    fibers[turn(0)]->done = false;
    run(turn(0));
    if (fibers[turn(0)]->done) {
        for (unsigned i = 1; i < threads; i++) {
            threadIdx.x = turn(i);
            kernel(argument);
        }
        return;
    }
    for (unsigned i = 1; i < threads; i++) {
        fibers[turn(i)]->done = false;
        run(turn(i));
    }
    for (bool left = true; left;) {
        left = false;
        for (unsigned i = 0; i < threads; i++)
            if (!fibers[turn(i)]->done) {
                run(turn(i));
                left = left || !fibers[turn(i)]->done;
            }
    }
}
}  // namespace shim

static void __syncthreads() {
    if (!shim::running) {
        fprintf(stderr, "a barrier that the block's first thread does not meet\n");
        abort();
    }
    shim::Fiber* here = shim::running;
    if (_setjmp(here->at) == 0) _longjmp(shim::scheduler, 1);
}

extern "C" void shim_launch(shim::Kernel kernel, const void* argument, unsigned blocks, unsigned threads, int backwards) {
    shim::kernel = kernel;
    shim::argument = argument;
    shim::backwards = backwards;
    gridDim = {blocks, 1, 1};
    blockDim = {threads, 1, 1};
    for (unsigned b = 0; b < blocks; b++) {
        blockIdx = {backwards ? blocks - 1 - b : b, 0, 0};
        shim::block(threads);
    }
}
