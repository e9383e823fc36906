/* ensemble_cpu.c - ensembles on the CPU: a tile is a problem, solved by one
 * worker from its costs to its report. The bodies are compiled once per
 * instruction level.
 *
 * A sweep multiplies with the kept matrix twice while a block of rows is in
 * the first-level cache, 4 operations and one load from further away a pair;
 * only making the matrix takes exponentials. The least squares of the mixing
 * cost as much as a sweep over 100 x 100 points. */
#include "ensemble.h"

#include <stdlib.h>
#include <string.h>

#include "levels.h"

#if defined(FORTET_X86_LEVELS)
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline, unused))
#define UNROLL _Pragma("GCC unroll 16")
#define JOIN_(name, type, level) ensemble_##name##_##type##_##level
#define JOIN(name, type, level) JOIN_(name, type, level)

/* Vectors wider than the target's are passed between inlined functions only. */
#pragma GCC diagnostic ignored "-Wpsabi"

#include "ensemble_room.h"

/* ---- Baseline: vectors of 16 bytes, which every target has or gcc lowers. */

#define LEVEL baseline
#define WIDTH 16
#include "ensemble_level.h"

#if defined(FORTET_X86_LEVELS)

/* ---- AVX2 and FMA. */

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

#define LEVEL avx2
#define WIDTH 32
#define VECTOR_MAX(a, b) ((VEC)_mm256_max_pd((__m256d)(a), (__m256d)(b)))
#define VECTOR_SQRT(a) ((VEC)_mm256_sqrt_pd((__m256d)(a)))
#include "ensemble_level.h"

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

#define LEVEL avx512
#define WIDTH 64
#define VECTOR_MAX(a, b) ((VEC)_mm512_max_pd((__m512d)(a), (__m512d)(b)))
#define VECTOR_SQRT(a) ((VEC)_mm512_sqrt_pd((__m512d)(a)))
#include "ensemble_level.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#define RUN(name, ...)                                                   \
  return (level) == FORTET_AVX512 ? ensemble_##name##_avx512(__VA_ARGS__) \
         : (level) == FORTET_AVX2 ? ensemble_##name##_avx2(__VA_ARGS__)   \
                                  : ensemble_##name##_baseline(__VA_ARGS__)
#else
#define RUN(name, ...) return (void)(level), ensemble_##name##_baseline(__VA_ARGS__)
#endif

int fortet_ensemble_f32_cpu(const void *args, int64_t begin, int64_t end, int level) { RUN(tiles_f32, args, begin, end); }
int fortet_ensemble_f64_cpu(const void *args, int64_t begin, int64_t end, int level) { RUN(tiles_f64, args, begin, end); }
