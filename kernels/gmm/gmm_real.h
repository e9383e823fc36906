/* gmm_real.h - all of gmm_cpu.c that depends on level and element type: float,
 * or double where REAL_IS_DOUBLE is 1, which it undefines. */

#if defined(REAL_IS_DOUBLE)
#define REAL double
#define INT int64_t
#define UINT uint64_t
#define EXP exp
#else
#define REAL_IS_DOUBLE 0
#define REAL float
#define INT int32_t
#define UINT uint32_t
#define EXP expf
#endif

#include "gmm_vector.h"
#include "gmm_block.h"
#include "gmm_evaluate.h"
#include "gmm_gradient.h"

#undef REAL_IS_DOUBLE
#undef REAL
#undef INT
#undef UINT
#undef EXP
#undef VEC
#undef IVEC
#undef UVEC
#undef LANES
#undef INLINE
#undef LEVEL_FN
#undef ROWS
#undef EACH
#undef BLOCK
#undef VECTORS
#undef TYPE
