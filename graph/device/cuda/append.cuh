// What both ways of appending share.
#pragma once
#include "jumps.cuh"

__device__ inline bool holds(const Row* x, i32 node) {
    for (int r = 0; r < ROLES; r++)
        if (x->entity[r] == node) return true;
    return false;
}

// How far before `row` the node's newest row of earlier batches is, 0 where the buffer has none.
__device__ inline i64 back_to_head(const Frame& f, i64 row, i32 node) {
    i64 head = (i64)f.head[node], back = head ? (row % HEAD_MODULUS + 1 - head + HEAD_MODULUS) % HEAD_MODULUS : 0;
    // Already overwritten; or the head of a number's last bearer, from 2^32 rows ago.
    if (back >= f.capacity || (back && !holds(row_at(f.rows, slot_of(row - back, f.capacity)), node))) return 0;
    return back;
}

// A self-transfer moves its head once: its second role holds what the first does.
__device__ inline void same_role(const Frame& f, i64 b, i32 role, i32 same) {
    Row* x = row_at(f.new_rows, b);
    x->prev[role] = x->prev[same];
    if (f.velocity == 0) return;
    Velocity* v = velocity_at(f.new_velocity, b);
    v->jump[role] = v->jump[same];
    v->sum[role] = v->sum[same];
    v->k[role] = v->k[same];
}

// Into the side table with an amount above 32 bits, the `rank`-th of the batch in the order of items.
__device__ inline void keep_large(const Frame& f, i64 item, i64 rank) {
    i64 number = f.span[1] + rank, b = item / ROLES;
    i32 role = (i32)(item - b * ROLES), node = f.entity[item];
    f.sums[number & (f.sums_size - 1)] = f.sum64[item];
    Velocity* v = velocity_at(f.new_velocity, b);
    v->sum[role] = (u32)number;
    for (i32 r = role + 1; r < ROLES; r++)  // the other role of a self-transfer
        if (f.entity[b * ROLES + r] == node) v->sum[r] = (u32)number;
}
