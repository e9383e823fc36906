/* The rows of f-divergence duals on the CPU. A row's costs take 3 d operations a
 * pair and are computed once; each of the two or three evaluations of its sum
 * then takes a few operations and a division, a root, or two transcendentals a
 * pair, out of the second-level cache: 12 bytes of float a pair. */
#if defined(__GNUC__) && !defined(__clang__)
/* sqrt sets no errno here, and nobody asks which lane trapped: else loops over
 * them do not become vectors. */
#pragma GCC optimize("no-math-errno", "no-trapping-math")
#endif
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fdual_law.h"
#include "levels.h"

enum { LANES = 16, PANEL = 1024 };

#define phi_f32 fdual_phi_f32
#define phi_f64 fdual_phi_f64
#define root_f32 sqrtf
#define root_f64 sqrt

#define REAL float
#define INT int32_t
#define UINT uint32_t
#define F(name) name##_f32
#define SINGLE 1
#define MAGIC (0x1.8p23f + 127)
#define SHIFT 23
#define LEAST (-87.0f)
#define MOST 88.0f
#define SCALAR_EXPM1 expm1f
#include "fdual_body.h"

#define REAL double
#define INT int64_t
#define UINT uint64_t
#define F(name) name##_f64
#define SINGLE 0
#define MAGIC (0x1.8p52 + 1023)
#define SHIFT 52
#define LEAST (-708.0)
#define MOST 709.0
#define SCALAR_EXPM1 expm1
#include "fdual_body.h"

FORTET_CPU_KERNEL(fdual_rows_f32, rows_f32, fortet_fdual_rows_args)
FORTET_CPU_KERNEL(fdual_rows_f64, rows_f64, fortet_fdual_rows_args)
FORTET_CPU_KERNEL(fdual_eval_f32, eval_f32, fortet_fdual_eval_args)
FORTET_CPU_KERNEL(fdual_eval_f64, eval_f64, fortet_fdual_eval_args)
