/* The Ornstein-Uhlenbeck transition on the GPU: a block of coordinates, 16
 * bytes of each array, a thread. Reads x0 once, writes what is asked for, 4 to
 * 20 bytes an element in float32, against about 100 operations and, where noise
 * is wanted, as many again: between memory and arithmetic in float32 with all
 * outputs, bound by arithmetic elsewhere. */
#include "ou.h"

#include "draw_device.h"
#include "ou_math.h"

FORTET_CONTRACT(ou)

namespace {

__device__ __forceinline__ void coefficients(float b, float lambda, float *f, float *s) { fortet_ou32(b, lambda, f, s); }
__device__ __forceinline__ void coefficients(double b, double lambda, double *f, double *s) { fortet_ou64(b, lambda, f, s); }
__device__ __forceinline__ float root(float a) { return fortet_sqrt32(a); }
__device__ __forceinline__ double root(double a) { return fortet_sqrt64(a); }
__device__ __forceinline__ float times(float a, float b) { return fortet_mul32(a, b); }
__device__ __forceinline__ double times(double a, double b) { return fortet_mul64(a, b); }
__device__ __forceinline__ float over(float a, float b) { return fortet_div32(a, b); }
__device__ __forceinline__ double over(double a, double b) { return fortet_div64(a, b); }
__device__ __forceinline__ float plus(float a, float b, float c) { return fortet_fma32(a, b, c); }
__device__ __forceinline__ double plus(double a, double b, double c) { return fortet_fma64(a, b, c); }

template <class T>
__global__ void __launch_bounds__(fortet_walk::kThreads) transition(fortet_ou_args a, fortet_walk walk, bool whole) {
  constexpr int width = fortet_normals<T>::width;
  using IO = fortet_block_io<T, width>;
  for (fortet_walker at(walk); at.inside(walk); at.next(walk)) {
    const int64_t j = at.block * width, left = walk.d - j, i = at.row * walk.d + j;
    const int have = left < width ? static_cast<int>(left) : width;
    const T b = a.b ? static_cast<const T *>(a.b)[at.row] : static_cast<T>(a.b0);
    T x0[width] = {}, lambda[width], mean[width], scale[width];
    if (a.x0) IO::load(static_cast<const T *>(a.x0) + i, have, whole, x0);
    IO::load(static_cast<const T *>(a.lambda) + j, have, whole, lambda);
#pragma unroll
    for (int k = 0; k < width; k++) {
      T factor, variance;
      coefficients(b, lambda[k], &factor, &variance);
      mean[k] = times(factor, x0[k]);
      scale[k] = root(variance);
    }
    if (a.mean) IO::store(static_cast<T *>(a.mean) + i, have, whole, mean);
    if (a.scale) IO::store(static_cast<T *>(a.scale) + i, have, whole, scale);
    if (!a.xt && !a.score) continue;
    T noise[width];
    fortet_normals<T>::of(fortet_draw_words(a.draw, at.row, static_cast<uint32_t>(at.block)), noise);
    if (a.xt) {
#pragma unroll
      for (int k = 0; k < width; k++) mean[k] = plus(scale[k], noise[k], mean[k]);
      IO::store(static_cast<T *>(a.xt) + i, have, whole, mean);
    }
    if (a.score) {
#pragma unroll
      for (int k = 0; k < width; k++) noise[k] = over(-noise[k], scale[k]);
      IO::store(static_cast<T *>(a.score) + i, have, whole, noise);
    }
  }
}

template <class T>
int launch(void *stream, const void *args) {
  const fortet_ou_args a = *static_cast<const fortet_ou_args *>(args);
  constexpr int width = fortet_normals<T>::width;
  const fortet_walk walk = fortet_walk::of(a.n, a.d, width);
  const void *const arrays[] = {a.x0, a.lambda, a.mean, a.scale, a.xt, a.score};
  bool whole = true;
  for (const void *p : arrays) whole = whole && fortet_whole_blocks(p, a.d, width);
  FORTET_LAUNCH(transition<T>, dim3(walk.grid), fortet_walk::kThreads, 0, stream, a, walk, whole);
  return FORTET_STATUS();
}

}  // namespace

FORTET_EXPORT int fortet_ou_f32(void *stream, const void *args) { return launch<float>(stream, args); }
FORTET_EXPORT int fortet_ou_f64(void *stream, const void *args) { return launch<double>(stream, args); }
