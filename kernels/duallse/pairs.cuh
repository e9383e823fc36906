// pairs.cuh - blocks of pairs of a star's arm, for duallse.cu.
#ifndef FORTET_DUALLSE_PAIRS_CUH
#define FORTET_DUALLSE_PAIRS_CUH

#include "fortet.h"

namespace duallse {

constexpr double LOG2E = 1.44269504088896340736, LN2 = 0.693147180559945309417;

// A block of 128 threads is 8 x 16: 16 lanes go along the columns, SIDE apart.
constexpr int THREADS = 128, SIDE = 16, GROUP = 2, SPREAD = 4;
constexpr int ROWS = THREADS / SIDE * GROUP, COLS = SIDE * SPREAD, DEPTH = 32;

__device__ __forceinline__ int row_of(int g) { return static_cast<int>(threadIdx.x) / SIDE + g * (THREADS / SIDE); }
__device__ __forceinline__ int column_of(int q) { return static_cast<int>(threadIdx.x) % SIDE + q * SIDE; }

__device__ __forceinline__ float power(float x) { return exp2f(x); }
__device__ __forceinline__ double power(double x) { return exp2(x); }

template <class T>
__device__ __forceinline__ T finite_or_zero(T x) {
  return x == -static_cast<T>(INFINITY) ? T(0) : x;
}

// The base weight of node k of n.
template <class T>
__device__ __forceinline__ double base(const T *logw, int64_t n, int64_t k) {
  return logw ? exp(static_cast<double>(logw[k])) : 1 / static_cast<double>(n);
}

// This thread's part of sum_k b_k potential_k; nodes of weight zero do not count.
template <class T>
__device__ __forceinline__ double linear(const T *potential, const T *logw, int64_t n) {
  double s = 0;
  for (int64_t k = threadIdx.x; potential && k < n; k += blockDim.x) {
    const double w = base(logw, n, k);
    if (w != 0) s += w * static_cast<double>(potential[k]);
  }
  return s;
}

// An arm, with one side as rows and the other as columns. Exponents have base 2:
// z_rc = bias_c + scale c(x_r, y_c).
template <class T>
struct pairs {
  const T *x, *y;                 // points of rows and columns, or
  const T *cost;                  // the cost at row_step r + col_step c
  const T *potential, *logw;      // of the leaves
  const double *log_p, *message;  // of the centre
  int64_t row_step, col_step, rows, cols, leaves, d;
  double uniform;                 // log weight of a leaf without logw
  T scale;

  __device__ __forceinline__ T leaf(int64_t k) const {
    const double w = logw ? static_cast<double>(logw[k]) : uniform;
    return static_cast<T>((w + (potential ? static_cast<double>(potential[k]) : 0)) * LOG2E);
  }
  // log P_j - A_j: a node without mass has none to share, whatever its message.
  __device__ __forceinline__ double share(int64_t j) const {
    const double l = log_p[j];
    return l == -FORTET_INF ? l : (l - message[j]) * LOG2E;
  }
};

// Rows and columns of points, DEPTH coordinates at a time. The odd row length
// spreads a column over all banks.
template <class T>
struct panel {
  T x[ROWS][DEPTH + 1], y[COLS][DEPTH + 1];
};

// Loads coordinates [k0, k0 + DEPTH) of the block's points; zeros beyond the last.
template <class T>
__device__ __forceinline__ void load(const pairs<T> &p, panel<T> &s, int64_t r0, int64_t c0, int64_t k0) {
  __syncthreads();  // what was loaded before may still be read
#pragma unroll 4
  for (int i = threadIdx.x; i < ROWS * DEPTH; i += THREADS) {
    const int64_t r = r0 + i / DEPTH, k = k0 + i % DEPTH;
    s.x[i / DEPTH][i % DEPTH] = r < p.rows && k < p.d ? p.x[r * p.d + k] : T(0);
  }
#pragma unroll 4
  for (int i = threadIdx.x; i < COLS * DEPTH; i += THREADS) {
    const int64_t c = c0 + i / DEPTH, k = k0 + i % DEPTH;
    s.y[i / DEPTH][i % DEPTH] = c < p.cols && k < p.d ? p.y[c * p.d + k] : T(0);
  }
  __syncthreads();
}

// The exponents of the thread's pairs; -inf beyond the last column.
template <class T, bool LEAVES>
__device__ __forceinline__ void exponents(const pairs<T> &p, panel<T> &s, int64_t r0, int64_t c0, T (&z)[GROUP][SPREAD]) {
#pragma unroll
  for (int g = 0; g < GROUP; g++)
#pragma unroll
    for (int q = 0; q < SPREAD; q++) z[g][q] = 0;
  if (p.cost) {
#pragma unroll
    for (int g = 0; g < GROUP; g++)
#pragma unroll
      for (int q = 0; q < SPREAD; q++) {
        const int64_t r = r0 + row_of(g), c = c0 + column_of(q);
        if (r < p.rows && c < p.cols) z[g][q] = p.cost[r * p.row_step + c * p.col_step];
      }
  } else {
    for (int64_t k0 = 0; k0 < p.d; k0 += DEPTH) {
      load(p, s, r0, c0, k0);
      const int depth = p.d - k0 < DEPTH ? static_cast<int>(p.d - k0) : DEPTH;
#pragma unroll 4
      for (int k = 0; k < depth; k++) {
        T x[GROUP], y[SPREAD];
#pragma unroll
        for (int g = 0; g < GROUP; g++) x[g] = s.x[row_of(g)][k];
#pragma unroll
        for (int q = 0; q < SPREAD; q++) y[q] = s.y[column_of(q)][k];
#pragma unroll
        for (int g = 0; g < GROUP; g++)
#pragma unroll
          for (int q = 0; q < SPREAD; q++) {
            const T t = x[g] - y[q];
            z[g][q] += t * t;
          }
      }
    }
  }
#pragma unroll
  for (int q = 0; q < SPREAD; q++) {
    const int64_t c = c0 + column_of(q);
    const bool in = c < p.cols;
    const T bias = !in ? -static_cast<T>(INFINITY) : LEAVES ? static_cast<T>(p.share(c)) : p.leaf(c);
#pragma unroll
    for (int g = 0; g < GROUP; g++) z[g][q] = bias + p.scale * z[g][q];
  }
}

// out[r d + k] += factor sum_c weights_rc (y_ck - x_rk): a thread owns the row
// threadIdx.x / 8 and every eighth coordinate.
template <class T>
__device__ __forceinline__ void moments(const pairs<T> &p, panel<T> &s, const T (&weights)[ROWS][COLS + 1], int64_t r0,
                                        int64_t c0, T factor, T *out) {
  constexpr int EACH = THREADS / ROWS, STEPS = DEPTH / EACH;
  const int row = threadIdx.x / EACH, lane = threadIdx.x % EACH;
  for (int64_t k0 = 0; k0 < p.d; k0 += DEPTH) {
    load(p, s, r0, c0, k0);
    T sum[STEPS];
#pragma unroll
    for (int i = 0; i < STEPS; i++) sum[i] = 0;
#pragma unroll 4
    for (int c = 0; c < COLS; c++) {
      const T w = weights[row][c];
#pragma unroll
      for (int i = 0; i < STEPS; i++) sum[i] += w * (s.y[c][lane + i * EACH] - s.x[row][lane + i * EACH]);
    }
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
      const int64_t k = k0 + lane + i * EACH;
      if (r0 + row < p.rows && k < p.d) out[(r0 + row) * p.d + k] += factor * sum[i];
    }
  }
  __syncthreads();  // weights are written again for the next panel
}

}  // namespace duallse

#endif
