/* ensemble_level.h - everything of ensemble_cpu.c that is compiled for one
 * level: what is done in double, then the sweeps for each element type.
 *
 * Included with LEVEL, its name; WIDTH, the bytes of its registers; and
 * VECTOR_MAX and VECTOR_SQRT for doubles, where there are instructions. D(name)
 * and N(name) make names unique. */

#define D(name) JOIN(name, wide, LEVEL)

#define N(name) D(name)
#define REAL double
#define BITS uint64_t
#define LANES (WIDTH / 8)
#define MANTISSA 52
#define BIAS 1023
#define MAGIC (0x1.8p52 + 1023)
#include "vectors.h"
#include "ensemble_logs.h"
#undef N
#undef REAL
#undef BITS
#undef LANES
#undef MANTISSA
#undef BIAS
#undef MAGIC
#undef VEC
#undef LOAD
#undef STORE
#undef SPLAT

#define TYPE f32
#define REAL float
#define BITS uint32_t
#define LANES (WIDTH / 4)
#define LOWEST (-126) /* exponent of the least normal number */
#define RANGE 20      /* powers of 2 that a potential may move before the matrix is made again */
#define LOST 0x1p-100 /* a sum below is taken for lost */
#include "ensemble_solve.h"

#define TYPE f64
#define REAL double
#define BITS uint64_t
#define LANES (WIDTH / 8)
#define LOWEST (-1022)
#define RANGE 150
#define LOST 0x1p-900
#include "ensemble_solve.h"

#undef D
#undef LEVEL
#undef WIDTH
#undef VECTOR_MAX
#undef VECTOR_SQRT
