/* Gaussian-mixture potentials on the CPU: a tile is a chunk of samples, walked
 * in blocks of vectors whose lanes are samples (gmm_block.h). A sample, a
 * component and a coordinate take about 10 vector operations and a division,
 * where times differ, to evaluate, and as many again for gradients; a sample and
 * a component besides an exponential and, where times differ, a logarithm.
 * Nothing is read twice from memory but parameters, which the caches hold. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gmm.h"
#include "levels.h"

/* Vectors wider than the target's are passed between inlined functions only. */
#pragma GCC diagnostic ignored "-Wpsabi"

/* Bytes of what is computed of the components of a block that are kept for its
 * next pass: half of a small second-level cache. */
#define FORTET_GMM_KEPT (128 << 10)

#define JOIN_(name, type, level) gmm_##name##_##type##_##level
#define JOIN(name, type, level) JOIN_(name, type, level)
#define F(name) JOIN(name, TYPE, LEVEL)

/* The level that every processor has: 16-byte vectors, which compilers lower
 * to whatever there is. VECTORS make a block. */
#define LEVEL baseline
#define TARGET
#define BYTES 16
#define TYPE f32
#define VECTORS 4
#include "gmm_real.h"
#define TYPE f64
#define VECTORS 4
#define REAL_IS_DOUBLE 1
#include "gmm_real.h"
#undef LEVEL
#undef TARGET
#undef BYTES

#if defined(FORTET_X86_LEVELS)
#define LEVEL avx2
#define TARGET FORTET_AT_AVX2
#define BYTES 32
#define TYPE f32
#define VECTORS 4
#include "gmm_real.h"
#define TYPE f64
#define VECTORS 4
#define REAL_IS_DOUBLE 1
#include "gmm_real.h"
#undef LEVEL
#undef TARGET
#undef BYTES

/* -DFORTET_WIDE_ON_AVX2 compiles this body for AVX2 instead and runs it in
 * place of AVX2's own, so that it can be tested, if not timed, on a processor
 * without AVX-512. */
#define LEVEL avx512
#if defined(FORTET_WIDE_ON_AVX2)
#define TARGET FORTET_AT_AVX2
#define AVX2_BODY(name, type) gmm_##name##_##type##_avx512
#else
#define TARGET FORTET_AT_AVX512
#define AVX2_BODY(name, type) gmm_##name##_##type##_avx2
#endif
#define BYTES 64
#define TYPE f32
#define VECTORS 2
#include "gmm_real.h"
#define TYPE f64
#define VECTORS 4
#define REAL_IS_DOUBLE 1
#include "gmm_real.h"

#define CALL(name, type) \
  switch (level) { \
    case FORTET_AVX512: return gmm_##name##_##type##_avx512(a, begin, end); \
    case FORTET_AVX2: return AVX2_BODY(name, type)(a, begin, end); \
    default: return gmm_##name##_##type##_baseline(a, begin, end); \
  }
#else
#define CALL(name, type) return (void)level, gmm_##name##_##type##_baseline(a, begin, end);
#endif

#define ENTRY(name, type) \
  int fortet_gmm_##name##_##type##_cpu(const void *args, int64_t begin, int64_t end, int level) { \
    const fortet_gmm_##name##_args *const a = (const fortet_gmm_##name##_args *)args; \
    CALL(name, type) \
  }
#define ENTRIES(name) ENTRY(name, f32) ENTRY(name, f64)

ENTRIES(scales)
ENTRIES(evaluate)
ENTRIES(likelihood)
ENTRIES(match)
ENTRIES(reduce)
