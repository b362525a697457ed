// graph/dag/sampler.py, function by function: who a reader may see, what was known then, and what ties the two.
#pragma once
#include "jumps.cuh"

static_assert(EDGE == 8, "edge() writes eight ties: EDGE_FEATURES of graph/dag/sampler.py has another number");

__device__ inline i64 readers_of(const Frame& f) { return f.readers ? f.readers_n : f.control->n; }
__device__ inline i64 reader_at(const Frame& f, i64 b) { return f.readers ? f.readers[b] : f.control->first + b; }

__device__ inline const Row* row_of(const Frame& f, i64 row) { return row_at(f.rows, slot_of(row, f.capacity)); }

// Whether the reader `row` at `time` may follow to row `back`: inside its window and inside `span_us`.
__device__ inline bool visible(const Frame& f, i64 row, i64 time, i64 back, i64 span_us) {
    if (back < f.control->oldest || row - back > f.window_rows) return false;
    return time - row_of(f, back)->time <= least(span_us, f.window_us);
}

// What was known of a row when row `reader` arrived: 1 fraud, 0 legitimate, -1 nothing.
__device__ inline i32 believed(const Frame& f, const Row* x, i64 reader) {
    i32 event = x->label;
    while (event >= 0) {
        if (f.labels[event].seen_from <= reader) return f.labels[event].fraud;
        event = f.labels[event].before;
    }
    return -1;
}

// What ties neighbour `back`, reached through `role`, to its reader `row`: EDGE_FEATURES of graph/dag/sampler.py.
__device__ inline void edge(const Frame& f, i64 row, i32 role, i64 back, float* out) {
    const Row *x = row_of(f, row), *p = row_of(f, back);
    i64 ago = x->time - p->time;
    double age = (double)ago * 1e-6;
    i32 belief = believed(f, p, row);
    out[TIE_AGE] = (float)(log1p(age) / AGE_SCALE);
    out[TIE_LABELLED] = belief >= 0 ? 1.0f : 0.0f;
    out[TIE_FRAUD] = belief == 1 ? 1.0f : 0.0f;
    out[TIE_SETTLED] = belief >= 0 || ago >= f.settle_us ? 1.0f : 0.0f;
    out[TIE_AMOUNT_GAP] = (float)(log1p((double)x->amount) - log1p((double)p->amount));
    out[TIE_RECENT_DAY] = (float)exp(-age / DAY_S);
    out[TIE_RECENT_WEEK] = (float)exp(-age / (7 * DAY_S));
    float shared = 0;
    for (int r = 0; r < ROLES; r++)
        if (r != role && x->entity[r] >= 0 && x->entity[r] == p->entity[r]) shared += 1;
    out[TIE_SHARED_ROLES] = shared;
}
