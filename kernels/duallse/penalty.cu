// Penalties of f-divergences on a GPU. A block sums the tuples of one centre: a
// warp takes a leaf i of the first arm, its lanes 128 leaves k of the second,
// so that the sums over k are one shuffle reduction and those over i stay in
// registers. Per tuple: one psi with its derivative, and no memory.
#include "duallse.h"
#include "pairs.cuh"

namespace {

using duallse::base;
using duallse::linear;

constexpr int THREADS = 128, WARPS = THREADS / 32, EACH = 4, SPAN = 32 * EACH;
constexpr int TUPLES = 1024;  // of one part, as duallse.h says

__device__ __forceinline__ float psi(const fortet_divergence &f, float y, float *d) {
  float slope;
  return fortet_psi_f32(&f, y, d, &slope);
}
__device__ __forceinline__ double psi(const fortet_divergence &f, double y, double *d) {
  double slope;
  return fortet_psi_f64(&f, y, d, &slope);
}

template <class T>
__global__ void __launch_bounds__(THREADS, 4) triple(fortet_duallse_triple_args a) {
  __shared__ double columns[WARPS][SPAN];
  const int64_t j = blockIdx.x;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const T *alpha = static_cast<const T *>(a.alpha), *gamma = static_cast<const T *>(a.gamma);
  const T *plan = static_cast<const T *>(a.plan) + j * a.n1;
  const T *conditional = static_cast<const T *>(a.conditional);
  const T beta = a.beta ? static_cast<const T *>(a.beta)[j] : T(0);
  double value = 0, mass = 0;
  for (int64_t k0 = 0; k0 < a.n2; k0 += SPAN) {
    T c[EACH], b[EACH];
    T column[EACH];
#pragma unroll
    for (int q = 0; q < EACH; q++) {
      const int64_t k = k0 + lane + 32 * q;
      const bool in = k < a.n2;
      c[q] = in && gamma ? gamma[k] : T(0);
      b[q] = !in ? T(0) : conditional ? conditional[j * a.n2 + k] : T(1);
      column[q] = 0;
    }
    for (int64_t i = warp; i < a.n1; i += WARPS) {
      const T s = (alpha ? alpha[i] : T(0)) + beta, weight = plan[i];
      T row = 0, part = 0;
#pragma unroll
      for (int q = 0; q < EACH; q++) {
        const T w = weight * b[q];
        T d;
        const T v = psi(a.divergence, s + c[q], &d);
        if (w != T(0)) {
          part += w * v;
          column[q] += w * d;
          row += w * d;
        }
      }
      row = fortet_warp_sum(row);
      if (lane == 0) {
        double *to = a.part1 + j * a.n1 + i;
        *to = (k0 == 0 ? 0 : *to) + static_cast<double>(row);
        mass += static_cast<double>(row);
      }
      value += static_cast<double>(part);
    }
#pragma unroll
    for (int q = 0; q < EACH; q++) columns[warp][lane + 32 * q] = static_cast<double>(column[q]);
    __syncthreads();
    for (int k = threadIdx.x; k < SPAN && k0 + k < a.n2; k += THREADS) {
      double sum = 0;
#pragma unroll
      for (int w = 0; w < WARPS; w++) sum += columns[w][k];
      a.part2[j * a.n2 + k0 + k] = sum;
    }
    __syncthreads();
  }
  value = fortet_block_sum(value);
  mass = fortet_block_sum(mass);
  if (threadIdx.x == 0) a.part[2 * j] = value, a.part[2 * j + 1] = mass;
}

// grad_k = sum_j part_jk (- b_k)
template <class T>
__global__ void columns(const double *part, const T *logw, T *grad, int64_t n, int64_t count, int minus_base) {
  const int64_t k = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (k >= count) return;
  double sum = 0;
  for (int64_t j = 0; j < n; j++) sum += part[j * count + k];
  grad[k] = static_cast<T>(sum - (minus_base ? base(logw, count, k) : 0));
}

template <class T>
__global__ void triple_scalars(fortet_duallse_triple_args a) {
  const T *logw = static_cast<const T *>(a.logw);
  T *grad = static_cast<T *>(a.grad_beta);
  double value = 0;
  for (int64_t j = threadIdx.x; j < a.n; j += blockDim.x) {
    value += a.part[2 * j];
    if (grad) grad[j] = static_cast<T>(a.part[2 * j + 1] - (a.minus_base ? base(logw, a.n, j) : 0));
  }
  if (!a.value) return;
  value = fortet_block_sum(value);
  double sum = linear(static_cast<const T *>(a.beta), logw, a.n);
  sum += linear(static_cast<const T *>(a.alpha), static_cast<const T *>(a.logw1), a.n1);
  sum += linear(static_cast<const T *>(a.gamma), static_cast<const T *>(a.logw2), a.n2);
  sum = fortet_block_sum(sum);
  if (threadIdx.x == 0) a.value[0] = value, a.value[1] = sum, a.value[2] = *a.logz;
}

template <class T>
__global__ void __launch_bounds__(THREADS) tuple_weight(fortet_duallse_tuples_args a) {
  const int64_t lo = static_cast<int64_t>(blockIdx.x) * TUPLES;
  const int64_t hi = lo + TUPLES < a.count ? lo + TUPLES : a.count;
  fortet_lse<double> lse;
  for (int64_t b = lo + threadIdx.x; b < hi; b += THREADS) {
    double y = 0, q = -static_cast<double>(static_cast<const T *>(a.cost)[b]) / a.epsilon;
#pragma unroll
    for (int m = 0; m <= FORTET_DUALLSE_ARMS; m++) {
      if (m >= a.marginals) continue;
      const int64_t i = a.index[b * a.marginals + m];
      const T *v = static_cast<const T *>(a.marginal[m].potential);
      if (i < 0 || i >= a.marginal[m].size) q = static_cast<double>(NAN);
      else if (v) y += static_cast<double>(v[i]);
    }
    a.y[b] = y;
    a.q[b] = q;
    lse.add(q);
  }
  lse = fortet_block_lse(lse);
  if (threadIdx.x == 0) a.part[3 * blockIdx.x] = lse.top, a.part[3 * blockIdx.x + 1] = lse.sum;
}

// log sum_b exp(-cost_b / epsilon), in all threads
__device__ double tuple_logz(const fortet_duallse_tuples_args &a) {
  fortet_lse<double> lse;
  for (int64_t t = threadIdx.x; t < fortet_pieces(a.count, TUPLES); t += blockDim.x)
    lse.merge(fortet_lse<double>(a.part[3 * t], a.part[3 * t + 1]));
  return fortet_block_lse(lse).value();
}

template <class T>
__global__ void __launch_bounds__(THREADS) tuple_apply(fortet_duallse_tuples_args a) {
  const int64_t lo = static_cast<int64_t>(blockIdx.x) * TUPLES;
  const int64_t hi = lo + TUPLES < a.count ? lo + TUPLES : a.count;
  const double by = a.fixed_logz ? a.logz + log(static_cast<double>(a.count)) : tuple_logz(a);
  double value = 0;
  for (int64_t b = lo + threadIdx.x; b < hi; b += THREADS) {
    const double w = exp(a.q[b] - by);
    T d;
    const T v = psi(a.divergence, static_cast<T>(a.y[b]), &d);
    a.q[b] = w == 0 ? 0 : w * static_cast<double>(d);
    value += w == 0 ? 0 : w * static_cast<double>(v);
  }
  value = fortet_block_sum(value);
  if (threadIdx.x == 0) a.part[3 * blockIdx.x + 2] = value;
}

// A block for each node walks all tuples and sums those that use it.
template <class T>
__global__ void __launch_bounds__(THREADS)
    tuple_node(const int32_t *index, const double *q, int64_t count, int marginals, const T *logw, T *grad, int64_t size,
               int minus_base) {
  const int64_t i = blockIdx.x;
  double sum = 0;
  for (int64_t b = threadIdx.x; b < count; b += THREADS)
    if (index[b * marginals] == i) sum += q[b];
  sum = fortet_block_sum(sum);
  if (threadIdx.x == 0) grad[i] = static_cast<T>(sum - (minus_base ? base(logw, size, i) : 0));
}

template <class T>
__global__ void __launch_bounds__(THREADS) tuple_scalars(fortet_duallse_tuples_args a) {
  double value = 0, sum = 0;
  for (int64_t t = threadIdx.x; t < fortet_pieces(a.count, TUPLES); t += THREADS) value += a.part[3 * t + 2];
#pragma unroll
  for (int m = 0; m <= FORTET_DUALLSE_ARMS; m++)
    if (m < a.marginals)
      sum += linear(static_cast<const T *>(a.marginal[m].potential), static_cast<const T *>(a.marginal[m].logw), a.marginal[m].size);
  value = fortet_block_sum(value);
  sum = fortet_block_sum(sum);
  const double logz = tuple_logz(a) - log(static_cast<double>(a.count));
  if (threadIdx.x == 0) a.value[0] = value, a.value[1] = sum, a.value[2] = logz;
}

template <class T, class Psi>
__device__ __forceinline__ void evaluate(const fortet_duallse_psi_args &a, Psi eval) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= a.n) return;
  T d, s;
  const T v = eval(&a.divergence, static_cast<const T *>(a.y)[i], &d, &s);
  if (a.psi) static_cast<T *>(a.psi)[i] = v;
  if (a.dpsi) static_cast<T *>(a.dpsi)[i] = d;
  if (a.slope) static_cast<T *>(a.slope)[i] = s;
}
__global__ void psi_f32(fortet_duallse_psi_args a) {
  evaluate<float>(a, [](const fortet_divergence *f, float y, float *d, float *s) { return fortet_psi_f32(f, y, d, s); });
}
__global__ void psi_f64(fortet_duallse_psi_args a) {
  evaluate<double>(a, [](const fortet_divergence *f, double y, double *d, double *s) { return fortet_psi_f64(f, y, d, s); });
}

unsigned blocks(int64_t n, int64_t part) { return static_cast<unsigned>(fortet_pieces(n, part)); }

template <class T>
int run_triple(void *stream, const fortet_duallse_triple_args &a) {
  FORTET_LAUNCH(triple<T>, static_cast<unsigned>(a.n), THREADS, 0, stream, a);
  return FORTET_STATUS();
}

template <class T>
int run_triple_reduce(void *stream, const fortet_duallse_triple_args &a) {
  const int minus = a.minus_base;
  FORTET_LAUNCH(triple_scalars<T>, 1, 256, 0, stream, a);
  if (a.grad_alpha)
    FORTET_LAUNCH(columns<T>, blocks(a.n1, THREADS), THREADS, 0, stream, static_cast<const double *>(a.part1),
                  static_cast<const T *>(a.logw1), static_cast<T *>(a.grad_alpha), a.n, a.n1, minus);
  if (a.grad_gamma)
    FORTET_LAUNCH(columns<T>, blocks(a.n2, THREADS), THREADS, 0, stream, static_cast<const double *>(a.part2),
                  static_cast<const T *>(a.logw2), static_cast<T *>(a.grad_gamma), a.n, a.n2, minus);
  return FORTET_STATUS();
}

template <class T>
int run_tuple_weight(void *stream, const fortet_duallse_tuples_args &a) {
  FORTET_LAUNCH(tuple_weight<T>, blocks(a.count, TUPLES), THREADS, 0, stream, a);
  return FORTET_STATUS();
}

template <class T>
int run_tuple_apply(void *stream, const fortet_duallse_tuples_args &a) {
  FORTET_LAUNCH(tuple_apply<T>, blocks(a.count, TUPLES), THREADS, 0, stream, a);
  return FORTET_STATUS();
}

template <class T>
int run_tuple_reduce(void *stream, const fortet_duallse_tuples_args &a) {
  const int minus = a.minus_base, marginals = a.marginals;
  if (a.value) FORTET_LAUNCH(tuple_scalars<T>, 1, THREADS, 0, stream, a);
  for (int m = 0; m < marginals; m++) {
    const fortet_duallse_marginal &v = a.marginal[m];
    if (!v.grad) continue;
    FORTET_LAUNCH(tuple_node<T>, static_cast<unsigned>(v.size), THREADS, 0, stream, a.index + m,
                  static_cast<const double *>(a.q), a.count, marginals, static_cast<const T *>(v.logw),
                  static_cast<T *>(v.grad), v.size, minus);
  }
  return FORTET_STATUS();
}

}  // namespace

#define ENTRY(name, type, T, args_type)                                             \
  FORTET_EXPORT int fortet_duallse_##name##_##type(void *stream, const void *args) { \
    return run_##name<T>(stream, *static_cast<const args_type *>(args));            \
  }
#define ENTRIES(name, args_type) ENTRY(name, f32, float, args_type) ENTRY(name, f64, double, args_type)

ENTRIES(triple, fortet_duallse_triple_args)
ENTRIES(triple_reduce, fortet_duallse_triple_args)
ENTRIES(tuple_weight, fortet_duallse_tuples_args)
ENTRIES(tuple_apply, fortet_duallse_tuples_args)
ENTRIES(tuple_reduce, fortet_duallse_tuples_args)

#define PSI(type)                                                                     \
  FORTET_EXPORT int fortet_duallse_psi_##type(void *stream, const void *args) {       \
    const fortet_duallse_psi_args a = *static_cast<const fortet_duallse_psi_args *>(args); \
    FORTET_LAUNCH(psi_##type, blocks(a.n, 256), 256, 0, stream, a);                   \
    return FORTET_STATUS();                                                           \
  }
PSI(f32)
PSI(f64)
