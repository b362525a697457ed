// graph/features.py, function by function: a block of one warp for each entity of each reader.
//
// Where the CPU walks an entity's last 256 payments one after the other, this finds them in some twenty steps: a jump
// pointer of length k leads 2^k - 1 payments back, so both ends of every pointer have known places in the chain, and
// the threads follow all pointers found so far at once.
#include "walk.cuh"

#define DEPTH 256
#define THREADS 32
#define WINDOWS 4
#define OWN 6
#define NEVER_S 3.2e8
#define TABLE (2 * DEPTH)
#define BANDS 3
#define SETTLED (5 + BANDS)
#define BAND_US (7 * 24 * 3600000000LL)

#define HOUR_US 3600000000LL
__device__ inline i64 window_us(int w) {
    return w == 0 ? HOUR_US : w == 1 ? 24 * HOUR_US : w == 2 ? 7 * 24 * HOUR_US : 30 * 24 * HOUR_US;
}

struct Scratch {
    u64 near[DEPTH];          // rows of the entity before the reader, newest first; NONE
    u16 queue[2][DEPTH];      // places to follow pointers from: this turn's, the next turn's
    i32 queued[2], end;       // how many; the first place that the reader does not see
    i32 fraud[WINDOWS], labelled[WINDOWS], distinct[WINDOWS], met;
    i32 settled, first_settled, newest_fraud, oldest_fraud, clean, band[BANDS], fraud_band[BANDS];
    i32 key[TABLE], place[TABLE];  // counterparts, and the newest place of each
};
#define NONE 0xFFFFFFFFFFFFFFFFULL

__device__ inline void propose(Scratch& s, int turn, i64 place, i64 row, i64 oldest) {
    if (place >= DEPTH || row < oldest) return;
    if (atomicCAS(&s.near[place], NONE, (u64)row) == NONE) s.queue[turn][atomicAdd(&s.queued[turn], 1)] = (u16)place;
}

// The entity's last rows, up to DEPTH, into `s.near`; how many.
__device__ inline i32 walk_far(const Frame& f, i64 row, const Row* x, i32 role, Scratch& s) {
    i32 node = x->entity[role];
    i64 oldest = most(row - f.window_rows, f.control->oldest), first = x->time - f.window_us;
    for (int i = threadIdx.x; i < DEPTH; i += THREADS) s.near[i] = NONE;
    if (threadIdx.x == 0) s.queued[0] = s.queued[1] = 0, s.end = DEPTH;
    __syncthreads();
    if (threadIdx.x == 0 && node >= 0 && x->prev[role]) propose(s, 0, 0, row - (i64)x->prev[role], oldest);
    __syncthreads();
    for (int turn = 0; s.queued[turn]; turn ^= 1) {
        for (int i = threadIdx.x; i < s.queued[turn]; i += THREADS) {
            i64 place = s.queue[turn][i], at = (i64)s.near[place];
            const Row* y = row_of(f, at);
            if (y->time < first) {
                atomicMin(&s.end, (i32)place);
                continue;
            }
            i32 q = role_in(y, f.role_type, role, node);
            const Velocity* v = velocity_at(f.velocity, slot_of(at, f.capacity));
            i32 k = v->k[q] & (LARGE - 1);
            if (y->prev[q]) propose(s, turn ^ 1, place + 1, at - (i64)y->prev[q], oldest);
            if (k > 1) propose(s, turn ^ 1, place + (1LL << k) - 1, at - (i64)v->jump[q], oldest);
        }
        __syncthreads();
        if (threadIdx.x == 0) s.queued[turn] = 0;
        __syncthreads();
    }
    for (int i = threadIdx.x; i < DEPTH; i += THREADS)
        if (s.near[i] == NONE) atomicMin(&s.end, i);
    __syncthreads();
    return s.end;
}

struct Reached {
    i64 at, count, amount;
};

// Go back from `at` to the oldest row of `node` within `span_us` before the reader, adding up what is passed.
__device__ inline Reached reach(const Frame& f, i64 row, i64 time, i32 node, i64 span_us, i64 at, i32 role) {
    i64 count = 0, amount = 0;
    while (true) {
        const Velocity* v = velocity_at(f.velocity, slot_of(at, f.capacity));
        i64 jump = (i64)v->jump[role];
        i32 k = v->k[role] & (LARGE - 1);
        if (k > 1 && visible(f, row, time, at - jump, span_us)) {
            count += (1LL << k) - 1;
            amount = added(amount, jump_sum(v, f.sums, f.span, f.sums_size, role));
            at -= jump;
        } else {
            const Row* x = row_of(f, at);
            i64 step = (i64)x->prev[role];
            if (step == 0 || !visible(f, row, time, at - step, span_us)) return {at, count, amount};
            count += 1;
            amount = added(amount, x->amount);
            at -= step;
        }
        role = role_in(row_of(f, at), f.role_type, role, node);
    }
}

// Counts and amounts over the windows, gap and age: a thread for each.
__device__ inline void running(const Frame& f, i64 row, const Row* x, i32 role, i64 newest, float* out) {
    int w = (int)threadIdx.x;
    if (w > WINDOWS) return;
    i32 node = x->entity[role], q = role_in(row_of(f, newest), f.role_type, role, node);
    i64 span = w < WINDOWS ? window_us(w) : f.window_us;
    if (w < WINDOWS && !visible(f, row, x->time, newest, span)) return;
    Reached found = reach(f, row, x->time, node, span, newest, q);
    const Row* oldest = row_of(f, found.at);
    if (w == WINDOWS) {
        out[1] = (float)log1p((double)(x->time - row_of(f, newest)->time) * 1e-6);
        out[2] = (float)log1p((double)(x->time - oldest->time) * 1e-6);
        return;
    }
    i64 total = added(found.amount, oldest->amount);
    out[4 + w] = (float)log1p((double)(found.count + 1));
    out[4 + WINDOWS + w] = (float)log1p((double)total);
    if (w == WINDOWS - 1)
        out[3] = (float)(log1p((double)x->amount) - log1p((double)total / (double)(found.count + 1)));
}

// Known labels of the newest rows, and which of them have had time to be labelled.
__device__ inline void known(const Frame& f, i64 row, const Row* x, i32 steps, Scratch& s) {
    const i64 begin = f.settle_us < f.window_us ? f.settle_us : 0;
    const i64 horizon = most(window_us(WINDOWS - 1), begin + BANDS * BAND_US);
    for (int n = threadIdx.x; n < steps; n += THREADS) {
        const Row* y = row_of(f, (i64)s.near[n]);
        i64 age = x->time - y->time;
        if (n && age > horizon) break;
        i32 belief = believed(f, y, row);
        if (belief >= 0 || age >= f.settle_us) {
            i64 band = most(0, age - begin) / BAND_US;
            atomicAdd(&s.settled, 1);
            atomicMin(&s.first_settled, (i32)n);
            if (band < BANDS) atomicAdd(&s.band[band], 1);
            if (belief == 1) {
                atomicMin(&s.newest_fraud, (i32)n);
                atomicMax(&s.oldest_fraud, (i32)n);
                if (band < BANDS) atomicAdd(&s.fraud_band[band], 1);
            }
        }
        for (int w = 0; w < WINDOWS && belief >= 0; w++)
            if (age <= window_us(w)) {
                atomicAdd(&s.labelled[w], 1);
                if (belief) atomicAdd(&s.fraud[w], 1);
            }
    }
}

// Settled payments since the newest fraud, once `known` has found it.
__device__ inline void clean(const Frame& f, i64 row, const Row* x, Scratch& s) {
    if (s.newest_fraud == DEPTH) return;
    for (int n = threadIdx.x; n < s.newest_fraud; n += THREADS) {
        const Row* y = row_of(f, (i64)s.near[n]);
        if (x->time - y->time >= f.settle_us || believed(f, y, row) >= 0) atomicAdd(&s.clean, 1);
    }
}

__device__ inline float log_age(const Frame& f, const Row* x, i32 place, const Scratch& s) {
    return (float)log1p((double)(x->time - row_of(f, (i64)s.near[place])->time) * 1e-6);
}

// `SETTLED` of graph/features.py.
__device__ inline void settled(const Frame& f, const Row* x, const Scratch& s, float* out) {
    int i = (int)threadIdx.x;
    bool any = s.newest_fraud < DEPTH;
    if (i == 0) out[i] = any ? log_age(f, x, s.newest_fraud, s) : (float)log1p(NEVER_S);
    if (i == 1) out[i] = any ? log_age(f, x, s.oldest_fraud, s) : (float)log1p(NEVER_S);
    if (i == 2) out[i] = any && s.newest_fraud == s.first_settled ? 1.0f : 0.0f;
    if (i == 3) out[i] = any ? (float)log1p((double)(s.clean + 1)) : 0.0f;
    if (i >= 4 && i < 4 + BANDS && s.band[i - 4]) out[i] = (float)((double)s.fraud_band[i - 4] / (double)s.band[i - 4]);
    if (i == 4 + BANDS) out[i] = (float)log1p((double)s.settled);
}

// Distinct counterparts in one other role: each is counted where it was met last.
__device__ inline void counted(const Frame& f, const Row* x, i32 role, i32 other, i32 steps, Scratch& s) {
    i32 size = 4, node = x->entity[role];
    while (size < 2 * steps) size *= 2;
    for (int i = threadIdx.x; i < size; i += THREADS) s.key[i] = -1, s.place[i] = DEPTH;
    if (threadIdx.x == 0) {
        s.met = 0;
        for (int w = 0; w < WINDOWS; w++) s.distinct[w] = 0;
    }
    __syncthreads();
    for (int n = threadIdx.x; n < steps; n += THREADS) {
        const Row* y = row_of(f, (i64)s.near[n]);
        if (n && x->time - y->time > window_us(WINDOWS - 1)) break;
        // An entity at the other end of a transfer: its counterpart is in its own role.
        i32 met = y->entity[role_in(y, f.role_type, role, node) == other ? role : other];
        if (met < 0) continue;
        if (met == x->entity[other]) atomicAdd(&s.met, 1);
        u32 h = ((u32)met * 2654435761u) & (u32)(size - 1);
        while (true) {
            i32 there = atomicCAS(&s.key[h], -1, met);
            if (there < 0 || there == met) break;
            h = (h + 1) & (u32)(size - 1);
        }
        atomicMin(&s.place[h], (i32)n);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < size; i += THREADS)
        if (s.key[i] >= 0) {
            i64 age = x->time - row_of(f, (i64)s.near[s.place[i]])->time;
            for (int w = 0; w < WINDOWS; w++)
                if (age <= window_us(w)) atomicAdd(&s.distinct[w], 1);
        }
    __syncthreads();
}

// Features of one entity of one reader; returns how many there are. Nothing but `steps` rows in `s.near` is read.
__device__ inline void entity(const Frame& f, i64 row, i32 role, i32 steps, Scratch& s, i64 width, float* out) {
    const Row* x = row_of(f, row);
    for (int i = threadIdx.x; i < width; i += THREADS) out[i] = 0;
    if (threadIdx.x < WINDOWS) s.fraud[threadIdx.x] = s.labelled[threadIdx.x] = 0;
    if (threadIdx.x < BANDS) s.band[threadIdx.x] = s.fraud_band[threadIdx.x] = 0;
    if (threadIdx.x == 0) {
        s.settled = s.clean = 0;
        s.first_settled = s.newest_fraud = DEPTH;
        s.oldest_fraud = -1;
    }
    __syncthreads();
    if (x->entity[role] < 0) return;
    if (threadIdx.x == 0) {
        out[0] = 1;
        out[1] = out[4 + 4 * WINDOWS] = out[4 + 4 * WINDOWS + 1] = (float)log1p(NEVER_S);
    }
    if (steps == 0) return;
    __syncthreads();
    running(f, row, x, role, (i64)s.near[0], out);
    known(f, row, x, steps, s);
    __syncthreads();
    clean(f, row, x, s);
    __syncthreads();
    i32 w = (i32)threadIdx.x;
    out += 4 + 2 * WINDOWS;
    if (w < WINDOWS) {
        out[w] = (float)log1p((double)s.fraud[w]);
        out[WINDOWS + w] = (float)log1p((double)s.labelled[w]);
    }
    out += 2 * WINDOWS;
    settled(f, x, s, out);
    out += SETTLED;
    for (i64 c = 0; c < f.pairs_width; c++) {
        i32 other = f.pairs[role * f.pairs_width + c];
        if (other < 0) continue;
        counted(f, x, role, other, steps, s);
        if (w < WINDOWS) out[w] = (float)log1p((double)s.distinct[w]);
        if (w == WINDOWS) out[w] = (float)log1p((double)s.met);
        out += WINDOWS + 1;
        __syncthreads();
    }
}

__device__ inline i64 entity_width(const Frame& f, i32 role) {
    i64 width = 4 + 4 * WINDOWS + SETTLED;
    for (i64 c = 0; c < f.pairs_width; c++)
        if (f.pairs[role * f.pairs_width + c] >= 0) width += WINDOWS + 1;
    return width;
}

// The payment's own features and its ring's.
__device__ inline void own(const Frame& f, const Row* x, float* out) {
    const double pi = 3.141592653589793;
    i64 late_ms = (i64)x->late, raw = x->time - late_ms * 1000;
    double day = (double)(raw % 86400000000LL) / 86400000000.0 * 2 * pi;
    double week = (double)(raw % 604800000000LL) / 604800000000.0 * 2 * pi;
    switch (threadIdx.x) {
        case 0: out[0] = (float)log1p((double)x->amount); break;
        case 1: out[1] = (float)sin(day); break;
        case 2: out[2] = (float)cos(day); break;
        case 3: out[3] = (float)sin(week); break;
        case 4: out[4] = (float)cos(week); break;
        case 5: out[5] = (float)log1p((double)late_ms * 1e-3); break;
        case 6: case 7: case 8: out[f.features - 9 + threadIdx.x] = (float)log1p((double)x->ring[threadIdx.x - 6]); break;
        default: break;
    }
}

// Features `x`, and the last `depth` neighbours `near` of each role with what ties them, `edge`, where they are wanted.
extern "C" __global__ void __launch_bounds__(THREADS) describe(const Frame* frame) {
    __shared__ Scratch s;
    const Frame f = *frame;
    i64 b = blockIdx.x / ROLES;
    i32 role = (i32)(blockIdx.x % ROLES);
    if (b >= readers_of(f)) return;
    i64 row = reader_at(f, b);
    const Row* x = row_of(f, row);
    float* out = f.x + b * f.features;
    if (role == 0) own(f, x, out);
    out += OWN;
    for (i32 r = 0; r < role; r++) out += entity_width(f, r);
    i32 steps = walk_far(f, row, x, role, s);
    if (f.near)
        for (i64 i = threadIdx.x; i < f.depth; i += THREADS) {
            i64 at = (b * ROLES + role) * f.depth + i;
            f.near[at] = i < steps ? (i64)s.near[i] : -1;
            if (i < steps)
                edge(f, row, role, (i64)s.near[i], f.edge + at * EDGE);
            else
                for (int e = 0; e < EDGE; e++) f.edge[at * EDGE + e] = 0;
        }
    entity(f, row, role, steps, s, entity_width(f, role), out);
}
