// Walking back along every role of many readers: a thread for each chain, so that thousands of misses overlap.
#include "walk.cuh"

// `near` [B, R, depth]: rows, newest first, then -1.
extern "C" __global__ void walk(const Frame* frame) {
    const Frame f = *frame;
    i64 at = thread_number(), b = at / ROLES;
    if (b >= readers_of(f)) return;
    i32 role = (i32)(at - b * ROLES), here = role;
    i64 row = reader_at(f, b), oldest = most(row - f.window_rows, f.control->oldest), n = 0;
    const Row* x = row_of(f, row);
    i64 *near = f.near + at * f.depth, first = x->time - f.window_us, back = row;
    i32 node = x->entity[role];
    while (n < f.depth) {
        i64 step = (i64)x->prev[here];
        if (step == 0 || back - step < oldest) break;
        back -= step;
        x = row_of(f, back);
        if (x->time < first) break;
        near[n++] = back;
        here = role_in(x, f.role_type, role, node);
    }
    while (n < f.depth) near[n++] = -1;
}

// `edge` [B, R, depth, EDGE] for `near`; zeros where there is no neighbour.
extern "C" __global__ void edges(const Frame* frame) {
    const Frame f = *frame;
    i64 at = thread_number(), chain = at / f.depth, b = chain / ROLES;
    if (b >= readers_of(f)) return;
    float* out = f.edge + at * EDGE;
    if (f.near[at] >= 0)
        edge(f, reader_at(f, b), (i32)(chain - b * ROLES), f.near[at], out);
    else
        for (int i = 0; i < EDGE; i++) out[i] = 0;
}
