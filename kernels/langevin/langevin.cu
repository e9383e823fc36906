/* The Langevin step on the GPU: a block of coordinates, 16 bytes of each array,
 * a thread. Reads 1 to 3 arrays and writes one, 8 to 16 bytes an element in
 * float32, against about 100 operations for the normal: bound by memory in
 * float32 with score and mean, elsewhere near it. */
#include "langevin.h"

#include "draw_device.h"

FORTET_CONTRACT(langevin)

namespace {

__device__ __forceinline__ float update(float y, float s, float m, float n, float eta, float prec, float scale) {
  return fortet_langevin32(y, s, m, n, eta, prec, scale);
}
__device__ __forceinline__ double update(double y, double s, double m, double n, double eta, double prec, double scale) {
  return fortet_langevin64(y, s, m, n, eta, prec, scale);
}

template <class T>
__global__ void __launch_bounds__(fortet_walk::kThreads) step(fortet_langevin_args a, fortet_walk walk, bool whole) {
  constexpr int width = fortet_normals<T>::width;
  using IO = fortet_block_io<T, width>;
  const T eta = static_cast<T>(a.eta), precision = static_cast<T>(a.precision), scale = static_cast<T>(a.scale);
  for (fortet_walker at(walk); at.inside(walk); at.next(walk)) {
    const int64_t j = at.block * width, left = walk.d - j, i = at.row * walk.d + j;
    const int have = left < width ? static_cast<int>(left) : width;
    T y[width], score[width] = {}, mean[width] = {}, noise[width] = {};
    IO::load(static_cast<const T *>(a.y) + i, have, whole, y);
    if (a.score) IO::load(static_cast<const T *>(a.score) + i, have, whole, score);
    if (a.mean && precision != T(0)) IO::load(static_cast<const T *>(a.mean) + i, have, whole, mean);
    if (scale != T(0))
      fortet_normals<T>::of(fortet_draw_words(a.draw, at.row, static_cast<uint32_t>(at.block)), noise);
#pragma unroll
    for (int k = 0; k < width; k++) y[k] = update(y[k], score[k], mean[k], noise[k], eta, precision, scale);
    IO::store(static_cast<T *>(a.out) + i, have, whole, y);
  }
}

template <class T>
int launch(void *stream, const void *args) {
  const fortet_langevin_args a = *static_cast<const fortet_langevin_args *>(args);
  constexpr int width = fortet_normals<T>::width;
  const fortet_walk walk = fortet_walk::of(a.n, a.d, width);
  const bool whole = fortet_whole_blocks(a.y, a.d, width) && fortet_whole_blocks(a.score, a.d, width) &&
                     fortet_whole_blocks(a.mean, a.d, width) && fortet_whole_blocks(a.out, a.d, width);
  FORTET_LAUNCH(step<T>, dim3(walk.grid), fortet_walk::kThreads, 0, stream, a, walk, whole);
  return FORTET_STATUS();
}

}  // namespace

FORTET_EXPORT int fortet_langevin_f32(void *stream, const void *args) { return launch<float>(stream, args); }
FORTET_EXPORT int fortet_langevin_f64(void *stream, const void *args) { return launch<double>(stream, args); }
