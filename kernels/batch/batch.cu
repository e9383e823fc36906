/* Batches on the GPU: a block of coordinates, 16 bytes, a thread, which draws
 * what it needs of its row itself. gather is bound by memory, 8 bytes an element
 * in float32 with reads of whole sectors for short rows; bridge reads 8 and
 * writes up to 8 against about 60 operations an element. */
#include "batch.h"

#include "draw_device.h"

FORTET_CONTRACT(batch)

namespace {

__device__ __forceinline__ float first_uniform(const fortet_words &w, float) { return fortet_uniform32(w.v[0]); }
__device__ __forceinline__ double first_uniform(const fortet_words &w, double) {
  return fortet_uniform64(fortet_word64(w.v[0], w.v[1]));
}
__device__ __forceinline__ float root(float a) { return fortet_sqrt32(a); }
__device__ __forceinline__ double root(double a) { return fortet_sqrt64(a); }
__device__ __forceinline__ float times(float a, float b) { return fortet_mul32(a, b); }
__device__ __forceinline__ double times(double a, double b) { return fortet_mul64(a, b); }
__device__ __forceinline__ float over(float a, float b) { return fortet_div32(a, b); }
__device__ __forceinline__ double over(double a, double b) { return fortet_div64(a, b); }
__device__ __forceinline__ float plus(float a, float b, float c) { return fortet_fma32(a, b, c); }
__device__ __forceinline__ double plus(double a, double b, double c) { return fortet_fma64(a, b, c); }

template <class T>
__global__ void __launch_bounds__(fortet_walk::kThreads) gather(fortet_batch_gather_args a, fortet_walk walk, bool whole) {
  constexpr int width = 16 / sizeof(T);
  using IO = fortet_block_io<T, width>;
  const fortet_draw draw = fortet_batch_draw(a.draw, a.count);
  for (fortet_walker at(walk); at.inside(walk); at.next(walk)) {
    const fortet_words w = fortet_draw_words(draw, at.row, 0);
    const int64_t i = fortet_batch_index(w.v[0], w.v[1], a.n);
    if (at.block == 0) {
      if (a.index32) a.index32[at.row] = static_cast<int32_t>(i);
      if (a.index64) a.index64[at.row] = i;
    }
    const int64_t j = at.block * width, left = walk.d - j;
    const int have = left < width ? static_cast<int>(left) : width;
    T v[width];
    IO::load(static_cast<const T *>(a.rows) + i * walk.d + j, have, whole, v);
    IO::store(static_cast<T *>(a.out) + at.row * walk.d + j, have, whole, v);
  }
}

template <class T>
__global__ void __launch_bounds__(fortet_walk::kThreads) bridge(fortet_batch_bridge_args a, fortet_walk walk, bool whole) {
  constexpr int width = fortet_normals<T>::width;
  using IO = fortet_block_io<T, width>;
  const T epsilon = static_cast<T>(a.epsilon), range = static_cast<T>(1 - a.safe);
  const fortet_draw times_of = fortet_batch_draw(a.draw, a.count);
  fortet_draw normals = times_of;
  normals.purpose++;
  for (fortet_walker at(walk); at.inside(walk); at.next(walk)) {
    const T far = a.given ? static_cast<const T *>(a.given)[at.row]
                          : times(range, first_uniform(fortet_draw_words(times_of, at.row, 0), T(0)));
    if (a.t && at.block == 0) static_cast<T *>(a.t)[at.row] = far;
    if (!a.xt && !a.u) continue;
    const T near = plus(T(-1), far, T(1));
    const int64_t j = at.block * width, left = walk.d - j, i = at.row * walk.d + j;
    const int have = left < width ? static_cast<int>(left) : width;
    T x0[width], x1[width], noise[width], v[width];
    IO::load(static_cast<const T *>(a.x0) + i, have, whole, x0);
    IO::load(static_cast<const T *>(a.x1) + i, have, whole, x1);
    fortet_normals<T>::of(fortet_draw_words(normals, at.row, static_cast<uint32_t>(at.block)), noise);
    if (a.xt) {
      const T spread = root(times(epsilon, times(far, near)));
#pragma unroll
      for (int k = 0; k < width; k++) v[k] = plus(spread, noise[k], plus(far, x1[k], times(near, x0[k])));
      IO::store(static_cast<T *>(a.xt) + i, have, whole, v);
    }
    if (a.u) {
      const T steep = root(over(times(epsilon, far), near));
#pragma unroll
      for (int k = 0; k < width; k++) v[k] = plus(-steep, noise[k], x1[k] - x0[k]);
      IO::store(static_cast<T *>(a.u) + i, have, whole, v);
    }
  }
}

template <class T>
int launch_gather(void *stream, const void *args) {
  const fortet_batch_gather_args a = *static_cast<const fortet_batch_gather_args *>(args);
  constexpr int width = 16 / sizeof(T);
  const fortet_walk walk = fortet_walk::of(a.batch, a.d, width);
  const bool whole = fortet_whole_blocks(a.rows, a.d, width) && fortet_whole_blocks(a.out, a.d, width);
  FORTET_LAUNCH(gather<T>, dim3(walk.grid), fortet_walk::kThreads, 0, stream, a, walk, whole);
  return FORTET_STATUS();
}

template <class T>
int launch_bridge(void *stream, const void *args) {
  const fortet_batch_bridge_args a = *static_cast<const fortet_batch_bridge_args *>(args);
  constexpr int width = fortet_normals<T>::width;
  const fortet_walk walk = fortet_walk::of(a.n, a.d, width);
  const void *const arrays[] = {a.x0, a.x1, a.xt, a.u};
  bool whole = true;
  for (const void *p : arrays) whole = whole && fortet_whole_blocks(p, a.d, width);
  FORTET_LAUNCH(bridge<T>, dim3(walk.grid), fortet_walk::kThreads, 0, stream, a, walk, whole);
  return FORTET_STATUS();
}

}  // namespace

FORTET_EXPORT int fortet_batch_gather_f32(void *stream, const void *args) { return launch_gather<float>(stream, args); }
FORTET_EXPORT int fortet_batch_gather_f64(void *stream, const void *args) { return launch_gather<double>(stream, args); }
FORTET_EXPORT int fortet_batch_bridge_f32(void *stream, const void *args) { return launch_bridge<float>(stream, args); }
FORTET_EXPORT int fortet_batch_bridge_f64(void *stream, const void *args) { return launch_bridge<double>(stream, args); }
