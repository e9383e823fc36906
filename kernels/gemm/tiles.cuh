/* tiles.cuh - matrix products on the FMA units, in the element type.
 *
 * A block of 8 warps computes 128 x 128 elements of C (64 x 64 of double), a
 * thread 8 x 8 (4 x 4) of them, a warp 32 x 64 (16 x 32). Slices of 16 terms pass
 * through two stages of shared memory by cp.async, term by term, so that both
 * operands are read in pieces of 16 bytes.
 *   flops: 2 m n k.
 *   shared memory: 4 loads of 16 bytes for 64 (16) multiply-adds, in 4 (6)
 *   wavefronts of the 64 (32, at half the rate) clocks that these take in a warp's quarter.
 *   L2: 16 x 256 numbers for 128 x 128 x 16 multiply-adds, 8 bytes a clock.
 * Predicted on an H100, not measured: 80 % of 67 TFLOP/s in float and 75 % of 34
 * in double for m = n = k = 4096. */
#ifndef FORTET_GEMM_TILES_CUH
#define FORTET_GEMM_TILES_CUH

#include "fetch.cuh"

namespace {

template <class T>
struct tile_shape {
  static constexpr int V = 16 / int(sizeof(T));
  static constexpr int B = sizeof(T) == 4 ? FORTET_GEMM_TILE : FORTET_GEMM_TILE_F64; /* rows and columns of the block */
  static constexpr int T8 = B / 16;                                                  /* and of a thread */
  static constexpr int K = 16;
  static constexpr int line = B + 4; /* from a term to the next: copies by terms fall into different banks */
  static constexpr int stage = 2 * K * line;
};

static __device__ __forceinline__ float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
static __device__ __forceinline__ double multiply_add(double a, double b, double c) { return fma(a, b, c); }

template <class T>
__global__ __launch_bounds__(kThreads, 2) void gemm_tiles(const product<T> p) {
  using Z = tile_shape<T>;
  __shared__ __align__(16) T stages[2][Z::stage];
  const share<T> own(p);
  const place tile(p.m, p.n, Z::B);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int row = (warp / 2 * 4 + lane / 8) * Z::T8;
  /* Column c of the thread, in pieces: neighbouring lanes load neighbouring 16 bytes. */
  const int column = warp % 2 * (8 * Z::T8) + lane % 8 * Z::V;

  slices<T, Z::B, Z::K, 1, Z::line> coming(p, own, int64_t(tile.i) * Z::B, int64_t(tile.j) * Z::B);
  T acc[Z::T8][Z::T8] = {};
  int stage = 0;
  coming.next(p, stages[0], stages[0] + Z::K * Z::line);
  bool more = true;
#pragma unroll 1
  for (; more; stage ^= 1) {
    more = coming.terms > 0;
    coming.next(p, stages[stage ^ 1], stages[stage ^ 1] + Z::K * Z::line);
    copy_wait<1>();
    __syncthreads();
    const T *const left = stages[stage] + row, *const right = stages[stage] + Z::K * Z::line + column;
#pragma unroll 2
    for (int t = 0; t < Z::K; t++) {
      T a[Z::T8], b[Z::T8];
#pragma unroll
      for (int r = 0; r < Z::T8; r += Z::V) load16(a + r, left + t * Z::line + r);
#pragma unroll
      for (int c = 0; c < Z::T8; c += Z::V) load16(b + c, right + t * Z::line + c * 8);
#pragma unroll
      for (int r = 0; r < Z::T8; r++) {
#pragma unroll
        for (int c = 0; c < Z::T8; c++) acc[r][c] = multiply_add(a[r], b[c], acc[r][c]);
      }
    }
    __syncthreads();
  }
  const target<T> to = own_target(p);
#pragma unroll
  for (int r = 0; r < Z::T8; r++) {
    const int64_t i = int64_t(tile.i) * Z::B + row + r;
    if (i >= p.m) break;
#pragma unroll
    for (int c = 0; c < Z::T8; c++) {
      const int64_t j = int64_t(tile.j) * Z::B + column + c / Z::V * (8 * Z::V) + c % Z::V;
      if (j < p.n) to.put(i, j, acc[r][c]);
    }
  }
}

}  // namespace
#endif
