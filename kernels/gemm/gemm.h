/* gemm.h - matrix products: for every matrix of a batch
 *
 *     C = alpha A B + beta C + 1 bias^T
 *
 * A is (m, k), B (k, n), C (m, n) and bias (n), added to every row, or NULL. A
 * and B are read as they are or transposed, according to their steps. beta = 0
 * does not read C. k = 0 leaves beta C + 1 bias^T, and reads neither A nor B.
 *
 * Sums over k run in an order that depends on the sizes alone. NaN and
 * infinities of A and B reach C as IEEE 754 sums and products pass them on,
 * but for the tensor core precisions: those keep what is not finite so, but may
 * turn an infinity into NaN, and count what rounds beyond the largest bfloat16
 * (3.39e38) or TF32 as infinite.
 *
 * Entry points of a device library, with T one of f32, f64, tf32, bf16x3:
 *     int fortet_gemm_T(void *stream, const void *fortet_gemm_args)
 * Elements are double for _f64 and float for the others, which name how
 * products are computed; sums are float for all three.
 *
 * Read by nvcc, g++, gcc and cgo. */
#ifndef FORTET_GEMM_H
#define FORTET_GEMM_H

#include "fortet.h"

/* Element (i, j) of matrix s is data[i row + j column + s stride]. One of row
 * and column is 1; stride = 0 has one matrix serve the whole batch. */
typedef struct {
  void *data; /* only read, but for C */
  int64_t row, column, stride;
} fortet_gemm_matrix;

typedef struct {
  fortet_gemm_matrix a, b, c;
  const void *bias;
  int64_t bias_row, bias_column; /* element (i, j) gets bias[i bias_row + j bias_column]: 0 and 1 */
  int64_t m, n, k, batch;
  double alpha, beta;
  void *work; /* fortet_gemm_work(...) bytes, aligned to 256 */
} fortet_gemm_args;

enum { FORTET_NATIVE = 0, FORTET_TF32 = 1, FORTET_BF16X3 = 2 };

/* Products with so few rows are sums of rows of B, or dot products with them:
 * B is read once, and no faster than memory. */
enum { FORTET_GEMM_FEW = 4 };

/* C^T = B^T A^T, where that has the fewer rows: the rows of a product that has few
 * are then its columns. */
static inline fortet_gemm_args fortet_gemm_turned(fortet_gemm_args g) {
  fortet_gemm_args t = g;
  if (g.n > FORTET_GEMM_FEW || g.n >= g.m) return g;
  t.a = g.b, t.b = g.a;
  t.m = g.n, t.n = g.m;
  t.a.row = g.b.column, t.a.column = g.b.row;
  t.b.row = g.a.column, t.b.column = g.a.row;
  t.c.row = g.c.column, t.c.column = g.c.row;
  t.bias_row = g.bias_column, t.bias_column = g.bias_row;
  return t;
}

/* ---- Division of the work in a device library. (CPU kernels have their own.) */

enum {
  FORTET_GEMM_TILE = 128,     /* rows and columns of a block's tile of float */
  FORTET_GEMM_TILE_F64 = 64,  /* and of double */
  FORTET_GEMM_FEW_COLUMNS = 32, /* of a block, where rows are few */
  FORTET_GEMM_BLOCKS = 256,   /* that a launch should have: two for nearly every multiprocessor of an H100 */
  FORTET_GEMM_FEW_BLOCKS = 1024, /* and eight, where rows are few and memory is waited for */
  FORTET_GEMM_LEAST = 128     /* of k, below which a split does not pay */
};

/* The sum over k is split in so many parts of so many terms (the last may have
 * fewer), which are then added in their order. */
typedef struct {
  int64_t splits, depth;
} fortet_gemm_split;

static inline fortet_gemm_split fortet_gemm_divide(const fortet_gemm_args *turned, int64_t element) {
  const int few = turned->m <= FORTET_GEMM_FEW;
  const int64_t tile = element == 4 ? (int64_t)FORTET_GEMM_TILE : (int64_t)FORTET_GEMM_TILE_F64;
  const int64_t rows = few ? (int64_t)FORTET_GEMM_FEW : tile, columns = few ? (int64_t)FORTET_GEMM_FEW_COLUMNS : tile;
  const int64_t down = (turned->m + rows - 1) / rows, across = (turned->n + columns - 1) / columns;
  const int64_t enough = few ? (int64_t)FORTET_GEMM_FEW_BLOCKS : (int64_t)FORTET_GEMM_BLOCKS, least = FORTET_GEMM_LEAST;
  int64_t want = down >= enough || across >= enough || turned->batch >= enough ? 1 : enough / (down * across * turned->batch);
  fortet_gemm_split s;
  if (want > turned->k / least) want = turned->k / least;
  if (want < 1) want = 1;
  s.depth = (turned->k + want - 1) / want;
  s.depth = (s.depth + 31) / 32 * 32; /* whole slices of every kernel */
  s.splits = turned->k ? (turned->k + s.depth - 1) / s.depth : 0;
  return s;
}

/* fortet_gemm_work is the size in bytes of the workspace that a device library
 * needs: room for the parts of a split sum. */
static inline int64_t fortet_gemm_work(const fortet_gemm_args *g, int64_t element) {
  const fortet_gemm_args turned = fortet_gemm_turned(*g);
  const fortet_gemm_split s = fortet_gemm_divide(&turned, element);
  return s.splits > 1 ? s.splits * g->batch * g->m * g->n * element : 0;
}

#endif
