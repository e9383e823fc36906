/* Draws on the GPU: a block of coordinates, 16 bytes, a thread. Writes 4 or 8
 * bytes an element and reads none; ten rounds are 20 wide products, a pair of
 * float32 normals about 60 operations more, so that float32 is bound by memory
 * writes, or nearly, and float64 on devices of halved rate too. */
#include "philox.h"

#include "draw_device.h"

FORTET_CONTRACT(philox)

namespace {

struct Bits {
  using T = uint32_t;
  enum { width = FORTET_DRAW_32 };
  static __device__ __forceinline__ void of(const fortet_words &w, T (&v)[width]) {
#pragma unroll
    for (int j = 0; j < width; j++) v[j] = w.v[j];
  }
};

struct Uniform32 {
  using T = float;
  enum { width = FORTET_DRAW_32 };
  static __device__ __forceinline__ void of(const fortet_words &w, T (&v)[width]) {
#pragma unroll
    for (int j = 0; j < width; j++) v[j] = fortet_uniform32(w.v[j]);
  }
};

struct Uniform64 {
  using T = double;
  enum { width = FORTET_DRAW_64 };
  static __device__ __forceinline__ void of(const fortet_words &w, T (&v)[width]) {
#pragma unroll
    for (int j = 0; j < width; j++) v[j] = fortet_uniform64(fortet_word64(w.v[2 * j], w.v[2 * j + 1]));
  }
};

struct Normal32 : fortet_normals<float> {
  using T = float;
};

struct Normal64 : fortet_normals<double> {
  using T = double;
};

template <class Kind>
__global__ void __launch_bounds__(fortet_walk::kThreads)
    fill(typename Kind::T *out, fortet_draw draw, fortet_walk walk, bool whole) {
  using T = typename Kind::T;
  for (fortet_walker at(walk); at.inside(walk); at.next(walk)) {
    T v[Kind::width];
    Kind::of(fortet_draw_words(draw, at.row, (uint32_t)at.block), v);
    const int64_t j = at.block * Kind::width, left = walk.d - j;
    fortet_block_io<T, Kind::width>::store(out + at.row * walk.d + j, left < Kind::width ? (int)left : Kind::width,
                                           whole, v);
  }
}

template <class Kind>
int launch(void *stream, const void *args) {
  const fortet_philox_args a = *static_cast<const fortet_philox_args *>(args);
  const fortet_walk walk = fortet_walk::of(a.n, a.d, Kind::width);
  FORTET_LAUNCH(fill<Kind>, dim3(walk.grid), fortet_walk::kThreads, 0, stream,
                static_cast<typename Kind::T *>(a.out), a.draw, walk, fortet_whole_blocks(a.out, a.d, Kind::width));
  return FORTET_STATUS();
}

}  // namespace

FORTET_EXPORT int fortet_philox_bits(void *stream, const void *args) { return launch<Bits>(stream, args); }
FORTET_EXPORT int fortet_philox_uniform_f32(void *stream, const void *args) { return launch<Uniform32>(stream, args); }
FORTET_EXPORT int fortet_philox_uniform_f64(void *stream, const void *args) { return launch<Uniform64>(stream, args); }
FORTET_EXPORT int fortet_philox_normal_f32(void *stream, const void *args) { return launch<Normal32>(stream, args); }
FORTET_EXPORT int fortet_philox_normal_f64(void *stream, const void *args) { return launch<Normal64>(stream, args); }
