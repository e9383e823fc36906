/* proximal_body.h - the CPU kernels for one type at one instruction level.
 *
 * Included by proximal_cpu.c with
 *     REAL, DOUBLE    float, or double and the second defined
 *     LANES           numbers per vector
 *     N(name)         name, made unique
 *     VECTOR_MAX      an instruction, where there is one */

/* MAGIC = 1.5 2^MANTISSA + BIAS, added to n, leaves n + BIAS in the low bits. */
#if defined(DOUBLE)
#define BITS uint64_t
#define MANTISSA 52
#define BIAS 1023
#define MAGIC (0x1.8p52 + 1023)
#define ULP 0x1p-52
#define EXP2 exp2
#define LOG2 log2
#define FABS fabs
#else
#define BITS uint32_t
#define MANTISSA 23
#define BIAS 127
#define MAGIC (0x1.8p23f + 127)
#define ULP 0x1p-23f
#define EXP2 exp2f
#define LOG2 log2f
#define FABS fabsf
#endif

#include "vectors.h"

#include "proximal_coefficients.h"

#include "proximal_dense.h"

#include "proximal_krylov.h"

static int N(proximal)(const fortet_proximal_args *a, int64_t begin, int64_t end) {
  return a->m.d <= a->dense ? N(dense)(a, begin, end) : N(krylov)(a, begin, end);
}

#undef REAL
#undef DOUBLE
#undef BITS
#undef LANES
#undef N
#undef MANTISSA
#undef BIAS
#undef ULP
#undef MAGIC
#undef EXP2
#undef LOG2
#undef FABS
#undef VECTOR_MAX
#undef VEC
#undef LOAD
#undef STORE
#undef SPLAT
