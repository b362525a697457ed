// What the card can do: random lines of 128 bytes, and a kernel that does nothing.
#include "layout.cuh"

struct Limits {
    const u64* table;   // [lines, 16]
    const u32* index;   // [n] lines
    u64* out;           // [n * 8]
    i64 n;
};

struct alignas(16) Pair {
    u64 a, b;
};

// Eight threads read a line, 16 bytes each.
extern "C" __global__ void gather(const Limits* limits) {
    const Limits f = *limits;
    i64 at = thread_number(), i = at / 8;
    if (i >= f.n) return;
    Pair p = ((const Pair*)f.table)[(i64)f.index[i] * 8 + at % 8];
    if ((p.a ^ p.b) == 1) f.out[at % 64] = p.a;  // never: the table holds zeros, which the compiler does not know
}

extern "C" __global__ void nothing(const Limits* limits) {}
