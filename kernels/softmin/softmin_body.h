/* softmin_body.h - the CPU kernels for one type at one instruction level.
 *
 * Included by softmin_cpu.c with
 *     REAL, BITS      float, uint32_t or double, uint64_t
 *     LANES           numbers per vector
 *     MR              rows of the register tile, a divisor of ROW_QUANTUM:
 *                     2 MR + 3 vectors fit the registers
 *     N(name)         name, made unique
 *     MANTISSA, BIAS, MAGIC   of REAL, see exp2_parts
 *     VECTOR_MAX, VECTOR_MIN, VECTOR_SQRT   instructions, where there are some */
#include "softmin_vector.h"

#include "softmin_score.h"

#include "softmin_fold.h"

#include "softmin_apply.h"

#undef REAL
#undef BITS
#undef LANES
#undef MR
#undef N
#undef MANTISSA
#undef BIAS
#undef MAGIC
#undef VECTOR_MAX
#undef VECTOR_MIN
#undef VECTOR_SQRT
#undef VEC
#undef WIDE
#undef WIDE_LANES
#undef LOAD_WIDE
#undef LOAD
#undef STORE
#undef SPLAT
#undef PANEL
#undef STEP
#undef EACH
#undef HORNER
#undef PANEL_CHUNK
#undef CHUNK
#undef BLOCK_BYTES
