// The star on a GPU: one block for 16 rows, which walks all columns in panels
// of 64. Points of a panel lie in shared memory, a thread has 2 x 4 pairs in
// registers. A pair costs 2 d operations and an exponential for each pass; a
// panel is read from memory once per 16 rows, so from d = 1 on the passes are
// bound by arithmetic or by exponentials, not by bandwidth. Batches are small:
// short row blocks keep more multiprocessors busy. Every sum has one owner and
// a fixed order; nothing is added atomically.
#include "duallse.h"
#include "pairs.cuh"

FORTET_CONTRACT(duallse)

namespace {

using namespace duallse;

// out_r = log sum_c 2^z_rc: the messages of one arm.
template <class T>
__global__ void __launch_bounds__(THREADS, 4) message(pairs<T> p, double *out) {
  __shared__ panel<T> s;
  const int64_t r0 = static_cast<int64_t>(blockIdx.x) * ROWS;
  T top[GROUP], sum[GROUP];
#pragma unroll
  for (int g = 0; g < GROUP; g++) top[g] = -static_cast<T>(INFINITY), sum[g] = 0;
  for (int64_t c0 = 0; c0 < p.cols; c0 += COLS) {
    T z[GROUP][SPREAD];
    exponents<T, false>(p, s, r0, c0, z);
#pragma unroll
    for (int g = 0; g < GROUP; g++) {
      T hi = top[g];
#pragma unroll
      for (int q = 0; q < SPREAD; q++) hi = fortet_fmax(hi, z[g][q]);
      sum[g] = hi > top[g] ? sum[g] * power(top[g] - hi) : sum[g];
      top[g] = hi;
      const T shift = finite_or_zero(hi);
#pragma unroll
      for (int q = 0; q < SPREAD; q++) sum[g] += power(z[g][q] - shift);
    }
  }
#pragma unroll
  for (int g = 0; g < GROUP; g++) {
#pragma unroll
    for (int lanes = SIDE / 2; lanes > 0; lanes /= 2) {
      const T t = __shfl_xor_sync(FORTET_ALL_LANES, top[g], lanes);
      const T v = __shfl_xor_sync(FORTET_ALL_LANES, sum[g], lanes);
      const T hi = fortet_fmax(top[g], t), shift = finite_or_zero(hi);
      sum[g] = sum[g] * power(top[g] - shift) + v * power(t - shift);
      top[g] = hi;
    }
    const int64_t r = r0 + row_of(g);
    if (threadIdx.x % SIDE == 0 && r < p.rows) out[r] = static_cast<double>(top[g]) * LN2 + log(static_cast<double>(sum[g]));
  }
}

// The plan P_rc = 2^(z_rc - shift_r) of one arm: its rows' sums, its moments
// sum_c P_rc (y_c - x_r), itself, and the conditional plan. LEAVES: rows are
// the arm's leaves and columns the centre's nodes; else the other way round.
template <class T, bool LEAVES>
__global__ void __launch_bounds__(THREADS, 4)
    apply(pairs<T> p, T *mass, T *moment, T factor, T *plan, T *conditional, int minus_base) {
  __shared__ panel<T> s;
  __shared__ T weights[ROWS][COLS + 1];
  const int64_t r0 = static_cast<int64_t>(blockIdx.x) * ROWS;
  T shift[GROUP], low[GROUP], sum[GROUP];
#pragma unroll
  for (int g = 0; g < GROUP; g++) {
    const int64_t r = r0 + row_of(g);
    const bool in = r < p.rows;
    sum[g] = 0, low[g] = 0;
    shift[g] = !in ? T(0) : LEAVES ? -p.leaf(r) : static_cast<T>(-p.share(r));
    if (!LEAVES && in) {
      const double m = p.message[r];
      low[g] = m == -FORTET_INF ? T(0) : static_cast<T>(m * LOG2E);
    }
  }
  for (int64_t c0 = 0; c0 < p.cols; c0 += COLS) {
    T z[GROUP][SPREAD];
    exponents<T, LEAVES>(p, s, r0, c0, z);
#pragma unroll
    for (int g = 0; g < GROUP; g++) {
      const int64_t r = r0 + row_of(g);
#pragma unroll
      for (int q = 0; q < SPREAD; q++) {
        const int64_t c = c0 + column_of(q);
        const T v = power(z[g][q] - shift[g]);
        sum[g] += v;
        if (moment) weights[row_of(g)][column_of(q)] = v;
        if (!LEAVES && r < p.rows && c < p.cols) {
          if (plan) plan[r * p.cols + c] = v;
          if (conditional) conditional[r * p.cols + c] = power(z[g][q] - low[g]);
        }
      }
    }
    if (moment) moments(p, s, weights, r0, c0, factor, moment);
  }
  if (!mass) return;
#pragma unroll
  for (int g = 0; g < GROUP; g++) {
#pragma unroll
    for (int lanes = SIDE / 2; lanes > 0; lanes /= 2) sum[g] += __shfl_xor_sync(FORTET_ALL_LANES, sum[g], lanes);
    const int64_t r = r0 + row_of(g);
    if (threadIdx.x % SIDE == 0 && r < p.rows)
      mass[r] = sum[g] - (minus_base ? static_cast<T>(base(p.logw, p.leaves, r)) : T(0));
  }
}

// grad_j = -2 norm / epsilon P_j y_j
template <class T>
__global__ void norm_gradient(T *grad, const T *y, const double *log_p, int64_t n, int64_t d, double factor) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= n * d) return;
  const double p = factor == 0 ? 0 : factor * exp(log_p[i / d]);
  grad[i] = p == 0 ? T(0) : static_cast<T>(p * static_cast<double>(y[i]));
}

// One block: s_j and their log-sum-exp, then log P_j.
template <class T>
__global__ void centre(fortet_duallse_star_args a) {
  const T *beta = static_cast<const T *>(a.potential), *extra = static_cast<const T *>(a.extra);
  const T *y = static_cast<const T *>(a.points), *logw = static_cast<const T *>(a.logw);
  fortet_lse<double> lse;
  for (int64_t j = threadIdx.x; j < a.n; j += blockDim.x) {
    double s = logw ? static_cast<double>(logw[j]) : -log(static_cast<double>(a.n));
    if (beta) s += static_cast<double>(beta[j]);
    if (extra) s += static_cast<double>(extra[j]);
    if (a.norm != 0) {
      double q = 0;
      for (int64_t k = j * a.d; k < (j + 1) * a.d; k++) q += static_cast<double>(y[k]) * static_cast<double>(y[k]);
      s -= a.norm / a.epsilon * q;
    }
    for (int m = 0; m < a.arms; m++) s += a.message[m * a.n + j];
    a.log_p[j] = s;
    lse.add(s);
  }
  const double loge = fortet_block_lse(lse).value(), by = a.fixed_logz ? a.logz : loge;
  T *g = static_cast<T *>(a.grad_potential);
  for (int64_t j = threadIdx.x; j < a.n; j += blockDim.x) {
    double l = a.log_p[j];
    if (l != -FORTET_INF || loge != loge) a.log_p[j] = l -= by;
    if (g) g[j] = static_cast<T>(exp(l) - (a.minus_base ? base(logw, a.n, j) : 0));
  }
  if (!a.value) return;
  double part = linear(beta, logw, a.n);
#pragma unroll
  for (int m = 0; m < FORTET_DUALLSE_ARMS; m++)
    if (m < a.arms)
      part += linear(static_cast<const T *>(a.arm[m].potential), static_cast<const T *>(a.arm[m].logw), a.arm[m].count);
  part = fortet_block_sum(part);
  if (threadIdx.x == 0) a.value[0] = loge, a.value[1] = part;
}

// The pairs of arm m with the centre as rows, or else with its leaves.
template <class T>
pairs<T> arm_pairs(const fortet_duallse_star_args &a, int m, bool leaves) {
  const fortet_duallse_arm &arm = a.arm[m];
  pairs<T> p;
  p.x = static_cast<const T *>(leaves ? arm.points : a.points);
  p.y = static_cast<const T *>(leaves ? a.points : arm.points);
  p.cost = static_cast<const T *>(arm.cost);
  p.potential = static_cast<const T *>(arm.potential);
  p.logw = static_cast<const T *>(arm.logw);
  p.log_p = a.log_p;
  p.message = a.message + m * a.n;
  p.row_step = leaves ? 1 : arm.count;
  p.col_step = leaves ? arm.count : 1;
  p.rows = leaves ? arm.count : a.n;
  p.cols = leaves ? a.n : arm.count;
  p.leaves = arm.count;
  p.d = a.d;
  p.uniform = -log(static_cast<double>(arm.count));
  p.scale = static_cast<T>(-arm.weight * LOG2E / a.epsilon);
  return p;
}

unsigned blocks(int64_t n, int64_t part) { return static_cast<unsigned>(fortet_pieces(n, part)); }

template <class T>
int run_message(void *stream, const fortet_duallse_star_args &a) {
  for (int m = 0; m < a.arms; m++)
    FORTET_LAUNCH(message<T>, blocks(a.n, ROWS), THREADS, 0, stream, arm_pairs<T>(a, m, false), a.message + m * a.n);
  return FORTET_STATUS();
}

template <class T>
int run_centre(void *stream, const fortet_duallse_star_args &a) {
  FORTET_LAUNCH(centre<T>, 1, 256, 0, stream, a);
  return FORTET_STATUS();
}

template <class T>
int run_leaves(void *stream, const fortet_duallse_star_args &a) {
  for (int m = 0; m < a.arms; m++) {
    const fortet_duallse_arm &arm = a.arm[m];
    if (!arm.grad_potential && !arm.grad_points) continue;
    if (arm.grad_points) {
      const int rc = fortet_zero(stream, arm.grad_points, sizeof(T) * static_cast<size_t>(arm.count * a.d));
      if (rc != FORTET_OK) return rc;
    }
    FORTET_LAUNCH((apply<T, true>), blocks(arm.count, ROWS), THREADS, 0, stream, arm_pairs<T>(a, m, true),
                  static_cast<T *>(arm.grad_potential), static_cast<T *>(arm.grad_points),
                  static_cast<T>(2 * arm.weight / a.epsilon), static_cast<T *>(nullptr), static_cast<T *>(nullptr),
                  static_cast<int>(a.minus_base));
  }
  return FORTET_STATUS();
}

template <class T>
int run_rows(void *stream, const fortet_duallse_star_args &a) {
  T *grad = static_cast<T *>(a.grad_points);
  if (grad)
    FORTET_LAUNCH(norm_gradient<T>, blocks(a.n * a.d, 256), 256, 0, stream, grad, static_cast<const T *>(a.points),
                  static_cast<const double *>(a.log_p), a.n, a.d, -2 * a.norm / a.epsilon);
  for (int m = 0; m < a.arms; m++) {
    const fortet_duallse_arm &arm = a.arm[m];
    T *moment = arm.cost ? nullptr : grad;
    if (!moment && !arm.plan && !arm.conditional) continue;
    FORTET_LAUNCH((apply<T, false>), blocks(a.n, ROWS), THREADS, 0, stream, arm_pairs<T>(a, m, false),
                  static_cast<T *>(nullptr), moment, static_cast<T>(2 * arm.weight / a.epsilon),
                  static_cast<T *>(arm.plan), static_cast<T *>(arm.conditional), 0);
  }
  return FORTET_STATUS();
}

}  // namespace

#define ENTRY(name, type, T)                                                    \
  FORTET_EXPORT int fortet_duallse_##name##_##type(void *stream, const void *args) { \
    return run_##name<T>(stream, *static_cast<const fortet_duallse_star_args *>(args)); \
  }
#define ENTRIES(name) ENTRY(name, f32, float) ENTRY(name, f64, double)

ENTRIES(message)
ENTRIES(centre)
ENTRIES(leaves)
ENTRIES(rows)
