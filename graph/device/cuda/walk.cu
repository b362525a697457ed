// Walking back along every role of many readers: a thread for each chain, so that thousands of misses overlap.
#include "walk.cuh"

#define AT_ONCE 4  // rows written at once: a sector of the device's memory

struct alignas(16) Rows {
    i64 a, b;
};

// `near` [B, R, depth]: rows, newest first, then -1.
//
// A row's time and its pointer are asked for together, and no thread takes another way than its warp: what counts is how
// many rows are on their way at a time.
extern "C" __global__ void walk(const Frame* frame) {
    const Frame f = *frame;
    i64 at = thread_number(), b = at / ROLES;
    if (b >= readers_of(f)) return;
    const i32 role = (i32)(at - b * ROLES);
    const i64 row = reader_at(f, b), oldest = most(row - f.window_rows, f.control->oldest);
    const Row* x = row_of(f, row);
    const i64 first = x->time - f.window_us;
    const i32 node = x->entity[role];
    const bool shared = shares_type(f.role_type, role);
    i64 *near = f.near + at * f.depth, back = row, step = (i64)x->prev[role];
    bool on = true;
    for (i64 n = 0; n < f.depth; n += AT_ONCE) {
        i64 found[AT_ONCE];
        for (int i = 0; i < AT_ONCE; i++) {
            on = on && step != 0 && back - step >= oldest;
            i64 next = on ? back - step : back;
            x = row_of(f, next);
            const i64 time = x->time;
            step = (i64)x->prev[shared ? role_in(x, f.role_type, role, node) : role];
            on = on && time >= first;
            back = on ? next : back;
            found[i] = on ? next : -1;
        }
        if (f.depth % AT_ONCE == 0) {
            ((Rows*)(near + n))[0] = {found[0], found[1]};
            ((Rows*)(near + n))[1] = {found[2], found[3]};
        } else
            for (int i = 0; i < AT_ONCE && n + i < f.depth; i++) near[n + i] = found[i];
    }
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
