// The chains of a large batch, by sorting: what append.cu's `chain` does for a micro-batch.
//
// The sort puts the items of a node beside each other, in their order: *place* j holds item `order[j] & 0xFFFFFFFF`. Where
// a jump leads follows from the lengths of the jumps before it alone, so one thread finds that for a chain with a stack
// of at most a few dozen entries and hardly a read. What a jump covers then is a difference of running totals, which all
// threads take at once. A node that fills much of a batch is what takes longest.
#include "append.cuh"

#define DEEP 64        // of a stack; lengths rise along it, and none is above 40
#define BEFORE (-1)    // a jump that leads to a row of an earlier batch

__device__ inline i64 item_at(const Frame& f, i64 j) { return (i64)(f.order[j] & 0xFFFFFFFFULL); }
__device__ inline u64 node_at(const Frame& f, i64 j) { return f.order[j] >> 32; }

// The keys of the sort: (node + 1, item), so that missing roles come first.
extern "C" __global__ void keys(const Frame* frame) {
    const Frame f = *frame;
    i64 i = thread_number();
    if (i < f.control->n * ROLES) f.order[i] = ((u64)(u32)(f.entity[i] + 1) << 32) | (u64)i;
}

// The amount at each place, in two halves, so that running totals of them cannot overflow; a self-transfer counts once.
extern "C" __global__ void amounts(const Frame* frame) {
    const Frame f = *frame;
    i64 j = thread_number();
    if (j >= f.control->n * ROLES) return;
    i64 b = item_at(f, j) / ROLES;
    bool again = j > 0 && node_at(f, j - 1) == node_at(f, j) && item_at(f, j - 1) / ROLES == b;
    i64 amount = node_at(f, j) && !again ? f.amount[b] : 0;
    f.low[j] = amount & 0xFFFFFFFFLL;
    f.high[j] = amount >> 32;
}

struct Stack {  // of the rows that jumps may lead to: those of this batch, then those of earlier ones, read as needed
    i64 place[DEEP], b[DEEP];
    i32 k[DEEP];
    int depth;
    bool more;           // there is a row of an earlier batch below
    i64 below, covered;  // it, and the amount from it to the node's newest row of an earlier batch
};

struct Jump {
    i64 place, row;  // where it leads: a place, or BEFORE and a row
    i32 k;
};

struct Passed {
    i64 jump, amount;
    i32 k;
};

// The jump of a row of an earlier batch.
__device__ inline Passed earlier(const Frame& f, i64 row, i32 role, i32 node) {
    i64 slot = slot_of(row, f.capacity);
    i32 q = role_in(row_at(f.rows, slot), f.role_type, role, node);
    const Velocity* v = velocity_at(f.velocity, slot);
    return {(i64)v->jump[q], jump_sum(v, f.sums, f.span, f.sums_size, q), v->k[q] & (LARGE - 1)};
}

// graph.jumps.jump_from for the next row of a chain, by the stack; Myers' rule on its two topmost entries.
__device__ inline Jump next_jump(const Frame& f, Stack& s, i64 row, i32 role, i32 node) {
    i64 first = f.control->first;
    if (s.depth >= 2) {
        int p = s.depth - 1, m = p - 1;
        i64 beyond = m ? first + s.b[m - 1] : s.below;
        if (s.k[p] == s.k[m] && (m || (s.more && row - beyond <= MOST_BACK))) {
            s.depth -= 2;
            return {m ? s.place[m - 1] : BEFORE, beyond, s.k[p] + 1};
        }
        return {s.place[p], first + s.b[p], 1};
    }
    if (s.depth == 1) {
        if (s.more && s.k[0] > 0 && row - s.below < f.capacity) {
            Passed m = earlier(f, s.below, role, node);
            if (m.k == s.k[0] && row - (s.below - m.jump) <= MOST_BACK) {
                s.covered = added(s.covered, m.amount);
                s.below -= m.jump;
                s.depth = 0;
                return {BEFORE, s.below, m.k + 1};
            }
        }
        return {s.place[0], first + s.b[0], 1};
    }
    if (!s.more) return {BEFORE, row, 0};
    Passed p = earlier(f, s.below, role, node);
    i64 middle = s.below - p.jump;
    if (p.k > 0 && row - middle < f.capacity) {
        Passed m = earlier(f, middle, role, node);
        if (m.k == p.k && row - (middle - m.jump) <= MOST_BACK) {
            s.covered = added(p.amount, m.amount);
            s.below = middle - m.jump;
            return {BEFORE, s.below, p.k + 1};
        }
    }
    return {BEFORE, s.below, 1};
}

// One thread for each chain: pointers, where jumps lead, and the node's new head.
extern "C" __global__ void chain_sorted(const Frame* frame) {
    const Frame f = *frame;
    i64 j = thread_number(), items = f.control->n * ROLES, first = f.control->first;
    if (j >= items || (node_at(f, j) && j > 0 && node_at(f, j - 1) == node_at(f, j))) return;
    u64 key = node_at(f, j);
    i32 node = (i32)key - 1;
    Stack s;
    s.depth = 0;
    s.covered = 0;
    i64 begin = j, last = -1, back = 0, b = 0;
    Jump to = {BEFORE, 0, 0};
    for (; j < items && node_at(f, j) == key; j++) {
        i64 item = item_at(f, j);
        b = item / ROLES;
        i32 role = (i32)(item - b * ROLES);
        if (j == begin) {
            back = key ? back_to_head(f, first + b, node) : 0;
            s.more = back > 0;
            s.below = first + b - back;
        } else if (b != last)
            back = b - last;
        row_at(f.new_rows, b)->prev[role] = (u32)back;
        if (f.velocity) {
            if (b != last) {  // else a self-transfer, whose roles have the same jump
                to = next_jump(f, s, first + b, role, node);
                s.place[s.depth] = j;
                s.b[s.depth] = b;
                s.k[s.depth] = to.k;
                s.depth++;
            }
            Velocity* v = velocity_at(f.new_velocity, b);
            v->jump[role] = (u32)(first + b - to.row);
            v->k[role] = (u8)to.k;
            f.target[j] = (i32)to.place;
            f.sum64[item] = to.k && to.place == BEFORE ? s.covered : 0;
            f.start[j] = (i32)begin;
        }
        last = b;
        if (!key) break;  // a missing role is a chain of its own
    }
    if (key) f.head[node] = (u32)((first + b) % HEAD_SPAN + 1);
}

// What the jump at each place covers: from after its target up to itself, and what earlier batches add.
extern "C" __global__ void sums_sorted(const Frame* frame) {
    const Frame f = *frame;
    i64 j = thread_number();
    if (j >= f.control->n * ROLES) return;
    i64 item = item_at(f, j), b = item / ROLES, from = f.target[j];
    i32 role = (i32)(item - b * ROLES);
    Velocity* v = velocity_at(f.new_velocity, b);
    bool again = j > 0 && node_at(f, j) && node_at(f, j - 1) == node_at(f, j) && item_at(f, j - 1) / ROLES == b;
    if (from == BEFORE) from = (i64)f.start[j] - 1;
    i64 low = f.low[j] - (from >= 0 ? f.low[from] : 0), high = f.high[j] - (from >= 0 ? f.high[from] : 0);
    high += low >> 32;
    i64 amount = high >> 31 ? MOST : (high << 32) + (low & 0xFFFFFFFFLL);
    if (v->k[role] == 0) amount = node_at(f, j) ? f.amount[b] : 0;  // the first of a chain covers itself
    amount = added(amount, f.sum64[item]);
    bool large = amount > SUM_MOST;
    f.sum64[item] = amount;
    f.large[item] = large && !again;
    v->sum[role] = (u32)amount;
    if (large) v->k[role] |= LARGE;
    if (large && !again) atomicAdd((u64*)&f.span[3], 1ULL);
}

// Numbers of the large amounts; `large` holds running counts of them by now.
extern "C" __global__ void number_summed(const Frame* frame) {
    const Frame f = *frame;
    i64 item = thread_number();
    if (item >= f.control->n * ROLES || f.span[3] == 0) return;
    if (f.large[item] != (item ? f.large[item - 1] : 0)) keep_large(f, item, f.large[item] - 1);
}
