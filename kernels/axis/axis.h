/* axis.h - log-sum-exp along one axis of an array with a matrix of logarithms,
 * the pass that separable kernels on grids are made of: for every o, i and r
 *
 *     z_j        = logk_ij + in_ojr
 *     lse        = log sum_j exp z_j
 *     out_oir    = scale lse + add_oir
 *     mass_oir   = exp(scale lse + add_oir)   in double
 *
 * lse is that of the z themselves: no term is lost for being small beside the
 * largest element of in or logk, however far down its own row's terms all lie.
 *
 * Infinities. z_j is the sum that IEEE arithmetic gives, so that -inf, in either
 * of its parts, is a term of weight zero. Without any other term lse is -inf. A
 * z_j of +inf makes it +inf and a NaN, which also -inf + inf is, makes it NaN.
 * Where add is -inf, the result is -inf and mass 0 whatever lse is, unless it is
 * NaN: nothing is put where no weight is.
 *
 * Entry points of a device library, with T one of f32, f64:
 *     int fortet_axis_T(void *stream, const void *fortet_axis_args)
 *
 * Read by nvcc, g++, gcc and cgo. */
#ifndef FORTET_AXIS_H
#define FORTET_AXIS_H

#include "fortet.h"

typedef struct {
  const void *in;   /* (outer, n, inner) */
  const void *logk; /* (m, n) */
  const void *add;  /* (outer, m, inner) or NULL: zeros; may be out */
  void *out;        /* (outer, m, inner) or NULL */
  double *mass;     /* (outer, m, inner) or NULL, always double */
  void *work;       /* of the CPU kernels: fortet_axis_cpu_plan(...).bytes, aligned to 256; else NULL */
  int64_t outer, n, m, inner; /* > 0 */
  double scale;     /* finite, not 0 */
} fortet_axis_args;

/* What the result is, from lse. */
FORTET_HD double fortet_axis_result(double lse, double scale, double add) {
  return add == -FORTET_INF && lse == lse ? add : scale * lse + add;
}

#endif
