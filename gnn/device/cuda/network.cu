// The network, as gnn/model/kernels.py runs it on the CPU: embed a payment by itself; then, layer by layer, read the cached
// keys and values of its neighbours, attend, mix, score, and write its own keys and values for the next layer.
//
// A block takes TILE payments: one in a micro-batch, where waiting is all that counts, several in bulk, where each
// weight is read once for all of them. All reads of neighbours are asked for before the first is used.
#include "network.cuh"

__device__ constexpr int padded(int n) { return (n + 3) / 4 * 4; }  // so that a row of floats begins where four can be read at once

template <int TILE>
struct Embedding {
    alignas(16) float full[TILE][padded(FULL)];
    alignas(16) float hidden[TILE][HIDDEN];
    alignas(16) float h[TILE][WIDTH];
    float kv[TILE][2 * WIDTH];
};

template <int TILE>
struct Attention {
    Word kv[TILE][ROLES][NEIGHBOURS][KV_WORDS];
    alignas(16) float tie[TILE][ROLES][NEIGHBOURS][EDGE];
    float score[TILE][ROLES][NEIGHBOURS][HEADS];
    alignas(16) float h[TILE][WIDTH];
    alignas(16) float q[TILE][ROLES * WIDTH];
    alignas(16) float z[TILE][padded(WIDTH + ROLES * READ)];
    alignas(16) float mixed[TILE][HIDDEN];
    float top[TILE][HEAD_HIDDEN], step[TILE][WIDTH], out[TILE][2 * WIDTH];
    i64 reader[TILE], mask[TILE];  // which reader each is, and the groups of evidence that are left out
    i32 count[TILE][ROLES], slot[TILE][ROLES * NEIGHBOURS];
};

__device__ inline i64 readers_n(const Frame& f) { return f.readers ? f.readers_n : f.control->n; }
__device__ inline i64 row_number(const Frame& f, i64 b) { return f.readers ? f.readers[b] : f.control->first + b; }
__device__ inline i64 reader_of(const Net& w, i64 item) { return w.variants == 1 ? item : item / w.variants; }
__device__ inline i64 mask_of(const Net& w, i64 item) { return w.masks ? w.masks[item % w.variants] : 0; }

template <int TILE>
__device__ inline void encode(const Net* net, Embedding<TILE>& s) {
    const Net w = *net;
    const Frame f = *w.graph;
    i64 first = (i64)blockIdx.x * TILE, n = readers_n(f) * w.variants;
    if (first >= n) return;
    for (int i = threadIdx.x; i < TILE * FULL; i += NETWORK_THREADS) {
        int t = i / FULL, j = i % FULL;
        i64 item = first + t < n ? first + t : n - 1, b = reader_of(w, item), mask = mask_of(w, item);
        float value = 0;
        if (j < FEATURES) {
            if (!((mask >> w.groups[j]) & 1))
                value = fminf(fmaxf((f.x[b * FEATURES + j] - w.mean[j]) * w.scale[j], -8.0f), 8.0f);
        } else if (!((mask >> CONTEXT) & 1)) {
            int c = (j - FEATURES) / CATEGORY_WIDTH, e = (j - FEATURES) % CATEGORY_WIDTH;
            u8 code = row_at(f.rows, slot_of(row_number(f, b), f.capacity))->category[c];
            value = w.category[(c * BUCKETS + code) * CATEGORY_WIDTH + e];
        }
        s.full[t][j] = value;
    }
    __syncthreads();
    dense<FULL, HIDDEN>(s.full, w.enc_w1, w.enc_b1, s.hidden, true);
    __syncthreads();
    dense<HIDDEN, WIDTH>(s.hidden, w.enc_w2, w.enc_b2, s.h, false);
    __syncthreads();
    for (int i = threadIdx.x; i < TILE * WIDTH; i += NETWORK_THREADS)
        if (first + i / WIDTH < n) w.h[first * WIDTH + i] = s.h[i / WIDTH][i % WIDTH];
    if (w.write) keep(w, f, 0, first, n, s.h, s.kv);
}

// Asks for neighbours' keys and values and for what ties them to the reader, from the device's memory to the block's.
template <int TILE>
__device__ inline void gather(const Net& w, const Frame& f, i64 first, i64 n, Attention<TILE>& s) {
    constexpr int CHAIN = ROLES * NEIGHBOURS, TIES = EDGE / 4;
    static_assert(EDGE % 4 == 0, "ties are read four numbers at a time");
    const Word* cache = (const Word*)(w.cache + w.layer * f.capacity * 2 * WIDTH);
    for (int t = threadIdx.x; t < TILE; t += NETWORK_THREADS) {
        const i64 item = first + t < n ? first + t : n - 1;
        s.reader[t] = reader_of(w, item);
        s.mask[t] = mask_of(w, item);
    }
    for (int i = threadIdx.x; i < TILE * ROLES; i += NETWORK_THREADS) s.count[i / ROLES][i % ROLES] = 0;
    for (int i = threadIdx.x; i < TILE * WIDTH; i += NETWORK_THREADS)
        s.h[i / WIDTH][i % WIDTH] = first + i / WIDTH < n ? w.h[first * WIDTH + i] : 0.0f;
    __syncthreads();
    for (int i = threadIdx.x; i < TILE * CHAIN; i += NETWORK_THREADS) {
        const int t = i / CHAIN, at = i % CHAIN, r = at / NEIGHBOURS;
        const i64 near = f.near[s.reader[t] * CHAIN + at];
        s.slot[t][at] = near < 0 ? -1 : (i32)slot_of(near, f.capacity);
        if (near >= 0 && !((s.mask[t] >> (ROLE_GROUPS + r)) & 1)) atomicMax(&s.count[t][r], at % NEIGHBOURS + 1);
    }
    for (int i = threadIdx.x; i < TILE * CHAIN * TIES; i += NETWORK_THREADS) {
        const int t = i / (CHAIN * TIES), at = i % (CHAIN * TIES);
        bring((Word*)s.tie[t] + at, (const Word*)(f.edge + s.reader[t] * CHAIN * EDGE) + at);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < TILE * CHAIN * KV_WORDS; i += NETWORK_THREADS) {
        const int t = i / (CHAIN * KV_WORDS), at = i % (CHAIN * KV_WORDS) / KV_WORDS, word = i % KV_WORDS;
        const i32 slot = s.slot[t][at];
        if (slot >= 0) bring(&s.kv[t][0][at][word], cache + (i64)slot * KV_WORDS + word);
    }
}

// Waits for what `gather` has asked for; labels are hidden where they are among the evidence that is left out.
template <int TILE>
__device__ inline void gathered(Attention<TILE>& s) {
    arrived();
    __syncthreads();
    for (int i = threadIdx.x; i < TILE * ROLES * NEIGHBOURS; i += NETWORK_THREADS) {
        float* tie = s.tie[i / (ROLES * NEIGHBOURS)][i / NEIGHBOURS % ROLES][i % NEIGHBOURS];
        if ((s.mask[i / (ROLES * NEIGHBOURS)] >> LABELS) & 1) tie[TIE_LABELLED] = tie[TIE_FRAUD] = tie[TIE_SETTLED] = 0.0f;
    }
    __syncthreads();
}

// A query for each role, in steps of the keys. A thread keeps one column for all payments of the block.
template <int TILE>
__device__ inline void queries(const Net& w, Attention<TILE>& s) {
    constexpr int STEP = at_once(WIDTH);
    for (int i = threadIdx.x; i < ROLES * WIDTH; i += NETWORK_THREADS) {
        const int r = i / WIDTH, o = i % WIDTH;
        const i64 at = w.layer * ROLES + r;
        const float* column = w.q_w + at * WIDTH * WIDTH + o;
        float sum[TILE];
        for (int t = 0; t < TILE; t++) sum[t] = weight(w.q_b + at * WIDTH + o);
        for (int j = 0; j < WIDTH; j += STEP) {
            float wj[STEP];
            for (int e = 0; e < STEP; e++) wj[e] = weight(column + (j + e) * WIDTH);
            for (int t = 0; t < TILE; t++) {
                Floats<STEP> h = floats<STEP>(&s.h[t][j]);
                for (int e = 0; e < STEP; e++) sum[t] += h.v[e] * wj[e];
            }
        }
        const float scale = weight(w.kv_scale + w.layer * 2 * WIDTH + o);
        for (int t = 0; t < TILE; t++) s.q[t][i] = sum[t] * scale;
    }
}

// Attention logits of one neighbour, all heads: query times key, and a bias from what ties the two.
template <int TILE>
__device__ inline void logits(const Net& w, int t, int r, int k, Attention<TILE>& s) {
    constexpr int STEP = at_once(SIZE), COLUMNS = at_once(HEADS);
    const i64 at = w.layer * ROLES + r;
    const float root = (float)(1 / sqrt((double)SIZE));
    const Word* key = s.kv[t][r][k];
    const float *w1 = w.bias_w1 + at * EDGE * BIAS_HIDDEN, *w2 = w.bias_w2 + at * BIAS_HIDDEN * HEADS;
    float hidden[BIAS_HIDDEN];
    for (int o = 0; o < BIAS_HIDDEN; o++) hidden[o] = weight(w.bias_b1 + at * BIAS_HIDDEN + o);
    for (int e = 0; e < EDGE; e++) {
        const float tie = s.tie[t][r][k][e];
        for (int o = 0; o < BIAS_HIDDEN; o += 4) {
            Floats<4> part = weights<4>(w1 + e * BIAS_HIDDEN + o);
            for (int j = 0; j < 4; j++) hidden[o + j] += tie * part.v[j];
        }
    }
    float dot[HEADS], bias[HEADS];
    for (int head = 0; head < HEADS; head++) {
        dot[head] = 0;
        bias[head] = weight(w.bias_b2 + at * HEADS + head);
        for (int i = 0; i < SIZE; i += STEP) {
            Floats<STEP> q = floats<STEP>(&s.q[t][r * WIDTH + head * SIZE + i]), x = kept_at<STEP>(key, head * SIZE + i);
            for (int j = 0; j < STEP; j++) dot[head] += q.v[j] * x.v[j];
        }
    }
    for (int o = 0; o < BIAS_HIDDEN; o++)
        for (int head = 0; head < HEADS; head += COLUMNS) {
            Floats<COLUMNS> part = weights<COLUMNS>(w2 + o * HEADS + head);
            for (int j = 0; j < COLUMNS; j++) bias[head + j] += fmaxf(hidden[o], 0.0f) * part.v[j];
        }
    for (int head = 0; head < HEADS; head++) s.score[t][r][k][head] = dot[head] * root + bias[head];
}

// Logits to weights over the neighbours of one role and head.
template <int TILE>
__device__ inline void softmax(int t, int r, int head, Attention<TILE>& s) {
    const int n = s.count[t][r];
    if (n == 0) return;
    float top = s.score[t][r][0][head], total = 0;
    for (int k = 1; k < n; k++) top = fmaxf(top, s.score[t][r][k][head]);
    for (int k = 0; k < n; k++) total += s.score[t][r][k][head] = expf(s.score[t][r][k][head] - top);
    for (int k = 0; k < n; k++) s.score[t][r][k][head] /= total;
}

// What attention hands on for a role: weighted values, a few numbers at a time.
template <int TILE>
__device__ inline void read_values(const Net& w, int t, int r, int part, Attention<TILE>& s) {
    constexpr int STEP = at_once(SIZE);
    const int n = s.count[t][r], j = part * STEP;
    float sum[STEP] = {};
    for (int k = 0; k < n; k++) {
        const float score = s.score[t][r][k][j / SIZE];
        Floats<STEP> x = kept_at<STEP>(s.kv[t][r][k], WIDTH + j);
        for (int e = 0; e < STEP; e++) sum[e] += score * x.v[e];
    }
    for (int e = 0; e < STEP; e++)
        s.z[t][WIDTH + r * READ + j + e] = sum[e] * weight(w.kv_scale + w.layer * 2 * WIDTH + WIDTH + j + e);
}

// And ties weighted by each head, their plain sums, and how full it is.
template <int TILE>
__device__ inline void read_ties(int t, int r, int part, Attention<TILE>& s) {
    const int n = s.count[t][r], head = part * 4 / EDGE;
    float sum[4] = {};
    for (int k = 0; k < n; k++) {
        const float score = head < HEADS ? s.score[t][r][k][head] : EDGE_SCALE;
        Floats<4> tie = floats<4>(&s.tie[t][r][k][part * 4 % EDGE]);
        for (int j = 0; j < 4; j++) sum[j] += score * tie.v[j];
    }
    float* out = &s.z[t][WIDTH + r * READ + WIDTH];
    for (int j = 0; j < 4; j++) out[part * 4 + j] = sum[j];
    if (part == 0) out[(HEADS + 1) * EDGE] = (float)n / (float)NEIGHBOURS;
}

template <int TILE>
__device__ inline void attend(const Net* net, Attention<TILE>& s) {
    constexpr int VALUES = WIDTH / at_once(SIZE), TIES = (HEADS + 1) * EDGE / 4;
    const Net w = *net;
    const Frame f = *w.graph;
    const i64 layer = w.layer, first = (i64)blockIdx.x * TILE, n = readers_n(f) * w.variants;
    if (first >= n) return;
    gather(w, f, first, n, s);
    queries(w, s);  // while they are on their way
    gathered(s);
    for (int i = threadIdx.x; i < TILE * ROLES * NEIGHBOURS; i += NETWORK_THREADS) {
        int t = i / (ROLES * NEIGHBOURS), r = i / NEIGHBOURS % ROLES, k = i % NEIGHBOURS;
        if (k < s.count[t][r]) logits(w, t, r, k, s);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < TILE * ROLES * HEADS; i += NETWORK_THREADS)
        softmax(i / (ROLES * HEADS), i / HEADS % ROLES, i % HEADS, s);
    __syncthreads();
    for (int i = threadIdx.x; i < TILE * WIDTH; i += NETWORK_THREADS) s.z[i / WIDTH][i % WIDTH] = s.h[i / WIDTH][i % WIDTH];
    for (int i = threadIdx.x; i < TILE * ROLES * VALUES; i += NETWORK_THREADS)
        read_values(w, i / (ROLES * VALUES), i / VALUES % ROLES, i % VALUES, s);
    for (int i = threadIdx.x; i < TILE * ROLES * TIES; i += NETWORK_THREADS)
        read_ties(i / (ROLES * TIES), i / TIES % ROLES, i % TIES, s);
    __syncthreads();
    const i64 mix = WIDTH + ROLES * READ;
    dense<WIDTH + ROLES * READ, HIDDEN>(s.z, w.mix_w + layer * mix * HIDDEN, w.mix_b + layer * HIDDEN, s.mixed, true);
    __syncthreads();
    dense<HIDDEN, WIDTH>(s.mixed, w.out_w + layer * HIDDEN * WIDTH, w.out_b + layer * WIDTH, s.step, false);
    dense<HIDDEN, HEAD_HIDDEN>(
        s.mixed, w.head_w1 + layer * HIDDEN * HEAD_HIDDEN, w.head_b1 + layer * HEAD_HIDDEN, s.top, true);
    __syncthreads();
    for (int i = threadIdx.x; i < TILE * WIDTH; i += NETWORK_THREADS) {
        int t = i / WIDTH, o = i % WIDTH;
        s.h[t][o] += s.step[t][o];
        if (first + t < n) w.h[(first + t) * WIDTH + o] = s.h[t][o];
    }
    for (int t = threadIdx.x; t < TILE && first + t < n; t += NETWORK_THREADS) {
        float sum = 0;
        for (int i = 0; i < HEAD_HIDDEN; i++) sum += s.top[t][i] * w.head_w2[layer * HEAD_HIDDEN + i];
        sum += w.head_b2[layer];
        w.logit[first + t] = layer ? w.logit[first + t] + sum : sum;
    }
    __syncthreads();
    if (w.write && layer + 1 < LAYERS) keep(w, f, layer + 1, first, n, s.h, s.out);
}

// What fits beside each other into 48 KiB.
constexpr int TILE = sizeof(Attention<4>) <= 49152 ? 4 : sizeof(Attention<2>) <= 49152 ? 2 : 1;

extern "C" __global__ void __launch_bounds__(NETWORK_THREADS) encode_one(const Net* net) {
    __shared__ Embedding<1> s;
    encode<1>(net, s);
}

extern "C" __global__ void __launch_bounds__(NETWORK_THREADS) encode_many(const Net* net) {
    __shared__ Embedding<TILE> s;
    encode<TILE>(net, s);
}

extern "C" __global__ void __launch_bounds__(NETWORK_THREADS) attend_one(const Net* net) {
    __shared__ Attention<1> s;
    attend<1>(net, s);
}

extern "C" __global__ void __launch_bounds__(NETWORK_THREADS) attend_many(const Net* net) {
    __shared__ Attention<TILE> s;
    attend<TILE>(net, s);
}

// What the head reads beside a payment's features and the network's log-odds: categories, then what its row remembers.
__device__ inline float beside(const Net& w, const Row* row, int at) {
    if (at < CATEGORIES) return row->category[at];
    at -= CATEGORIES;
    return (float)(((i32)row->ring[3] >> w.shift[at]) & w.mask[at]);
}

// The head (gnn/model/trees.py): from the network's log-odds of each payment to the model's; a thread for each.
extern "C" __global__ void finish(const Net* net) {
    const Net w = *net;
    const Frame f = *w.graph;
    i64 item = thread_number();
    if (item >= readers_n(f) * w.variants) return;
    const float* x = f.x + reader_of(w, item) * FEATURES;
    const Row* row = row_at(f.rows, slot_of(row_number(f, reader_of(w, item)), f.capacity));
    const i64 mask = mask_of(w, item);
    const float logit = w.logit[item];
    double total = (double)w.tree_base[0] + (double)w.tree_base[1] * (double)logit;
    for (i64 t = 0; t < w.trees; t++) {
        i32 node = w.tree_root[t], feature = w.tree_feature[node];
        while (feature >= 0) {
            float here = logit;
            if (feature < FEATURES)
                here = (mask >> w.groups[feature]) & 1 ? w.mean[feature] : x[feature];
            else if (feature > FEATURES)
                here = (mask >> w.groups[feature]) & 1 ? 0.0f : beside(w, row, feature - FEATURES - 1);
            node = here <= w.tree_threshold[node] ? w.tree_left[node] : w.tree_right[node];
            feature = w.tree_feature[node];
        }
        total += (double)w.tree_value[node];
    }
    w.logit[item] = (float)total;
}

// How many payments a block of the `many` kernels takes, and the size of `Net`, into `logit`.
extern "C" __global__ void tile(const Net* net) {
    net->logit[0] = (float)TILE;
    net->logit[1] = (float)sizeof(Net);
}
