/* Adam on the GPU. The step: 16 bytes of each array a thread, bound by memory
 * (28 bytes an element in float32, 36 with an average). The norm: a block sums
 * the squares of a chunk, then one block the chunks; 4 bytes an element, bound
 * by memory where the device has double arithmetic worth the name. */
#include "adam.h"

#include "adam_math.h"
#include "draw_device.h" /* blocks of 16 bytes */

FORTET_CONTRACT(adam)

namespace {

enum { kThreads = 256 };
static_assert((int)kThreads == (int)FORTET_ADAM_LANES, "a lane a thread");

template <class T>
__global__ void __launch_bounds__(kThreads) squares(fortet_adam_norm_args a) {
  const int64_t first = (int64_t)blockIdx.x * FORTET_ADAM_CHUNK, left = a.n - first;
  const int count = left < FORTET_ADAM_CHUNK ? (int)left : FORTET_ADAM_CHUNK;
  const T *const g = static_cast<const T *>(a.gradient) + first;
  double sum = 0;
#pragma unroll 4
  for (int i = threadIdx.x; i < count; i += kThreads) {
    const double x = static_cast<double>(g[i]);
    sum = fortet_fma64(x, x, sum);
  }
  sum = fortet_block_sum(sum);
  if (threadIdx.x == 0) a.partial[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kThreads) norm(fortet_adam_norm_args a, int64_t chunks) {
  double sum = 0;
  for (int64_t c = threadIdx.x; c < chunks; c += kThreads) sum += a.partial[c];
  sum = fortet_block_sum(sum);
  if (threadIdx.x != 0) return;
  *a.norm = fortet_sqrt64(sum);
  if (a.count) ++*a.count;
}

__device__ __forceinline__ float times(float a, float b) { return fortet_mul32(a, b); }
__device__ __forceinline__ double times(double a, double b) { return fortet_mul64(a, b); }
__device__ __forceinline__ float root_of(float a) { return fortet_sqrt32(a); }
__device__ __forceinline__ double root_of(double a) { return fortet_sqrt64(a); }
__device__ __forceinline__ float blend(float w, float x, float old) { return fortet_adam_blend32(w, x, old); }
__device__ __forceinline__ double blend(double w, double x, double old) { return fortet_adam_blend64(w, x, old); }
__device__ __forceinline__ float square(float w, float g, float old) { return fortet_adam_second32(w, g, old); }
__device__ __forceinline__ double square(double w, double g, double old) { return fortet_adam_second64(w, g, old); }
__device__ __forceinline__ float move(float p, float m, float v, float a, float r, float e, float s) {
  return fortet_adam_move32(p, m, v, a, r, e, s);
}
__device__ __forceinline__ double move(double p, double m, double v, double a, double r, double e, double s) {
  return fortet_adam_move64(p, m, v, a, r, e, s);
}

template <class T>
__global__ void __launch_bounds__(kThreads) step(fortet_adam_step_args a, bool aligned) {
  constexpr int width = 16 / sizeof(T);
  using IO = fortet_block_io<T, width>;
  if (!fortet_adam_finite(a.norm)) return;
  const T scale = static_cast<T>(fortet_adam_scale(a.norm, a.clip));
  const fortet_adam_numbers at = fortet_adam_at(&a);
  const T rate = static_cast<T>(at.rate), root = static_cast<T>(at.root);
  const T epsilon = static_cast<T>(a.epsilon), shrink = static_cast<T>(at.shrink);
  const T w1 = static_cast<T>(a.blend1), w2 = static_cast<T>(a.blend2), w3 = static_cast<T>(a.blend3);
  const int64_t stride = (int64_t)gridDim.x * kThreads * width;
  for (int64_t i = ((int64_t)blockIdx.x * kThreads + threadIdx.x) * width; i < a.n; i += stride) {
    const int have = a.n - i < width ? static_cast<int>(a.n - i) : width;
    const bool whole = aligned && have == width;
    T g[width], p[width], m[width], v[width];
    IO::load(static_cast<const T *>(a.gradient) + i, have, whole, g);
    IO::load(static_cast<const T *>(a.params) + i, have, whole, p);
    IO::load(static_cast<const T *>(a.first) + i, have, whole, m);
    IO::load(static_cast<const T *>(a.second) + i, have, whole, v);
#pragma unroll
    for (int k = 0; k < width; k++) {
      const T x = times(scale, g[k]);
      m[k] = blend(w1, x, m[k]);
      v[k] = square(w2, x, v[k]);
      p[k] = move(p[k], m[k], root_of(v[k]), rate, root, epsilon, shrink);
    }
    IO::store(static_cast<T *>(a.first) + i, have, whole, m);
    IO::store(static_cast<T *>(a.second) + i, have, whole, v);
    IO::store(static_cast<T *>(a.params) + i, have, whole, p);
    if (!a.ema) continue;
    T e[width];
    IO::load(static_cast<const T *>(a.ema) + i, have, whole, e);
#pragma unroll
    for (int k = 0; k < width; k++) e[k] = blend(w3, p[k], e[k]);
    IO::store(static_cast<T *>(a.ema) + i, have, whole, e);
  }
}

template <class T>
int launch_squares(void *stream, const void *args) {
  const fortet_adam_norm_args a = *static_cast<const fortet_adam_norm_args *>(args);
  FORTET_LAUNCH(squares<T>, dim3((unsigned)fortet_pieces(a.n, FORTET_ADAM_CHUNK)), kThreads, 0, stream, a);
  return FORTET_STATUS();
}

template <class T>
int launch_step(void *stream, const void *args) {
  const fortet_adam_step_args a = *static_cast<const fortet_adam_step_args *>(args);
  constexpr int width = 16 / sizeof(T);
  const void *const arrays[] = {a.gradient, a.params, a.first, a.second, a.ema};
  bool aligned = true;
  for (const void *p : arrays) aligned = aligned && fortet_whole_blocks(p, width, width);
  const int64_t most = (int64_t)fortet_multiprocessors() * 32, need = fortet_pieces(a.n, kThreads * width);
  FORTET_LAUNCH(step<T>, dim3((unsigned)(need < most ? need : most)), kThreads, 0, stream, a, aligned);
  return FORTET_STATUS();
}

}  // namespace

FORTET_EXPORT int fortet_adam_squares_f32(void *stream, const void *args) { return launch_squares<float>(stream, args); }
FORTET_EXPORT int fortet_adam_squares_f64(void *stream, const void *args) { return launch_squares<double>(stream, args); }
FORTET_EXPORT int fortet_adam_norm(void *stream, const void *args) {
  const fortet_adam_norm_args a = *static_cast<const fortet_adam_norm_args *>(args);
  FORTET_LAUNCH(norm, 1, kThreads, 0, stream, a, fortet_pieces(a.n, FORTET_ADAM_CHUNK));
  return FORTET_STATUS();
}
FORTET_EXPORT int fortet_adam_step_f32(void *stream, const void *args) { return launch_step<float>(stream, args); }
FORTET_EXPORT int fortet_adam_step_f64(void *stream, const void *args) { return launch_step<double>(stream, args); }
