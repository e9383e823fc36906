/* Sampling from Gaussian mixtures on the GPU, to the same bits as on the CPU:
 * gmm_sample.h fixes the orders of sums.
 *
 * Up to d = 8 a thread has a row in registers and walks the components three
 * times (maximum, total, choice), since their weights would not fit: 3 k (2 d)
 * operations, with axes 3 k (2 d^2), and 2 k exponentials, against 12 d bytes;
 * all threads read one component at a time, which is a broadcast. Above, a warp
 * has a row and its lanes the coordinates: the weights lie in shared memory, k
 * of them a warp, and the mixture is read along its rows. */
#include "gmm.h"

#include "draw_device.h"
#include "gmm_sample.h"

namespace {

__device__ __forceinline__ float root(float a) { return fortet_sqrt32(a); }
__device__ __forceinline__ double root(double a) { return fortet_sqrt64(a); }
__device__ __forceinline__ float times(float a, float b) { return fortet_mul32(a, b); }
__device__ __forceinline__ double times(double a, double b) { return fortet_mul64(a, b); }
__device__ __forceinline__ float plus(float a, float b, float c) { return fortet_fma32(a, b, c); }
__device__ __forceinline__ double plus(double a, double b, double c) { return fortet_fma64(a, b, c); }
__device__ __forceinline__ float exponential(float z) { return fortet_gmm_exp32(z); }
__device__ __forceinline__ double exponential(double z) { return fortet_gmm_exp64(z); }
__device__ __forceinline__ float first_uniform(const fortet_words &w, float) { return fortet_uniform32(w.v[0]); }
__device__ __forceinline__ double first_uniform(const fortet_words &w, double) {
  return fortet_uniform64(fortet_word64(w.v[0], w.v[1]));
}

template <class T>
__device__ __forceinline__ T uniform(const fortet_gmm_sample_args &a, int64_t row) {
  return first_uniform(fortet_draw_words(a.draw, row, 0), T(0));
}

__device__ __forceinline__ fortet_draw later(fortet_draw draw, uint32_t by) {
  draw.purpose += by;
  return draw;
}

template <class T>
__device__ __forceinline__ const T *array(const void *p) { return static_cast<const T *>(p); }

/* (s - 1) / 2 */
template <class T>
__device__ __forceinline__ T half_excess(T s) { return plus(T(0.5), s, T(-0.5)); }

/* ---- A thread a row, d <= D. */

enum { kThreads = 128 };

/* a'x */
template <class T, int D>
__device__ __forceinline__ T chain(const T *a, const T (&x)[D], int d) {
  T acc = 0;
#pragma unroll
  for (int k = 0; k < D; k++)
    if (k < d) acc = plus(a[k], x[k], acc);
  return acc;
}

template <class T, int D, bool AXES>
__device__ __forceinline__ T chain_logit(const fortet_gmm_sample_args &a, T inverse, int64_t j, const T (&x)[D]) {
  const int d = static_cast<int>(a.m.d);
  const T *const r = array<T>(a.m.means) + j * d, *const s = array<T>(a.m.scales) + j * d;
  T acc = 0;
#pragma unroll
  for (int k = 0; k < D; k++) {
    if (k >= d) continue;
    const T h = half_excess(s[k]);
    if (AXES) {
      const T y = chain<T, D>(array<T>(a.m.axes) + (j * d + k) * d, x, d);
      acc = plus(times(h, y), y, plus(r[k], x[k], acc));
    } else {
      acc = plus(x[k], plus(h, x[k], r[k]), acc);
    }
  }
  return plus(acc, inverse, array<T>(a.m.logits)[j]);
}

/* The normals of a row. */
template <class T, int D>
__device__ __forceinline__ void chain_normals(fortet_draw draw, int64_t row, int d, T (&z)[D]) {
  constexpr int width = fortet_normals<T>::width;
#pragma unroll
  for (int b = 0; b * width < D; b++) {
    T v[width] = {};
    if (b * width < d) fortet_normals<T>::of(fortet_draw_words(draw, row, b), v);
#pragma unroll
    for (int c = 0; c < width; c++)
      if (b * width + c < D) z[b * width + c] = v[c];
  }
}

template <class T, int D, bool AXES>
__global__ void __launch_bounds__(kThreads) sample_chain(fortet_gmm_sample_args a) {
  const int d = static_cast<int>(a.m.d);
  const T epsilon = static_cast<T>(a.m.epsilon), inverse = static_cast<T>(1 / a.m.epsilon);
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; row < a.n; row += stride) {
    T x[D];
#pragma unroll
    for (int k = 0; k < D; k++) x[k] = k < d ? array<T>(a.x0)[row * d + k] : T(0);
    T top = -static_cast<T>(INFINITY), total = 0;
    for (int64_t j = 0; j < a.m.k; j++) {
      const T z = chain_logit<T, D, AXES>(a, inverse, j, x);
      top = z > top ? z : top;
    }
    for (int64_t j = 0; j < a.m.k; j++) total += exponential(chain_logit<T, D, AXES>(a, inverse, j, x) - top);
    const T target = times(uniform<T>(a, row), total);
    int64_t chosen = -1;
    T cumulative = 0;
    if (total >= 1) {
      do {
        chosen++;
        cumulative += exponential(chain_logit<T, D, AXES>(a, inverse, chosen, x) - top);
      } while (cumulative <= target);
    }
    if (a.component) static_cast<int32_t *>(a.component)[row] = static_cast<int32_t>(chosen);
    if (!a.x1 && !a.xt) continue;

    T y[D];
#pragma unroll
    for (int k = 0; k < D; k++) y[k] = static_cast<T>(NAN);
    if (chosen >= 0) {
      const T *const r = array<T>(a.m.means) + chosen * d, *const s = array<T>(a.m.scales) + chosen * d;
      T z[D];
      chain_normals<T, D>(later(a.draw, 1), row, d, z);
      if (AXES) {
        const T *const axes = array<T>(a.m.axes) + chosen * d * d;
#pragma unroll
        for (int p = 0; p < D; p++)
          if (p < d) z[p] = plus(s[p], chain<T, D>(axes + p * d, x, d), times(root(times(epsilon, s[p])), z[p]));
#pragma unroll
        for (int k = 0; k < D; k++) {
          if (k >= d) continue;
          T acc = r[k];
#pragma unroll
          for (int p = 0; p < D; p++)
            if (p < d) acc = plus(axes[p * d + k], z[p], acc);
          y[k] = acc;
        }
      } else {
#pragma unroll
        for (int k = 0; k < D; k++)
          if (k < d) y[k] = plus(root(times(epsilon, s[k])), z[k], plus(s[k], x[k], r[k]));
      }
    }
    if (a.x1) {
#pragma unroll
      for (int k = 0; k < D; k++)
        if (k < d) static_cast<T *>(a.x1)[row * d + k] = y[k];
    }
    if (a.xt) {
      const T far = a.t ? array<T>(a.t)[row] : static_cast<T>(a.t0), near = 1 - far;
      const T spread = root(times(epsilon, times(far, near)));
      T z[D];
      chain_normals<T, D>(later(a.draw, 2), row, d, z);
#pragma unroll
      for (int k = 0; k < D; k++)
        if (k < d) static_cast<T *>(a.xt)[row * d + k] = plus(spread, z[k], plus(far, y[k], times(near, x[k])));
    }
  }
}

/* ---- A warp a row, d > 8. */

enum { kWarps = 4 };

/* a'x, for all lanes. */
template <class T>
__device__ __forceinline__ T warp_dot(const T *a, const T *x, int64_t d) {
  T acc = 0;
  for (int64_t k = threadIdx.x % 32; k < d; k += 32) acc = plus(a[k], x[k], acc);
  return fortet_warp_sum(acc);
}

template <class T, bool AXES>
__device__ __forceinline__ T warp_logit(const fortet_gmm_sample_args &a, T inverse, int64_t j, const T *x) {
  const int64_t d = a.m.d, lane = threadIdx.x % 32;
  const T *const r = array<T>(a.m.means) + j * d, *const s = array<T>(a.m.scales) + j * d;
  T acc = 0;
  if (AXES) {
    for (int64_t p = 0; p < d; p++) {
      const T y = warp_dot(array<T>(a.m.axes) + (j * d + p) * d, x, d);
      if (p % 32 == lane) acc = plus(times(half_excess(s[p]), y), y, plus(r[p], x[p], acc));
    }
  } else {
    for (int64_t k = lane; k < d; k += 32) acc = plus(x[k], plus(half_excess(s[k]), x[k], r[k]), acc);
  }
  return plus(fortet_warp_sum(acc), inverse, array<T>(a.m.logits)[j]);
}

/* The component of a row, for all lanes; weights is room for k. */
template <class T, bool AXES>
__device__ __forceinline__ int64_t warp_choose(const fortet_gmm_sample_args &a, int64_t row, const T *x, T *weights) {
  const T inverse = static_cast<T>(1 / a.m.epsilon);
  const int64_t k = a.m.k, lane = threadIdx.x % 32;
  T top = -static_cast<T>(INFINITY), total = 0;
  for (int64_t j = 0; j < k; j++) {
    const T z = warp_logit<T, AXES>(a, inverse, j, x);
    if (lane == 0) weights[j] = z;
    top = z > top ? z : top;
  }
  __syncwarp();
  for (int64_t j = lane; j < k; j += 32) weights[j] = exponential(weights[j] - top);
  __syncwarp();
  for (int64_t j = 0; j < k; j++) total += weights[j];
  int64_t chosen = -1;
  if (total >= 1) {
    const T target = times(uniform<T>(a, row), total);
    T cumulative = 0;
    do cumulative += weights[++chosen];
    while (cumulative <= target);
  }
  __syncwarp(); /* weights may be written again */
  return chosen;
}

template <class T, bool AXES>
__global__ void __launch_bounds__(kWarps * 32) sample_warp(fortet_gmm_sample_args a, bool whole) {
  constexpr int width = fortet_normals<T>::width;
  using IO = fortet_block_io<T, width>;
  FORTET_DYN_SHARED(T, room);
  const int64_t d = a.m.d, blocks = fortet_pieces(d, width);
  const int warps = static_cast<int>(blockDim.x / 32), warp = static_cast<int>(threadIdx.x / 32);
  const int lane = static_cast<int>(threadIdx.x % 32);
  T *const weights = room + warp * (a.m.k + (AXES ? d : 0)), *const z = weights + a.m.k;
  const T epsilon = static_cast<T>(a.m.epsilon);
  for (int64_t row = static_cast<int64_t>(blockIdx.x) * warps + warp; row < a.n; row += static_cast<int64_t>(gridDim.x) * warps) {
    const T *const x = array<T>(a.x0) + row * d;
    const int64_t j = warp_choose<T, AXES>(a, row, x, weights);
    if (a.component && lane == 0) static_cast<int32_t *>(a.component)[row] = static_cast<int32_t>(j);
    if (!a.x1 && !a.xt) continue;

    const int64_t from = j < 0 ? 0 : j;
    const T *const r = array<T>(a.m.means) + from * d, *const s = array<T>(a.m.scales) + from * d;
    const T *const axes = AXES ? array<T>(a.m.axes) + from * d * d : nullptr;
    if (AXES) {
      for (int64_t b = lane; b < blocks; b += 32) {
        T v[width];
        fortet_normals<T>::of(fortet_draw_words(later(a.draw, 1), row, static_cast<uint32_t>(b)), v);
#pragma unroll
        for (int c = 0; c < width; c++)
          if (b * width + c < d) z[b * width + c] = v[c];
      }
      __syncwarp();
      for (int64_t p = 0; p < d; p++) {
        const T y = warp_dot(axes + p * d, x, d);
        if (p % 32 == lane) z[p] = plus(s[p], y, times(root(times(epsilon, s[p])), z[p]));
      }
      __syncwarp();
    }
    const T far = a.t ? array<T>(a.t)[row] : static_cast<T>(a.t0), near = 1 - far;
    const T spread = root(times(epsilon, times(far, near)));
    for (int64_t b = lane; b < blocks; b += 32) {
      const int64_t k = b * width;
      const int have = d - k < width ? static_cast<int>(d - k) : width;
      T start[width], v[width], y[width];
      IO::load(x + k, have, whole, start);
      IO::load(r + k, have, whole, y);
      if (AXES) {
        for (int64_t p = 0; p < d; p++) {
          IO::load(axes + p * d + k, have, whole, v);
#pragma unroll
          for (int c = 0; c < width; c++) y[c] = plus(v[c], z[p], y[c]);
        }
      } else {
        T scale[width];
        IO::load(s + k, have, whole, scale);
        fortet_normals<T>::of(fortet_draw_words(later(a.draw, 1), row, static_cast<uint32_t>(b)), v);
#pragma unroll
        for (int c = 0; c < width; c++)
          y[c] = plus(root(times(epsilon, scale[c])), v[c], plus(scale[c], start[c], y[c]));
      }
      if (j < 0) {
#pragma unroll
        for (int c = 0; c < width; c++) y[c] = static_cast<T>(NAN);
      }
      if (a.x1) IO::store(static_cast<T *>(a.x1) + row * d + k, have, whole, y);
      if (a.xt) {
        fortet_normals<T>::of(fortet_draw_words(later(a.draw, 2), row, static_cast<uint32_t>(b)), v);
#pragma unroll
        for (int c = 0; c < width; c++) y[c] = plus(spread, v[c], plus(far, y[c], times(near, start[c])));
        IO::store(static_cast<T *>(a.xt) + row * d + k, have, whole, y);
      }
    }
    __syncwarp(); /* z may be written again */
  }
}

template <class T, int D, bool AXES>
int launch_chain(void *stream, const fortet_gmm_sample_args &a) {
  const int64_t most = (int64_t)fortet_multiprocessors() * 32, need = fortet_pieces(a.n, kThreads);
  FORTET_LAUNCH((sample_chain<T, D, AXES>), dim3((unsigned)(need < most ? need : most)), kThreads, 0, stream, a);
  return FORTET_STATUS();
}

template <class T, bool AXES>
int launch_warp(void *stream, const fortet_gmm_sample_args &a) {
  constexpr int width = fortet_normals<T>::width;
  const int64_t bytes = (a.m.k + (AXES ? a.m.d : 0)) * (int64_t)sizeof(T), fit = fortet_max_shared() / bytes;
  if (fit < 1) return FORTET_UNSUPPORTED;
  const int warps = fit < kWarps ? (int)fit : kWarps;
  if (warps * bytes > 48 << 10) {
    const int rc = FORTET_MAX_DYN_SHARED((sample_warp<T, AXES>), warps * bytes);
    if (rc != FORTET_OK) return rc;
  }
  const void *const arrays[] = {a.x0, a.m.means, a.m.scales, a.m.axes, a.x1, a.xt};
  bool whole = true;
  for (const void *p : arrays) whole = whole && fortet_whole_blocks(p, a.m.d, width);
  const int64_t most = (int64_t)fortet_multiprocessors() * 32, need = fortet_pieces(a.n, warps);
  FORTET_LAUNCH((sample_warp<T, AXES>), dim3((unsigned)(need < most ? need : most)), warps * 32,
                static_cast<size_t>(warps * bytes), stream, a, whole);
  return FORTET_STATUS();
}

template <class T, bool AXES>
int launch_axes(void *stream, const fortet_gmm_sample_args &a) {
  if (a.m.d <= 2) return launch_chain<T, 2, AXES>(stream, a);
  if (a.m.d <= 4) return launch_chain<T, 4, AXES>(stream, a);
  if (a.m.d <= FORTET_GMM_SAMPLE_CHAIN) return launch_chain<T, FORTET_GMM_SAMPLE_CHAIN, AXES>(stream, a);
  return launch_warp<T, AXES>(stream, a);
}

template <class T>
int launch(void *stream, const void *args) {
  const fortet_gmm_sample_args a = *static_cast<const fortet_gmm_sample_args *>(args);
  return a.m.axes ? launch_axes<T, true>(stream, a) : launch_axes<T, false>(stream, a);
}

}  // namespace

FORTET_EXPORT int fortet_gmm_sample_f32(void *stream, const void *args) { return launch<float>(stream, args); }
FORTET_EXPORT int fortet_gmm_sample_f64(void *stream, const void *args) { return launch<double>(stream, args); }
