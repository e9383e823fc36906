/* langevin.h - a step of the unadjusted Langevin algorithm with its noise:
 *
 *     g_ij = score_ij - precision (y_ij - mean_ij)
 *     out_ij = y_ij + eta g_ij + sqrt(2 eta temperature) n_ij
 *
 * n_ij are the normals that draw.h defines for sample index draw.index + i and
 * coordinate j. Evaluated as fma(scale, n, fma(eta, g, y)) with
 * g = fma(-precision, y - mean, score) in the element type, whose eta,
 * precision and scale = sqrt(2 eta temperature), rounded once, are given; this
 * fixes every bit. scale = 0 draws nothing; precision = 0 reads no mean.
 *
 * Kernels: langevin_f32, langevin_f64. Read by nvcc, g++, gcc and cgo. */
#ifndef FORTET_LANGEVIN_H
#define FORTET_LANGEVIN_H

#include "draw.h"

typedef struct {
  const void *y;     /* (n, d) */
  const void *score; /* (n, d) or NULL: zeros */
  const void *mean;  /* (n, d) or NULL: zeros */
  void *out;         /* (n, d); may be y, score or mean */
  int64_t n, d;      /* > 0 */
  double eta, precision, scale;
  fortet_draw draw;
} fortet_langevin_args;

FORTET_HD float fortet_langevin32(float y, float score, float mean, float noise, float eta, float precision, float scale) {
  const float g = fortet_fma32(-precision, y - mean, score);
  return fortet_fma32(scale, noise, fortet_fma32(eta, g, y));
}

FORTET_HD double fortet_langevin64(double y, double score, double mean, double noise, double eta, double precision,
                                   double scale) {
  const double g = fortet_fma64(-precision, y - mean, score);
  return fortet_fma64(scale, noise, fortet_fma64(eta, g, y));
}

#endif
