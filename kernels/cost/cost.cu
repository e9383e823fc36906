/* Pairwise costs on the GPU.
 *
 * A block of 256 threads computes a square of 128 x 128 pairs (float) or
 * 64 x 64 (double), a thread 8 x 8 or 4 x 4 of them in registers; sixteen
 * coordinates at a time pass through shared memory. A pair and coordinate takes
 * a subtraction and a fused multiply-add, at half the peak that a matrix
 * product would reach, and loses nothing to cancellation; the result is written
 * once and 16 bytes at a time, 4 or 8 bytes a pair and output. With 2 d
 * instructions a pair, d below about 16 is bound by writing, above by
 * arithmetic.
 *
 * A warp is 8 x 4 threads wide and high, so that its writes of out are pieces
 * of 128 bytes, and those of out_t, straight from registers, of 64. */
#include "cost.h"

FORTET_CONTRACT(cost)

namespace {

enum { kThreads = 256, kDepth = 16 };

template <class T>
struct Shape {
  enum {
    vector = 16 / sizeof(T),   /* elements of 16 bytes */
    own = 2 * vector,          /* rows, and columns, of a thread, in two pieces */
    half = 16 * vector,        /* from one piece to the other */
    side = 2 * half,           /* rows, and columns, of a block */
    pitch = side + vector      /* of shared memory: moves rows by 16 bytes, against bank conflicts */
  };
};

/* Where the e-th row of a thread lies in its block. */
template <class T>
__device__ __forceinline__ int place(int thread, int e) {
  using S = Shape<T>;
  return thread * S::vector + e % S::vector + e / S::vector * S::half;
}

/* 1 / |p|, by a warp; the lanes agree. */
template <class T>
__device__ __forceinline__ T inverse(const T *p, int64_t d) {
  T sum = 0;
  for (int64_t k = threadIdx.x % 32; k < d; k += 32) sum += p[k] * p[k];
  return T(1) / sqrt(fortet_warp_sum(sum));
}

/* Sixteen coordinates of the block's points, transposed; beyond the last point
 * or coordinate zeros. */
template <class T>
__device__ __forceinline__ void fetch(const T *points, int64_t first, int64_t count, int64_t d, int64_t k0, const T *scale,
                                      T (*to)[Shape<T>::pitch]) {
  const int k = threadIdx.x % kDepth;
  for (int r = threadIdx.x / kDepth; r < Shape<T>::side; r += kThreads / kDepth) {
    T v = 0;
    if (first + r < count && k0 + k < d) v = points[(first + r) * d + k0 + k];
    to[k][r] = scale ? v * scale[r] : v;
  }
}

/* One row of a thread, in two pieces, to consecutive memory. */
template <class T>
__device__ __forceinline__ void put(T *row, int thread, int64_t left, bool aligned, const T (&v)[Shape<T>::own]) {
  using S = Shape<T>;
  struct __align__(16) Sixteen { T v[S::vector]; };
#pragma unroll
  for (int piece = 0; piece < 2; piece++) {
    const int at = place<T>(thread, piece * S::vector);
    if (aligned && at + S::vector <= left) {
      Sixteen s;
#pragma unroll
      for (int e = 0; e < S::vector; e++) s.v[e] = v[piece * S::vector + e];
      *reinterpret_cast<Sixteen *>(row + at) = s;
    } else {
#pragma unroll
      for (int e = 0; e < S::vector; e++)
        if (at + e < left) row[at + e] = v[piece * S::vector + e];
    }
  }
}

template <class T, bool cosine>
__global__ void __launch_bounds__(kThreads, 2) pairs(fortet_cost_args a, bool aligned, bool aligned_t) {
  using S = Shape<T>;
  __shared__ __align__(16) T xs[kDepth][S::pitch], ys[kDepth][S::pitch];
  __shared__ T x_scale[cosine ? S::side : 1], y_scale[cosine ? S::side : 1];

  const int64_t across = fortet_pieces(a.m, S::side), down = fortet_pieces(a.n, S::side);
  const int64_t q = blockIdx.x / (across * down);
  const int64_t i0 = blockIdx.x / across % down * S::side, j0 = blockIdx.x % across * S::side;
  const T *const x = static_cast<const T *>(a.x) + q * a.x_stride;
  const T *const y = static_cast<const T *>(a.y) + q * a.y_stride;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int tx = warp % 2 * 8 + lane % 8, ty = warp / 2 * 4 + lane / 8;

  if (cosine) {
    for (int r = warp; r < S::side; r += kThreads / 32) {
      const T u = i0 + r < a.n ? inverse(x + (i0 + r) * a.d, a.d) : T(0);
      const T v = j0 + r < a.m ? inverse(y + (j0 + r) * a.d, a.d) : T(0);
      if (lane == 0) x_scale[r] = u, y_scale[r] = v;
    }
    __syncthreads();
  }

  T sum[S::own][S::own] = {};
  for (int64_t k0 = 0; k0 < a.d; k0 += kDepth) {
    fetch(x, i0, a.n, a.d, k0, cosine ? x_scale : nullptr, xs);
    fetch(y, j0, a.m, a.d, k0, cosine ? y_scale : nullptr, ys);
    __syncthreads();
    const int count = a.d - k0 < kDepth ? static_cast<int>(a.d - k0) : kDepth;
    for (int k = 0; k < count; k++) {
      T p[S::own], r[S::own];
#pragma unroll
      for (int e = 0; e < S::own; e++) p[e] = xs[k][place<T>(ty, e)], r[e] = ys[k][place<T>(tx, e)];
#pragma unroll
      for (int i = 0; i < S::own; i++)
#pragma unroll
        for (int j = 0; j < S::own; j++) {
          const T t = p[i] - r[j];
          sum[i][j] += t * t;
        }
    }
    __syncthreads();
  }

  const bool half = a.cost == FORTET_HALF_SQEUCLIDEAN || cosine, root = a.cost == FORTET_EUCLIDEAN;
#pragma unroll
  for (int i = 0; i < S::own; i++)
#pragma unroll
    for (int j = 0; j < S::own; j++) {
      if (half) sum[i][j] *= T(0.5);
      if (root) sum[i][j] = sqrt(sum[i][j]);
    }
  if (a.out) {
#pragma unroll
    for (int i = 0; i < S::own; i++) {
      const int64_t row = i0 + place<T>(ty, i);
      if (row < a.n) put(static_cast<T *>(a.out) + (q * a.n + row) * a.m + j0, tx, a.m - j0, aligned, sum[i]);
    }
  }
  if (a.out_t) {
#pragma unroll
    for (int j = 0; j < S::own; j++) {
      T v[S::own];
#pragma unroll
      for (int i = 0; i < S::own; i++) v[i] = sum[i][j];
      const int64_t row = j0 + place<T>(tx, j);
      if (row < a.m) put(static_cast<T *>(a.out_t) + (q * a.m + row) * a.n + i0, ty, a.n - i0, aligned_t, v);
    }
  }
}

template <class T>
int launch(void *stream, const void *args) {
  using S = Shape<T>;
  const fortet_cost_args a = *static_cast<const fortet_cost_args *>(args);
  const int64_t blocks = a.batch * fortet_pieces(a.n, S::side) * fortet_pieces(a.m, S::side);
  if (blocks > INT32_MAX) return FORTET_UNSUPPORTED;
  const bool aligned = reinterpret_cast<uintptr_t>(a.out) % 16 == 0 && a.m % S::vector == 0;
  const bool aligned_t = reinterpret_cast<uintptr_t>(a.out_t) % 16 == 0 && a.n % S::vector == 0;
  const dim3 grid(static_cast<unsigned>(blocks));
  if (a.cost == FORTET_COSINE)
    FORTET_LAUNCH((pairs<T, true>), grid, kThreads, 0, stream, a, aligned, aligned_t);
  else
    FORTET_LAUNCH((pairs<T, false>), grid, kThreads, 0, stream, a, aligned, aligned_t);
  return FORTET_STATUS();
}

}  // namespace

FORTET_EXPORT int fortet_cost_f32(void *stream, const void *args) { return launch<float>(stream, args); }
FORTET_EXPORT int fortet_cost_f64(void *stream, const void *args) { return launch<double>(stream, args); }
