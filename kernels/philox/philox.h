/* philox.h - fills an array with draws: what draw.h defines, for row i the
 * sample index draw.index + i and for column j the coordinate j.
 *
 * Kernels: philox_bits (uint32_t), philox_uniform_f32, philox_uniform_f64,
 * philox_normal_f32, philox_normal_f64.
 *
 * Read by nvcc, g++, gcc and cgo. */
#ifndef FORTET_PHILOX_H
#define FORTET_PHILOX_H

#include "draw.h"

typedef struct {
  void *out; /* (n, d) row-major */
  int64_t n; /* rows, > 0 */
  int64_t d; /* columns, > 0; at most 2^24 blocks */
  fortet_draw draw;
} fortet_philox_args;

#endif
