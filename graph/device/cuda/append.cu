// Append a batch of payments: the bytes that graph/dag/store.py's `_append` writes one by one, by all threads at once.
//
// An *item* is a payment's role, number b * ROLES + r. Items of one node form a chain in their order; one thread follows
// each, since a jump rests on the jumps before it. Here a micro-batch's chains are found by looking; bulk.cu sorts. New
// rows are written beside the buffer and copied into it last: until then every row that they overwrite can be read,
// exactly as when payments are appended one by one.
#include "append.cuh"

// The rows without their pointers, and which amounts above 32 bits the overwritten rows give back.
extern "C" __global__ void stage(const Frame* frame) {
    const Frame f = *frame;
    i64 b = thread_number();
    if (b >= f.control->n) return;
    i64 row = f.control->first + b;
    Row* x = row_at(f.new_rows, b);
    x->time = f.time[b];
    x->amount = f.amount[b];
    x->late = f.late[b];
    x->label = f.label[b];
    x->ring_back = f.ring_back[b];
    for (int i = 0; i < 4; i++) {
        x->ring[i] = f.ring[4 * b + i];
        x->category[i] = f.category[4 * b + i];
    }
    for (int r = 0; r < ROLES; r++) {
        x->entity[r] = f.entity[b * ROLES + r];
        x->prev[r] = 0;
    }
    if (f.velocity == 0 || row < f.capacity) return;
    const Velocity* old = velocity_at(f.velocity, slot_of(row, f.capacity));
    i64 used = 0;
    for (int r = 0; r < ROLES; r++)
        if (old->k[r] & SUM_IN_TABLE) used = most(used, (((i64)old->sum[r] - f.span[0]) & 0xFFFFFFFFLL) + 1);
    if (used) atomicMax(&f.span[2], f.span[0] + used);
}

// The chains of a micro-batch, by looking through it: no sort, so nothing that allocates or waits.
extern "C" __global__ void link_searched(const Frame* frame) {
    const Frame f = *frame;
    i64 i = thread_number(), items = f.control->n * ROLES;
    if (i >= items) return;
    i32 node = f.entity[i];
    i64 back = i - 1, ahead = i + 1;
    if (node < 0) back = -1, ahead = items;
    while (back >= 0 && f.entity[back] != node) back--;
    while (ahead < items && f.entity[ahead] != node) ahead++;
    f.before[i] = (i32)back;
    f.after[i] = ahead < items ? (i32)ahead : -1;
}

// A row and its jumps by number, from beside the buffer if it is of this batch.
__device__ inline const Row* any_row(const Frame& f, i64 row) {
    i64 b = row - f.control->first;
    return b >= 0 ? row_at(f.new_rows, b) : row_at(f.rows, slot_of(row, f.capacity));
}

__device__ inline const Velocity* any_velocity(const Frame& f, i64 row) {
    i64 b = row - f.control->first;
    return b >= 0 ? velocity_at(f.new_velocity, b) : velocity_at(f.velocity, slot_of(row, f.capacity));
}

__device__ inline i64 any_sum(const Frame& f, i64 row, i32 role) {
    i64 b = row - f.control->first;
    if (b >= 0) return f.sum64[b * ROLES + role];
    return jump_sum(any_velocity(f, row), f.sums, f.span, f.sums_size, role);
}

// graph.dag.jumps.jump_from: the jump of item (b, role), whose entity's previous row is `back` rows back, 0 for none.
__device__ inline void jump_from(const Frame& f, i64 b, i32 role, i32 node, i64 back) {
    i64 row = f.control->first + b, target = row;
    i64 amount = node >= 0 ? row_at(f.new_rows, b)->amount : 0;
    i32 k = 0;
    if (back > 0) {
        k = 1;
        target = row - back;
        i32 q = role_in(any_row(f, target), f.role_type, role, node);
        const Velocity* p = any_velocity(f, target);
        i32 kp = p->k[q] & LENGTH_BITS;
        if (kp > 0) {
            i64 middle = target - (i64)p->jump[q];
            if (row - middle < f.capacity) {
                i32 qm = role_in(any_row(f, middle), f.role_type, role, node);
                const Velocity* m = any_velocity(f, middle);
                // Myers' rule: if the two jumps ahead have the same length, jump over both, else to the row before.
                i64 beyond = middle - (i64)m->jump[qm];
                if ((m->k[qm] & LENGTH_BITS) == kp && row - beyond <= MAX_JUMP) {
                    i64 covered = added(any_sum(f, target, q), any_sum(f, middle, qm));
                    target = beyond;
                    k = kp + 1;
                    amount = added(amount, covered);
                }
            }
        }
    }
    Velocity* x = velocity_at(f.new_velocity, b);
    x->jump[role] = (u32)(row - target);
    x->sum[role] = (u32)amount;
    x->k[role] = (u8)(amount > MAX_INLINE_SUM ? k | SUM_IN_TABLE : k);
    i64 item = b * ROLES + role;
    f.sum64[item] = amount;
    f.large[item] = amount > MAX_INLINE_SUM;
    if (amount > MAX_INLINE_SUM) atomicAdd((u64*)&f.span[3], 1ULL);
}

// The second role of a self-transfer; its number in the side table is the first one's too.
__device__ inline void alias(const Frame& f, i64 b, i32 role, i32 same) {
    same_role(f, b, role, same);
    if (f.velocity == 0) return;
    f.sum64[b * ROLES + role] = f.sum64[b * ROLES + same];
    f.large[b * ROLES + role] = 0;
}

// One thread for each chain: pointers, jumps, and the node's new head.
extern "C" __global__ void chain(const Frame* frame) {
    const Frame f = *frame;
    i64 item = thread_number();
    if (item >= f.control->n * ROLES || f.before[item] >= 0) return;
    i64 first = f.control->first, b = item / ROLES;
    i32 role = (i32)(item - b * ROLES), node = f.entity[item];
    if (node < 0) {
        if (f.velocity) jump_from(f, b, role, node, 0);
        return;
    }
    i64 back = back_to_head(f, first + b, node), last = -1;
    i32 same = 0;
    while (true) {
        if (b == last)
            alias(f, b, role, same);
        else {
            if (last >= 0) back = b - last;
            row_at(f.new_rows, b)->prev[role] = (u32)back;
            if (f.velocity) jump_from(f, b, role, node, back);
            last = b, same = role;
        }
        i32 next = f.after[b * ROLES + role];
        if (next < 0) break;
        b = next / ROLES;
        role = (i32)(next - b * ROLES);
    }
    f.head[node] = (u32)((first + b) % HEAD_MODULUS + 1);
}

// In a micro-batch few amounts are as large: each counts those before it.
extern "C" __global__ void number_counted(const Frame* frame) {
    const Frame f = *frame;
    i64 item = thread_number();
    if (item >= f.control->n * ROLES || f.span[3] == 0 || !f.large[item]) return;
    i64 rank = 0;
    for (i64 i = 0; i < item; i++) rank += f.large[i];
    keep_large(f, item, rank);
}

// Into the buffer. Consecutive threads copy consecutive words.
extern "C" __global__ void commit(const Frame* frame) {
    const Frame f = *frame;
    const i64 row_words = sizeof(Row) / 4, velocity_words = f.velocity ? VELOCITY_BYTES / 4 : 0;
    i64 at = thread_number(), n = f.control->n, words = row_words + velocity_words;
    i64 b = at / words, w = at - b * words;
    if (at == 0) {  // nobody else reads the span now
        f.span[0] = most(f.span[0], f.span[2]);
        f.span[1] += f.span[3];
        f.span[3] = 0;
    }
    if (b >= n) return;
    i64 slot = slot_of(f.control->first + b, f.capacity);
    if (w < row_words)
        ((u32*)row_at(f.rows, slot))[w] = ((const u32*)row_at(f.new_rows, b))[w];
    else
        ((u32*)velocity_at(f.velocity, slot))[w - row_words] = ((const u32*)velocity_at(f.new_velocity, b))[w - row_words];
}

// Offsets and sizes of the structures, to be compared with NumPy's; `near` takes them.
extern "C" __global__ void layout(const Frame* frame) {
    const Frame f = *frame;
    Row* x = 0;
    Velocity* v = 0;
    Label* l = 0;
    i64 found[] = {(i64)sizeof(Row), (i64)&x->time, (i64)&x->amount, (i64)&x->late, (i64)&x->label, (i64)&x->ring,
                   (i64)&x->ring_back, (i64)&x->category, (i64)&x->entity, (i64)&x->prev,
                   (i64)VELOCITY_BYTES, (i64)&v->jump, (i64)&v->sum, (i64)&v->k,
                   (i64)sizeof(Label), (i64)&l->row, (i64)&l->seen_from, (i64)&l->time, (i64)&l->before,
                   (i64)&l->fraud,
                   (i64)sizeof(Frame), (i64)sizeof(Control)};
    for (int i = 0; i < (int)(sizeof(found) / sizeof(i64)); i++) f.near[i] = found[i];
}
