// The bytes of the store, as graph/dag/store.py and graph/dag/jumps.py lay them out, and what every kernel is handed.
//
// The loader (graph/device/layout.py) gives ROLES and every other number that the CPU's kernels use too, and compares each
// offset here with NumPy's (kernel `layout`), so that a store on the device holds the same bytes as the one on the host. The sources compile as C++ too: tests/cuda_host/ runs them
// without a GPU.
#pragma once

typedef signed char i8;
typedef unsigned char u8;
typedef unsigned short u16;
typedef int i32;
typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;

struct Row {  // graph.dag.store.row_dtype
    i64 time, amount;
    u32 late;
    i32 label;
    u16 ring[4];
    u32 ring_back;
    u8 category[4];
    i32 entity[ROLES];
    u32 prev[ROLES];
};

struct Velocity {  // graph.dag.jumps.velocity_dtype; its padding is the compiler's
    u32 jump[ROLES], sum[ROLES];
    u8 k[ROLES];
};
#define VELOCITY_BYTES ((9 * ROLES + 7) / 8 * 8)  // an item in memory: NumPy pads to 8, the compiler to 4

struct Label {  // graph.dag.store.LABEL
    i64 row, seen_from, time;
    i32 before, fraud;
};

struct Control {  // graph.device.store.CONTROL: what changes from batch to batch; the head of the packed buffer
    i64 first;        // row of the batch's first payment
    i64 n;            // payments in the batch
    i64 oldest;       // row still in the buffer once the batch is in it
    i64 labels;       // label events before this batch of labels
    i64 label_n;      // label events in the batch
};

struct Frame {  // graph.device.store.FRAME: pointers and sizes, fixed until a buffer grows
    // The store. C slots.
    u8* rows;           // [C] of Row
    u8* velocity;       // [C] of Velocity, VELOCITY_BYTES each
    i64* sums;          // [P] amounts above 32 bits
    i64* span;          // [4] oldest number in use, next one; the same after this batch: oldest, how many new
    Label* labels;      // [L]
    u32* head;          // [nodes] newest row of each node, modulo HEAD_MODULUS, plus 1
    const i32* role_type;  // [R]
    i64 capacity, sums_size, window_rows, window_us, settle_us;
    // The batch as it came up. N payments at most.
    const Control* control;
    const i64* time;      // [N] journal time, us
    const i64* amount;    // [N]
    const u32* late;      // [N] ms
    const i32* label;     // [N] newest label event, -1 for none: a batch may come after labels of its own payments
    const u32* ring_back; // [N]
    const i32* entity;    // [N, R]
    const u16* ring;      // [N, 4]
    const u8* category;   // [N, 4]
    // What an append works on.
    u64* order;         // [N * R] items by node, then by number, of a batch too large to search; see bulk.cu
    i32* target;        // [N * R] place that each place's jump leads to
    i32* start;         // [N * R] place where its chain begins
    i64* low;           // [N * R] running totals of the amounts' lower and upper 32 bits, by place
    i64* high;          // [N * R]
    i32* before;        // [N * R] the item before with the same node, -1 where there is none
    i32* after;         // [N * R] the one after
    i64* sum64;         // [N * R] amount that the item's jump covers
    i64* large;         // [N * R] running number of amounts above 32 bits, this item's included
    u8* new_rows;       // [N] of Row
    u8* new_velocity;   // [N] of Velocity
    i64 batch;          // N
    // Label events as they came up.
    const i64* label_row;   // [M]
    const i32* label_fraud; // [M]
    const i64* label_time;  // [M] when each was reported, us
    i32* label_delta;       // [M]
    const Label* event;     // [M] or whole events, of a store that is followed
    // What readers are, and what is made of them. B readers, at most N.
    const i64* readers; // [B] rows; the batch's own where this is null
    const i32* pairs;   // [R, P] counterparts, see graph.dag.features
    i64 pairs_width, readers_n, depth, features;
    i64* near;          // [B, R, depth]
    float* edge;        // [B, R, depth, E]
    float* x;           // [B, features]
};

__device__ inline Row* row_at(u8* rows, i64 slot) { return (Row*)(rows + slot * (i64)sizeof(Row)); }

__device__ inline Velocity* velocity_at(u8* velocity, i64 slot) {
    return (Velocity*)(velocity + slot * (i64)VELOCITY_BYTES);
}

// Rows are never negative, and 64-bit division is slow: capacities that are powers of two take the short way.
__device__ inline i64 slot_of(i64 row, i64 capacity) {
    return (capacity & (capacity - 1)) == 0 ? (row & (capacity - 1)) : row % capacity;
}

__device__ inline i64 least(i64 a, i64 b) { return a < b ? a : b; }
__device__ inline i64 most(i64 a, i64 b) { return a > b ? a : b; }
__device__ inline i64 thread_number() { return (i64)blockIdx.x * blockDim.x + threadIdx.x; }
