/* dense.cuh - Newton's method with H in full, for d <= FORTET_PROXIMAL_GPU_DENSE:
 * a warp a sample, a lane a component in turn; H, F and the rest of the search
 * are in registers, the same in every lane. A point tried reads the mixture
 * twice, (2 d + 1) K numbers from the first-level cache, and takes per
 * component d logarithms and divisions twice and an exponential; the sums over
 * components are butterflies of shuffles. Bound by latency: batches are small. */
#ifndef FORTET_PROXIMAL_DENSE_CUH
#define FORTET_PROXIMAL_DENSE_CUH

#include "proximal_search.h"

namespace {

constexpr int kThreads = 32 * FORTET_PROXIMAL_WARPS;

template <class T>
struct limits {
  static constexpr T ulp = sizeof(T) == 4 ? T(0x1p-23) : T(0x1p-52);
  static constexpr T least = sizeof(T) == 4 ? T(-28) : T(-56); /* weights below exp of it are nothing */
};

template <class T>
__device__ __forceinline__ T magnitude(T v) { return v < T(0) ? -v : v; }

__host__ __device__ constexpr int row(int i) { return i * (i + 1) / 2; }

/* beta of the element type: infinities included. */
template <class T>
__device__ __forceinline__ double rounded_beta(const fortet_proximal_args &a) { return static_cast<double>(static_cast<T>(a.beta)); }

template <class T>
__device__ __forceinline__ T time_of(const fortet_proximal_args &a, int64_t b) {
  return a.t ? static_cast<const T *>(a.t)[b] : static_cast<T>(a.t0);
}

template <class T>
__device__ __forceinline__ void report(const fortet_proximal_args &a, int64_t b, const fortet_search &s) {
  if (a.value) static_cast<T *>(a.value)[b] = static_cast<T>(s.value);
  if (a.residual) static_cast<T *>(a.residual)[b] = static_cast<T>(fortet_search_residual(&s, rounded_beta<T>(a)));
  if (a.iterations) static_cast<int32_t *>(a.iterations)[b] = static_cast<int32_t>(s.newton);
}

/* Component j at time t in the coordinates of y: p, and M = D^-1 (S - I) packed
 * by rows; answers ell - (y'p + y'g) / (2 epsilon). */
template <class T, int D, bool AXES>
__device__ __forceinline__ T component(const fortet_mixture &m, int64_t j, T t, T half, T (&p)[D], T (&M)[row(D)]) {
  const T *const r = static_cast<const T *>(m.means) + j * D, *const s = static_cast<const T *>(m.scales) + j * D;
  [[maybe_unused]] const T *const A = AXES ? static_cast<const T *>(m.axes) + j * D * D : nullptr;
  T bias = static_cast<const T *>(m.logits)[j];
#pragma unroll
  for (int i = 0; i < D; i++) p[i] = T(0);
#pragma unroll
  for (int i = 0; i < row(D); i++) M[i] = T(0);
#pragma unroll
  for (int i = 0; i < D; i++) {
    T centre = T(0);
    if constexpr (AXES) {
#pragma unroll
      for (int e = 0; e < D; e++) centre += A[i * D + e] * r[e];
    } else {
      centre = r[i];
    }
    const T scale = (T(1) - t) + t * s[i], part = centre / scale, a = (s[i] - T(1)) / scale;
    bias -= T(0.5) * fortet_log(scale) + t * half * centre * part;
    if constexpr (AXES) {
#pragma unroll
      for (int e = 0; e < D; e++) {
        p[e] += A[i * D + e] * part;
#pragma unroll
        for (int q = 0; q <= e; q++) M[row(e) + q] += a * A[i * D + e] * A[i * D + q];
      }
    } else {
      p[i] = part;
      M[row(i) + i] = a;
    }
  }
  return bias;
}

/* g_j = p + M y, and y'(p + g_j). */
template <class T, int D, bool AXES>
__device__ __forceinline__ T drift(const T (&p)[D], const T (&M)[row(D)], const T (&y)[D], T (&g)[D]) {
  T z = T(0);
#pragma unroll
  for (int i = 0; i < D; i++) {
    g[i] = p[i];
    if constexpr (AXES) {
#pragma unroll
      for (int e = 0; e < D; e++) g[i] += M[e < i ? row(i) + e : row(e) + i] * y[e];
    } else {
      g[i] += M[row(i) + i] * y[i];
    }
    z += y[i] * (p[i] + g[i]);
  }
  return z;
}

template <class T, int D>
struct point {
  T f[D], h[row(D)]; /* F and H */
  T value, square, noise;
};

/* F is a mean of g_j - beta (x - y), which cancels nothing near the solution. */
template <class T, int D, bool AXES>
__device__ __forceinline__ void evaluate(const fortet_proximal_args &a, T t, T beta, const T (&x)[D], const T (&y)[D],
                                         point<T, D> &at) {
  const T epsilon = static_cast<T>(a.m.epsilon), unit = T(1) / epsilon, half = T(0.5) * unit;
  const int lane = threadIdx.x % 32;
  T p[D], g[D], ref[D], M[row(D)], top = -static_cast<T>(INFINITY), away = T(0);
  for (int64_t j = lane; j < a.m.k; j += 32) {
    const T bias = component<T, D, AXES>(a.m, j, t, half, p, M);
    top = fortet_fmax(top, bias + half * drift<T, D, AXES>(p, M, y, g));
  }
  top = fortet_warp_max(top);
  T sum = T(0), biases = T(0);
#pragma unroll
  for (int i = 0; i < D; i++) {
    const T gap = x[i] - y[i];
    ref[i] = beta * gap;
    away += gap * gap;
    at.f[i] = T(0);
  }
#pragma unroll
  for (int i = 0; i < row(D); i++) at.h[i] = T(0);
  for (int64_t j = lane; j < a.m.k; j += 32) {
    const T bias = component<T, D, AXES>(a.m, j, t, half, p, M);
    const T w = fortet_exp(bias + half * drift<T, D, AXES>(p, M, y, g) - top);
    sum += w;
    if (w > T(0)) biases += w * bias; /* bias may be -inf */
#pragma unroll
    for (int i = 0; i < D; i++) {
      g[i] -= ref[i];
      at.f[i] += w * g[i];
#pragma unroll
      for (int e = 0; e <= i; e++) at.h[row(i) + e] += w * (M[row(i) + e] + unit * g[i] * g[e]);
    }
  }
  sum = fortet_warp_sum(sum);
  biases = fortet_warp_sum(biases);
  const T share = T(1) / sum;
  T pull = T(0);
  at.square = T(0);
#pragma unroll
  for (int i = 0; i < D; i++) {
    at.f[i] = fortet_warp_sum(at.f[i]) * share;
    at.square += at.f[i] * at.f[i];
    pull += y[i] * (ref[i] + at.f[i]);
#pragma unroll
    for (int e = 0; e <= i; e++)
      at.h[row(i) + e] = fortet_warp_sum(at.h[row(i) + e]) * share - unit * at.f[i] * at.f[e] + (e == i ? beta : T(0));
  }
  const T potential = epsilon * (top + fortet_log(sum)), quadratic = T(0.5) * beta * away;
  at.value = potential + quadratic;
  at.noise = T(16) * limits<T>::ulp *
             (magnitude(potential) + epsilon * magnitude(biases * share) + magnitude(pull) + quadratic);
}

/* p = -(H + shift)^-1 F by L D L'; whether H + shift is positive definite. */
template <class T, int D>
__device__ __forceinline__ bool factor(const point<T, D> &at, T shift, T (&p)[D]) {
  T l[row(D)], pivot[D], line[D], most = T(0);
#pragma unroll
  for (int i = 0; i < D; i++) most = fortet_fmax(most, magnitude(at.h[row(i) + i]));
  const T least = T(16) * limits<T>::ulp * most;
  bool good = true;
#pragma unroll
  for (int i = 0; i < D; i++) {
    T left = at.h[row(i) + i] + shift;
    p[i] = -at.f[i];
#pragma unroll
    for (int e = 0; e < i; e++) {
      line[e] = at.h[row(i) + e];
#pragma unroll
      for (int q = 0; q < e; q++) line[e] -= line[q] * l[row(e) + q];
      l[row(i) + e] = line[e] * pivot[e];
      left -= line[e] * l[row(i) + e];
      p[i] -= l[row(i) + e] * p[e];
    }
    good = good && left > least;
    pivot[i] = T(1) / left;
  }
#pragma unroll
  for (int i = D - 1; i >= 0; i--) {
    p[i] *= pivot[i];
#pragma unroll
    for (int q = i + 1; q < D; q++) p[i] -= l[row(q) + i] * p[q];
  }
  return good;
}

/* The direction at a point; its slope. Where H is not positive definite, it is
 * of H and a shift, which grows until it is. */
template <class T, int D>
__device__ __forceinline__ T direct(const point<T, D> &at, T beta, T (&p)[D]) {
  T shift = T(0);
  for (int tries = 0; tries < 40 && !factor<T, D>(at, shift, p); tries++) {
    if (tries > 0) {
      shift *= T(4);
      continue;
    }
#pragma unroll
    for (int i = 0; i < D; i++) shift = fortet_fmax(shift, -at.h[row(i) + i]);
    shift += T(0.01) * beta;
  }
  T slope = T(0);
#pragma unroll
  for (int i = 0; i < D; i++) slope += p[i] * at.f[i];
  return slope;
}

template <class T, int D, bool AXES>
__global__ void __launch_bounds__(kThreads, 1) proximal_dense(fortet_proximal_args a) {
  const int64_t b = int64_t(blockIdx.x) * FORTET_PROXIMAL_WARPS + threadIdx.x / 32;
  if (b >= a.n) return;
  const double wide = rounded_beta<T>(a);
  const bool infinite = wide == FORTET_INF;
  const T t = time_of<T>(a, b), beta = infinite ? T(0) : static_cast<T>(a.beta);
  const T *const start = static_cast<const T *>(a.warm && !infinite ? a.y : a.x) + b * D;
  T x[D], y[D], tried[D], p[D] = {};
  double square = 0;
#pragma unroll
  for (int i = 0; i < D; i++) {
    x[i] = static_cast<const T *>(a.x)[b * D + i];
    y[i] = tried[i] = start[i];
    square += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  }
  point<T, D> at;
  fortet_search s;
  fortet_search_begin(&s, square, wide, a.tolerance);
  for (;;) {
    evaluate<T, D, AXES>(a, t, beta, x, tried, at);
    const int verdict = fortet_search_judge(&s, at.value, sqrt(static_cast<double>(at.square)), at.noise);
    if (verdict == FORTET_SEARCH_STOP) break;
    if (verdict == FORTET_SEARCH_TAKE) {
#pragma unroll
      for (int i = 0; i < D; i++) y[i] = tried[i];
      if (fortet_search_done(&s, a.max_iterations)) break;
      if (!fortet_search_turn(&s, direct<T, D>(at, beta, p))) break;
    }
#pragma unroll
    for (int i = 0; i < D; i++) tried[i] = y[i] + static_cast<T>(s.step) * p[i];
  }
  if (threadIdx.x % 32 != 0) return;
#pragma unroll
  for (int i = 0; i < D; i++) static_cast<T *>(a.y)[b * D + i] = s.value == FORTET_INF ? x[i] : y[i];
  report<T>(a, b, s);
}

}  // namespace

#endif
