/* tensor.cuh - softmin with the products of coordinates on tensor cores, for
 * squared Euclidean costs of float points: TF32, or bfloat16 split in two with
 * three products (hi hi + hi lo + lo hi), both with float32 accumulators.
 *
 * A block of 8 warps computes tiles of 128 x 128 exponents, a warp 32 x 64 of
 * them in 64 registers a thread. A block keeps its 128 rows in shared memory
 * where d <= 128, and lets columns pass through two stages of 32 words a point
 * by cp.async. A product plus the column's bias is an exponent in base 2
 * (prepare.cuh); then a subtraction, an exponential and an addition per pair, and
 * a maximum where the sum is too large (online.cuh). Rows are reduced at the very
 * end. (Accumulators that began at the bias would save an addition, and lose the
 * last bits of each product.)
 *
 * A point's 32 words of a slice lie in shared memory in 8 pieces of 16 bytes,
 * piece c of point i in place c ^ (i % 8): then the eight pieces that one phase
 * of ldmatrix reads, of eight points, fall into different banks.
 *
 *   flops: 2 d n m (TF32), 6 d n m (bf16x3, at twice the rate).
 *   shared memory: 12 (18) KiB for 64 (96) instructions of a warp, 96 (144)
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
  int64_t n, all;        /* rows; tiles of all splits */
  int slices;            /* dp / 32 */
  int64_t tiles;         /* of one split */
  float *part;
};

static inline bool tensor_resident(int slices) { return slices <= kResidentSlices; }
static inline size_t tensor_shared(int slices) {
  return sizeof(unsigned) * size_t(kStage) * size_t((tensor_resident(slices) ? slices : 2) + 2);
}

/* The first word of a piece in a stage. */
static __device__ __forceinline__ int place_of(int point, int piece) {
  return point * kSlice + (piece ^ (point & 7)) * 4;
}

/* The copies of 128 points' slices into stages, in the order in which they are
 * used: eight threads for the 128 bytes of a point. */
struct slice_copy {
  const unsigned *from;
  int to;

  __device__ __forceinline__ slice_copy(const unsigned *points, int slices) {
    const int point = threadIdx.x / 8, piece = threadIdx.x % 8;
    from = points + point * (slices * kSlice) + piece * 4;
    to = place_of(point, piece);
  }
  __device__ __forceinline__ void fetch(unsigned *stage, int slices) const {
#pragma unroll
    for (int s = 0; s < 128; s += kTensorThreads / 8)
      copy16(stage + to + s * kSlice, from + s * (slices * kSlice));
  }
};

/* A fragment of A (one of 16 points and 8 words), or two of B (of 8 points each),
 * at a point that is a multiple of 8 and step 0..3 of a slice. Both sides may be
 * either. Register r gets 8 points of one piece: */
struct operand {
  bool a;
  __device__ __forceinline__ int point(int r) const { return (a ? r % 2 : r / 2) * 8; }
  __device__ __forceinline__ int piece(int r) const { return a ? r / 2 : r % 2; }
};
static __device__ __forceinline__ void load_fragment(unsigned (&to)[4], const unsigned *stage, operand o, int point,
                                                     int step) {
  const int lane = threadIdx.x % 32;
#if defined(FORTET_EMU)
  for (int r = 0; r < 4; r++) to[r] = stage[place_of(point + o.point(r) + lane / 4, 2 * step + o.piece(r)) + lane % 4];
#else
  /* Lane l names the piece of point l % 8 for register l / 8. */
  const int at = place_of(point + o.point(lane / 8) + lane % 8, 2 * step + o.piece(lane / 8));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(unsigned(__cvta_generic_to_shared(stage + at)))
               : "memory");
#endif
}

/* acc += the products of one slice. TF32 has four steps, of 8 words on either
 * side; bf16x3 six: hi hi, hi lo, lo hi, each of two, hi being steps 0 and 1. */
template <layout L>
static __device__ __forceinline__ void multiply_slice(float (&acc)[2][8][4], const unsigned *left, const unsigned *right,
                                                      int row, int column) {
#pragma unroll L == kTF32 ? 4 : 2 /* as registers allow */
  for (int s = 0; s < (L == kTF32 ? 4 : 6); s++) {
    const int left_step = L == kTF32 ? s : s < 4 ? s % 2 : s - 2, right_step = s % 4;
    unsigned a[2][4];
#pragma unroll
    for (int i = 0; i < 2; i++) load_fragment(a[i], left, operand{true}, row + 16 * i, left_step);
#pragma unroll
    for (int j = 0; j < 8; j += 2) {
      unsigned b[4];
      load_fragment(b, right, operand{false}, column + 8 * j, right_step);
#pragma unroll
      for (int i = 0; i < 2; i++) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
          const unsigned pair[2] = {b[2 * h], b[2 * h + 1]};
          if (L == kTF32) mma_tf32(acc[i][j + h], a[i], pair);
          else mma_bf16(acc[i][j + h], a[i], pair);
        }
      }
    }
  }
}

/* A lane's terms of one row: elements h and h + 1 of each tile. */
static __device__ __forceinline__ float tensor_terms(const float (&acc)[8][4], int h, float m) {
  float sum = 0;
#pragma unroll
  for (int j = 0; j < 8; j++) sum += power2(acc[j][h] - m) + power2(acc[j][h + 1] - m);
  return sum;
}

/* part gets the pairs (m, s). Grid: (rows / 128, splits). */
template <layout L>
__global__ __launch_bounds__(kTensorThreads, 2) void softmin_tensor(const tensor_tiles p) {
  FORTET_DYN_SHARED(unsigned, shared);
  /* A lane's sums over its four rows wait here between tiles, for their
   * registers are needed meanwhile; the right warps' results in the end. */
  __shared__ float state[3][4][kTensorThreads];
  /* Of tiles t, t + 1, and t + 2, whose copy may start while a warp is at t. */
  __shared__ __align__(16) float bias[3][kTensorColumns];
  const int slices = p.slices;
  const bool resident = slices <= kResidentSlices;
  unsigned *const left = shared, *const right = shared + (resident ? slices : 2) * kStage;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, quarter = lane % 4;
  const int row = warp / 2 * 32 + lane / 4; /* of its first accumulators */
  const int64_t row0 = int64_t(blockIdx.x) * kTensorRows, first = blockIdx.y * p.tiles;
  const int tiles = int(p.all - first < p.tiles ? p.all - first : p.tiles);

  slice_copy rows(p.x + row0 * (slices * kSlice), slices);
  slice_copy columns(p.y + first * kTensorColumns * (slices * kSlice), slices);
#pragma unroll
  for (int r = 0; r < 4; r++) {
    const online<float> none;
    state[0][r][threadIdx.x] = none.m, state[1][r][threadIdx.x] = none.s, state[2][r][threadIdx.x] = none.lost;
  }

  /* The slices that follow each other: k of tile t, and the one behind it. */
  const auto fetch = [&](int t, int k, int stage) {
    if (t < tiles) {
      if (k == 0 && threadIdx.x < kTensorColumns / 4)
        copy16(bias[t % 3] + 4 * threadIdx.x, p.bias + (first + t) * kTensorColumns + 4 * threadIdx.x);
      columns.fetch(right + stage * kStage, slices);
      columns.from += kSlice + (k + 1 == slices ? (kTensorColumns - 1) * (slices * kSlice) : 0);
      if (t == 0 || !resident) {
        rows.fetch(left + (resident ? k : stage) * kStage, slices);
        rows.from += k + 1 == slices ? kSlice - slices * kSlice : kSlice;
      }
    }
    copy_commit(); /* also where there is nothing: groups are counted */
  };
  int stage = 0;
  fetch(0, 0, 0);
#pragma unroll 1
  for (int t = 0; t < tiles; t++) {
    float acc[2][8][4] = {};
#pragma unroll 1
    for (int k = 0; k < slices; k++) {
      if (k + 1 < slices) fetch(t, k + 1, stage ^ 1);
      else fetch(t + 1, 0, stage ^ 1);
      copy_wait<1>();
      __syncthreads();
      multiply_slice<L>(acc, left + (resident ? k : stage) * kStage, right + stage * kStage, warp / 2 * 32, warp % 2 * 64);
      __syncthreads();
      stage ^= 1;
    }
#pragma unroll
    for (int j = 0; j < 8; j++) {
      const float2 b = *reinterpret_cast<const float2 *>(&bias[t % 3][warp % 2 * 64 + 8 * j + 2 * quarter]);
#pragma unroll
      for (int i = 0; i < 2; i++) acc[i][j][0] += b.x, acc[i][j][1] += b.y, acc[i][j][2] += b.x, acc[i][j][3] += b.y;
    }
#pragma unroll
    for (int r = 0; r < 4; r++) {
      const int i = r / 2, h = r % 2 * 2;
      online<float> sums;
      sums.m = state[0][r][threadIdx.x], sums.s = state[1][r][threadIdx.x], sums.lost = state[2][r][threadIdx.x];
      float sum = tensor_terms(acc[i], h, sums.m);
      if (!(sum <= kMostOfBlock<float>)) {
        float most = acc[i][0][h];
#pragma unroll
        for (int j = 0; j < 8; j++) most = fmaxf(most, fmaxf(acc[i][j][h], acc[i][j][h + 1]));
        sums.rise(most);
        sum = tensor_terms(acc[i], h, sums.m);
      }
      sums.add(sum);
      state[0][r][threadIdx.x] = sums.m, state[1][r][threadIdx.x] = sums.s, state[2][r][threadIdx.x] = sums.lost;
    }
  }

  online<float> sums[4];
#pragma unroll
  for (int r = 0; r < 4; r++) {
    sums[r].m = state[0][r][threadIdx.x], sums[r].s = state[1][r][threadIdx.x];
#pragma unroll
    for (int lanes = 2; lanes > 0; lanes /= 2)
      sums[r].merge(__shfl_xor_sync(0xffffffffu, sums[r].m, lanes), __shfl_xor_sync(0xffffffffu, sums[r].s, lanes));
    state[0][r][threadIdx.x] = sums[r].m, state[1][r][threadIdx.x] = sums[r].s;
  }
  __syncthreads();
  if (warp % 2 == 1 || quarter != 0) return;
#pragma unroll
  for (int r = 0; r < 4; r++) {
    const int64_t at = row0 + row + 8 * r; /* 16 i + 8 h */
    sums[r].merge(state[0][r][threadIdx.x + 32], state[1][r][threadIdx.x + 32]);
    if (at < p.n) store_partial(p.part, blockIdx.y, p.n, at, sums[r].m, sums[r].s);
  }
}

}  // namespace
#endif
