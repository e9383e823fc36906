/* axis_cpu.c - the CPU kernels of axis: how work is divided, and the bodies
 * compiled once per type and instruction level.
 *
 * With C columns, C n m multiply-adds and (C + m) n exponentials of some 20
 * operations, against (C + m) n numbers read and C m written: bound by
 * arithmetic. Where sums are taken one by one, up to C n m exponentials. */
#include "axis_cpu.h"

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

static int64_t up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

void fortet_axis_cpu_plan(const fortet_axis_args *a, int32_t element, fortet_axis_plan *p) {
  memset(p, 0, sizeof *p);
  p->columns = a->outer * a->inner;
  p->rows = up(a->m, AXIS_QUANTUM);
  p->direct = p->columns < AXIS_FEW;
  if (p->direct) {
    p->tiles = (a->m + AXIS_DIRECT_ROWS - 1) / AXIS_DIRECT_ROWS;
    return;
  }
  const int64_t wide = AXIS_COLUMN_BYTES / element;
  p->row_tiles = (p->rows + AXIS_ROWS - 1) / AXIS_ROWS;
  p->tiles = (p->columns + wide - 1) / wide * p->row_tiles;
  p->prepare_tiles = p->rows / AXIS_QUANTUM;
  p->range = 0;
  p->top = up(p->rows * 8, 256);
  p->kernel = p->top + up((a->n + AXIS_NARROW - 1) / AXIS_NARROW * p->rows * element, 256);
  p->bytes = p->kernel + p->rows * a->n * element;
}

/* What the range of a row is where it has none. */
#define DEAD (-1.0) /* all -inf */
#define BAD (-2.0)  /* holds +inf or NaN */

/* ---- Baseline: vectors of 16 bytes, which every target has or gcc lowers. */

#define N(name) name##_f32_baseline
#define REAL float
#define BITS uint32_t
#define LANES 4
#define MR 6
#include "axis_body.h"

#define N(name) name##_f64_baseline
#define REAL double
#define REAL_IS_DOUBLE
#define BITS uint64_t
#define LANES 2
#define MR 6
#include "axis_body.h"

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
#define VECTOR_MAX(a, b) ((VEC)_mm256_max_ps((__m256)(a), (__m256)(b)))
#include "axis_body.h"

#define N(name) name##_f64_avx2
#define REAL double
#define REAL_IS_DOUBLE
#define BITS uint64_t
#define LANES 4
#define MR 6
#define VECTOR_MAX(a, b) ((VEC)_mm256_max_pd((__m256d)(a), (__m256d)(b)))
#include "axis_body.h"

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
#if !defined(FORTET_WIDE_ON_AVX2)
#define VECTOR_MAX(a, b) ((VEC)_mm512_max_ps((__m512)(a), (__m512)(b)))
#endif
#include "axis_body.h"

#define N(name) name##_f64_avx512
#define REAL double
#define REAL_IS_DOUBLE
#define BITS uint64_t
#define LANES 8
#define MR 12
#if !defined(FORTET_WIDE_ON_AVX2)
#define VECTOR_MAX(a, b) ((VEC)_mm512_max_pd((__m512d)(a), (__m512d)(b)))
#endif
#include "axis_body.h"

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
#define RUN(name, level, ...)                                  \
  return (level) >= FORTET_AVX512 ? name##_avx512(__VA_ARGS__) \
         : (level) == FORTET_AVX2 ? AVX2_BODY(name)(__VA_ARGS__) \
                                  : name##_baseline(__VA_ARGS__)

#else

#define RUN(name, level, ...) return (void)(level), name##_baseline(__VA_ARGS__)

#endif

#define KERNEL(entry, name) \
  int entry(const void *args, int64_t begin, int64_t end, int level) { RUN(name, level, args, begin, end); }

KERNEL(fortet_axis_scan_f32, scan_f32)
KERNEL(fortet_axis_scan_f64, scan_f64)
KERNEL(fortet_axis_prepare_f32, prepare_f32)
KERNEL(fortet_axis_prepare_f64, prepare_f64)
KERNEL(fortet_axis_f32_cpu, pass_f32)
KERNEL(fortet_axis_f64_cpu, pass_f64)
