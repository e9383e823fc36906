/* tiles.cuh - softmin and apply by tiles of exponents: for points of more than
 * 8 dimensions, and for a cost matrix.
 *
 * A block of four warps computes tiles of 128 x 64 exponents (64 x 64 in
 * double), as a matrix product does: slices of 16 coordinates (8) of both sides
 * pass through two stages of shared memory by cp.async, and every thread holds
 * 8 x 8 (4 x 8) accumulators. A warp owns whole rows of the tile, eight lanes
 * share a row and each keeps a running sum of its own columns, so nothing is
 * exchanged before the end.
 *
 *   flops: 2 d n m, on the FMA units; Euclidean subtracts first: 3 d n m.
 *   shared memory: 4 (6) loads of 16 bytes for 64 (32) multiply-adds.
 *   bytes: (n m / 64 + n m / 128) d numbers from L2, which is 12 of the 64
 *   bytes a clock that a multiprocessor gets from it.
 * 86 % of a slice's instructions are multiply-adds (float), and with the tile's
 * exponentials 77 % of all at d = 64. Predicted on an H100, not measured: 65 to
 * 70 % of 67 TFLOP/s in float for d >= 64, of 34 in double, so 0.3 ms for
 * n = m = 10^4, d = 64 in float.
 * A cost matrix is read once: 4 (8) bytes a pair, 80 % of 3.35 TB/s. */
#ifndef FORTET_SOFTMIN_TILES_CUH
#define FORTET_SOFTMIN_TILES_CUH

#include "copy.cuh"
#include "online.cuh"

namespace {

enum score { kDot, kEuclidean, kGiven };

constexpr int kTileThreads = 128;
constexpr int kTileColumns = FORTET_SOFTMIN_TILE_COLUMNS;

template <class T>
struct shape {
  static constexpr int V = 16 / sizeof(T);             /* of one load */
  static constexpr int TM = sizeof(T) == 4 ? 8 : 4;    /* rows of a thread */
  static constexpr int TN = 8;                         /* columns of a thread */
  static constexpr int BM = 16 * TM, BN = kTileColumns; /* of the block */
  static constexpr int K = sizeof(T) == 4 ? 16 : 8;    /* coordinates of a slice */
  static constexpr int stage = K * (BM + BN);
  static_assert(BN == 8 * TN, "eight lanes share a row");
};

template <class T>
struct tiles {
  const T *x, *y; /* kTransposed, (dp, np) and (dp, mp) */
  const T *matrix;
  int64_t row_step, column_step; /* of the matrix */
  const T *bias;                 /* (mp) */
  int64_t n, m, np, mp;
  int64_t slices; /* dp / K */
  int64_t tiles;  /* of one split */
  T S;            /* log2(e) / epsilon, but for kDot */
  T *part;
};

/* Where a thread's accumulators lie in the tile. */
template <class T>
struct corner {
  int row;  /* its rows are row..row + TM - 1 */
  int lane; /* 0..7, the lane's place among those that share its rows */
  __device__ __forceinline__ corner() {
    row = (threadIdx.x / 32 * 4 + threadIdx.x % 32 / 8) * shape<T>::TM;
    lane = threadIdx.x % 8;
  }
  /* Column b of the thread: neighbouring lanes load neighbouring 16 bytes. */
  __device__ __forceinline__ int column(int b) const {
    constexpr int V = shape<T>::V;
    return b / V * (8 * V) + lane * V + b % V;
  }
};

/* acc += a^T b over depth rows of a (depth, la) and b (depth, lb) in shared
 * memory, or the sum of squared differences. */
template <class T, bool SUBTRACT, int UNROLL>
static __device__ __forceinline__ void multiply(const T *a, int la, const T *b, int lb, int depth, const corner<T> &at,
                                                T (&acc)[shape<T>::TM][shape<T>::TN]) {
  using Z = shape<T>;
#pragma unroll UNROLL
  for (int k = 0; k < depth; k++) {
    T left[Z::TM], right[Z::TN];
#pragma unroll
    for (int r = 0; r < Z::TM; r += Z::V) load16(left + r, a + k * la + at.row + r);
#pragma unroll
    for (int c = 0; c < Z::TN; c += Z::V) load16(right + c, b + k * lb + at.column(c));
#pragma unroll
    for (int r = 0; r < Z::TM; r++) {
#pragma unroll
      for (int c = 0; c < Z::TN; c++) {
        if (SUBTRACT) {
          const T diff = left[r] - right[c];
          acc[r][c] = multiply_add(diff, diff, acc[r][c]);
        } else {
          acc[r][c] = multiply_add(left[r], right[c], acc[r][c]);
        }
      }
    }
  }
}

/* The copies of slices into two stages, in the order in which they are used:
 * all slices of a tile, then those of the tile to its right. */
template <class T>
struct pipeline {
  T *stages;
  const T *left, *right; /* what the thread copies next */
  int64_t row0, column0; /* of the block's first tile */
  int64_t k, ahead;      /* slice in its tile; slices not yet fetched */

  __device__ __forceinline__ pipeline(const tiles<T> &p, T *stages, int64_t tiles) : stages(stages), k(0) {
    using Z = shape<T>;
    const int t = threadIdx.x * Z::V;
    row0 = int64_t(blockIdx.x) * Z::BM;
    column0 = blockIdx.y * p.tiles * Z::BN;
    left = p.x + t / Z::BM * p.np + row0 + t % Z::BM;
    right = p.y + t / Z::BN * p.mp + column0 + t % Z::BN;
    ahead = tiles * p.slices;
  }
  __device__ __forceinline__ void fetch(const tiles<T> &p, int stage) {
    using Z = shape<T>;
    constexpr int step = kTileThreads * Z::V; /* numbers that the block copies at once: whole rows */
    if (ahead > 0) {
      T *const to = stages + stage * Z::stage + threadIdx.x * Z::V;
#pragma unroll
      for (int s = 0; s < Z::K * Z::BM; s += step) copy16(to + s, left + s / Z::BM * p.np);
#pragma unroll
      for (int s = 0; s < Z::K * Z::BN; s += step) copy16(to + Z::K * Z::BM + s, right + s / Z::BN * p.mp);
      left += Z::K * p.np;
      right += Z::K * p.mp;
      if (++k == p.slices) {
        left -= p.slices * Z::K * p.np;
        right += Z::BN - p.slices * Z::K * p.mp;
        k = 0;
      }
      ahead--;
    }
    copy_commit(); /* also where there is nothing: groups are counted */
  }
};

/* The products (or squared distances, or matrix entries) of tile t of the
 * split. acc holds what they are added to. */
template <class T, score SCORE, int UNROLL>
static __device__ __forceinline__ void tile_scores(const tiles<T> &p, pipeline<T> &pipe, int &stage, int64_t t,
                                                   const corner<T> &at, T (&acc)[shape<T>::TM][shape<T>::TN]) {
  using Z = shape<T>;
  if constexpr (SCORE == kGiven) {
    const int64_t j0 = pipe.column0 + t * Z::BN;
#pragma unroll
    for (int r = 0; r < Z::TM; r++) {
#pragma unroll
      for (int c = 0; c < Z::TN; c++) {
        const int64_t i = pipe.row0 + at.row + r, j = j0 + at.column(c);
        acc[r][c] = i < p.n && j < p.m ? p.matrix[i * p.row_step + j * p.column_step] : T(0);
      }
    }
  } else {
    for (int64_t k = 0; k < p.slices; k++, stage ^= 1) {
      pipe.fetch(p, stage ^ 1);
      copy_wait<1>();
      __syncthreads();
      const T *const left = pipe.stages + stage * Z::stage;
      multiply<T, SCORE == kEuclidean, UNROLL>(left, Z::BM, left + Z::K * Z::BM, Z::BN, Z::K, at, acc);
      __syncthreads();
    }
  }
}

template <class T>
static __device__ __forceinline__ int64_t tiles_of_split(const tiles<T> &p) {
  const int64_t all = p.mp / kTileColumns, first = blockIdx.y * p.tiles;
  return all - first < p.tiles ? all - first : p.tiles;
}

/* softmin: part gets the pairs (m, s). Grid: (rows / BM, splits). */
template <class T, score SCORE>
__global__ __launch_bounds__(kTileThreads) void softmin_tiles(const tiles<T> p) {
  using Z = shape<T>;
  __shared__ __align__(16) T stages[SCORE == kGiven ? 1 : 2 * Z::stage];
  const corner<T> at;
  const int64_t count = tiles_of_split(p);
  pipeline<T> pipe(p, stages, count);
  int stage = 0;
  online<T> row[Z::TM];
  if (SCORE != kGiven) pipe.fetch(p, 0);
  for (int64_t t = 0; t < count; t++) {
    T acc[Z::TM][Z::TN] = {}, bias[Z::TN];
    tile_scores<T, SCORE, sizeof(T) == 4 ? 4 : 2>(p, pipe, stage, t, at, acc);
#pragma unroll
    for (int c = 0; c < Z::TN; c += Z::V) load16(bias + c, p.bias + pipe.column0 + t * Z::BN + at.column(c));
#pragma unroll
    for (int r = 0; r < Z::TM; r++) {
      /* Only here: products added to a large bias would each lose its last bits. */
#pragma unroll
      for (int c = 0; c < Z::TN; c++)
        acc[r][c] = SCORE == kDot ? acc[r][c] + bias[c]
                                  : multiply_add(-p.S, SCORE == kEuclidean ? root(acc[r][c]) : acc[r][c], bias[c]);
      T most = acc[r][0];
#pragma unroll
      for (int c = 1; c < Z::TN; c++) most = greater(most, acc[r][c]);
      row[r].raise(most);
      T sum = 0;
#pragma unroll
      for (int c = 0; c < Z::TN; c++) sum += power2(acc[r][c] - row[r].m);
      row[r].add(sum);
    }
  }
#pragma unroll
  for (int r = 0; r < Z::TM; r++) {
#pragma unroll
    for (int lanes = 4; lanes > 0; lanes /= 2)
      row[r].merge(__shfl_xor_sync(0xffffffffu, row[r].m, lanes), __shfl_xor_sync(0xffffffffu, row[r].s, lanes));
    const int64_t i = pipe.row0 + at.row + r;
    if (at.lane == 0 && i < p.n) store_partial(p.part, blockIdx.y, p.n, i, row[r].m, row[r].s);
  }
}

/* apply: with weights w_ij = p_ij, the sums of w_ij, w_ij c_ij and w_ij v_j. The
 * gradient of points is the same with v = y - mu and, for Euclidean, weights
 * p_ij / c_ij:   grad_i = slope ((sum_j w_ij) (x_i - mu) - sum_j w_ij (y_j - mu)).
 * A tile of weights goes to shared memory and is multiplied with 64 columns of
 * v there; every further 64 are another z block that computes the weights again.
 *   flops: 2 (d ceil(k / 64) + k) n m.
 * part[split][2 + k][n]. Grid: (rows / BM, splits, max(1, k / 64)).
 * Two blocks fit a multiprocessor, by registers and by shared memory. */
template <class T>
struct tiles_apply {
  tiles<T> p;
  const T *f, *half_x, *half_y; /* halves: kDot */
  const T *v, *centre;          /* centre: of v, or NULL */
  int64_t k;
  double epsilon;
  bool gradient;
};

template <class T>
constexpr size_t tiles_apply_shared(score s) {
  using Z = shape<T>;
  return sizeof(T) * ((s == kGiven ? 0 : 2 * Z::stage) + Z::BN * (Z::BM + Z::V) + Z::BN * kTileColumns);
}

template <class T, score SCORE>
__global__ __launch_bounds__(kTileThreads, 2) void apply_tiles(const tiles_apply<T> a) {
  using Z = shape<T>;
  constexpr int LP = Z::BM + Z::V; /* a row of weights: 8 rows fall into different banks */
  FORTET_DYN_SHARED(T, shared);
  T *const weights = shared + (SCORE == kGiven ? 0 : 2 * Z::stage), *const values = weights + Z::BN * LP;
  const tiles<T> &p = a.p;
  const corner<T> at;
  const int64_t count = tiles_of_split(p);
  pipeline<T> pipe(p, shared, count);
  int stage = 0;
  const int64_t from = int64_t(blockIdx.z) * kTileColumns;
  const bool any = from < a.k;

  /* z + lift is the exponent of p. In shared memory, for want of registers. */
  __shared__ __align__(16) T lifts[Z::BM];
  for (int t = threadIdx.x; t < Z::BM; t += kTileThreads) {
    const int64_t row = pipe.row0 + t;
    const double half = SCORE == kDot && row < p.n ? double(a.half_x[row]) : 0;
    /* Finite: then f = +inf leaves p_ij = 0 where z_ij = -inf, and else inf. */
    lifts[t] = row < p.n ? finite(T(double(a.f[row]) * (kLog2E / a.epsilon) - half)) : T(0);
  }
  __syncthreads();
  T mass[Z::TM] = {}, mean[Z::TM] = {}, r[Z::TM][Z::TN] = {};
  if (SCORE != kGiven) pipe.fetch(p, 0);
  for (int64_t t = 0; t < count; t++) {
    const int64_t j0 = pipe.column0 + t * Z::BN;
    T acc[Z::TM][Z::TN] = {};
    tile_scores<T, SCORE, sizeof(T) == 4 ? 2 : 1>(p, pipe, stage, t, at, acc);
#pragma unroll
    for (int c0 = 0; c0 < Z::TN; c0 += Z::V) {
      T bias[Z::V], own[Z::V] = {};
      load16(bias, p.bias + j0 + at.column(c0));
      if (SCORE == kDot) load16(own, a.half_y + j0 + at.column(c0));
#pragma unroll
      for (int i = 0; i < Z::TM; i++) {
        const T lift = lifts[at.row + i];
        T some_mass = 0, some_mean = 0;
#pragma unroll
        for (int s = 0; s < Z::V; s++) {
          T &score = acc[i][c0 + s], cost, z;
          if constexpr (SCORE == kDot) {
            cost = own[s] - score; /* in base-2 exponents, less the half norm of x */
            z = score + bias[s];
          } else {
            cost = SCORE == kEuclidean ? root(score) : score;
            z = multiply_add(-p.S, cost, bias[s]);
          }
          T w = power2(z + lift);
          some_mean += SCORE == kGiven && w == T(0) ? T(0) : w * cost; /* a matrix may hold +inf */
          if (SCORE == kEuclidean && a.gradient) w = cost == T(0) ? T(0) : w / cost;
          some_mass += w;
          score = w;
        }
        mass[i] += some_mass;
        mean[i] += some_mean;
      }
    }
    if (!any) continue;
    /* Weight column b of lane l lies in row 8 b + l, where lanes do not meet in
     * a bank; the rows of v follow that order. */
#pragma unroll
    for (int c = 0; c < Z::TN; c++) {
#pragma unroll
      for (int i = 0; i < Z::TM; i += Z::V) {
        T four[Z::V];
#pragma unroll
        for (int s = 0; s < Z::V; s++) four[s] = acc[i + s][c];
        store16(weights + (8 * c + at.lane) * LP + at.row + i, four);
      }
    }
#pragma unroll sizeof(T) == 4 ? 4 : 2 /* addresses take registers that are short */
    for (int s = threadIdx.x; s < Z::BN * kTileColumns; s += kTileThreads) {
      const int slot = s / kTileColumns, b = slot / 8, l = slot % 8;
      const int64_t j = j0 + b / Z::V * (8 * Z::V) + l * Z::V + b % Z::V, k = from + s % kTileColumns;
      const bool inside = j < p.m && k < a.k;
      values[s] = inside ? a.v[j * a.k + k] - (a.centre ? a.centre[k] : T(0)) : T(0);
    }
    __syncthreads();
    multiply<T, false, sizeof(T) == 4 ? 2 : 1>(weights, LP, values, kTileColumns, Z::BN, at, r);
    __syncthreads();
  }

  T *const out = p.part + blockIdx.y * (2 + a.k) * p.n;
#pragma unroll
  for (int i = 0; i < Z::TM; i++) {
    const int64_t row = pipe.row0 + at.row + i;
#pragma unroll
    for (int lanes = 4; lanes > 0; lanes /= 2) {
      mass[i] += __shfl_xor_sync(0xffffffffu, mass[i], lanes);
      mean[i] += __shfl_xor_sync(0xffffffffu, mean[i], lanes);
    }
    if (row >= p.n) continue;
    if (blockIdx.z == 0 && at.lane == 0) {
      out[row] = mass[i];
      out[p.n + row] = SCORE == kDot ? multiply_add(mass[i], a.half_x[row], mean[i]) : mean[i];
    }
#pragma unroll
    for (int c = 0; c < Z::TN; c++) {
      const int64_t k = from + at.column(c);
      if (k < a.k) out[(2 + k) * p.n + row] = r[i][c];
    }
  }
}

}  // namespace
#endif
