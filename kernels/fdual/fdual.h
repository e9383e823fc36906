/* fdual.h - the updates of the dual of f-divergence transport, streaming: each
 * row's potential is the root of a monotone scalar equation over its pairs.
 *
 * A law phi is psi', the derivative of a divergence's conjugate, in a variable
 * in which it has no end of domain to run into and no cancellation before it:
 *
 *     FORTET_FDUAL_EXP    phi(z) = exp z                      z = y
 *     FORTET_FDUAL_POWER  phi(z) = z_+^(1/(a-1))              z = 1 + (a-1) y
 *     FORTET_FDUAL_JS     phi(z) = 1 / expm1(z)               z = log 2 - y
 *     FORTET_FDUAL_TV     phi(z) = 1 + clip(z)/delta, >= 0    z = y
 *
 * with a != 1 and, for total variation, clip(z) = z - min(max(z, -1/2), 1/2).
 * POWER with a < 1 and JS live on z > 0 and fall; the others rise.
 *
 * With c_ij = c(x_i, y_j) or a given matrix entry,
 *
 *     z_ij = p_i + q_j + slope c_ij
 *     w_ij = exp(logb_j - decay c_ij + shift)
 *     rows:  p_i such that sum_j w_ij phi(z_ij) = 1
 *     eval:  for given p, sums over j of w phi, w phi c, w f(phi) and w psi(z),
 *            and the largest z of pairs with w > 0 (smallest for falling laws)
 *
 * f and psi are those of divergences.h (alpha for POWER, reverse KL at a = 0;
 * total variation without its smoothing). slope has the sign of y in c turned
 * by the law: at most 0 for rising laws, at least 0 for falling ones.
 *
 * Infinities. A weight of zero is logb_j = -inf, whatever q_j is. A matrix entry
 * of +inf forbids a pair: its phi is 0, or its w is. A row without any pair left
 * has p_i = NaN, and so has a row whose root lies outside of the element type.
 * NaN in a row's data makes that row's results NaN.
 *
 * Entry points, with T one of f32, f64:
 *     int fortet_fdual_rows_T(void *stream, const void *fortet_fdual_rows_args)
 *     int fortet_fdual_eval_T(void *stream, const void *fortet_fdual_eval_args)
 *
 * Read by nvcc, g++, gcc and cgo. */
#ifndef FORTET_FDUAL_H
#define FORTET_FDUAL_H

#include "fortet.h"
#include "costs.h"

enum { FORTET_FDUAL_EXP = 0, FORTET_FDUAL_POWER = 1, FORTET_FDUAL_JS = 2, FORTET_FDUAL_TV = 3 };

/* Rows of a tile on the CPU. */
enum { FORTET_FDUAL_ROWS = 8 };

typedef struct {
  const void *x;      /* (n, d); NULL with FORTET_MATRIX */
  const void *yt;     /* (d, m): a coordinate of all targets side by side; NULL with FORTET_MATRIX */
  const void *matrix; /* (n, m) row-major, with FORTET_MATRIX; else NULL */
  const void *q;      /* (m) */
  const void *logb;   /* (m) or NULL: zeros */
  int64_t n, m, d;    /* > 0 */
  double slope, decay, shift;
  double a;           /* of POWER */
  double delta;       /* of TV, > 0 */
  int32_t law;
  int32_t cost;       /* costs.h, without FORTET_COSINE */
} fortet_fdual_pairs;

/* rows. Newton's method in the variable in which one pair alone would make the
 * equation linear, inside a bracket that shrinks. */
typedef struct {
  fortet_fdual_pairs pairs;
  const void *start; /* (n) where to begin, or NULL */
  void *p;           /* (n); may be start */
  double *mass;      /* (n) or NULL: sum_j w phi at start, +inf outside of the domain */
  int32_t *steps;    /* (n) or NULL: evaluations of the sum */
} fortet_fdual_rows_args;

/* eval. Each output may be NULL; all are double. */
typedef struct {
  fortet_fdual_pairs pairs;
  const void *p; /* (n) */
  double *mass;  /* (n): sum_j w phi */
  double *cost;  /* (n): sum_j w phi c */
  double *f;     /* (n): sum_j w f(phi) */
  double *psi;   /* (n): sum_j w psi */
  double *edge;  /* (n): the largest z, or the smallest */
} fortet_fdual_eval_args;

#endif
