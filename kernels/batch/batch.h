/* batch.h - training batches made on the device: rows drawn from a data set,
 * and pairs of bridge matching.
 *
 * gather: out_b = rows_i, i = floor(u n / 2^64), u the 64 bits that draw.h gives
 * for sample index draw.index + b as coordinates 0 (low) and 1 of its bits.
 *
 * bridge, with the pinned Brownian motion of volatility sqrt(epsilon):
 *     t  = (1 - safe) times the uniform of coordinate 0, or the given one
 *     xt = (1 - t) x0 + t x1 + sqrt(epsilon t (1 - t)) n
 *     u  = (x1 - xt) / (1 - t) = x1 - x0 - sqrt(epsilon t / (1 - t)) n
 * where n are the normals of purpose draw.purpose + 1; the second form of u has
 * no difference of near numbers towards t = 1. Evaluated in the element type and
 * in exact.h's arithmetic, bit-equal on all devices.
 *
 * With count, the draw's step is draw.step + *count modulo 2^32, read when the
 * kernel runs: so a recorded launch draws anew each time that count has moved.
 *
 * Kernels: batch_gather_f32, batch_gather_f64, batch_bridge_f32,
 * batch_bridge_f64. Read by nvcc, g++, gcc and cgo. */
#ifndef FORTET_BATCH_H
#define FORTET_BATCH_H

#include "draw.h"

/* Elements of a tile of gather: so many, in whole rows. */
enum { FORTET_BATCH_TILE = 16384 };

typedef struct {
  const void *rows;     /* (n, d) */
  void *out;            /* (batch, d) */
  int32_t *index32;     /* (batch) or NULL: i */
  int64_t *index64;     /* (batch) or NULL: i */
  int64_t n, d, batch;   /* > 0 */
  fortet_draw draw;
  const uint32_t *count; /* (1) or NULL: 0 */
} fortet_batch_gather_args;

typedef struct {
  const void *x0, *x1; /* (n, d) */
  const void *given;   /* (n) in [0, 1], or NULL: t is drawn */
  void *t;             /* (n) or NULL */
  void *xt;            /* (n, d) or NULL; may be x0 or x1 */
  void *u;             /* (n, d) or NULL; may be x0 or x1 */
  int64_t n, d;        /* > 0 */
  double epsilon, safe;
  fortet_draw draw;
  const uint32_t *count; /* (1) or NULL: 0 */
} fortet_batch_bridge_args;

/* The draw of a launch. */
FORTET_HD fortet_draw fortet_batch_draw(fortet_draw draw, const uint32_t *count) {
  if (count) draw.step += *count;
  return draw;
}

/* i of the two words of a row. */
FORTET_HD int64_t fortet_batch_index(uint32_t low, uint32_t high, int64_t n) {
#if defined(__CUDA_ARCH__)
  return (int64_t)__umul64hi(fortet_word64(low, high), (uint64_t)n);
#else
  __extension__ typedef unsigned __int128 wide;
  return (int64_t)(uint64_t)((wide)fortet_word64(low, high) * (uint64_t)n >> 64);
#endif
}

#endif
