/* adam.h - one step of Adam (Kingma and Ba 2015) with decoupled weight decay
 * (Loshchilov and Hutter 2019) on a flat vector of parameters, and the norm of
 * its gradient.
 *
 *     g <- min(1, clip / norm) g                        with norm, and clip > 0
 *     m <- (1 - blend1) m + blend1 g
 *     v <- (1 - blend2) v + blend2 g^2, at most the largest finite number
 *     p <- (1 - shrink) p - rate m / (root sqrt v + epsilon)
 *     e <- (1 - blend3) e + blend3 p                    with ema
 *
 * where rate = eta / (1 - beta1^t) and root = 1 / sqrt(1 - beta2^t) hold the
 * corrections of bias of step t, and shrink = eta lambda. With a norm that is
 * infinite or NaN nothing is written. With a table, the three come from its row
 * (t - 1) mod rows, where t is *count when the kernel runs; adam_norm adds 1 to
 * count after all that it computes, so that norm and step, recorded once, are
 * step after step when they are replayed. Evaluated in the element type by adam_math.h, which fixes every bit.
 *
 * The norm is the root of a sum of squares in double: element i of a chunk goes
 * to lane i mod 256 in ascending order, the lanes are added as reduce.h's block
 * sum adds those of 256 threads, and chunks in the same way, chunk c to lane
 * c mod 256. So it is bit-equal on all devices. One NaN makes it NaN, else one
 * infinity infinite; so do finite squares beyond 1.8e308.
 *
 * Kernels: adam_squares_f32, adam_squares_f64 (partial sums of the chunks, a
 * tile each), adam_norm, adam_step_f32, adam_step_f64. Read by nvcc, g++, gcc
 * and cgo. */
#ifndef FORTET_ADAM_H
#define FORTET_ADAM_H

#include "fortet.h"

/* Elements of a chunk of the norm and of a tile of the step; lanes of sums. */
enum { FORTET_ADAM_CHUNK = 4096, FORTET_ADAM_TILE = 16384, FORTET_ADAM_LANES = 256 };

typedef struct {
  const void *gradient; /* (n) */
  double *partial;      /* (chunks): the sum of squares of each */
  double *norm;         /* (1) */
  uint32_t *count;      /* (1) or NULL: one more */
  int64_t n;            /* > 0 */
} fortet_adam_norm_args;

typedef struct {
  const void *gradient;   /* (n) */
  void *params;           /* (n) p */
  void *first, *second;   /* (n) m and v */
  void *ema;              /* (n) e, or NULL */
  const double *norm;     /* (1) or NULL */
  int64_t n;              /* > 0 */
  double rate, root, epsilon, shrink;
  double blend1, blend2, blend3;
  double clip; /* 0: none */
  const double *table;   /* (rows, 3): rate, root, shrink; or NULL: those above */
  const uint32_t *count; /* (1) t, with table */
  int64_t rows;          /* > 0, with table */
} fortet_adam_step_args;

#endif
