/* gmm.h - Gaussian-mixture potentials: value, drift, Jacobian, parameter
 * gradients, sampling. mixture.h has the formulas and the names used here.
 *
 * Kernels, each _f32 and _f64: gmm_scales, gmm_evaluate, gmm_likelihood,
 * gmm_match, gmm_reduce, gmm_sample. Read by nvcc, g++, gcc and cgo. */
#ifndef FORTET_GMM_H
#define FORTET_GMM_H

#include "draw.h"
#include "mixture.h"

/* Tiles of CPU kernels: elements of gmm_scales, rows of gmm_evaluate. */
enum { FORTET_GMM_ELEMENTS = 4096, FORTET_GMM_ROWS = 64 };

/* out = floor + exp(raw), raw clamped to [-14, 14]. */
typedef struct {
  const void *raw; /* (n) */
  void *out;       /* (n); may be raw */
  int64_t n;
  double floor; /* >= 0 */
} fortet_gmm_scales_args;

/* At (t_b, x_b): every output may be NULL. */
typedef struct {
  fortet_mixture m;
  const void *x; /* (n, d) */
  const void *t; /* (n) in [0, 1], or NULL: t0 */
  const void *v; /* (n, d), for product alone */
  void *value;   /* (n) L_t(x) */
  void *drift;   /* (n, d) g */
  void *weights; /* (n, k) w */
  void *jacobian; /* (n, d, d) Dg */
  void *product; /* (n, d) Dg v */
  void *trace;   /* (n) tr Dg */
  void *norm2;   /* (n) |Dg|_F^2 */
  int64_t n;     /* > 0 */
  double t0;
} fortet_gmm_evaluate_args;

/* Parameter gradients come in partial sums over chunks of consecutive rows, and
 * gmm_reduce adds the chunks in their order. A chunk's partial sums are
 *
 *     [loss, dlogits (k), dmeans (k, d), dscales (k, d)]  or, with axes,
 *     [loss, dlogits (k), A_j dmeans (k, d), A_j dS A_j' (k, d, d)]
 *
 * where dS is the symmetric derivative by S_j: with axes all is along them. */

/* sum over both terms of weight / n * sum_b L_t(x_b) and its gradient. */
typedef struct {
  const void *x; /* (n, d), or NULL with n = 0 */
  int64_t n;
  int64_t chunk; /* rows of a chunk, > 0 */
  double t, weight;
} fortet_gmm_term;
typedef struct {
  fortet_mixture m;
  fortet_gmm_term term[2];
  void *partial; /* (chunks of term 0 + chunks of term 1, width) */
} fortet_gmm_likelihood_args;

/* weight / n * sum_b |g(t_b, x_b) - u_b|^2 and its gradient: bridge matching. */
typedef struct {
  fortet_mixture m;
  const void *x, *u; /* (n, d) */
  const void *t;     /* (n) */
  int64_t n;         /* > 0 */
  int64_t chunk;     /* rows of a chunk, > 0 */
  double weight;
  void *partial; /* (chunks, width) */
} fortet_gmm_match_args;

/* The sums of the chunks, with the derivative by raw = log(s - floor) in the
 * place of that by s: draw = ds (s - floor). */
typedef struct {
  const void *partial; /* (chunks, width) */
  int64_t chunks;
  fortet_mixture m;
  double floor;
  void *loss;    /* (1) or NULL */
  void *dlogits; /* (k) */
  void *dmeans;  /* (k, d) */
  void *draw;    /* (k, d) by raw */
  void *dturn;   /* (k, d, d) or NULL, with axes alone: by W of A_j <- exp(W_j) A_j, W_j skew,
                    at W = 0; skew itself: dturn_pq = 2 dS_pq (s_p - s_q) */
  int64_t group; /* CPU: components of a tile */
} fortet_gmm_reduce_args;

/* x1 ~ pi(.|x0): j is the first component whose cumulative weight, of the
 * softmax of ell_j(0, x0), exceeds the uniform of coordinate 0 at purpose
 * draw.purpose; x1 = r_j + S_j x0 + sqrt(epsilon) S_j^1/2 n; and
 * xt = (1-t) x0 + t x1 + sqrt(epsilon t (1-t)) n'. n has draw.purpose + 1 and is
 * along the axes; n' has draw.purpose + 2. Where the weights are no numbers j is
 * -1 and x1 and xt are NaN. gmm_sample.h fixes every bit. */
typedef struct {
  fortet_mixture m;
  const void *x0; /* (n, d) */
  const void *t;  /* (n) or NULL: t0 */
  void *x1;       /* (n, d) or NULL; may be x0 */
  void *xt;       /* (n, d) or NULL; may be x0 */
  void *component; /* (n) int32 j, or NULL */
  int64_t n;
  double t0;
  fortet_draw draw;
} fortet_gmm_sample_args;

#endif
