/* Dual losses on the CPU. The passes over pairs take, per pair, 2 d
 * operations for the squared distance and about 14 vector operations for the
 * exponential; points are read once per block of 32 rows. */
#include <math.h>
#include <string.h>

#include "duallse.h"
#include "levels.h"

#if defined(FORTET_X86_LEVELS)
#include <immintrin.h>
#endif

#define LOG2E 1.44269504088896340736
#define LN2 0.693147180559945309417

enum { TUPLES = 1024, ELEMENTS = 4096 }; /* of one tile */

#define JOIN_(name, type, level) duallse_##name##_##type##_##level
#define JOIN(name, type, level) JOIN_(name, type, level)
#define F(name) JOIN(name, TYPE, LEVEL)

/* The level that every processor has: 16-byte vectors, which compilers lower
 * to whatever there is. */
#define LEVEL baseline
#define TARGET
#define BYTES 16
#define GROUP 4
#define TYPE f32
#include "duallse_real.h"
#undef TYPE
#define TYPE f64
#define REAL_IS_DOUBLE 1
#include "duallse_real.h"
#undef TYPE
#undef LEVEL
#undef TARGET
#undef BYTES
#undef GROUP

#if defined(FORTET_X86_LEVELS)
#define LEVEL avx2
#define TARGET FORTET_AT_AVX2
#define BYTES 32
#define GROUP 4
#define SQRT_F32(v) ((VEC)_mm256_sqrt_ps((__m256)(v)))
#define SQRT_F64(v) ((VEC)_mm256_sqrt_pd((__m256d)(v)))
#define TYPE f32
#include "duallse_real.h"
#undef TYPE
#define TYPE f64
#define REAL_IS_DOUBLE 1
#include "duallse_real.h"
#undef TYPE
#undef LEVEL
#undef TARGET
#undef BYTES
#undef GROUP
#undef SQRT_F32
#undef SQRT_F64

#define LEVEL avx512
#define TARGET FORTET_AT_AVX512
#define BYTES 64
#define GROUP 8
#define SQRT_F32(v) ((VEC)_mm512_sqrt_ps((__m512)(v)))
#define SQRT_F64(v) ((VEC)_mm512_sqrt_pd((__m512d)(v)))
#define TYPE f32
#include "duallse_real.h"
#undef TYPE
#define TYPE f64
#define REAL_IS_DOUBLE 1
#include "duallse_real.h"
#undef TYPE

#define CALL(name, type) \
  switch (level) { \
    case FORTET_AVX512: duallse_##name##_##type##_avx512(args, begin, end); break; \
    case FORTET_AVX2: duallse_##name##_##type##_avx2(args, begin, end); break; \
    default: duallse_##name##_##type##_baseline(args, begin, end); \
  }
#else
#define CALL(name, type) ((void)level, duallse_##name##_##type##_baseline(args, begin, end));
#endif

#define ENTRY(name, type) \
  int fortet_duallse_##name##_##type##_cpu(const void *args, int64_t begin, int64_t end, int level) { \
    CALL(name, type) \
    return FORTET_OK; \
  }
#define ENTRIES(name) ENTRY(name, f32) ENTRY(name, f64)

ENTRIES(message)
ENTRIES(centre)
ENTRIES(leaves)
ENTRIES(rows)
ENTRIES(triple)
ENTRIES(triple_reduce)
ENTRIES(tuple_weight)
ENTRIES(tuple_apply)
ENTRIES(tuple_reduce)
ENTRIES(psi)
