// graph/dag/features.py, function by function: a block of one warp for each entity of each reader.
//
// Where the CPU walks an entity's last 256 payments one after the other, this finds them in some twenty steps: a jump
// pointer of length k leads 2^k - 1 payments back, so both ends of every pointer have known places in the chain, and
// the threads follow all pointers found so far at once. Then each payment is read once, by all threads, into the block's
// memory, and features are made of what is there. Logarithms are one function that is called: put in place wherever one
// is taken, they make a kernel that is too large for the cache of instructions.
#include "walk.cuh"

#define THREADS 32
#define TABLE (2 * DEPTH)
#define PAIRS (ROLES > 1 ? ROLES - 1 : 1)
#define LIMB 24     // bits of an amount that 256 of are added up in 32
#define LIMBS 3

// What is unrolled below, by place; graph/dag/features.py has the names.
static_assert(WINDOWS == 4, "window_us() knows four windows");
static_assert(WINDOWS < 8 && BANDS < 4 && WINDOWS < THREADS, "a payment's window and band are kept in three and two bits");
static_assert(PAYMENT_FEATURES == 6 && RING_FEATURES == 3, "own() writes six features of a payment and three of its ring");
static_assert(AT_COUNT == 4 && AT_FRAUD == AT_AMOUNT + WINDOWS, "an entity has four features before its windows");
static_assert(SETTLED_COUNT == 5 + BANDS, "settled() writes five features and one for each band");

__device__ inline i64 window_us(int w) {
    return w == 0 ? WINDOW_1H_US : w == 1 ? WINDOW_24H_US : w == 2 ? WINDOW_7D_US : WINDOW_30D_US;
}

// What a payment's age says, in a byte: the shortest window that it is in, WINDOWS for none; its band; and
#define AGED 32     // it has had time to be labelled
#define RECENT 64   // it is within reach of `known`
#define COUNTED 128 // it is settled: aged, or labelled
__device__ inline i32 window_in(u8 what) { return what & 7; }
__device__ inline i32 band_in(u8 what) { return what >> 3 & 3; }

struct Scratch {
    u32 near[DEPTH];          // rows back to the entity's rows before the reader, newest first; 0 for none
    i32 label[DEPTH];         // newest label event of each
    i32 met[PAIRS][DEPTH];    // the counterpart of each, by pair of roles
    u8 what[DEPTH];
    union {
        u16 queue[2][DEPTH];  // places to follow pointers from: this turn's, the next turn's
        i32 table[TABLE];     // counterparts by hash: the newest place of each
    };
    i32 queued[2], end;       // how many; the first place that the reader does not see
    i32 count[WINDOWS + 1];   // payments whose shortest window it is, and what they add up to
    u32 amount[LIMBS][WINDOWS + 1];
    i32 fraud[WINDOWS + 1], labelled[WINDOWS + 1], distinct[WINDOWS + 1], same;
    i32 settled, first_settled, newest_fraud, oldest_fraud, clean, band[BANDS + 1], fraud_band[BANDS + 1];
};

__device__ __noinline__ float log_1p(double x) { return (float)log1p(x); }

__device__ inline void propose(Scratch& s, int turn, i64 place, i64 row, i64 at, i64 oldest) {
    if (place >= DEPTH || at < oldest) return;
    if (atomicCAS(&s.near[place], 0u, (u32)(row - at)) == 0u)
        s.queue[turn][atomicAdd(&s.queued[turn], 1)] = (u16)place;
}

__device__ inline u8 what_of(const Frame& f, i64 place, i64 age) {
    const i64 begin = f.settle_us < f.window_us ? f.settle_us : 0;
    i32 w = 0, band = 0;
    for (int i = 0; i < WINDOWS; i++) w += age > window_us(i);
    for (int i = 1; i <= BANDS; i++) band += age - begin >= i * BAND_US;
    bool recent = place == 0 || age <= most(window_us(WINDOWS - 1), begin + BANDS * BAND_US);
    return (u8)(w | band << 3 | (age >= f.settle_us ? AGED : 0) | (recent ? RECENT : 0));
}

// The entity's last rows, up to DEPTH, into `s.near`; how many.
__device__ inline i32 walk_far(const Frame& f, i64 row, const Row* x, i32 role, Scratch& s) {
    const i32 node = x->entity[role];
    const i64 oldest = most(row - f.window_rows, f.control->oldest), first = x->time - f.window_us;
    const bool shared = shares_type(f.role_type, role);
    for (int i = threadIdx.x; i < DEPTH; i += THREADS) s.near[i] = 0;
    if (threadIdx.x == 0) s.queued[0] = s.queued[1] = 0, s.end = DEPTH;
    __syncthreads();
    if (threadIdx.x == 0 && node >= 0 && x->prev[role]) propose(s, 0, 0, row, row - (i64)x->prev[role], oldest);
    __syncthreads();
    for (int turn = 0; s.queued[turn]; turn ^= 1) {
        for (int i = threadIdx.x; i < s.queued[turn]; i += THREADS) {
            const i64 place = s.queue[turn][i], at = row - (i64)s.near[place], slot = slot_of(at, f.capacity);
            const Row* y = row_at(f.rows, slot);
            const Velocity* v = velocity_at(f.velocity, slot);
            const i32 q = shared ? role_in(y, f.role_type, role, node) : role;
            const i64 time = y->time, prev = (i64)y->prev[q], jump = (i64)v->jump[q];
            const i32 k = v->k[q] & LENGTH_BITS;
            if (time < first) {
                atomicMin(&s.end, (i32)place);
                continue;
            }
            if (prev) propose(s, turn ^ 1, place + 1, row, at - prev, oldest);
            if (k > 1) propose(s, turn ^ 1, place + (1LL << k) - 1, row, at - jump, oldest);
        }
        __syncthreads();
        if (threadIdx.x == 0) s.queued[turn] = 0;
        __syncthreads();
    }
    for (int i = threadIdx.x; i < DEPTH; i += THREADS)
        if (s.near[i] == 0) atomicMin(&s.end, i);
    __syncthreads();
    return s.end;
}

// What features need of each of the entity's last rows, beside it.
__device__ inline void take(const Frame& f, i64 row, const Row* x, i32 role, i32 steps, Scratch& s) {
    const i32 node = x->entity[role];
    const bool shared = shares_type(f.role_type, role);
    if (threadIdx.x <= WINDOWS) {
        s.count[threadIdx.x] = 0;
        for (int l = 0; l < LIMBS; l++) s.amount[l][threadIdx.x] = 0;
    }
    __syncthreads();
#pragma unroll 4
    for (int n = threadIdx.x; n < steps; n += THREADS) {
        const Row* y = row_of(f, row - (i64)s.near[n]);
        const i64 time = y->time, amount = y->amount;
        const i32 label = y->label, q = shared ? role_in(y, f.role_type, role, node) : role;
        for (int c = 0; c < PAIRS && c < f.pairs_width; c++) {
            const i32 other = f.pairs[role * f.pairs_width + c];
            // An entity at the other end of a transfer: its counterpart is in its own role.
            if (other >= 0) s.met[c][n] = y->entity[q == other ? role : other];
        }
        const u8 what = what_of(f, n, x->time - time);
        s.what[n] = what;
        s.label[n] = label;
        atomicAdd(&s.count[window_in(what)], 1);
        for (int l = 0; l < LIMBS; l++) {
            const u32 part = (u32)(amount >> (l * LIMB)) & ((1u << LIMB) - 1);
            if (part) atomicAdd(&s.amount[l][window_in(what)], part);
        }
    }
    __syncthreads();
}

struct Reached {
    i64 at, count, amount;
};

// Go back from `at` to the oldest row of `node` within `span_us` before the reader, adding up what is passed. Threads
// that go back over different spans take the same way through the code.
__device__ inline Reached reach(const Frame& f, i64 row, i64 time, i32 node, i64 span_us, i64 at, i32 role) {
    const bool shared = shares_type(f.role_type, role);
    const i64 oldest = most(row - f.window_rows, f.control->oldest), first = time - least(span_us, f.window_us);
    i64 count = 0, amount = 0;
    while (true) {
        const Row* x = row_of(f, at);
        const Velocity* v = velocity_at(f.velocity, slot_of(at, f.capacity));
        if (shared) role = role_in(x, f.role_type, role, node);
        const i64 jump = (i64)v->jump[role], step = (i64)x->prev[role], here = x->amount;
        const i32 k = v->k[role] & LENGTH_BITS;
        const bool may_jump = k > 1 && at - jump >= oldest, may_step = step > 0 && at - step >= oldest;
        const i64 there = row_of(f, may_jump ? at - jump : at)->time, near = row_of(f, may_step ? at - step : at)->time;
        const bool far = may_jump && there >= first;
        if (!far && !(may_step && near >= first)) return {at, count, amount};
        count += far ? (1LL << k) - 1 : 1;
        amount = added(amount, far ? jump_sum(v, f.sums, f.span, f.sums_size, role) : here);
        at -= far ? jump : step;
    }
}

// What the payments of windows up to the w-th add up to, of those in `s`.
__device__ inline i64 amount_within(const Scratch& s, int w) {
    u64 low = 0, high = 0;  // of 48 bits, and above
    for (int i = 0; i <= w; i++) {
        low += s.amount[0][i] + ((u64)s.amount[1][i] << LIMB);
        high += s.amount[2][i];
    }
    high += low >> (2 * LIMB);
    low &= (1ULL << (2 * LIMB)) - 1;
    return high >> (63 - 2 * LIMB) ? MAX_SUM : (i64)(high << (2 * LIMB) | low);
}

// Counts and amounts over the windows, gap and age: a thread for each.
__device__ inline void running(const Frame& f, i64 row, const Row* x, i32 role, i32 steps, const Scratch& s, float* out) {
    int w = (int)threadIdx.x;
    if (w > WINDOWS) return;
    i64 count = 0, total = amount_within(s, w), oldest = row - (i64)s.near[steps - 1];
    for (int i = 0; i <= w; i++) count += s.count[i];
    if (steps == DEPTH && count == DEPTH) {  // older ones may lie within it too
        const i32 node = x->entity[role];
        const i64 begin = oldest, amount = row_of(f, begin)->amount;
        Reached found = reach(f, row, x->time, node, w < WINDOWS ? window_us(w) : f.window_us, begin, role);
        oldest = found.at;
        count += found.count;
        i64 rest = added(found.amount, row_of(f, oldest)->amount);
        total = rest == MAX_SUM ? MAX_SUM : added(total, rest - amount);  // that of `begin` is in both
    }
    if (w == WINDOWS) {
        out[1] = log_1p((double)(x->time - row_of(f, row - (i64)s.near[0])->time) * 1e-6);
        out[2] = log_1p((double)(x->time - row_of(f, oldest)->time) * 1e-6);
        return;
    }
    if (count == 0) return;
    out[AT_COUNT + w] = log_1p((double)count);
    out[AT_AMOUNT + w] = log_1p((double)total);
    if (w == WINDOWS - 1) out[3] = (float)(log1p((double)x->amount) - log1p((double)total / (double)count));
}

// What was known of a payment when row `reader` arrived: see `believed`.
__device__ inline i32 belief_at(const Frame& f, i32 event, i64 reader) {
    while (event >= 0) {
        if (f.labels[event].seen_from <= reader) return f.labels[event].fraud;
        event = f.labels[event].before;
    }
    return -1;
}

// Known labels of the newest rows, and which of them have had time to be labelled.
__device__ inline void known(const Frame& f, i64 row, i32 steps, Scratch& s) {
    for (int n = threadIdx.x; n < steps; n += THREADS) {
        const u8 what = s.what[n];
        if (!(what & RECENT)) break;
        const i32 belief = belief_at(f, s.label[n], row), band = band_in(what);
        if (belief < 0 && !(what & AGED)) continue;
        s.what[n] = what | COUNTED;
        atomicAdd(&s.settled, 1);
        atomicMin(&s.first_settled, (i32)n);
        atomicAdd(&s.band[band], 1);
        if (belief >= 0) atomicAdd(&s.labelled[window_in(what)], 1);
        if (belief == 1) {
            atomicMin(&s.newest_fraud, (i32)n);
            atomicMax(&s.oldest_fraud, (i32)n);
            atomicAdd(&s.fraud_band[band], 1);
            atomicAdd(&s.fraud[window_in(what)], 1);
        }
    }
}

// Settled payments since the newest fraud, once `known` has found it.
__device__ inline void clean(Scratch& s) {
    if (s.newest_fraud == DEPTH) return;
    for (int n = threadIdx.x; n < s.newest_fraud; n += THREADS)
        if (s.what[n] & COUNTED) atomicAdd(&s.clean, 1);
}

__device__ inline float log_age(const Frame& f, i64 row, const Row* x, i32 place, const Scratch& s) {
    return log_1p((double)(x->time - row_of(f, row - (i64)s.near[place])->time) * 1e-6);
}

// `SETTLED_FEATURES` of graph/dag/features.py.
__device__ inline void settled(const Frame& f, i64 row, const Row* x, const Scratch& s, float* out) {
    int i = (int)threadIdx.x;
    bool any = s.newest_fraud < DEPTH;
    if (i == 0) out[i] = any ? log_age(f, row, x, s.newest_fraud, s) : log_1p(NEVER_S);
    if (i == 1) out[i] = any ? log_age(f, row, x, s.oldest_fraud, s) : log_1p(NEVER_S);
    if (i == 2) out[i] = any && s.newest_fraud == s.first_settled ? 1.0f : 0.0f;
    if (i == 3) out[i] = any ? log_1p((double)(s.clean + 1)) : 0.0f;
    if (i >= 4 && i < 4 + BANDS && s.band[i - 4]) out[i] = (float)((double)s.fraud_band[i - 4] / (double)s.band[i - 4]);
    if (i == 4 + BANDS) out[i] = log_1p((double)s.settled);
}

// Distinct counterparts of a pair: each is counted where it was met last.
__device__ inline void counted(int pair, i32 readers, i32 steps, Scratch& s) {
    i32 size = 4;
    const i32* met = s.met[pair];
    while (size < 2 * steps) size *= 2;
    for (int i = threadIdx.x; i < size; i += THREADS) s.table[i] = -1;
    if (threadIdx.x <= WINDOWS) s.distinct[threadIdx.x] = 0;
    if (threadIdx.x == 0) s.same = 0;
    __syncthreads();
    for (int n = threadIdx.x; n < steps; n += THREADS) {
        if ((n && window_in(s.what[n]) == WINDOWS) || met[n] < 0) continue;
        if (met[n] == readers) atomicAdd(&s.same, 1);
        u32 h = ((u32)met[n] * 2654435761u) & (u32)(size - 1);
        while (true) {
            i32 there = atomicCAS(&s.table[h], -1, (i32)n);
            if (there >= 0 && met[there] == met[n]) atomicMin(&s.table[h], (i32)n);
            if (there < 0 || met[there] == met[n]) break;
            h = (h + 1) & (u32)(size - 1);
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < size; i += THREADS)
        if (s.table[i] >= 0) atomicAdd(&s.distinct[window_in(s.what[s.table[i]])], 1);
    __syncthreads();
}

// How many there are in the windows up to the w-th.
__device__ inline double within(const i32* counts, int w) {
    i32 sum = 0;
    for (int i = 0; i <= w; i++) sum += counts[i];
    return (double)sum;
}

// Features of one entity of one reader, from what `walk_far` has left in `s`.
__device__ inline void entity(const Frame& f, i64 row, i32 role, i32 steps, Scratch& s, i64 width, float* out) {
    const Row* x = row_of(f, row);
    for (int i = threadIdx.x; i < width; i += THREADS) out[i] = 0;
    if (threadIdx.x <= WINDOWS) s.fraud[threadIdx.x] = s.labelled[threadIdx.x] = 0;
    if (threadIdx.x <= BANDS) s.band[threadIdx.x] = s.fraud_band[threadIdx.x] = 0;
    if (threadIdx.x == 0) {
        s.settled = s.clean = 0;
        s.first_settled = s.newest_fraud = DEPTH;
        s.oldest_fraud = -1;
    }
    __syncthreads();
    if (x->entity[role] < 0) return;
    if (threadIdx.x == 0) {
        out[0] = 1;
        out[1] = out[AT_SETTLED] = out[AT_SETTLED + 1] = log_1p(NEVER_S);
    }
    if (steps == 0) return;
    __syncthreads();
    take(f, row, x, role, steps, s);
    running(f, row, x, role, steps, s, out);
    known(f, row, steps, s);
    __syncthreads();
    clean(s);
    __syncthreads();
    i32 w = (i32)threadIdx.x;
    out += AT_FRAUD;
    if (w < WINDOWS) {
        out[w] = log_1p(within(s.fraud, w));
        out[WINDOWS + w] = log_1p(within(s.labelled, w));
    }
    out += AT_SETTLED - AT_FRAUD;
    settled(f, row, x, s, out);
    out += AT_COUNTERPARTS - AT_SETTLED;
    for (int c = 0; c < f.pairs_width; c++) {
        i32 other = f.pairs[role * f.pairs_width + c];
        if (other < 0) continue;
        counted(c, x->entity[other], steps, s);
        if (w < WINDOWS) out[w] = log_1p(within(s.distinct, w));
        if (w == WINDOWS) out[w] = log_1p((double)s.same);
        out += WINDOWS + 1;
        __syncthreads();
    }
}

__device__ inline i64 entity_width(const Frame& f, i32 role) {
    i64 width = AT_COUNTERPARTS;
    for (i64 c = 0; c < f.pairs_width; c++)
        if (f.pairs[role * f.pairs_width + c] >= 0) width += WINDOWS + 1;
    return width;
}

// The payment's own features and its ring's.
__device__ inline void own(const Frame& f, const Row* x, float* out) {
    const double pi = 3.141592653589793;
    i64 late_ms = (i64)x->late, raw = x->time - late_ms * 1000;
    double day = (double)(raw % WINDOW_24H_US) / (double)WINDOW_24H_US * 2 * pi;
    double week = (double)(raw % WINDOW_7D_US) / (double)WINDOW_7D_US * 2 * pi;
    switch (threadIdx.x) {
        case 0: out[0] = log_1p((double)x->amount); break;
        case 1: out[1] = (float)sin(day); break;
        case 2: out[2] = (float)cos(day); break;
        case 3: out[3] = (float)sin(week); break;
        case 4: out[4] = (float)cos(week); break;
        case 5: out[5] = log_1p((double)late_ms * 1e-3); break;
        case 6: case 7: case 8: {
            const int ring = (int)threadIdx.x - PAYMENT_FEATURES;
            out[f.features - RING_FEATURES + ring] = log_1p((double)x->ring[ring]);
            break;
        }
        default: break;
    }
}

// Features `x`, and the last `depth` neighbours `near` of each role with what ties them, `edge`, where they are wanted.
extern "C" __global__ void __launch_bounds__(THREADS, 28) describe(const Frame* frame) {
    __shared__ Scratch s;
    const Frame f = *frame;
    i64 b = blockIdx.x / ROLES;
    i32 role = (i32)(blockIdx.x % ROLES);
    if (b >= readers_of(f)) return;
    i64 row = reader_at(f, b);
    const Row* x = row_of(f, row);
    float* out = f.x + b * f.features;
    if (role == 0) own(f, x, out);
    out += PAYMENT_FEATURES;
    for (i32 r = 0; r < role; r++) out += entity_width(f, r);
    i32 steps = walk_far(f, row, x, role, s);
    if (f.near)
        for (i64 i = threadIdx.x; i < f.depth; i += THREADS) {
            i64 at = (b * ROLES + role) * f.depth + i;
            f.near[at] = i < steps ? row - (i64)s.near[i] : -1;
            if (i < steps)
                edge(f, row, role, row - (i64)s.near[i], f.edge + at * EDGE);
            else
                for (int e = 0; e < EDGE; e++) f.edge[at * EDGE + e] = 0;
        }
    entity(f, row, role, steps, s, entity_width(f, role), out);
}
