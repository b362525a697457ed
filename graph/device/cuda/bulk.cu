// The chains of a large batch, by sorting: what append.cu's `chain` does for a micro-batch.
//
// The sort puts the items of a node beside each other, in their order: *place* j holds item `order[j] & 0xFFFFFFFF`. Where
// a jump leads follows from the lengths of the jumps before it alone. One thread finds that for a chain with a stack of
// at most a few dozen entries, and it looks at few of a chain's places: after a jump of length k follow 2^k - 1 rows whose
// jumps stay among themselves, as the skew-binary number of each says, so that all threads can work them out at once and
// a node that fills a batch takes hardly longer than another. What a jump covers is a difference of running totals.
#include "append.cuh"

#define DEEP 64        // of a stack; lengths rise along it, and none is above 40
#define BEFORE (-1)    // a jump that leads to a row of an earlier batch
#define ALIAS 0xFFFFFFFFULL  // the second role of a self-transfer: of no chain, and behind them all
#define KS 8           // bits of a jump's length beside a place

__device__ inline i64 item_at(const Frame& f, i64 j) { return (i64)(f.order[j] & 0xFFFFFFFFULL); }
__device__ inline u64 node_at(const Frame& f, i64 j) { return f.order[j] >> 32; }

// The first role of the item's payment that holds its entity.
__device__ inline i32 first_role(const Frame& f, i64 item) {
    i64 b = item / ROLES;
    i32 role = (i32)(item - b * ROLES);
    for (i32 r = 0; r < role; r++)
        if (f.entity[item] >= 0 && f.entity[b * ROLES + r] == f.entity[item]) return r;
    return role;
}

// The keys of the sort: (node + 1, item), so that missing roles come first.
extern "C" __global__ void keys(const Frame* frame) {
    const Frame f = *frame;
    i64 i = thread_number();
    if (i >= f.control->n * ROLES) return;
    u64 node = first_role(f, i) == (i32)(i % ROLES) ? (u64)(u32)(f.entity[i] + 1) : ALIAS;
    f.order[i] = (node << 32) | (u64)i;
    f.before[i] = 0;
}

// The amount at each place, in two halves, so that running totals of them cannot overflow.
extern "C" __global__ void amounts(const Frame* frame) {
    const Frame f = *frame;
    i64 j = thread_number();
    if (j >= f.control->n * ROLES) return;
    u64 node = node_at(f, j);
    i64 amount = node && node != ALIAS ? f.amount[item_at(f, j) / ROLES] : 0;
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
    return {(i64)v->jump[q], jump_sum(v, f.sums, f.span, f.sums_size, q), v->k[q] & LENGTH_BITS};
}

// graph.dag.jumps.jump_from for the next row of a chain, by the stack; Myers' rule on its two topmost entries.
__device__ inline Jump next_jump(const Frame& f, Stack& s, i64 row, i32 role, i32 node) {
    i64 first = f.control->first;
    if (s.depth >= 2) {
        int p = s.depth - 1, m = p - 1;
        i64 beyond = m ? first + s.b[m - 1] : s.below;
        if (s.k[p] == s.k[m] && (m || (s.more && row - beyond <= MAX_JUMP))) {
            s.depth -= 2;
            return {m ? s.place[m - 1] : BEFORE, beyond, s.k[p] + 1};
        }
        return {s.place[p], first + s.b[p], 1};
    }
    if (s.depth == 1) {
        if (s.more && s.k[0] > 0 && row - s.below < f.capacity) {
            Passed m = earlier(f, s.below, role, node);
            if (m.k == s.k[0] && row - (s.below - m.jump) <= MAX_JUMP) {
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
        if (m.k == p.k && row - (middle - m.jump) <= MAX_JUMP) {
            s.covered = added(p.amount, m.amount);
            s.below = middle - m.jump;
            return {BEFORE, s.below, p.k + 1};
        }
    }
    return {BEFORE, s.below, 1};
}

// The length of the t-th jump of a chain that begins anew: the smallest digit of t as a skew-binary number.
__device__ inline i32 skew(i64 t) {
    i32 k = 0;
    while (t > 0) {
        k = 63 - __clzll(t + 1);
        t -= (1LL << k) - 1;
    }
    return k;
}

// Finds the jump of place j, and leaves it where `fill` looks: `before` marks the place, `target` and `low` say where the
// jump leads, `high` what it covers of earlier batches, `large` its length and the place that its followers count from.
__device__ inline i32 decide(const Frame& f, Stack& s, i64 begin, i64 j, i64 base, i32 node) {
    i64 item = item_at(f, j), b = item / ROLES;
    Jump to = next_jump(f, s, f.control->first + b, (i32)(item - b * ROLES), node);
    s.place[s.depth] = j;
    s.b[s.depth] = b;
    s.k[s.depth] = to.k;
    s.depth++;
    f.before[j] = 1;
    f.target[j] = (i32)to.place;
    f.start[j] = (i32)begin;
    f.low[j] = to.row;
    f.high[j] = to.k && to.place == BEFORE ? s.covered : 0;
    f.large[j] = ((to.k == 1 ? base : j) << KS) | to.k;
    return to.k;
}

// One thread for each chain: the pointer that leaves the batch, and the jumps that may.
extern "C" __global__ void chain_sorted(const Frame* frame) {
    const Frame f = *frame;
    i64 begin = thread_number(), items = f.control->n * ROLES;
    if (begin >= items) return;
    u64 key = node_at(f, begin);
    if (key == 0 || key == ALIAS || (begin > 0 && node_at(f, begin - 1) == key)) return;
    i32 node = (i32)key - 1;
    i64 item = item_at(f, begin), b = item / ROLES, row = f.control->first + b;
    i64 back = back_to_head(f, row, node);
    row_at(f.new_rows, b)->prev[item - b * ROLES] = (u32)back;
    if (f.velocity == 0) return;
    Stack s;
    s.depth = 0;
    s.covered = 0;
    s.more = back > 0;
    s.below = row - back;
    i64 base = begin;  // the place whose jump of length k the next 2^k - 1 rest on
    i32 k = decide(f, s, begin, begin, base, node), found = k;
    bool rests = false;  // whether its first follower is known to rest on it
    while (k > 0) {      // those of a chain's first row all do
        i64 next = rests ? base + (1LL << k) : base + 1;
        if (next >= items || node_at(f, next) != key) return;
        if (rests && k > 1) {  // the last of its followers is as long as it; it takes the place of the first
            s.place[s.depth - 1] = next - 1;
            s.b[s.depth - 1] = item_at(f, next - 1) / ROLES;
            s.k[s.depth - 1] = k;
        }
        i64 follows = rests ? next - 1 : base;  // what the next one rests on, if it does
        found = decide(f, s, begin, next, follows, node);
        base = found > 1 ? next : follows;
        k = found > 1 ? found : k;
        rests = found == 1;
    }
}

// The places that `chain_sorted` has decided, one after the other, into `after`; `before` holds their running count.
extern "C" __global__ void decided(const Frame* frame) {
    const Frame f = *frame;
    i64 j = thread_number();
    if (j < f.control->n * ROLES && f.before[j] != (j ? f.before[j - 1] : 0)) f.after[f.before[j] - 1] = (i32)j;
}

// Pointers and jumps of all places, and each node's new head.
extern "C" __global__ void fill(const Frame* frame) {
    const Frame f = *frame;
    i64 j = thread_number(), items = f.control->n * ROLES, first = f.control->first;
    if (j >= items) return;
    u64 key = node_at(f, j);
    if (key == ALIAS) return;
    i64 item = item_at(f, j), b = item / ROLES;
    i32 role = (i32)(item - b * ROLES);
    if (key && j > 0 && node_at(f, j - 1) == key)
        row_at(f.new_rows, b)->prev[role] = (u32)(b - item_at(f, j - 1) / ROLES);
    if (key && (j + 1 == items || node_at(f, j + 1) != key)) f.head[key - 1] = (u32)((first + b) % HEAD_MODULUS + 1);
    if (f.velocity == 0) return;
    i64 jump = 0, covered = 0;
    i32 k = 0;
    if (key == 0) {  // a missing role is a chain of its own
        f.target[j] = BEFORE;
        f.start[j] = (i32)j;
    } else {
        i64 at = f.after[f.before[j] - 1];
        if (at == j) {
            k = (i32)(f.large[j] & ((1 << KS) - 1));
            jump = first + b - f.low[j];
            covered = f.high[j];
        } else {
            k = skew(j - (f.large[at] >> KS));
            i64 to = j - ((1LL << k) - 1);
            jump = b - item_at(f, to) / ROLES;
            f.target[j] = (i32)to;
        }
    }
    Velocity* v = velocity_at(f.new_velocity, b);
    v->jump[role] = (u32)jump;
    v->k[role] = (u8)k;
    f.sum64[item] = covered;
}

// What the jump at each place covers: from after its target up to itself, and what earlier batches add.
extern "C" __global__ void sums_sorted(const Frame* frame) {
    const Frame f = *frame;
    i64 j = thread_number();
    if (j >= f.control->n * ROLES) return;
    i64 item = item_at(f, j), b = item / ROLES, from = f.target[j];
    i32 role = (i32)(item - b * ROLES);
    if (node_at(f, j) == ALIAS) {
        f.large[item] = 0;
        return;
    }
    Velocity* v = velocity_at(f.new_velocity, b);
    if (from == BEFORE) from = (i64)f.start[j] - 1;
    i64 low = f.low[j] - (from >= 0 ? f.low[from] : 0), high = f.high[j] - (from >= 0 ? f.high[from] : 0);
    high += low >> 32;
    i64 amount = high >> 31 ? MAX_SUM : (high << 32) + (low & 0xFFFFFFFFLL);
    if (v->k[role] == 0) amount = node_at(f, j) ? f.amount[b] : 0;  // the first of a chain covers itself
    amount = added(amount, f.sum64[item]);
    bool large = amount > MAX_INLINE_SUM;
    f.sum64[item] = amount;
    f.large[item] = large;
    v->sum[role] = (u32)amount;
    if (large) {
        v->k[role] |= SUM_IN_TABLE;
        atomicAdd((u64*)&f.span[3], 1ULL);
    }
}

// Numbers of the large amounts; `large` holds running counts of them by now.
extern "C" __global__ void number_summed(const Frame* frame) {
    const Frame f = *frame;
    i64 item = thread_number();
    if (item >= f.control->n * ROLES || f.span[3] == 0) return;
    if (f.large[item] != (item ? f.large[item - 1] : 0)) keep_large(f, item, f.large[item] - 1);
}

// The second roles of self-transfers, once the first ones are done.
extern "C" __global__ void aliases(const Frame* frame) {
    const Frame f = *frame;
    i64 item = thread_number();
    if (item >= f.control->n * ROLES) return;
    i64 b = item / ROLES;
    i32 role = (i32)(item - b * ROLES), same = first_role(f, item);
    if (same != role) same_role(f, b, role, same);
}
