// The network, as gnn/kernels.py runs it on the CPU: embed a payment by itself; then, layer by layer, read the cached
// keys and values of its neighbours, attend, mix, score, and write its own keys and values for the next layer.
//
// A block takes TILE payments: one in a micro-batch, where waiting is all that counts, several in bulk, where each
// weight is read once for all of them. All reads of neighbours are asked for before the first is used.
#include "network.cuh"

#define CONTEXT 2
#define LABELS 2 + 1
#define ROLE_GROUPS 5

template <int TILE>
struct Embedding {
    float full[TILE][FULL], hidden[TILE][HIDDEN], h[TILE][WIDTH], kv[TILE][2 * WIDTH];
};

template <int TILE>
struct Attention {
    Word kv[TILE][ROLES][NEIGHBOURS][KV_WORDS];
    float tie[TILE][ROLES][NEIGHBOURS][EDGE];
    float score[TILE][ROLES][NEIGHBOURS][HEADS];
    float h[TILE][WIDTH], q[TILE][ROLES * WIDTH], z[TILE][WIDTH + ROLES * READ], mixed[TILE][HIDDEN];
    float top[TILE][HEAD_HIDDEN], step[TILE][WIDTH], out[TILE][2 * WIDTH];
    i32 count[TILE][ROLES];
};

__device__ inline i64 readers_n(const Frame& f) { return f.readers ? f.readers_n : f.control->n; }
__device__ inline i64 row_number(const Frame& f, i64 b) { return f.readers ? f.readers[b] : f.control->first + b; }
__device__ inline i64 mask_of(const Net& w, i64 item) { return w.masks ? w.masks[item % w.variants] : 0; }

template <int TILE>
__device__ inline void encode(const Net* net, Embedding<TILE>& s) {
    const Net w = *net;
    const Frame f = *w.graph;
    i64 first = (i64)blockIdx.x * TILE, n = readers_n(f) * w.variants;
    if (first >= n) return;
    for (int i = threadIdx.x; i < TILE * FULL; i += BLOCK) {
        int t = i / FULL, j = i % FULL;
        i64 item = first + t < n ? first + t : n - 1, b = item / w.variants, mask = mask_of(w, item);
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
    for (int i = threadIdx.x; i < TILE * WIDTH; i += BLOCK)
        if (first + i / WIDTH < n) w.h[first * WIDTH + i] = s.h[i / WIDTH][i % WIDTH];
    if (w.write) keep(w, f, 0, first, n, s.h, s.kv);
}

// Neighbours' keys and values, and what ties them to the reader, from the device's memory to the block's.
template <int TILE>
__device__ inline void gather(const Net& w, const Frame& f, i64 first, i64 n, Attention<TILE>& s) {
    const i64 chain = ROLES * NEIGHBOURS;
    const Word* cache = (const Word*)(w.cache + w.layer * f.capacity * 2 * WIDTH);
    for (int i = threadIdx.x; i < TILE * chain * KV_WORDS; i += BLOCK) {
        int t = i / (chain * KV_WORDS), at = i % (chain * KV_WORDS) / KV_WORDS, word = i % KV_WORDS;
        if (first + t >= n) break;
        i64 near = f.near[(first + t) / w.variants * chain + at];
        if (near >= 0) (&s.kv[t][0][at][0])[word] = cache[slot_of(near, f.capacity) * KV_WORDS + word];
    }
    for (int i = threadIdx.x; i < TILE * chain * EDGE; i += BLOCK) {
        int t = i / (chain * EDGE), at = i % (chain * EDGE), e = at % EDGE;
        if (first + t >= n) break;
        i64 item = first + t;
        bool hidden = ((mask_of(w, item) >> (LABELS)) & 1) && e >= 1 && e <= 3;
        (&s.tie[t][0][0][0])[at] = hidden ? 0.0f : f.edge[item / w.variants * chain * EDGE + at];
    }
    for (int i = threadIdx.x; i < TILE * ROLES; i += BLOCK) {
        int t = i / ROLES, r = i % ROLES, count = 0;
        i64 item = first + t;
        if (item < n && !((mask_of(w, item) >> (ROLE_GROUPS + r)) & 1))
            while (count < NEIGHBOURS && f.near[item / w.variants * chain + r * NEIGHBOURS + count] >= 0) count++;
        s.count[t][r] = count;
    }
    for (int i = threadIdx.x; i < TILE * WIDTH; i += BLOCK)
        s.h[i / WIDTH][i % WIDTH] = first + i / WIDTH < n ? w.h[first * WIDTH + i] : 0.0f;
}

// Attention logits of one neighbour, all heads: query times key, and a bias from what ties the two.
template <int TILE>
__device__ inline void logits(const Net& w, int t, int r, int k, Attention<TILE>& s) {
    const i64 at = w.layer * ROLES + r;
    const float root = (float)(1 / sqrt((double)SIZE));
    const Kv* key = (const Kv*)s.kv[t][r][k];
    float hidden[BIAS_HIDDEN];
    for (int o = 0; o < BIAS_HIDDEN; o++) hidden[o] = w.bias_b1[at * BIAS_HIDDEN + o];
    for (int e = 0; e < EDGE; e++)
        for (int o = 0; o < BIAS_HIDDEN; o++)
            hidden[o] += s.tie[t][r][k][e] * w.bias_w1[(at * EDGE + e) * BIAS_HIDDEN + o];
    for (int head = 0; head < HEADS; head++) {
        float dot = 0, bias = w.bias_b2[at * HEADS + head];
        for (int i = 0; i < SIZE; i++) dot += s.q[t][r * WIDTH + head * SIZE + i] * (float)key[head * SIZE + i];
        for (int o = 0; o < BIAS_HIDDEN; o++)
            bias += fmaxf(hidden[o], 0.0f) * w.bias_w2[(at * BIAS_HIDDEN + o) * HEADS + head];
        s.score[t][r][k][head] = dot * root + bias;
    }
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

// One number of what attention hands on for a role: weighted values, weighted ties, plain sums of ties, fullness.
template <int TILE>
__device__ inline float read(const Net& w, int t, int r, int j, Attention<TILE>& s) {
    const int n = s.count[t][r];
    float sum = 0;
    if (j < WIDTH) {
        for (int k = 0; k < n; k++)
            sum += s.score[t][r][k][j / SIZE] * (float)((const Kv*)s.kv[t][r][k])[WIDTH + j];
        return sum * w.kv_scale[w.layer * 2 * WIDTH + WIDTH + j];
    }
    j -= WIDTH;
    if (j < HEADS * EDGE) {
        for (int k = 0; k < n; k++) sum += s.score[t][r][k][j / EDGE] * s.tie[t][r][k][j % EDGE];
        return sum;
    }
    j -= HEADS * EDGE;
    if (j < EDGE) {
        for (int k = 0; k < n; k++) sum += s.tie[t][r][k][j] * EDGE_SCALE;
        return sum;
    }
    return (float)n / (float)NEIGHBOURS;
}

template <int TILE>
__device__ inline void attend(const Net* net, Attention<TILE>& s) {
    const Net w = *net;
    const Frame f = *w.graph;
    const i64 layer = w.layer, first = (i64)blockIdx.x * TILE, n = readers_n(f) * w.variants;
    if (first >= n) return;
    gather(w, f, first, n, s);
    __syncthreads();
    for (int r = 0; r < ROLES; r++) {
        const i64 at = layer * ROLES + r;
        for (int i = threadIdx.x; i < TILE * WIDTH; i += BLOCK) {
            int t = i / WIDTH, o = i % WIDTH;
            float sum = w.q_b[at * WIDTH + o];
            for (int j = 0; j < WIDTH; j++) sum += s.h[t][j] * w.q_w[(at * WIDTH + j) * WIDTH + o];
            s.q[t][r * WIDTH + o] = sum * w.kv_scale[layer * 2 * WIDTH + o];
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < TILE * ROLES * NEIGHBOURS; i += BLOCK) {
        int t = i / (ROLES * NEIGHBOURS), r = i / NEIGHBOURS % ROLES, k = i % NEIGHBOURS;
        if (k < s.count[t][r]) logits(w, t, r, k, s);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < TILE * ROLES * HEADS; i += BLOCK)
        softmax(i / (ROLES * HEADS), i / HEADS % ROLES, i % HEADS, s);
    __syncthreads();
    for (int i = threadIdx.x; i < TILE * (WIDTH + ROLES * READ); i += BLOCK) {
        int t = i / (WIDTH + ROLES * READ), j = i % (WIDTH + ROLES * READ);
        s.z[t][j] = j < WIDTH ? s.h[t][j] : read(w, t, (j - WIDTH) / READ, (j - WIDTH) % READ, s);
    }
    __syncthreads();
    const i64 mix = WIDTH + ROLES * READ;
    dense<WIDTH + ROLES * READ, HIDDEN>(s.z, w.mix_w + layer * mix * HIDDEN, w.mix_b + layer * HIDDEN, s.mixed, true);
    __syncthreads();
    dense<HIDDEN, WIDTH>(s.mixed, w.out_w + layer * HIDDEN * WIDTH, w.out_b + layer * WIDTH, s.step, false);
    dense<HIDDEN, HEAD_HIDDEN>(
        s.mixed, w.head_w1 + layer * HIDDEN * HEAD_HIDDEN, w.head_b1 + layer * HEAD_HIDDEN, s.top, true);
    __syncthreads();
    for (int i = threadIdx.x; i < TILE * WIDTH; i += BLOCK) {
        int t = i / WIDTH, o = i % WIDTH;
        s.h[t][o] += s.step[t][o];
        if (first + t < n) w.h[(first + t) * WIDTH + o] = s.h[t][o];
    }
    for (int t = threadIdx.x; t < TILE && first + t < n; t += BLOCK) {
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

extern "C" __global__ void __launch_bounds__(BLOCK) encode_one(const Net* net) {
    __shared__ Embedding<1> s;
    encode<1>(net, s);
}

extern "C" __global__ void __launch_bounds__(BLOCK) encode_many(const Net* net) {
    __shared__ Embedding<TILE> s;
    encode<TILE>(net, s);
}

extern "C" __global__ void __launch_bounds__(BLOCK) attend_one(const Net* net) {
    __shared__ Attention<1> s;
    attend<1>(net, s);
}

extern "C" __global__ void __launch_bounds__(BLOCK) attend_many(const Net* net) {
    __shared__ Attention<TILE> s;
    attend<TILE>(net, s);
}

// The head (gnn/trees.py): from the network's log-odds of each payment to the model's; a thread for each.
extern "C" __global__ void finish(const Net* net) {
    const Net w = *net;
    const Frame f = *w.graph;
    i64 item = thread_number();
    if (item >= readers_n(f) * w.variants) return;
    const float* x = f.x + item / w.variants * FEATURES;
    const i64 mask = mask_of(w, item);
    const float logit = w.logit[item];
    double total = (double)w.tree_base[0] + (double)w.tree_base[1] * (double)logit;
    for (i64 t = 0; t < w.trees; t++) {
        i32 node = w.tree_root[t], feature = w.tree_feature[node];
        while (feature >= 0) {
            float here = feature == FEATURES ? logit : (mask >> w.groups[feature]) & 1 ? w.mean[feature] : x[feature];
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
