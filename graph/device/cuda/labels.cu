// Label events, in order: graph/dag/store.py's `_label` by all threads at once. Events of rows that have left the buffer
// are taken out by the host.
#include "layout.cuh"

extern "C" __global__ void label(const Frame* frame) {
    const Frame f = *frame;
    i64 i = thread_number(), n = f.control->label_n, start = f.control->labels;
    if (i >= n) return;
    i64 row = f.label_row[i];
    // A row labelled twice in one batch is rare, and batches are small: looking beats sorting.
    i64 earlier = i - 1;
    while (earlier >= 0 && f.label_row[earlier] != row) earlier--;
    const Row* x = row_at(f.rows, slot_of(row, f.capacity));
    i32 before = earlier >= 0 ? (i32)(start + earlier) : x->label;
    i32 was = earlier >= 0 ? f.label_fraud[earlier] : before >= 0 ? f.labels[before].fraud : 0;
    Label* out = &f.labels[start + i];
    out->row = row;
    out->seen_from = f.control->first;  // the first row that is appended after it
    out->before = before;
    out->fraud = f.label_fraud[i];
    f.label_delta[i] = f.label_fraud[i] - was;
}

// Afterwards: each row points to its newest event.
extern "C" __global__ void label_newest(const Frame* frame) {
    const Frame f = *frame;
    i64 i = thread_number();
    if (i < f.control->label_n)
        atomicMax(&row_at(f.rows, slot_of(f.label_row[i], f.capacity))->label, (i32)(f.control->labels + i));
}

// Events as another store has them; rows that are not here, any more or yet, are left alone.
extern "C" __global__ void label_taken(const Frame* frame) {
    const Frame f = *frame;
    i64 i = thread_number();
    if (i >= f.control->label_n) return;
    Label event = f.event[i];
    f.labels[f.control->labels + i] = event;
    if (event.row >= f.control->oldest && event.row < f.control->first)
        atomicMax(&row_at(f.rows, slot_of(event.row, f.capacity))->label, (i32)(f.control->labels + i));
}

// Rows whose newest event has moved; `label_fraud` holds where to.
extern "C" __global__ void label_moved(const Frame* frame) {
    const Frame f = *frame;
    i64 i = thread_number();
    if (i < f.control->label_n) row_at(f.rows, slot_of(f.label_row[i], f.capacity))->label = f.label_fraud[i];
}

// Nodes whose numbers were given back have no newest row; `label_row` holds them.
extern "C" __global__ void forget(const Frame* frame) {
    const Frame f = *frame;
    i64 i = thread_number();
    if (i < f.control->label_n) f.head[f.label_row[i]] = 0;
}
