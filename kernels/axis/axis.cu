/* Log-sum-exps along an axis on the GPU. A tile of 32 rows i by 32 columns is a
 * block's: every thread has eight rows of a column, whose z it goes over twice
 * for each 32 terms, in shared memory, once for the largest and once for the sum.
 * C n m exponentials for C columns, against (C + m) n numbers read 32 times over,
 * from the second-level cache for the most part: bound by exponentials, 16 a
 * clock and multiprocessor in float and a thirtieth of the multiply-adds in
 * double. With less than 32 columns, a warp takes one sum. */
#include "axis.h"

FORTET_CONTRACT(axis)

namespace {

constexpr int kThreads = 128, kTile = 32, kRows = kTile / (kThreads / 32);

template <class T> struct limits;
template <> struct limits<float> {
  static constexpr float highest = 3.402823466e+38f;
};
template <> struct limits<double> {
  static constexpr double highest = 1.7976931348623157e+308;
};

/* The top of a sum is kept finite, so that no difference of exponents is
 * inf - inf: without terms the sum is 0, a z of +inf makes it inf, a NaN makes it
 * NaN, and top + log sum is right in all cases. */
template <class T>
static __device__ __forceinline__ T finite(T x) {
  x = x < limits<T>::highest ? x : limits<T>::highest;
  return x > -limits<T>::highest ? x : -limits<T>::highest;
}

template <class T>
static __device__ __forceinline__ void finish(const fortet_axis_args &a, int64_t at, T top, T sum) {
  const double add = a.add ? static_cast<double>(static_cast<const T *>(a.add)[at]) : 0;
  const double r = fortet_axis_result(static_cast<double>(top) + static_cast<double>(fortet_log(sum)), a.scale, add);
  if (a.out) static_cast<T *>(a.out)[at] = static_cast<T>(r);
  if (a.mass) a.mass[at] = exp(r);
}

template <class T>
__global__ void __launch_bounds__(kThreads) tiles(fortet_axis_args a, int64_t columns, int64_t row_tiles) {
  __shared__ T v[kTile][kTile + 1], k[kTile][kTile];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t c0 = blockIdx.x / row_tiles * kTile, i0 = blockIdx.x % row_tiles * kTile;
  const T *const in = static_cast<const T *>(a.in), *const logk = static_cast<const T *>(a.logk);
  const T nothing = -static_cast<T>(INFINITY);
  const bool across = a.inner >= 8; /* neighbours in memory are columns, and not terms */
  T top[kRows], sum[kRows];
#pragma unroll
  for (int q = 0; q < kRows; q++) top[q] = -limits<T>::highest, sum[q] = 0;
  for (int64_t j0 = 0; j0 < a.n; j0 += kTile) {
#pragma unroll
    for (int q = warp; q < kTile; q += kThreads / 32) {
      const int row = across ? q : lane, column = across ? lane : q;
      const int64_t c = c0 + column, j = j0 + row;
      v[row][column] = c < columns && j < a.n ? in[(c / a.inner * a.n + j) * a.inner + c % a.inner] : nothing;
      k[q][lane] = i0 + q < a.m && j0 + lane < a.n ? logk[(i0 + q) * a.n + j0 + lane] : nothing;
    }
    __syncthreads();
    T high[kRows];
#pragma unroll
    for (int q = 0; q < kRows; q++) high[q] = top[q];
#pragma unroll 4
    for (int j = 0; j < kTile; j++) {
      const T x = v[j][lane];
#pragma unroll
      for (int q = 0; q < kRows; q++) high[q] = fortet_fmax(high[q], k[warp * kRows + q][j] + x);
    }
#pragma unroll
    for (int q = 0; q < kRows; q++) {
      const T to = finite(high[q]);
      if (to > top[q]) {
        sum[q] *= fortet_exp(top[q] - to);
        top[q] = to;
      }
    }
#pragma unroll 2
    for (int j = 0; j < kTile; j++) {
      const T x = v[j][lane];
#pragma unroll
      for (int q = 0; q < kRows; q++) sum[q] += fortet_exp((k[warp * kRows + q][j] + x) - top[q]);
    }
    __syncthreads();
  }
  const int64_t c = c0 + lane;
  if (c >= columns) return;
#pragma unroll
  for (int q = 0; q < kRows; q++) {
    const int64_t i = i0 + warp * kRows + q;
    if (i < a.m) finish(a, (c / a.inner * a.m + i) * a.inner + c % a.inner, top[q], sum[q]);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) rows(fortet_axis_args a, int64_t columns) {
  const int lane = threadIdx.x % 32;
  const int64_t w = int64_t(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32, i = w / columns, c = w % columns;
  if (i >= a.m) return; /* the whole warp */
  const int64_t o = c / a.inner, r = c % a.inner;
  const T *const in = static_cast<const T *>(a.in) + o * a.n * a.inner + r;
  const T *const logk = static_cast<const T *>(a.logk) + i * a.n;
  T top = -limits<T>::highest, sum = 0;
  for (int64_t j = lane; j < a.n; j += 32) top = fortet_fmax(top, logk[j] + in[j * a.inner]);
  top = finite(fortet_warp_max(top));
  for (int64_t j = lane; j < a.n; j += 32) sum += fortet_exp((logk[j] + in[j * a.inner]) - top);
  sum = fortet_warp_sum(sum);
  if (lane == 0) finish(a, (o * a.m + i) * a.inner + r, top, sum);
}

template <class T>
int launch(void *stream, const void *args) {
  const fortet_axis_args a = *static_cast<const fortet_axis_args *>(args);
  const int64_t columns = a.outer * a.inner;
  if (columns < kTile) {
    const int64_t blocks = fortet_pieces(a.m * columns, kThreads / 32);
    FORTET_LAUNCH(rows<T>, dim3(static_cast<unsigned>(blocks)), kThreads, 0, stream, a, columns);
  } else {
    const int64_t row_tiles = fortet_pieces(a.m, kTile), blocks = fortet_pieces(columns, kTile) * row_tiles;
    FORTET_LAUNCH(tiles<T>, dim3(static_cast<unsigned>(blocks)), kThreads, 0, stream, a, columns, row_tiles);
  }
  return FORTET_STATUS();
}

}  // namespace

FORTET_EXPORT int fortet_axis_f32(void *stream, const void *args) { return launch<float>(stream, args); }
FORTET_EXPORT int fortet_axis_f64(void *stream, const void *args) { return launch<double>(stream, args); }
