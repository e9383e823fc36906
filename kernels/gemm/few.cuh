/* few.cuh - products with at most FORTET_GEMM_FEW rows, which read B once, as it
 * lies, in the element type. bytes: those of B. flops: 2 FEW a number, at most.
 * Predicted on an H100, not measured: 75 % of 3.35 TB/s where B has 64 MB. */
#ifndef FORTET_GEMM_FEW_CUH
#define FORTET_GEMM_FEW_CUH

#include "fetch.cuh"

namespace {

constexpr int kFew = FORTET_GEMM_FEW, kFewColumns = FORTET_GEMM_FEW_COLUMNS, kWarps = kThreads / 32;
static_assert(kFewColumns == 32, "a lane for each column");

/* B's rows are summed: a warp takes every eighth term of 32 columns. Grid:
 * (n / 32, splits, batch). */
template <class T, int R>
__global__ __launch_bounds__(kThreads, 4) void few_rows(const product<T> p) {
  __shared__ T sums[kWarps][R][32];
  const share<T> own(p);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t j = int64_t(blockIdx.x) * kFewColumns + lane;
  T acc[R] = {};
  if (j < p.n) {
    const T *const b = own.b + j * p.b.point;
#pragma unroll 4
    for (int64_t k = warp; k < own.k1 - own.k0; k += kWarps) {
      const T v = b[k * p.b.term];
#pragma unroll
      for (int r = 0; r < R; r++) acc[r] += own.a[r * p.a.point + k * p.a.term] * v;
    }
  }
#pragma unroll
  for (int r = 0; r < R; r++) sums[warp][r][lane] = acc[r];
  __syncthreads();
  if (warp >= R || j >= p.n) return;
  T sum = sums[0][warp][lane];
#pragma unroll
  for (int w = 1; w < kWarps; w++) sum += sums[w][warp][lane];
  own_target(p).put(warp, j, sum);
}

/* Dot products with B's columns: a warp takes four of 32. Grid: (n / 32, splits, batch). */
template <class T, int R>
__global__ __launch_bounds__(kThreads, 4) void few_dots(const product<T> p) {
  const share<T> own(p);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll 1
  for (int c = warp; c < kFewColumns; c += kWarps) {
    const int64_t j = int64_t(blockIdx.x) * kFewColumns + c;
    if (j >= p.n) break;
    const T *const b = own.b + j * p.b.point;
    T acc[R] = {};
#pragma unroll 4
    for (int64_t k = lane; k < own.k1 - own.k0; k += 32) {
      const T v = b[k * p.b.term];
#pragma unroll
      for (int r = 0; r < R; r++) acc[r] += own.a[r * p.a.point + k * p.a.term] * v;
    }
#pragma unroll
    for (int r = 0; r < R; r++) {
      const T sum = fortet_warp_sum(acc[r]);
      if (lane == r) own_target(p).put(r, j, sum);
    }
  }
}

}  // namespace
#endif
