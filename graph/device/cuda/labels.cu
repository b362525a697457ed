// Label events, in order: graph/dag/rows.py's `label` by all threads at once. Events of rows that have left the buffer
// are taken out by the host.
#include "layout.cuh"

// First: which of them were reported before another label of their row that is there already, or comes before them.
extern "C" __global__ void label_judged(const Frame* frame) {
    const Frame f = *frame;
    i64 i = thread_number();
    if (i >= f.control->label_n) return;
    i64 row = f.label_row[i], time = f.label_time[i];
    i32 newest = row_at(f.rows, slot_of(row, f.capacity))->label;
    bool superseded = newest >= 0 && time < f.labels[newest].time;
    for (i64 j = 0; j < i && !superseded; j++) superseded = f.label_row[j] == row && time < f.label_time[j];
    f.label_delta[i] = superseded ? SUPERSEDED : 0;
}

// Where an event goes: those that are superseded take no place.
__device__ inline i64 label_place(const Frame& f, i64 i) {
    i64 place = f.control->labels;
    for (i64 j = 0; j < i; j++) place += f.label_delta[j] != SUPERSEDED;
    return place;
}

extern "C" __global__ void label(const Frame* frame) {
    const Frame f = *frame;
    i64 i = thread_number(), n = f.control->label_n;
    if (i >= n || f.label_delta[i] == SUPERSEDED) return;
    i64 row = f.label_row[i];
    // A row labelled twice in one batch is rare, and batches are small: looking beats sorting.
    i64 earlier = i - 1;
    while (earlier >= 0 && (f.label_row[earlier] != row || f.label_delta[earlier] == SUPERSEDED)) earlier--;
    const Row* x = row_at(f.rows, slot_of(row, f.capacity));
    i32 before = earlier >= 0 ? (i32)label_place(f, earlier) : x->label;
    i32 was = earlier >= 0 ? f.label_fraud[earlier] : before >= 0 ? f.labels[before].fraud : 0;
    Label* out = &f.labels[label_place(f, i)];
    out->row = row;
    out->seen_from = f.control->first;  // the first row that is appended after it
    out->time = f.label_time[i];
    out->before = before;
    out->fraud = f.label_fraud[i];
    f.label_delta[i] = f.label_fraud[i] - was;
}

// Afterwards: each row points to its newest event.
extern "C" __global__ void label_newest(const Frame* frame) {
    const Frame f = *frame;
    i64 i = thread_number();
    if (i < f.control->label_n && f.label_delta[i] != SUPERSEDED)
        atomicMax(&row_at(f.rows, slot_of(f.label_row[i], f.capacity))->label, (i32)label_place(f, i));
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
