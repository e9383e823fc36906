/* ou.h - the transition of a diagonal Ornstein-Uhlenbeck process
 * dx = -beta lambda x dt / 2 + sqrt(beta) dw over a time with integral b of
 * beta, per sample i and coordinate j:
 *
 *     F = exp(-b_i lambda_j / 2)
 *     L = sqrt(Sigma), Sigma = -expm1(-b_i lambda_j) / lambda_j, or b_i for lambda_j = 0
 *     mean_ij = F x0_ij,  scale_ij = L,  xt_ij = F x0_ij + L n_ij,  score_ij = -n_ij / L
 *
 * n_ij are the normals that draw.h defines for sample index draw.index + i and
 * coordinate j. Each output may be NULL. Evaluated in the element type by
 * ou_math.h, which fixes every bit.
 *
 * Kernels: ou_f32, ou_f64. Read by nvcc, g++, gcc and cgo. */
#ifndef FORTET_OU_H
#define FORTET_OU_H

#include "draw.h"

typedef struct {
  const void *x0;     /* (n, d) or NULL: zeros */
  const void *lambda; /* (d) */
  const void *b;      /* (n) or NULL: b0 */
  void *mean;         /* (n, d) or NULL; may be x0 */
  void *scale;        /* (n, d) or NULL; may be x0 */
  void *xt;           /* (n, d) or NULL; may be x0 */
  void *score;        /* (n, d) or NULL; may be x0 */
  int64_t n, d;       /* > 0 */
  double b0;
  fortet_draw draw;
} fortet_ou_args;

#endif
