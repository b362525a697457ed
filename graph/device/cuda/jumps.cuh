// graph/dag/jumps.py, function by function: skew-binary jump pointers (Myers 1983) and the amounts that they cover.
#pragma once
#include "layout.cuh"

// Whether another role holds entities of the same type, so that an entity can be in either.
__device__ inline bool shares_type(const i32* role_type, i32 role) {
    bool found = false;
    for (i32 other = 0; other < ROLES; other++) found = found || (other != role && role_type[other] == role_type[role]);
    return found;
}

// In which role an earlier row holds `node`, coming from a pointer of `role`.
__device__ inline i32 role_in(const Row* x, const i32* role_type, i32 role, i32 node) {
    for (i32 other = 0; other < ROLES; other++)
        if (other != role && role_type[other] == role_type[role]) {  // else the row need not even be read
            for (i32 r = 0; r < ROLES; r++)
                if (role_type[r] == role_type[role] && x->entity[r] == node) return r;
            return role;
        }
    return role;
}

// Amount that the jump of a row in a role covers, minor units.
__device__ inline i64 jump_sum(const Velocity* v, const i64* sums, const i64* span, i64 sums_size, i32 role) {
    if (v->k[role] & SUM_IN_TABLE) {
        // The full number from its low 32 bits: it is at most 2^32 after the oldest in use.
        i64 number = span[0] + (((i64)v->sum[role] - span[0]) & 0xFFFFFFFFLL);
        return sums[number & (sums_size - 1)];
    }
    return (i64)v->sum[role];
}

// Sum of two amounts, or MAX_SUM.
__device__ inline i64 added(i64 a, i64 b) { return a <= MAX_SUM - b ? a + b : MAX_SUM; }
