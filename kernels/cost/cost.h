/* cost.h - pairwise ground costs, for a batch of point clouds at once:
 *
 *     out[q][i][j] = out_t[q][j][i] = c(x[q][i], y[q][j])
 *
 * for the costs of costs.h but FORTET_MATRIX. Coordinates are subtracted before
 * they are squared, whatever d, so that no term cancels: the relative error of
 * a squared distance is at most (d + 2) units of rounding. The cosine cost is
 * |x/|x| - y/|y||^2 / 2, with the same property; a point at the origin has no
 * direction and its costs are NaN. Sums of squares must be in the range of the
 * element type.
 *
 * Elements are float for cost_f32, double for cost_f64. Read by nvcc, g++, gcc
 * and cgo. */
#ifndef FORTET_COST_H
#define FORTET_COST_H

#include "costs.h"
#include "fortet.h"

typedef struct {
  const void *x;         /* (batch, n, d) */
  const void *y;         /* (batch, m, d) */
  void *out;             /* (batch, n, m) or NULL */
  void *out_t;           /* (batch, m, n) or NULL */
  int64_t batch, n, m, d; /* > 0 */
  int64_t x_stride;      /* elements from one problem's x to the next: n d, or 0 for one x for all */
  int64_t y_stride;
  int32_t cost; /* costs.h */
  int32_t reserved;
} fortet_cost_args;

/* A tile of the CPU kernels: so many rows and columns of one problem. */
enum { FORTET_COST_ROWS = 128, FORTET_COST_COLUMNS = 32 };

#endif
