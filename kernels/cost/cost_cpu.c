/* Pairwise costs on the CPU.
 *
 * A pair and coordinate takes a subtraction and a fused multiply-add. The form
 * |x|^2 + |y|^2 - 2<x, y> saves the subtraction and loses what cancels: all
 * digits where points are close. Processors that add beside multiplying, as
 * Zen does, do not even pay for it, so differences are used for all d. For
 * large d this is bound by arithmetic, for d below about 16 by writing 4 or 8
 * bytes a pair and output. */
#include "cost.h"

#include "levels.h"

#include <math.h>
#include <string.h>

#if defined(FORTET_X86_LEVELS)
#include <immintrin.h>
#endif

#define ALIGNED __attribute__((aligned(64)))
#define JOIN(a, b) a##_##b
#define SUBNAME(tiles, part) JOIN(tiles, part)
#define VECTOR(tiles) JOIN(tiles, vector)

#define ROWS4(X) X(0) X(1) X(2) X(3)
#define ROWS6(X) ROWS4(X) X(4) X(5)
#define ROWS12(X) ROWS6(X) X(6) X(7) X(8) X(9) X(10) X(11)

enum {
  DEPTH = 256,   /* coordinates of a panel: 32 KiB of float */
  ROW_ROOM = 132 /* FORTET_COST_ROWS, up to a multiple of 4, 6 and 12 */
};

/* Elements of two vectors, numbered through; GCC has the builtin since 12 only. */
#if defined(__clang__)
#define SHUFFLE4(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#define SHUFFLE2(a, b, i, j) __builtin_shufflevector(a, b, i, j)
#else
typedef int32_t int4 __attribute__((vector_size(16)));
typedef int64_t int2 __attribute__((vector_size(16)));
#define SHUFFLE4(a, b, i, j, k, l) __builtin_shuffle(a, b, (int4){i, j, k, l})
#define SHUFFLE2(a, b, i, j) __builtin_shuffle(a, b, (int2){i, j})
#endif

/* to[j][i] = from[i][j], where rows of to are stride apart, by squares of
 * vectors of 16 bytes; what fills no square is copied by itself. */
static void transpose_f32(const float *from, int rows, int columns, float *to, int64_t stride) {
  typedef float four __attribute__((vector_size(16), aligned(4), may_alias));
  const int whole_rows = rows & ~3, whole_columns = columns & ~3;
  for (int j = 0; j < whole_columns; j += 4)
    for (int i = 0; i < whole_rows; i += 4) {
      const float *const p = from + i * FORTET_COST_COLUMNS + j;
      const four a = *(const four *)p, b = *(const four *)(p + FORTET_COST_COLUMNS);
      const four c = *(const four *)(p + 2 * FORTET_COST_COLUMNS), d = *(const four *)(p + 3 * FORTET_COST_COLUMNS);
      const four ab = SHUFFLE4(a, b, 0, 4, 1, 5), cd = SHUFFLE4(c, d, 0, 4, 1, 5);
      const four AB = SHUFFLE4(a, b, 2, 6, 3, 7), CD = SHUFFLE4(c, d, 2, 6, 3, 7);
      float *const q = to + j * stride + i;
      *(four *)q = SHUFFLE4(ab, cd, 0, 1, 4, 5);
      *(four *)(q + stride) = SHUFFLE4(ab, cd, 2, 3, 6, 7);
      *(four *)(q + 2 * stride) = SHUFFLE4(AB, CD, 0, 1, 4, 5);
      *(four *)(q + 3 * stride) = SHUFFLE4(AB, CD, 2, 3, 6, 7);
    }
  for (int j = 0; j < columns; j++)
    for (int i = j < whole_columns ? whole_rows : 0; i < rows; i++)
      to[j * stride + i] = from[i * FORTET_COST_COLUMNS + j];
}

static void transpose_f64(const double *from, int rows, int columns, double *to, int64_t stride) {
  typedef double two __attribute__((vector_size(16), aligned(8), may_alias));
  const int whole_rows = rows & ~1, whole_columns = columns & ~1;
  for (int j = 0; j < whole_columns; j += 2)
    for (int i = 0; i < whole_rows; i += 2) {
      const double *const p = from + i * FORTET_COST_COLUMNS + j;
      const two a = *(const two *)p, b = *(const two *)(p + FORTET_COST_COLUMNS);
      double *const q = to + j * stride + i;
      *(two *)q = SHUFFLE2(a, b, 0, 2);
      *(two *)(q + stride) = SHUFFLE2(a, b, 1, 3);
    }
  for (int j = 0; j < columns; j++)
    for (int i = j < whole_columns ? whole_rows : 0; i < rows; i++)
      to[j * stride + i] = from[i * FORTET_COST_COLUMNS + j];
}

static void sqrt4(float *v) {
  for (int l = 0; l < 4; l++) v[l] = sqrtf(v[l]);
}
static void sqrt2(double *v) {
  for (int l = 0; l < 2; l++) v[l] = sqrt(v[l]);
}

#define TILES baseline_f32
#define AT
#define T float
#define LANES 4
#define ROWS ROWS4
#define ROW_COUNT 4
#define SQRT sqrt4
#define TRANSPOSE transpose_f32
#include "cost_tile.h"

#define TILES baseline_f64
#define AT
#define T double
#define LANES 2
#define ROWS ROWS4
#define ROW_COUNT 4
#define SQRT sqrt2
#define TRANSPOSE transpose_f64
#include "cost_tile.h"

#if defined(FORTET_X86_LEVELS)
#define TILES avx2_f32
#define AT FORTET_AT_AVX2
#define T float
#define LANES 8
#define ROWS ROWS6
#define ROW_COUNT 6
#define SQRT(p) _mm256_storeu_ps(p, _mm256_sqrt_ps(_mm256_loadu_ps(p)))
#define TRANSPOSE transpose_f32
#include "cost_tile.h"

#define TILES avx2_f64
#define AT FORTET_AT_AVX2
#define T double
#define LANES 4
#define ROWS ROWS6
#define ROW_COUNT 6
#define SQRT(p) _mm256_storeu_pd(p, _mm256_sqrt_pd(_mm256_loadu_pd(p)))
#define TRANSPOSE transpose_f64
#include "cost_tile.h"

#define TILES avx512_f32
#define AT FORTET_AT_AVX512
#define T float
#define LANES 16
#define ROWS ROWS12
#define ROW_COUNT 12
#define SQRT(p) _mm512_storeu_ps(p, _mm512_sqrt_ps(_mm512_loadu_ps(p)))
#define TRANSPOSE transpose_f32
#include "cost_tile.h"

#define TILES avx512_f64
#define AT FORTET_AT_AVX512
#define T double
#define LANES 8
#define ROWS ROWS12
#define ROW_COUNT 12
#define SQRT(p) _mm512_storeu_pd(p, _mm512_sqrt_pd(_mm512_loadu_pd(p)))
#define TRANSPOSE transpose_f64
#include "cost_tile.h"
#endif

#if defined(FORTET_X86_LEVELS)
#define ENTRY(type) \
  int fortet_cost_##type##_cpu(const void *args, int64_t begin, int64_t end, int level) { \
    const fortet_cost_args *const a = (const fortet_cost_args *)args; \
    switch (level) { \
      case FORTET_AVX512: return avx512_##type(a, begin, end); \
      case FORTET_AVX2: return avx2_##type(a, begin, end); \
      default: return baseline_##type(a, begin, end); \
    } \
  }
#else
#define ENTRY(type) \
  int fortet_cost_##type##_cpu(const void *args, int64_t begin, int64_t end, int level) { \
    (void)level; \
    return baseline_##type((const fortet_cost_args *)args, begin, end); \
  }
#endif
ENTRY(f32)
ENTRY(f64)
