// The network's parameters and what its kernels are handed; sizes are given by the loader (gnn/device/net.py).
//
// ROLES, EDGE: the graph's. FEATURES, WIDTH, HEADS, HIDDEN, NEIGHBOURS, LAYERS, BIAS_HIDDEN, HEAD_HIDDEN,
// CATEGORIES, CATEGORY_WIDTH, BUCKETS, EDGE_SCALE: the model's. CONTEXT, LABELS, ROLE_GROUPS: bits of evidence that can be
// left out (gnn/model/groups.py). NETWORK_THREADS: of a block. KV_BITS: keys and values are float32 (32), or, in steps of
// `kv_scale`, half precision (16) or whole numbers (8).
#pragma once
#include "layout.cuh"

#define READ (WIDTH + (HEADS + 1) * EDGE + 1)
#define FULL (FEATURES + CATEGORIES * CATEGORY_WIDTH)
#define SIZE (WIDTH / HEADS)

// A half-precision number. No header of CUDA's is needed, and so none that a run-time compiler may lack.
struct Half {
    u16 bits;
    __device__ inline operator float() const {
#ifdef RINGWATCH_HOST
        _Float16 value;
        memcpy(&value, &bits, sizeof value);
        return (float)value;
#else
        float value;
        asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
        return value;
#endif
    }
};

__device__ inline Half half_of(float value) {
    Half half;
#ifdef RINGWATCH_HOST
    _Float16 rounded = (_Float16)value;
    memcpy(&half.bits, &rounded, sizeof rounded);
#else
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half.bits) : "f"(value));
#endif
    return half;
}

#if KV_BITS == 8
typedef i8 Kv;
#elif KV_BITS == 16
typedef Half Kv;
#else
typedef float Kv;
#endif
#define KV_WORDS (2 * WIDTH * (int)sizeof(Kv) / 16)  // of 16 bytes, of one row's keys and values

struct alignas(16) Word {
    u32 part[4];
};

struct Net {
    const Frame* graph;
    // gnn.model.network.Weights
    const float* mean;
    const float* scale;
    const float* category;
    const float* enc_w1;
    const float* enc_b1;
    const float* enc_w2;
    const float* enc_b2;
    const float* kv_w;
    const float* kv_b;
    const float* kv_scale;
    const float* q_w;
    const float* q_b;
    const float* bias_w1;
    const float* bias_b1;
    const float* bias_w2;
    const float* bias_b2;
    const float* mix_w;
    const float* mix_b;
    const float* out_w;
    const float* out_b;
    const float* head_w1;
    const float* head_b1;
    const float* head_w2;
    const float* head_b2;
    // gnn.model.trees.Trees
    const i32* tree_root;
    const i32* tree_feature;
    const float* tree_threshold;
    const i32* tree_left;
    const i32* tree_right;
    const float* tree_value;
    const float* tree_base;
    i64 trees;           // how many
    const i32* groups;   // [FEATURES + 1 + E] group of all that the head reads
    const i32* shift;    // [M] graph.dag.memory.Layout
    const i32* mask;     // [M]
    const i64* masks;    // [G] groups to leave out, bit by bit; null for none
    i64 variants;        // G: each reader is scored so many times
    i64 layer;           // the layer that `attend` runs
    i64 write;           // whether keys and values are written: the readers are new rows
    Kv* cache;           // [LAYERS, C, 2 * WIDTH]
    Kv* written;         // [LAYERS, B, 2 * WIDTH] the same for the host
    float* h;            // [B * G, WIDTH]
    float* logit;        // [B * G]
};

template <int N>
struct alignas(N * 4) Floats {
    float v[N];
};

// Floats side by side, asked for in one instruction.
template <int N>
__device__ inline Floats<N> floats(const float* at) {
    return *(const Floats<N>*)at;
}

// The same of weights, which nothing writes meanwhile.
template <int N>
__device__ inline Floats<N> weights(const float* at) {
#ifdef RINGWATCH_HOST
    return floats<N>(at);
#else
    Floats<N> out;
    if constexpr (N == 4) {
        const float4 four = __ldg((const float4*)at);
        out.v[0] = four.x, out.v[1] = four.y, out.v[2] = four.z, out.v[3] = four.w;
    } else
        for (int i = 0; i < N; i++) out.v[i] = __ldg(at + i);
    return out;
#endif
}

__device__ inline float weight(const float* at) { return weights<1>(at).v[0]; }

// 16 bytes from the device's memory to the block's, without waiting for them: `arrived` does.
__device__ inline void bring(Word* to, const Word* from) {
#ifdef RINGWATCH_HOST
    *to = *from;
#else
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((u32)__cvta_generic_to_shared(to)), "l"(from));
#endif
}

// Wait for all that this thread has asked for; a barrier then makes it everybody's.
__device__ inline void arrived() {
#ifndef RINGWATCH_HOST
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

__device__ constexpr int at_once(int n) { return n % 4 ? 1 : 4; }

// out[t][o] = b[o] + sum over i of x[t][i] w[i][o], in the order of i whatever the tile: a score's bits do not depend
// on its batch. A thread keeps one column of `w` for several rows.
template <int IN, int OUT, int TILE, int X, int Y>
__device__ inline void dense(const float (&x)[TILE][X], const float* w, const float* b, float (&out)[TILE][Y], bool relu) {
    constexpr int GROUPS = OUT < NETWORK_THREADS ? NETWORK_THREADS / OUT : 1;
    constexpr int EACH = (TILE + GROUPS - 1) / GROUPS, STEP = at_once(X);
    for (int o = threadIdx.x % (OUT < NETWORK_THREADS ? OUT : NETWORK_THREADS); o < OUT; o += NETWORK_THREADS) {
        int first = OUT < NETWORK_THREADS ? (int)threadIdx.x / OUT * EACH : 0;
        if (first >= TILE) break;
        float sum[EACH];
        for (int t = 0; t < EACH; t++) sum[t] = weight(b + o);
        int i = 0;
        for (; i + STEP <= IN; i += STEP) {
            float wi[STEP];
            for (int j = 0; j < STEP; j++) wi[j] = weight(w + (i + j) * OUT + o);
            for (int t = 0; t < EACH; t++)
                if (TILE % EACH == 0 || first + t < TILE) {
                    Floats<STEP> xi = floats<STEP>(&x[first + t][i]);
                    for (int j = 0; j < STEP; j++) sum[t] += xi.v[j] * wi[j];
                }
        }
        for (; i < IN; i++)
            for (int t = 0; t < EACH; t++)
                if (TILE % EACH == 0 || first + t < TILE) sum[t] += x[first + t][i] * weight(w + i * OUT + o);
        for (int t = 0; t < EACH; t++)
            if (TILE % EACH == 0 || first + t < TILE) out[first + t][o] = relu ? fmaxf(sum[t], 0.0f) : sum[t];
    }
}

// N of the numbers of a row's keys and values, from the i-th on.
template <int N>
__device__ inline Floats<N> kept_at(const Word* row, int i) {
#if KV_BITS == 32
    return floats<N>((const float*)row + i);
#else
    Floats<N> out;
    constexpr int BITS = KV_BITS, PER = 32 / BITS;
    for (int j = 0; j < N; j++) {
        u32 word = row[(i + j) / (4 * PER)].part[(i + j) / PER % 4] >> ((i + j) % PER * BITS);
#if KV_BITS == 8
        out.v[j] = (float)(i8)word;
#else
        out.v[j] = (float)Half{(u16)word};
#endif
    }
    return out;
#endif
}

__device__ inline Kv rounded(float value, float scale) {
#if KV_BITS == 16
    return half_of(fminf(fmaxf(value / scale, -MAX_FLOAT16), MAX_FLOAT16));
#elif KV_BITS == 8
    return (Kv)fminf(fmaxf(rintf(value / scale), -MAX_INT8_STEP), MAX_INT8_STEP);
#else
    return value;
#endif
}

// What later rows read of `h` in a layer, into the cache and beside it.
template <int TILE>
__device__ inline void keep(const Net& w, const Frame& f, i64 layer, i64 first, i64 n, const float (&h)[TILE][WIDTH],
                            float (&kv)[TILE][2 * WIDTH]) {
    dense<WIDTH, 2 * WIDTH>(h, w.kv_w + layer * WIDTH * 2 * WIDTH, w.kv_b + layer * 2 * WIDTH, kv, false);
    __syncthreads();
    i64 room = f.readers ? f.readers_n : f.batch;
    for (int i = threadIdx.x; i < TILE * 2 * WIDTH; i += NETWORK_THREADS) {
        int t = i / (2 * WIDTH), o = i % (2 * WIDTH);
        if (first + t >= n) break;
        i64 row = f.readers ? f.readers[first + t] : f.control->first + first + t;
        Kv step = rounded(kv[t][o], w.kv_scale[layer * 2 * WIDTH + o]);
        w.cache[(layer * f.capacity + slot_of(row, f.capacity)) * 2 * WIDTH + o] = step;
        if (w.written) w.written[(layer * room + first + t) * 2 * WIDTH + o] = step;
    }
}
