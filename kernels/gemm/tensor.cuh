/* tensor.cuh - matrix products of float on tensor cores: TF32, or bfloat16 split
 * in two with three products (lo hi + hi lo + hi hi), both with float sums.
 *
 * A block of 8 warps computes 128 x 128 elements, a warp 32 x 64 of them in 64
 * registers a thread. Slices of 32 terms pass through two stages of shared
 * memory by cp.async, as float; fragments are rounded, or split, in registers. A
 * point's 32 words lie 36 words from the next one's: then the eight pieces of 16
 * bytes that one phase of ldmatrix reads, of eight points, fall into different banks.
 *
 * A bfloat16 instruction takes 16 terms, two to a register. Which of a slice's
 * terms those are does not matter as long as A and B agree, so that a register
 * pairs terms t and t + 4 of eight, which ldmatrix left in the same lane.
 *
 *   flops: 2 m n k (TF32), 6 m n k (bf16x3, at twice the rate).
 *   conversions: 24 (TF32) for 16 instructions of a warp, about 150 for 48.
 *   L2: 2 x 128 x 32 numbers for 128 x 128 x 32 products, 40 bytes a clock.
 * With mma.sync an H100 reaches at most 0.62 of its 495 TFLOP/s of TF32 (a lead
 * from published measurements). Predicted there, not measured: 200 TFLOP/s in TF32
 * and 120 in bf16x3 for m = n = k = 4096 where A's and B's terms are neighbours,
 * in rows aligned to 16 bytes; else, by single numbers, two thirds of that. */
#ifndef FORTET_GEMM_TENSOR_CUH
#define FORTET_GEMM_TENSOR_CUH

#include "../softmin/mma.cuh"
#include "fetch.cuh"

namespace {

constexpr int kSlice = 32, kLine = kSlice + 4;    /* terms of a slice; words from a point to the next */
constexpr int kSide = FORTET_GEMM_TILE * kLine;   /* of one side */
constexpr size_t kTensorShared = sizeof(float) * 4 * kSide;

/* Which 8 points and 4 terms register r of a lane has: fragments of mma.cuh of
 * 16 points of A by 8 terms, of twice 8 points of B by 8 terms, or of 8 points
 * of B by 16 terms. */
enum words { kOfA, kTwiceOfB, kLongOfB };
template <words W>
static __device__ __forceinline__ int word_of(int r, int at) { /* at: the lane's point in register r */
  if (W == kOfA) return (r % 2 * 8 + at) * kLine + r / 2 * 4;
  if (W == kTwiceOfB) return (r / 2 * 8 + at) * kLine + r % 2 * 4;
  return at * kLine + r * 4;
}
/* from: of the first point and term. */
template <words W>
static __device__ __forceinline__ void load_words(unsigned (&to)[4], const float *shared, int from) {
  const int lane = threadIdx.x % 32;
#if defined(FORTET_EMU)
  for (int r = 0; r < 4; r++) to[r] = __float_as_uint(shared[from + word_of<W>(r, lane / 4) + lane % 4]);
#else
  /* Lane l names the piece of point l % 8 for register l / 8. */
  const int word = from + word_of<W>(lane / 8, lane % 8);
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(unsigned(__cvta_generic_to_shared(shared)) + unsigned(sizeof(float)) * unsigned(word))
               : "memory");
#endif
}

/* To 10 bits of mantissa, halves away from zero. */
static __device__ __forceinline__ unsigned round_tf32(unsigned word) {
#if defined(FORTET_EMU)
  const bool finite = (word & 0x7f800000u) != 0x7f800000u;
  return finite ? (word + 0x1000u) & 0xffffe000u : word;
#else
  unsigned out;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(out) : "f"(__uint_as_float(word)));
  return out;
#endif
}

/* Two numbers as bfloat16, to nearest and even, the first in the low half. */
static __device__ __forceinline__ unsigned pack_bf16(float first, float second) {
#if defined(FORTET_EMU)
  unsigned packed = 0;
  const float v[2] = {first, second};
  for (int h = 0; h < 2; h++) {
    unsigned word = __float_as_uint(v[h]);
    word = v[h] != v[h] ? 0x7fffu : (word + 0x7fffu + (word >> 16 & 1u)) >> 16;
    packed |= word << (16 * h);
  }
  return packed;
#else
  unsigned packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(second), "f"(first));
  return packed;
#endif
}

static __device__ __forceinline__ void split(unsigned first, unsigned second, unsigned &high, unsigned &low) {
  const float x = __uint_as_float(first), y = __uint_as_float(second);
  high = pack_bf16(x, y);
  low = pack_bf16(x - __uint_as_float(high << 16), y - __uint_as_float(high & 0xffff0000u));
}

/* acc += the products of 8 terms in TF32; left and right are the first words of the warp's. */
static __device__ __forceinline__ void multiply_tf32(float (&acc)[2][8][4], const float *shared, int left, int right) {
  unsigned a[2][4];
#pragma unroll
  for (int i = 0; i < 2; i++) {
    load_words<kOfA>(a[i], shared, left + 16 * i * kLine);
#pragma unroll
    for (int r = 0; r < 4; r++) a[i][r] = round_tf32(a[i][r]);
  }
#pragma unroll
  for (int j = 0; j < 8; j += 2) {
    unsigned w[4];
    load_words<kTwiceOfB>(w, shared, right + 8 * j * kLine);
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const unsigned b[2] = {round_tf32(w[2 * h]), round_tf32(w[2 * h + 1])};
#pragma unroll
      for (int i = 0; i < 2; i++) mma_tf32(acc[i][j + h], a[i], b);
    }
  }
}

/* acc += the products of 16 terms, of halves. */
static __device__ __forceinline__ void multiply_bf16x3(float (&acc)[2][8][4], const float *shared, int left, int right) {
  unsigned high[2][4], low[2][4];
#pragma unroll
  for (int i = 0; i < 2; i++) {
    unsigned w[2][4];
    load_words<kOfA>(w[0], shared, left + 16 * i * kLine);
    load_words<kOfA>(w[1], shared, left + 16 * i * kLine + 8);
#pragma unroll
    for (int r = 0; r < 4; r++) split(w[r / 2][r % 2], w[r / 2][r % 2 + 2], high[i][r], low[i][r]);
  }
#pragma unroll
  for (int j = 0; j < 8; j++) {
    unsigned w[4], b[2], rest[2];
    load_words<kLongOfB>(w, shared, right + 8 * j * kLine);
#pragma unroll
    for (int r = 0; r < 2; r++) split(w[2 * r], w[2 * r + 1], b[r], rest[r]);
#pragma unroll
    for (int i = 0; i < 2; i++) {
      mma_bf16(acc[i][j], low[i], b);
      mma_bf16(acc[i][j], high[i], rest);
      mma_bf16(acc[i][j], high[i], b);
    }
  }
}

template <bool TF32>
__global__ __launch_bounds__(kThreads, 2) void gemm_tensor(const product<float> p) {
  constexpr int B = FORTET_GEMM_TILE;
  FORTET_DYN_SHARED(float, shared);
  const share<float> own(p);
  const place tile(p.m, p.n, B);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int row = warp / 2 * 32, column = warp % 2 * 64;

  slices<float, B, kSlice, kLine, 1> coming(p, own, int64_t(tile.i) * B, int64_t(tile.j) * B);
  float acc[2][8][4] = {};
  int stage = 0;
  coming.next(p, shared, shared + kSide);
  bool more = true;
#pragma unroll 1
  for (; more; stage ^= 1) {
    more = coming.terms > 0;
    coming.next(p, shared + 2 * (stage ^ 1) * kSide, shared + (2 * (stage ^ 1) + 1) * kSide);
    copy_wait<1>();
    __syncthreads();
    const int left = 2 * stage * kSide + row * kLine, right = (2 * stage + 1) * kSide + column * kLine;
    constexpr int step = TF32 ? 8 : 16;
#pragma unroll 1
    for (int term = 0; term < kSlice; term += step) {
      if (TF32) multiply_tf32(acc, shared, left + term, right + term);
      else multiply_bf16x3(acc, shared, left + term, right + term);
    }
    __syncthreads();
  }
  const target<float> to = own_target(p);
#pragma unroll
  for (int i = 0; i < 2; i++) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int64_t at = int64_t(tile.i) * B + row + 16 * i + 8 * h + lane / 4;
      if (at >= p.m) continue;
#pragma unroll
      for (int j = 0; j < 8; j++) {
#pragma unroll
        for (int c = 0; c < 2; c++) {
          const int64_t across = int64_t(tile.j) * B + column + 8 * j + 2 * (lane % 4) + c;
          if (across < p.n) to.put(at, across, acc[i][j][2 * h + c]);
        }
      }
    }
  }
}

}  // namespace
#endif
