/* proximal.h - the proximal map of a Gaussian-mixture potential, which inverts
 * the transport map y + g(t, y) / beta of the Schroedinger-Bass bridge: per sample b
 *
 *     y_b = argmin_y w_t(y) + beta/2 |x_b - y|^2,   w_t = epsilon L_t,
 *     that is  F(y) = g(t, y) + beta (y - x_b) = 0
 *
 * and value_b = w_t(y_b) + beta/2 |x_b - y_b|^2, the Moreau envelope. mixture.h
 * has L_t and g. With S_j >= I / (1 + beta) for all j the objective is convex
 * for t < 1 and y is unique; without, y is the stationary point that a
 * safeguarded Newton method descends to from its start.
 *
 * A sample is done where |y + g/beta - x| <= tolerance max(1, |x|), after
 * max_iterations Newton steps, or where rounding keeps every step from making
 * progress. Where the objective or its gradient is not finite at the start,
 * y = x and value = residual = +inf. beta may be infinite, or beyond the element
 * type: y = x, value = w_t(x), residual = 0.
 *
 * Kernels: proximal_f32, proximal_f64. Read by nvcc, g++, gcc and cgo. */
#ifndef FORTET_PROXIMAL_H
#define FORTET_PROXIMAL_H

#include "mixture.h"

typedef struct {
  fortet_mixture m;
  const void *x;     /* (n, d) */
  const void *t;     /* (n) in [0, 1], or NULL: t0 */
  void *y;           /* (n, d); the start on entry where warm, else the start is x; may be x where not warm */
  void *value;       /* (n) or NULL */
  void *residual;    /* (n) or NULL: |y + g/beta - x| / max(1, |x|) at the end */
  void *iterations;  /* (n) int32 or NULL: Newton steps made */
  int64_t n;         /* > 0 */
  double t0, beta;   /* beta > 0 */
  double tolerance;  /* > 0 */
  int64_t max_iterations;
  int64_t warm;
  int64_t dense;     /* d up to this: H = Dg + beta I in full; above, by its products with vectors */
  void *work;        /* fortet_proximal_work() bytes on a GPU */
} fortet_proximal_args;

enum {
  FORTET_PROXIMAL_DENSE = 16,     /* the largest d at which H is ever formed */
  FORTET_PROXIMAL_GPU_DENSE = 4,  /* and on a GPU */
  FORTET_PROXIMAL_DENSE_ROWS = 32, /* samples of a CPU tile where H is formed */
  FORTET_PROXIMAL_ROWS = 8,       /* and elsewhere */
  FORTET_PROXIMAL_WARPS = 4       /* of a GPU block */
};

/* How many tiles a call has on the CPU. */
FORTET_HD int64_t fortet_proximal_tiles(const fortet_proximal_args *a) {
  const int64_t rows = a->m.d <= a->dense ? FORTET_PROXIMAL_DENSE_ROWS : FORTET_PROXIMAL_ROWS;
  return (a->n + rows - 1) / rows;
}

/* Elements that a GPU block needs where H is not formed: g_j - g of all
 * components and, with axes, a row of each warp; 8 vectors; 3 numbers a component. */
FORTET_HD int64_t fortet_proximal_room(const fortet_proximal_args *a) {
  return (a->m.k + 8 + (a->m.axes ? FORTET_PROXIMAL_WARPS : 0)) * a->m.d + 3 * a->m.k;
}

/* How many GPU blocks share the samples where H is not formed: as many as there
 * are samples while their rooms take no more than 256 MiB, but 64 at least. */
FORTET_HD int64_t fortet_proximal_blocks(const fortet_proximal_args *a, int64_t element) {
  int64_t blocks = ((int64_t)256 << 20) / (fortet_proximal_room(a) * element);
  if (blocks < 64) blocks = 64;
  if (blocks > 65535) blocks = 65535;
  return blocks < a->n ? blocks : a->n;
}

FORTET_HD int fortet_proximal_gpu_dense(const fortet_proximal_args *a) {
  return a->m.d <= a->dense && a->m.d <= FORTET_PROXIMAL_GPU_DENSE;
}

FORTET_HD int64_t fortet_proximal_work(const fortet_proximal_args *a, int64_t element) {
  return fortet_proximal_gpu_dense(a) ? 0 : fortet_proximal_blocks(a, element) * fortet_proximal_room(a) * element;
}

#endif
