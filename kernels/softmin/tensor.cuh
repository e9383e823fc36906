/* tensor.cuh - softmin with the products of coordinates on tensor cores, for
 * squared Euclidean costs of float points: TF32, or bfloat16 split in two with
 * three products (hi hi + hi lo + lo hi), both with float32 accumulators.
 *
 * A block of 8 warps computes tiles of 128 x 128 exponents, a warp 32 x 64 of
 * them in 64 registers a thread. A block keeps its 128 rows in shared memory
 * where d <= 128, and lets columns pass through two stages of 32 words a point
 * by cp.async. An accumulator begins at the column's bias, so that it ends as
 * an exponent in base 2 (prepare.cuh); then a maximum, a subtraction, an
 * exponential and an addition per pair. Rows are reduced at the very end.
 *
 * Coordinates may enter a product in any order if both sides keep to it. So a
 * lane takes four neighbouring words, for two instructions, in one 16-byte load
 * where the fragments' own order would need four of 4 bytes. The two groups of
 * 16 words in a row change places in odd rows: eight lanes then read 128
 * different bytes of the 32 banks.
 *
 *   flops: 2 d n m (TF32), 6 d n m (bf16x3, at twice the rate).
 *   shared memory: 12 (16) KiB for 64 (96) instructions of a warp, 96 (128)
 *   clocks of the multiprocessor where the instructions take 103 (155).
 *   L2: 128 rows x 128 bytes for 128 x 128 x 32 products, 20 bytes a clock.
 * With mma.sync an H100 reaches at most 0.62 of the 1024 TF32 products a clock
 * and multiprocessor that wgmma does (a lead from published measurements), so
 * pairs per clock and multiprocessor are limited to 635 / d by products and to
 * 16 by exponentials: products bind from d = 40.
 * Predicted on an H100, not measured: 60 to 70 % of that, for d = 64 1.3e12
 * pairs/s in TF32 and 0.9e12 in bf16x3, 0.08 and 0.11 ms for n = m = 10^4.
 * A polynomial exponential on the FMA units would help below d = 40 alone. */
#ifndef FORTET_SOFTMIN_TENSOR_CUH
#define FORTET_SOFTMIN_TENSOR_CUH

#include "copy.cuh"
#include "mma.cuh"
#include "online.cuh"
#include "prepare.cuh"

namespace {

constexpr int kTensorThreads = 256;
constexpr int kTensorRows = FORTET_SOFTMIN_TENSOR_ROWS, kTensorColumns = FORTET_SOFTMIN_TENSOR_COLUMNS;
constexpr int kSlice = 32;                              /* words of a point in one stage */
constexpr int kStage = 128 * kSlice;                    /* words of a stage of one side */
constexpr int kResidentSlices = 4;                      /* rows stay up to so many slices */
static_assert(kTensorRows == 128 && kTensorColumns == 128, "stages hold 128 points");

struct tensor_tiles {
  const unsigned *x, *y; /* kTF32 or kBF16x3, (np, dp) and (mp, dp) */
  const float *bias;     /* (mp) */
  int64_t n, mp;
  int64_t slices; /* dp / 32 */
  int64_t tiles;  /* of one split */
  float *part;
};

static inline bool tensor_resident(int64_t slices) { return slices <= kResidentSlices; }
static inline size_t tensor_shared(int64_t slices) {
  return sizeof(unsigned) * size_t(kStage) * size_t((tensor_resident(slices) ? slices : 2) + 2);
}

/* The word at which the four words of a lane begin, in a stage: group 0 or 1
 * of point, quarter 0..3. */
static __device__ __forceinline__ int fragment(int point, int group, int quarter) {
  return point * kSlice + (group ^ (point & 1)) * 16 + quarter * 4;
}

/* Starts the copy of 128 points' slice into a stage. */
static __device__ __forceinline__ void fetch_slice(unsigned *stage, const unsigned *points, int64_t dp) {
#pragma unroll
  for (int s = 0; s < kStage / 4; s += kTensorThreads) {
    const int t = s + threadIdx.x, point = t / 8, piece = t % 8;
    copy16(stage + fragment(point, piece / 4, piece % 4), points + point * dp + piece * 4);
  }
}

/* A fragment of A or B out of what the lane has loaded: instruction step takes
 * words 2 step and 2 step + 1 of each row. */
static __device__ __forceinline__ void multiply_step(float (&c)[4], const unsigned (&top)[4], const unsigned (&bottom)[4],
                                                     const unsigned (&right)[4], int step, bool tf32) {
  const unsigned a[4] = {top[2 * step], bottom[2 * step], top[2 * step + 1], bottom[2 * step + 1]};
  const unsigned b[2] = {right[2 * step], right[2 * step + 1]};
  if (tf32) mma_tf32(c, a, b);
  else mma_bf16(c, a, b);
}

/* acc += the products of one slice. row and column are the lane's first. */
template <layout L>
static __device__ __forceinline__ void multiply_slice(float (&acc)[2][8][4], const unsigned *left, const unsigned *right,
                                                      int row, int column, int quarter) {
#pragma unroll
  for (int group = 0; group < 2; group++) {
    unsigned a[2][2][4];
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
      for (int h = 0; h < 2; h++) load16(a[i][h], left + fragment(row + 16 * i + 8 * h, group, quarter));
#pragma unroll
    for (int j = 0; j < 8; j++) {
      /* TF32: group times group. bf16x3: hi times hi and lo; lo times hi. */
#pragma unroll
      for (int other = 0; other < 2; other++) {
        if (L == kTF32 ? other != group : group + other == 2) continue;
        unsigned b[4];
        load16(b, right + fragment(column + 8 * j, other, quarter));
#pragma unroll
        for (int step = 0; step < 2; step++)
#pragma unroll
          for (int i = 0; i < 2; i++) multiply_step(acc[i][j], a[i][0], a[i][1], b, step, L == kTF32);
      }
    }
  }
}

/* part gets the pairs (m, s). Grid: (rows / 128, splits). */
template <layout L>
__global__ __launch_bounds__(kTensorThreads, 2) void softmin_tensor(const tensor_tiles p) {
  FORTET_DYN_SHARED(unsigned, shared);
  __shared__ float other[2][kTensorRows]; /* the right warps' results */
  const bool resident = p.slices <= kResidentSlices;
  unsigned *const left = shared, *const right = shared + (resident ? p.slices : 2) * kStage;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, quarter = lane % 4;
  const int row = warp / 2 * 32 + lane / 4, column = warp % 2 * 64 + lane / 4;
  const int64_t dp = p.slices * kSlice, row0 = int64_t(blockIdx.x) * kTensorRows;
  const int64_t first = blockIdx.y * p.tiles, all = p.mp / kTensorColumns;
  const int64_t tiles = all - first < p.tiles ? all - first : p.tiles;

  online<float> sums[2][2];
  /* Slice k of tile t, or of the tile after it. */
  const auto fetch = [&](int64_t t, int64_t k, int stage) {
    if (k == p.slices) k = 0, t++;
    if (t < tiles) {
      fetch_slice(right + stage * kStage, p.y + (first + t) * kTensorColumns * dp + k * kSlice, dp);
      if (t == 0 || !resident) fetch_slice(left + (resident ? k : stage) * kStage, p.x + row0 * dp + k * kSlice, dp);
    }
    copy_commit();
  };
  int stage = 0;
  fetch(0, 0, 0);
  for (int64_t t = 0; t < tiles; t++) {
    float acc[2][8][4];
    const float *const bias = p.bias + (first + t) * kTensorColumns + warp % 2 * 64 + 2 * quarter;
#pragma unroll
    for (int j = 0; j < 8; j++) {
      const float2 b = *reinterpret_cast<const float2 *>(bias + 8 * j);
#pragma unroll
      for (int i = 0; i < 2; i++) acc[i][j][0] = acc[i][j][2] = b.x, acc[i][j][1] = acc[i][j][3] = b.y;
    }
    for (int64_t k = 0; k < p.slices; k++) {
      fetch(t, k + 1, stage ^ 1);
      copy_wait<1>();
      __syncthreads();
      multiply_slice<L>(acc, left + (resident ? int(k) : stage) * kStage, right + stage * kStage, row, column, quarter);
      __syncthreads();
      stage ^= 1;
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
      for (int h = 0; h < 2; h++) {
        float most = acc[i][0][2 * h];
#pragma unroll
        for (int j = 0; j < 8; j++) most = fmaxf(most, fmaxf(acc[i][j][2 * h], acc[i][j][2 * h + 1]));
        sums[i][h].raise(most);
        float sum = 0;
#pragma unroll
        for (int j = 0; j < 8; j++)
          sum += power2(acc[i][j][2 * h] - sums[i][h].m) + power2(acc[i][j][2 * h + 1] - sums[i][h].m);
        sums[i][h].add(sum);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 2; i++) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
#pragma unroll
      for (int lanes = 2; lanes > 0; lanes /= 2)
        sums[i][h].merge(__shfl_xor_sync(0xffffffffu, sums[i][h].m, lanes), __shfl_xor_sync(0xffffffffu, sums[i][h].s, lanes));
      if (warp % 2 == 1 && quarter == 0) {
        other[0][row + 16 * i + 8 * h] = sums[i][h].m;
        other[1][row + 16 * i + 8 * h] = sums[i][h].s;
      }
    }
  }
  __syncthreads();
  if (warp % 2 == 1 || quarter != 0) return;
#pragma unroll
  for (int i = 0; i < 2; i++) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int at = row + 16 * i + 8 * h;
      sums[i][h].merge(other[0][at], other[1][at]);
      if (row0 + at < p.n) store_partial(p.part, blockIdx.y, p.n, row0 + at, sums[i][h].m, sums[i][h].s);
    }
  }
}

}  // namespace
#endif
