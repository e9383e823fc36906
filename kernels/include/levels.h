/* levels.h - CPU kernels at every instruction level from one source.
 *
 * FORTET_CPU_KERNEL(name, body, args) defines
 *
 *     int fortet_<name>_cpu(const void *args, int64_t begin, int64_t end, int level)
 *
 * which runs body(const args *, begin, end, level), an FORTET_HD function,
 * compiled for that level: it and all FORTET_HD functions below it are inlined
 * into one function per level, in which level is a constant and whose loops the
 * compiler vectorises. FORTET_AT_AVX2 and FORTET_AT_AVX512 begin a function of
 * one level, to be called where level says so. */
#ifndef FORTET_LEVELS_H
#define FORTET_LEVELS_H

#include "fortet.h"

/* FORTET_ELEMENTWISE before a loop says that iterations touch equal indices
 * alone, so that an output that is an input does not keep it from vectors. */
#if defined(__clang__)
#define FORTET_ELEMENTWISE _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define FORTET_ELEMENTWISE _Pragma("GCC ivdep")
#else
#define FORTET_ELEMENTWISE
#endif

#if defined(__x86_64__) && defined(__GNUC__)
#define FORTET_X86_LEVELS 1
#define FORTET_AT_AVX2 __attribute__((target("avx2,fma")))
#if defined(__clang__)
#define FORTET_AT_AVX512 __attribute__((target("avx2,fma,avx512f,avx512vl,avx512bw,avx512dq")))
#else
#define FORTET_AT_AVX512 \
  __attribute__((target("avx2,fma,avx512f,avx512vl,avx512bw,avx512dq,prefer-vector-width=512")))
#endif

#define FORTET_CPU_KERNEL(name, body, args) \
  FORTET_AT_AVX512 static int name##_avx512(const args *a, int64_t begin, int64_t end) { \
    return body(a, begin, end, FORTET_AVX512); \
  } \
  FORTET_AT_AVX2 static int name##_avx2(const args *a, int64_t begin, int64_t end) { \
    return body(a, begin, end, FORTET_AVX2); \
  } \
  static int name##_baseline(const args *a, int64_t begin, int64_t end) { \
    return body(a, begin, end, FORTET_BASELINE); \
  } \
  int fortet_##name##_cpu(const void *a, int64_t begin, int64_t end, int level) { \
    switch (level) { \
      case FORTET_AVX512: return name##_avx512((const args *)a, begin, end); \
      case FORTET_AVX2: return name##_avx2((const args *)a, begin, end); \
      default: return name##_baseline((const args *)a, begin, end); \
    } \
  }
#else
#define FORTET_CPU_KERNEL(name, body, args) \
  int fortet_##name##_cpu(const void *a, int64_t begin, int64_t end, int level) { \
    (void)level; \
    return body((const args *)a, begin, end, FORTET_BASELINE); \
  }
#endif

#endif
