/* duallse_real.h - all of duallse_cpu.c that depends on level and element
 * type: float, or double where REAL_IS_DOUBLE is 1, which it undefines. */

#if defined(REAL_IS_DOUBLE)
#define REAL double
#define INT int64_t
#define UINT uint64_t
#define SCALAR_PSI fortet_psi_f64
#define SCALAR_SQRT sqrt
#define VEC_SQRT SQRT_F64
#else
#define REAL_IS_DOUBLE 0
#define REAL float
#define INT int32_t
#define UINT uint32_t
#define SCALAR_PSI fortet_psi_f32
#define SCALAR_SQRT sqrtf
#define VEC_SQRT SQRT_F32
#endif

#include "duallse_vec.h"
#include "duallse_star.h"
#include "duallse_penalty.h"

#undef REAL_IS_DOUBLE
#undef REAL
#undef INT
#undef UINT
#undef SCALAR_PSI
#undef SCALAR_SQRT
#undef VEC_SQRT
#undef VEC
#undef IVEC
#undef UVEC
#undef LANES
#undef INLINE
#undef LEVEL_FN
#undef ROWS
#undef COLS
#undef DEPTH
#undef SPAN
