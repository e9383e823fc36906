/* gemm.cu - matrix products on a GPU: which kernel runs. They are in tiles.cuh
 * (FMA units), tensor.cuh (tensor cores) and few.cuh (few rows or columns). All
 * are deterministic: no atomics, and a division of the work that depends on the
 * sizes alone (gemm.h). */
// SASS: HMMA\.1688\.F32\.TF32 in gemm_tensorILb1
// SASS: HMMA\.16816\.F32\.BF16 in gemm_tensorILb0
// SASS: LDSM\.16\.M88\.4 in gemm_tensor
// SASS: LDGSTS.*128 in gemm_(tensor|tiles)
// SASS: LDS\.128 in gemm_tiles
// SASS: FFMA in gemm_tilesIf
// SASS: DFMA in gemm_tilesId
#include "gemm.h"

#include "few.cuh"
#include "tensor.cuh"
#include "tiles.cuh"

FORTET_CONTRACT(gemm)

namespace {

constexpr int64_t kMostMatrices = 32768; /* of a launch: the grid's third axis */

template <class T, int R>
void launch_few(void *stream, dim3 grid, const product<T> &p, bool rows) {
  if (rows) FORTET_LAUNCH((few_rows<T, R>), grid, kThreads, 0, stream, p);
  else FORTET_LAUNCH((few_dots<T, R>), grid, kThreads, 0, stream, p);
}

template <class T>
int launch_product(void *stream, const product<T> &p, int64_t matrices, int32_t precision) {
  const auto grid = [&](int64_t blocks) { return dim3(unsigned(blocks), unsigned(p.splits), unsigned(matrices)); };
  if (p.m <= kFew) {
    const dim3 g = grid(fortet_pieces(p.n, kFewColumns));
    const bool rows = p.b.point == 1 && (p.b.term != 1 || p.k == 1);
    switch (p.m) {
      case 1: launch_few<T, 1>(stream, g, p, rows); break;
      case 2: launch_few<T, 2>(stream, g, p, rows); break;
      case 3: launch_few<T, 3>(stream, g, p, rows); break;
      default: launch_few<T, kFew>(stream, g, p, rows); break;
    }
    return FORTET_OK;
  }
  if constexpr (sizeof(T) == 4) {
    if (precision != FORTET_NATIVE) {
      const dim3 g = grid(fortet_pieces(p.m, FORTET_GEMM_TILE) * fortet_pieces(p.n, FORTET_GEMM_TILE));
      const bool tf32 = precision == FORTET_TF32;
      const int status = tf32 ? FORTET_MAX_DYN_SHARED((gemm_tensor<true>), kTensorShared)
                              : FORTET_MAX_DYN_SHARED((gemm_tensor<false>), kTensorShared);
      if (status != FORTET_OK) return status;
      if (tf32) FORTET_LAUNCH((gemm_tensor<true>), g, kThreads, kTensorShared, stream, p);
      else FORTET_LAUNCH((gemm_tensor<false>), g, kThreads, kTensorShared, stream, p);
      return FORTET_OK;
    }
  }
  constexpr int64_t B = tile_shape<T>::B;
  FORTET_LAUNCH(gemm_tiles<T>, grid(fortet_pieces(p.m, B) * fortet_pieces(p.n, B)), kThreads, 0, stream, p);
  return FORTET_OK;
}

template <class T>
int gemm(void *stream, const void *args, int32_t precision) {
  const fortet_gemm_args g = fortet_gemm_turned(*static_cast<const fortet_gemm_args *>(args));
  const fortet_gemm_split split = fortet_gemm_divide(&g, sizeof(T));
  const target<T> to{static_cast<T *>(g.c.data), g.c.row,    g.c.column,  g.c.stride, T(g.alpha), T(g.beta),
                     static_cast<const T *>(g.bias), g.bias_row, g.bias_column};
  T *const parts = static_cast<T *>(g.work);
  product<T> p{operand_of<T>(g.a, false), operand_of<T>(g.b, true), to, g.m, g.n, g.k, split.depth, split.splits, 0};
  if (split.splits > 1) p.to = target<T>{parts, g.n, 1, g.m * g.n, T(1), T(0), nullptr, 0, 0};
  for (p.first = 0; p.first < g.batch; p.first += kMostMatrices) {
    const int64_t matrices = g.batch - p.first < kMostMatrices ? g.batch - p.first : kMostMatrices;
    if (split.splits > 0) {
      const int status = launch_product(stream, p, matrices, precision);
      if (status != FORTET_OK) return status;
    }
    if (split.splits == 1) continue;
    FORTET_LAUNCH(add_parts<T>, dim3(unsigned(fortet_pieces(g.m * g.n, 256)), 1, unsigned(matrices)), 256, 0, stream, parts,
                  split.splits, g.m, g.n, p.first, to);
  }
  return FORTET_STATUS();
}

}  // namespace

FORTET_EXPORT int fortet_gemm_f32(void *stream, const void *args) { return gemm<float>(stream, args, FORTET_NATIVE); }
FORTET_EXPORT int fortet_gemm_f64(void *stream, const void *args) { return gemm<double>(stream, args, FORTET_NATIVE); }
FORTET_EXPORT int fortet_gemm_tf32(void *stream, const void *args) { return gemm<float>(stream, args, FORTET_TF32); }
FORTET_EXPORT int fortet_gemm_bf16x3(void *stream, const void *args) { return gemm<float>(stream, args, FORTET_BF16X3); }
