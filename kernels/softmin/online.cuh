/* online.cuh - the arithmetic that all softmin kernels share: exponentials in
 * base 2, the running maximum, and the merging of partial results.
 *
 * Exponents are kept in base 2: z log2(e). A partial result is a pair (m, s)
 * that stands for sum_j 2^z_j = s 2^m. m is finite always: it begins at the
 * lowest finite number and a z of +inf counts as the highest, so that no
 * difference of exponents is inf - inf and no case needs a branch:
 *     no term yet   s = 0            log2 of the sum is -inf
 *     z = +inf      2^(z - m) = inf  the sum is inf
 *     z = NaN       2^(z - m) = NaN  the sum is NaN
 * m moves only when a z exceeds it by kSlack: terms up to 2^kSlack do no harm
 * in floating point, and a maximum that rises in small steps costs nothing
 * (FlashAttention-4 rescales as rarely). */
#ifndef FORTET_SOFTMIN_ONLINE_CUH
#define FORTET_SOFTMIN_ONLINE_CUH

#include "fortet.h"
#include "softmin.h"

namespace {

constexpr double kLog2E = 1.4426950408889634074;
constexpr double kLn2 = 0.69314718055994530942;
constexpr float kSlack = 8.0f;
/* Terms are positive: a block of them whose sum is at most this has none above
 * 2^kSlack. So a sum, which is made anyhow, tells that the maximum need not move,
 * and the maximum of a block is only looked for where it does. A sum that is
 * infinite or NaN is not at most this. */
template <class T>
constexpr T kMostOfBlock = T(256); /* 2^kSlack */

template <class T> struct limits;
template <> struct limits<float> {
  static constexpr float highest = 3.402823466e+38f;
};
template <> struct limits<double> {
  static constexpr double highest = 1.7976931348623157e+308;
};

/* 2^x. For float one MUFU.EX2, whose relative error is at most 2^-22 (PTX ISA,
 * ex2.approx) and which flushes results below 2^-126 to 0. */
static __device__ __forceinline__ float power2(float x) {
#if defined(FORTET_EMU)
  return exp2f(x);
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}
static __device__ __forceinline__ double power2(double x) { return exp2(x); }

static __device__ __forceinline__ float root(float x) {
#if defined(FORTET_EMU)
  return sqrtf(x);
#else
  float y; /* relative error at most 2^-23, an eighth of sqrtf's instructions */
  asm("sqrt.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}
static __device__ __forceinline__ double root(double x) { return sqrt(x); }

static __device__ __forceinline__ float lesser(float a, float b) { return fminf(a, b); }
static __device__ __forceinline__ double lesser(double a, double b) { return fmin(a, b); }
static __device__ __forceinline__ float greater(float a, float b) { return fmaxf(a, b); }
static __device__ __forceinline__ double greater(double a, double b) { return fmax(a, b); }
static __device__ __forceinline__ float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
static __device__ __forceinline__ double multiply_add(double a, double b, double c) { return fma(a, b, c); }

/* Into the finite numbers; NaN stays. */
template <class T>
static __device__ __forceinline__ T finite(T x) {
  x = x > limits<T>::highest ? limits<T>::highest : x;
  return x < -limits<T>::highest ? -limits<T>::highest : x;
}

/* A running sum_j 2^z_j of one row. */
template <class T>
struct online {
  T m = -limits<T>::highest, s = 0, lost = 0;

  /* To a higher maximum; answers the factor of what was summed relative to the
   * old one. A NaN is no maximum. */
  __device__ __forceinline__ T rise(T zmax) {
    const T to = greater(m, finite(zmax)), factor = power2(m - to);
    s *= factor;
    lost *= factor;
    m = to;
    return factor;
  }
  /* Before terms of which the highest is zmax. */
  __device__ __forceinline__ void raise(T zmax) {
    if (zmax > m + T(kSlack)) rise(zmax);
  }
  /* Kahan's sum: what a float loses here comes back with the next block, so
   * that the error does not grow with the number of blocks. */
  __device__ __forceinline__ void add(T block) {
    const T y = block - lost, t = s + y;
    lost = (t - s) - y;
    s = t;
  }
  __device__ __forceinline__ void merge(T om, T os) {
    const T to = greater(m, om);
    s = s * power2(m - to) + os * power2(om - to);
    m = to;
  }
};

/* Partial results of rows lie as part[split][2][n]: m, then s. */
template <class T>
static __device__ __forceinline__ void store_partial(T *part, int64_t split, int64_t n, int64_t i, T m, T s) {
  part[(2 * split) * n + i] = m;
  part[(2 * split + 1) * n + i] = s;
}

/* ---- From partial results to what the caller wants. One thread a row, splits
 * in their order: 2 splits numbers read per row, nothing against n m. */

template <class T>
static __device__ __forceinline__ online<T> gather(const T *part, int64_t splits, int64_t n, int64_t i) {
  online<T> all;
  for (int64_t k = 0; k < splits; k++) all.merge(part[2 * k * n + i], part[(2 * k + 1) * n + i]);
  return all;
}

/* out_i = -epsilon log sum_j exp z_ij. shift, or NULL, is what the kernel left
 * out of all exponents of the row: z = z' - shift. */
template <class T>
__global__ void finish_softmin(const T *part, int64_t splits, const T *shift, double epsilon, int64_t n, T *out) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const online<T> all = gather(part, splits, n, i);
  const double left_out = shift ? double(shift[i]) : 0;
  out[i] = T(epsilon * kLn2 * (left_out - double(all.m) - log2(double(all.s))));
}

/* The second half of sweep: the kernels have run with the roles of the sides
 * exchanged and damp f for g, which makes
 *     sum_i w_i p_ij = exp(logb_j + g_j / epsilon) sum_i exp(loga_i + (damp f_i - c_ij) / epsilon). */
template <class T>
__global__ void finish_column(const T *part, int64_t splits, const T *shift, const T *g, const T *logb, double epsilon,
                              int64_t m, double *col) {
  const int64_t j = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (j >= m) return;
  const online<T> all = gather(part, splits, m, j);
  const double own = ((logb ? double(logb[j]) : 0) + (g ? double(g[j]) / epsilon : 0)) * kLog2E;
  const double z = own + (double(all.m) + log2(double(all.s)) - (shift ? double(shift[j]) : 0));
  const double infinity = FORTET_INF;
  col[j] = own == -infinity && all.s == all.s ? 0 : exp2(z);
}

}  // namespace
#endif
