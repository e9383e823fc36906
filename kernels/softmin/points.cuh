/* points.cuh - softmin and apply for points of up to 8 dimensions.
 *
 * One thread owns rows, whose points stay in registers; the columns pass
 * through shared memory in tiles of (y_j, -h_j), read by all threads of a warp
 * at once (a broadcast, 16 bytes a load). With h_j = (g_j + epsilon logb_j) / kappa,
 * cost c = kappa q, and q = |x - y|^2 or |x - y|,
 *
 *     u_ij = q_ij - h_j,   z_ij log2(e) = -S u_ij,   S = kappa log2(e) / epsilon.
 *
 * Coordinates are subtracted before anything is squared, so near points keep
 * their relative precision wherever the cloud lies.
 *
 * Work per pair, in issue slots of a scheduler: 2d for u, one multiply-add that
 * also subtracts the row's maximum, one addition and one exponential; the tile's
 * loads are shared by two rows. That is 2d + 3, and 10.25 in the machine code
 * for d = 3 with loads and loop. That no term is too large is seen from the sum of a
 * block of columns; only where one is are the block's minimum of u searched and its
 * terms computed again. An H100 issues 128 lanes a clock and multiprocessor and
 * has 16 for exponentials, so one exponential takes the time of 8 slots: at d = 2
 * both bind, above the arithmetic does. A polynomial exponential on the FMA
 * units (FlashAttention-4) pays where these idle; in float32 accuracy it would
 * take 12 slots of those that are short.
 *   bytes: (n + splits m) (d + 2) numbers, all in L2; flops: (3 d + 3) n m.
 * Not measured; docs/gpu-notes.md has predictions. */
#ifndef FORTET_SOFTMIN_POINTS_CUH
#define FORTET_SOFTMIN_POINTS_CUH

#include "online.cuh"

namespace {

constexpr int kPointThreads = 128;
constexpr int kPointColumns = FORTET_SOFTMIN_POINT_COLUMNS; /* of a tile */
constexpr int kPointRows = FORTET_SOFTMIN_POINT_ROWS / kPointThreads; /* of a thread */
constexpr int kPointValues = FORTET_SOFTMIN_POINT_VALUES; /* columns of v in one launch's z block */

template <class T>
struct points {
  const T *x, *y, *g, *logb;
  int64_t n, m;
  int64_t tiles; /* of one split */
  int d;         /* at most the kernel's D; the other coordinates are 0 */
  T S, epsilon;
  T per_kappa;   /* 1 / kappa */
  T damp;        /* of g */
  bool reached;  /* g_j = +inf says that nothing reaches j: it weighs nothing */
  T *part;
};

/* A column in shared memory: coordinates, then -h, in loads of up to 16 bytes. */
template <class T, int D>
struct alignas(D == 1 ? 2 * sizeof(T) : 16) column {
  T y[D], minus_h;
};

template <class T, int D>
static __device__ __forceinline__ void load_column(const points<T> &p, int64_t j, bool inside, column<T, D> &c) {
  T h = -static_cast<T>(INFINITY);
#pragma unroll
  for (int k = 0; k < D; k++) c.y[k] = inside && k < p.d ? p.y[j * p.d + k] : T(0);
  if (inside) {
    const T g = p.g ? p.g[j] : T(0);
    const T b = p.logb ? p.logb[j] * p.epsilon : T(0);
    if (!(p.reached && g == static_cast<T>(INFINITY))) h = multiply_add(p.damp, g, b) * p.per_kappa;
  }
  c.minus_h = -h;
}

/* sum_b 2^(z_b - m) */
template <class T, int B>
static __device__ __forceinline__ T point_terms(const T (&u)[B], T S, T m) {
  T sum = power2(multiply_add(-S, u[0], -m));
#pragma unroll
  for (int b = 1; b < B; b++) sum += power2(multiply_add(-S, u[b], -m));
  return sum;
}

/* softmin: part gets the pairs (m, s). Grid: (rows / 256, splits). */
template <class T, int D, bool ROOT>
__global__ __launch_bounds__(kPointThreads, sizeof(T) == 4 ? 7 : 4) void softmin_points(const points<T> p) {
  constexpr int R = kPointRows, B = sizeof(T) == 4 ? 8 : 4;
  __shared__ column<T, D> tile[kPointColumns];

  const int64_t first = int64_t(blockIdx.x) * (kPointThreads * R) + threadIdx.x;
  T x[R][D];
#pragma unroll
  for (int r = 0; r < R; r++) {
    const int64_t i = first + r * kPointThreads;
#pragma unroll
    for (int k = 0; k < D; k++) x[r][k] = i < p.n && k < p.d ? p.x[i * p.d + k] : T(0);
  }
  online<T> row[R];

  const int64_t begin = int64_t(blockIdx.y) * p.tiles * kPointColumns;
  const int64_t end = begin + p.tiles * kPointColumns < p.m ? begin + p.tiles * kPointColumns : p.m;
  for (int64_t j = begin; j < end; j += kPointColumns) {
    __syncthreads();
    for (int t = threadIdx.x; t < kPointColumns; t += kPointThreads) load_column<T, D>(p, j + t, j + t < end, tile[t]);
    __syncthreads();
    T block[R] = {};
#pragma unroll 1
    for (int t = 0; t < kPointColumns; t += B) {
      T u[R][B];
#pragma unroll
      for (int b = 0; b < B; b++) {
        const column<T, D> c = tile[t + b];
#pragma unroll
        for (int r = 0; r < R; r++) {
          T q = ROOT ? T(0) : c.minus_h;
#pragma unroll
          for (int k = 0; k < D; k++) {
            const T diff = x[r][k] - c.y[k];
            q = multiply_add(diff, diff, q);
          }
          u[r][b] = ROOT ? root(q) + c.minus_h : q;
        }
      }
#pragma unroll
      for (int r = 0; r < R; r++) {
        T sum = point_terms(u[r], p.S, row[r].m);
        if (!(sum <= kMostOfBlock<T>)) {
          T least = u[r][0];
#pragma unroll
          for (int b = 1; b < B; b++) least = lesser(least, u[r][b]);
          block[r] *= row[r].rise(-p.S * least);
          sum = point_terms(u[r], p.S, row[r].m);
        }
        block[r] += sum;
      }
    }
#pragma unroll
    for (int r = 0; r < R; r++) row[r].add(block[r]);
  }
#pragma unroll
  for (int r = 0; r < R; r++) {
    const int64_t i = first + r * kPointThreads;
    if (i < p.n) store_partial(p.part, blockIdx.y, p.n, i, row[r].m, row[r].s);
  }
}

/* apply: sums of p_ij times 1, q_ij, v_j and dq/dx. Per pair 2d + 1 for q, 4 for
 * p, 2 + d + 4 multiply-adds; every further 4 columns of v are another z block
 * that computes p again, 2d + 5 operations against their 4.
 * part[split][2 + k + d][n]: mass, mean of q, r, grad. Grid: (rows / 128,
 * splits, max(1, k / 4)). */
template <class T>
struct points_apply {
  points<T> p;
  const T *f, *v;
  int64_t k;
};

template <class T, int D, bool ROOT>
__global__ __launch_bounds__(kPointThreads, sizeof(T) == 4 ? 5 : 2) void apply_points(const points_apply<T> a) {
  constexpr int K = kPointValues;
  __shared__ column<T, D> tile[kPointColumns];
  __shared__ __align__(16) T values[kPointColumns][K];
  const points<T> &p = a.p;

  const int64_t i = int64_t(blockIdx.x) * kPointThreads + threadIdx.x;
  const int64_t from = int64_t(blockIdx.z) * K;
  const bool any = from < a.k;
  T x[D];
#pragma unroll
  for (int k = 0; k < D; k++) x[k] = i < p.n && k < p.d ? p.x[i * p.d + k] : T(0);
  /* Finite: then f = +inf leaves p_ij = 0 where the weight is 0, and else inf. */
  const T f = i < p.n ? finite(a.f[i] * p.per_kappa) : T(0);

  T mass = 0, mean = 0, grad[D] = {}, r[K] = {};
  const int64_t begin = int64_t(blockIdx.y) * p.tiles * kPointColumns;
  const int64_t end = begin + p.tiles * kPointColumns < p.m ? begin + p.tiles * kPointColumns : p.m;
  for (int64_t j = begin; j < end; j += kPointColumns) {
    __syncthreads();
    for (int t = threadIdx.x; t < kPointColumns; t += kPointThreads) load_column<T, D>(p, j + t, j + t < end, tile[t]);
    if (any) {
      for (int t = threadIdx.x; t < kPointColumns * K; t += kPointThreads) {
        const int64_t row = j + t / K, k = from + t % K;
        values[t / K][t % K] = row < end && k < a.k ? a.v[row * a.k + k] : T(0);
      }
    }
    __syncthreads();
    /* Sums of a tile, then of tiles: rounding grows with 128 + m / 128 terms. */
    T tile_mass = 0, tile_mean = 0, tile_grad[D] = {}, tile_r[K] = {};
#pragma unroll sizeof(T) == 4 ? 4 : 2
    for (int t = 0; t < kPointColumns; t++) {
      const column<T, D> c = tile[t];
      T diff[D], q = 0;
#pragma unroll
      for (int k = 0; k < D; k++) {
        diff[k] = x[k] - c.y[k];
        q = multiply_add(diff[k], diff[k], q);
      }
      if (ROOT) q = root(q);
      const T w = power2(-p.S * ((q + c.minus_h) - f));
      tile_mass += w;
      tile_mean = multiply_add(w, q, tile_mean);
      const T slope = ROOT ? (q == T(0) ? T(0) : w / q) : w;
#pragma unroll
      for (int k = 0; k < D; k++) tile_grad[k] = multiply_add(slope, diff[k], tile_grad[k]);
      if (any) {
#pragma unroll
        for (int k = 0; k < K; k++) tile_r[k] = multiply_add(w, values[t][k], tile_r[k]);
      }
    }
    mass += tile_mass;
    mean += tile_mean;
#pragma unroll
    for (int k = 0; k < D; k++) grad[k] += tile_grad[k];
#pragma unroll
    for (int k = 0; k < K; k++) r[k] += tile_r[k];
  }
  if (i >= p.n) return;
  T *const out = p.part + blockIdx.y * (2 + a.k + p.d) * p.n + i;
  if (blockIdx.z == 0) {
    out[0] = mass;
    out[p.n] = mean;
#pragma unroll
    for (int k = 0; k < D; k++)
      if (k < p.d) out[(2 + a.k + k) * p.n] = grad[k];
  }
#pragma unroll
  for (int k = 0; k < K; k++)
    if (from + k < a.k) out[(2 + from + k) * p.n] = r[k];
}

}  // namespace
#endif
