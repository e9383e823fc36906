/* softmin_cpu.c - the CPU kernels of softmin: how work is divided, and the
 * bodies compiled once per type and instruction level.
 *
 * Work per pair: 2 d floating-point operations for the score and one
 * exponential of about 15; points are read once per 48 or more rows, so that
 * memory does not bind, except for a given matrix, which is read once. */
#include "softmin_cpu.h"

#include <math.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline, unused))
#define ALIGNED __attribute__((aligned(64)))
#define UNROLL _Pragma("GCC unroll 16")

/* Vectors wider than the target's are passed between inlined functions only. */
#pragma GCC diagnostic ignored "-Wpsabi"

enum {
  STREAMS = 2,     /* vectors that go through the exponential side by side */
  MOST_BLOCKS = 4096, /* blocks of scores of all rows that a sweep keeps: 2 MiB of 4 * 256 bytes, and a margin */
  TILE_ROWS = 96,  /* the most rows of a tile of softmin */
  APPLY_ROWS = 24, /* and of a tile of apply */
  APPLY_COLS = 256,
  FEW = 8          /* columns of v for which dot products are cheaper than padding to a panel */
};

static int64_t up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }
static int64_t clamp(int64_t a, int64_t lo, int64_t hi) { return a < lo ? lo : a > hi ? hi : a; }

void fortet_softmin_cpu_plan(int32_t op, const fortet_pairs *p, int32_t element, fortet_softmin_plan *w) {
  int given = p->cost == FORTET_MATRIX;
  memset(w, 0, sizeof *w);
  w->form = given ? FORM_GIVEN
            : p->d <= DIRECT_LIMIT ? FORM_DIRECT
            : p->cost == FORTET_EUCLIDEAN ? FORM_DIFFERENCE
                                          : FORM_PRODUCT;
  w->element = element;
  w->columns = up(p->m, COLUMN_PAD);
  int blocked = w->form == FORM_DIFFERENCE || w->form == FORM_PRODUCT;
  w->pack_tiles = (w->columns + PACK_COLUMNS - 1) / PACK_COLUMNS + (blocked ? (p->n + PACK_ROWS - 1) / PACK_ROWS : 0);

  int64_t share = up((p->n + MOST_GROUPS - 1) / MOST_GROUPS, ROW_QUANTUM);
  w->tile_rows = clamp(share, p->n < 768 ? ROW_QUANTUM : 48, TILE_ROWS);
  if (op == FORTET_OP_APPLY) w->tile_rows = clamp(share, ROW_QUANTUM, APPLY_ROWS);
  w->tiles = (p->n + w->tile_rows - 1) / w->tile_rows;

  int64_t at = 0;
  int64_t d = given ? 0 : p->d;
#define TAKE(field, size) w->field = at, at += up(size, 256)
  TAKE(centre, d * element);
  TAKE(bias, w->columns * element);
  TAKE(weight, op == FORTET_OP_APPLY ? w->columns * element : 0);
  TAKE(panels, w->columns * d * element);
  TAKE(sources, blocked ? up(p->n, ROW_QUANTUM) * d * element : 0);
  TAKE(squares, w->form == FORM_PRODUCT ? p->n * 8 : 0);
  if (op == FORTET_OP_SWEEP) {
    /* As many rows of scores as L2 holds; a line is added between them, since
     * rows a power of two apart would compete for the same sets. */
    const int64_t kept = 1 << 20;
    w->stride = w->columns + 64 / element;
    w->sweep_rows = kept / (w->stride * element);
    if (blocked) w->sweep_rows = clamp(2 * w->sweep_rows / ROW_QUANTUM * ROW_QUANTUM, 0, d > 64 ? 48 : 24);
    else w->sweep_rows = w->sweep_rows >= 8 ? 8 : w->sweep_rows >= 4 ? 4 : w->sweep_rows;
    w->group_rows = w->sweep_rows ? up(share, w->sweep_rows) : share;
    w->tiles = (p->n + w->group_rows - 1) / w->group_rows;
    w->finish_tiles = (p->m + FINISH_COLUMNS - 1) / FINISH_COLUMNS;
    TAKE(sums, w->tiles * w->columns * 8);
    TAKE(scores, w->tiles * w->sweep_rows * w->stride * element);
  }
#undef TAKE
  w->bytes = at;
}


/* ---- Baseline: vectors of 16 bytes, which every target has or gcc lowers. */

#define N(name) name##_f32_baseline
#define REAL float
#define BITS uint32_t
#define LANES 4
#define MR 6
#define MANTISSA 23
#define BIAS 127
#define MAGIC (0x1.8p23f + 127)
#include "softmin_body.h"

#define N(name) name##_f64_baseline
#define REAL double
#define BITS uint64_t
#define LANES 2
#define MR 6
#define MANTISSA 52
#define BIAS 1023
#define MAGIC (0x1.8p52 + 1023)
#include "softmin_body.h"

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
#define BITS uint32_t
#define LANES 8
#define MR 6
#define MANTISSA 23
#define BIAS 127
#define MAGIC (0x1.8p23f + 127)
#define VECTOR_MAX(a, b) ((VEC)_mm256_max_ps((__m256)(a), (__m256)(b)))
#define VECTOR_MIN(a, b) ((VEC)_mm256_min_ps((__m256)(a), (__m256)(b)))
#define VECTOR_SQRT(a) ((VEC)_mm256_sqrt_ps((__m256)(a)))
#include "softmin_body.h"

#define N(name) name##_f64_avx2
#define REAL double
#define BITS uint64_t
#define LANES 4
#define MR 6
#define MANTISSA 52
#define BIAS 1023
#define MAGIC (0x1.8p52 + 1023)
#define VECTOR_MAX(a, b) ((VEC)_mm256_max_pd((__m256d)(a), (__m256d)(b)))
#define VECTOR_MIN(a, b) ((VEC)_mm256_min_pd((__m256d)(a), (__m256d)(b)))
#define VECTOR_SQRT(a) ((VEC)_mm256_sqrt_pd((__m256d)(a)))
#include "softmin_body.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

/* ---- AVX-512: 32 registers of twice the width.
 *
 * -DFORTET_WIDE_ON_AVX2 compiles this body for AVX2 instead and runs it in
 * place of AVX2's own, so that its tiles and tails can be tested, if not
 * timed, on a processor without AVX-512. */

#if defined(__clang__) && defined(FORTET_WIDE_ON_AVX2)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#elif defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma"))), apply_to = function)
#elif defined(FORTET_WIDE_ON_AVX2)
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,prefer-vector-width=512")
#endif

#define N(name) name##_f32_avx512
#define REAL float
#define BITS uint32_t
#define LANES 16
#define MR 12
#define MANTISSA 23
#define BIAS 127
#define MAGIC (0x1.8p23f + 127)
#if !defined(FORTET_WIDE_ON_AVX2)
#define VECTOR_MAX(a, b) ((VEC)_mm512_max_ps((__m512)(a), (__m512)(b)))
#define VECTOR_MIN(a, b) ((VEC)_mm512_min_ps((__m512)(a), (__m512)(b)))
#define VECTOR_SQRT(a) ((VEC)_mm512_sqrt_ps((__m512)(a)))
#endif
#include "softmin_body.h"

#define N(name) name##_f64_avx512
#define REAL double
#define BITS uint64_t
#define LANES 8
#define MR 12
#define MANTISSA 52
#define BIAS 1023
#define MAGIC (0x1.8p52 + 1023)
#if !defined(FORTET_WIDE_ON_AVX2)
#define VECTOR_MAX(a, b) ((VEC)_mm512_max_pd((__m512d)(a), (__m512d)(b)))
#define VECTOR_MIN(a, b) ((VEC)_mm512_min_pd((__m512d)(a), (__m512d)(b)))
#define VECTOR_SQRT(a) ((VEC)_mm512_sqrt_pd((__m512d)(a)))
#endif
#include "softmin_body.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#if defined(FORTET_WIDE_ON_AVX2)
#define AVX2_BODY(name) name##_avx512
#else
#define AVX2_BODY(name) name##_avx2
#endif
#define RUN(name, level, ...)                                           \
  return (level) >= FORTET_AVX512 ? name##_avx512(__VA_ARGS__)          \
         : (level) == FORTET_AVX2 ? AVX2_BODY(name)(__VA_ARGS__)        \
                                  : name##_baseline(__VA_ARGS__)

#else

#define RUN(name, level, ...) return (void)(level), name##_baseline(__VA_ARGS__)

#endif

#define KERNEL(entry, name) \
  int entry(const void *args, int64_t begin, int64_t end, int level) { RUN(name, level, args, begin, end); }

KERNEL(fortet_softmin_pack_f32, softmin_pack_f32)
KERNEL(fortet_softmin_pack_f64, softmin_pack_f64)
KERNEL(fortet_softmin_f32_cpu, softmin_f32)
KERNEL(fortet_softmin_f64_cpu, softmin_f64)
KERNEL(fortet_sweep_pack_f32, sweep_pack_f32)
KERNEL(fortet_sweep_pack_f64, sweep_pack_f64)
KERNEL(fortet_sweep_f32_cpu, sweep_f32)
KERNEL(fortet_sweep_f64_cpu, sweep_f64)
KERNEL(fortet_sweep_finish_f32, sweep_finish_f32)
KERNEL(fortet_sweep_finish_f64, sweep_finish_f64)
KERNEL(fortet_apply_pack_f32, apply_pack_f32)
KERNEL(fortet_apply_pack_f64, apply_pack_f64)
KERNEL(fortet_apply_f32_cpu, apply_f32)
KERNEL(fortet_apply_f64_cpu, apply_f64)

double fortet_softmin_rate_f32(int exponentials, int64_t rounds, int level) {
  RUN(rate_f32, level, exponentials, rounds);
}

double fortet_softmin_rate_f64(int exponentials, int64_t rounds, int level) {
  RUN(rate_f64, level, exponentials, rounds);
}
