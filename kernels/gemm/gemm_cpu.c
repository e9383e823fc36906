/* gemm_cpu.c - matrix products on the CPU: the division of the work, and the
 * bodies compiled once per type and instruction level.
 *
 * Work: 2 m n k floating-point operations, in register tiles of 2 MR vectors
 * that take 2 loads and MR broadcasts per 2 MR multiply-adds. A panel of B
 * stays in the first-level cache while the rows of a tile pass, a tile's rows
 * of A in the second, packed columns of B in the third. C is read and written
 * once per chunk of k. */
#include "gemm_cpu.h"

#include <string.h>

#define INLINE static inline __attribute__((always_inline, unused))
#define UNROLL _Pragma("GCC unroll 16")

/* Vectors wider than the target's are passed between inlined functions only. */
#pragma GCC diagnostic ignored "-Wpsabi"

enum {
  FEW = FORTET_GEMM_FEW,
  COLUMN_PAD = 64,    /* a multiple of every panel */
  ROW_QUANTUM = 12,   /* and of every register tile's rows */
  TILE_ROWS = 60,     /* at most, whose packed chunk is on the stack: 60 KiB */
  TILE_COLUMNS = 512, /* whose part of C stays in the second-level cache over all of k */
  ENOUGH_TILES = 16,  /* that a product is divided into, where it is large enough */
  LEAST_DEPTH = 1024, /* of a part of a split sum */
  PACK_COLUMNS = 128, /* of a tile of pack, and its terms */
  PACK_DEPTH = 256,
  ROUND_BYTES = 16 << 20, /* of packed columns, for a third-level cache */
  GROUP_WORK = 1 << 16,   /* multiply-adds that are worth a tile */
  FEW_COLUMNS = 512,      /* of a tile of sums of rows */
  FEW_DOTS = 64           /* and of one of dot products */
};

static int64_t pieces(int64_t whole, int64_t part) { return (whole + part - 1) / part; }
static int64_t up(int64_t a, int64_t b) { return pieces(a, b) * b; }
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t clamp(int64_t a, int64_t lo, int64_t hi) { return a < lo ? lo : a > hi ? hi : a; }

/* Whether few rows are summed from rows of B, whose columns are neighbours. */
static int by_rows(const fortet_gemm_args *g) { return g->b.column == 1 && (g->b.row != 1 || g->k == 1); }

fortet_gemm_plan fortet_gemm_cpu_plan(const fortet_gemm_args *g, int64_t element) {
  fortet_gemm_plan p = {0};
  p.few = g->m <= FEW;
  p.shared = g->b.stride == 0;
  if (p.few) {
    p.tile_rows = FEW;
    p.tile_columns = by_rows(g) ? FEW_COLUMNS : FEW_DOTS;
  } else {
    p.tile_rows = clamp(up(pieces(g->m, clamp(ENOUGH_TILES / g->batch, 1, ENOUGH_TILES)), ROW_QUANTUM), ROW_QUANTUM, TILE_ROWS);
    const int64_t whole = least(g->batch, ENOUGH_TILES) * least(pieces(g->m, p.tile_rows), ENOUGH_TILES);
    p.tile_columns = clamp(up(pieces(g->n, pieces(ENOUGH_TILES, whole)), COLUMN_PAD), COLUMN_PAD, TILE_COLUMNS);
  }
  const int64_t of_matrix = pieces(g->m, p.tile_rows) * pieces(g->n, p.tile_columns);
  p.group = of_matrix > 1 ? 1 : clamp(GROUP_WORK / (g->m * g->n * (g->k + 1)), 1, pieces(g->batch, ENOUGH_TILES));
  p.splits = g->k > 0;
  if (of_matrix < ENOUGH_TILES / 2 && of_matrix * g->batch < ENOUGH_TILES / 2)
    p.splits = clamp(least(ENOUGH_TILES / (of_matrix * g->batch), g->k / LEAST_DEPTH), p.splits, ENOUGH_TILES);

  p.matrices = g->batch, p.columns = up(g->n, COLUMN_PAD), p.depth = g->k;
  if (!p.few && g->k > 0) {
    const int64_t room = ROUND_BYTES / element;
    p.depth = least(g->k, room / least(p.columns, 512) / PACK_DEPTH * PACK_DEPTH);
    p.columns = clamp(room / p.depth / COLUMN_PAD * COLUMN_PAD, COLUMN_PAD, p.columns);
    if (!p.shared) p.matrices = clamp(room / (p.columns * p.depth), 1, g->batch);
    p.bytes = up((p.shared ? 1 : p.matrices) * p.columns * p.depth * element, 256);
  }
  p.finish_rows = clamp(16384 / g->n, 1, g->m);
  p.parts = p.bytes;
  if (p.splits > 1) p.bytes += g->batch * p.splits * g->m * g->n * element;
  return p;
}

/* Tiles of pack: groups of matrices, then of columns, then of terms. */
int64_t fortet_gemm_pack_tiles(const fortet_gemm_round *r) {
  const int64_t groups = r->plan.shared ? 1 : pieces(r->s1 - r->s0, r->plan.group);
  return groups * pieces(r->j1 - r->j0, PACK_COLUMNS) * pieces(r->k1 - r->k0, PACK_DEPTH);
}

/* Tiles of the product: groups of matrices, then rows, columns, and parts of k. */
int64_t fortet_gemm_tiles(const fortet_gemm_round *r) {
  const fortet_gemm_plan *p = &r->plan;
  return pieces(r->s1 - r->s0, p->group) * pieces(r->g.m, p->tile_rows) * pieces(r->j1 - r->j0, p->tile_columns) * p->splits;
}

int64_t fortet_gemm_finish_tiles(const fortet_gemm_round *r) {
  return r->g.batch * pieces(r->g.m, r->plan.finish_rows);
}

/* ---- Baseline: vectors of 16 bytes, which every target has or gcc lowers. */

#define N(name) name##_f32_baseline
#define REAL float
#define LANES 4
#define MR 6
#include "gemm_body.h"

#define N(name) name##_f64_baseline
#define REAL double
#define LANES 2
#define MR 6
#include "gemm_body.h"

#if defined(__x86_64__) && defined(__GNUC__)

/* ---- AVX2 and FMA: 16 registers. */

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

#define N(name) name##_f32_avx2
#define REAL float
#define LANES 8
#define MR 6
#include "gemm_body.h"

#define N(name) name##_f64_avx2
#define REAL double
#define LANES 4
#define MR 6
#include "gemm_body.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

/* ---- AVX-512: 32 registers of twice the width. */

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,prefer-vector-width=512")
#endif

#define N(name) name##_f32_avx512
#define REAL float
#define LANES 16
#define MR 12
#include "gemm_body.h"

#define N(name) name##_f64_avx512
#define REAL double
#define LANES 8
#define MR 12
#include "gemm_body.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#define RUN(name, level, ...)                                  \
  return (level) >= FORTET_AVX512 ? name##_avx512(__VA_ARGS__) \
         : (level) == FORTET_AVX2 ? name##_avx2(__VA_ARGS__)   \
                                  : name##_baseline(__VA_ARGS__)

#else

#define RUN(name, level, ...) return (void)(level), name##_baseline(__VA_ARGS__)

#endif

#define KERNEL(entry, name) \
  int entry(const void *round, int64_t begin, int64_t end, int level) { RUN(name, level, round, begin, end); }

KERNEL(fortet_gemm_pack_f32_cpu, pack_f32)
KERNEL(fortet_gemm_pack_f64_cpu, pack_f64)
KERNEL(fortet_gemm_f32_cpu, product_f32)
KERNEL(fortet_gemm_f64_cpu, product_f64)
KERNEL(fortet_gemm_finish_f32_cpu, finish_f32)
KERNEL(fortet_gemm_finish_f64_cpu, finish_f64)
