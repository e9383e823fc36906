/* proximal_cpu.c - the proximal map on the CPU: the bodies, compiled once per
 * type and instruction level. */
#include "proximal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "levels.h"
#include "proximal_search.h"

#if defined(FORTET_X86_LEVELS)
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline, unused))
#define ALIGNED __attribute__((aligned(64)))
#define UNROLL _Pragma("GCC unroll 16")

/* Vectors wider than the target's are passed between inlined functions only. */
#pragma GCC diagnostic ignored "-Wpsabi"

/* ---- Baseline: vectors of 16 bytes, which every target has or gcc lowers. */

#define N(name) name##_f32_baseline
#define REAL float
#define LANES 4
#include "proximal_body.h"

#define N(name) name##_f64_baseline
#define REAL double
#define LANES 2
#define DOUBLE
#include "proximal_body.h"

#if defined(FORTET_X86_LEVELS)

/* ---- AVX2 and FMA. */

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

#define N(name) name##_f32_avx2
#define REAL float
#define LANES 8
#define VECTOR_MAX(a, b) ((VEC)_mm256_max_ps((__m256)(a), (__m256)(b)))
#include "proximal_body.h"

#define N(name) name##_f64_avx2
#define REAL double
#define LANES 4
#define DOUBLE
#define VECTOR_MAX(a, b) ((VEC)_mm256_max_pd((__m256d)(a), (__m256d)(b)))
#include "proximal_body.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

/* ---- AVX-512. */

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,prefer-vector-width=512")
#endif

#define N(name) name##_f32_avx512
#define REAL float
#define LANES 16
#define VECTOR_MAX(a, b) ((VEC)_mm512_max_ps((__m512)(a), (__m512)(b)))
#include "proximal_body.h"

#define N(name) name##_f64_avx512
#define REAL double
#define LANES 8
#define DOUBLE
#define VECTOR_MAX(a, b) ((VEC)_mm512_max_pd((__m512d)(a), (__m512d)(b)))
#include "proximal_body.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#define RUN(name, level, ...)                                     \
  return (level) == FORTET_AVX512 ? name##_avx512(__VA_ARGS__)    \
         : (level) == FORTET_AVX2 ? name##_avx2(__VA_ARGS__)      \
                                  : name##_baseline(__VA_ARGS__)

#else

#define RUN(name, level, ...) return (void)(level), name##_baseline(__VA_ARGS__)

#endif

#define KERNEL(entry, name) \
  int entry(const void *args, int64_t begin, int64_t end, int level) { RUN(name, level, args, begin, end); }

KERNEL(fortet_proximal_f32_cpu, proximal_f32)
KERNEL(fortet_proximal_f64_cpu, proximal_f64)
