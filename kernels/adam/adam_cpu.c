/* Adam on the CPU, bound by memory: a step reads 16 bytes an element in
 * float32 and writes 12, 8 more with an average, against 12 operations, a
 * division and a square root; the norm reads 4 against one fma. */
#include "adam.h"
#include "adam_math.h"
#include "draw_lanes.h" /* square roots */

#include <string.h>

/* The sum of lanes in the order of a block of as many threads. */
FORTET_HD double fold(double *sum) {
  for (int w = 0; w < FORTET_ADAM_LANES; w += 32)
    for (int h = 16; h > 0; h /= 2)
      for (int l = 0; l < h; l++) sum[w + l] += sum[w + l + h];
  for (int h = FORTET_ADAM_LANES / 2; h >= 32; h /= 2)
    for (int w = 0; w < h; w += 32) sum[w] += sum[w + h];
  return sum[0];
}

#define SQUARES(NAME, T) \
  FORTET_HD int NAME(const fortet_adam_norm_args *a, int64_t begin, int64_t end, int level) { \
    (void)level; \
    for (int64_t c = begin; c < end; c++) { \
      const T *const g = (const T *)a->gradient + c * FORTET_ADAM_CHUNK; \
      const int64_t left = a->n - c * FORTET_ADAM_CHUNK; \
      const int count = left < FORTET_ADAM_CHUNK ? (int)left : FORTET_ADAM_CHUNK; \
      double sum[FORTET_ADAM_LANES] = {0}; \
      for (int i = 0; i < count; i += FORTET_ADAM_LANES) { \
        const int lanes = count - i < FORTET_ADAM_LANES ? count - i : FORTET_ADAM_LANES; \
        for (int l = 0; l < lanes; l++) sum[l] = fortet_fma64(g[i + l], g[i + l], sum[l]); \
      } \
      a->partial[c] = fold(sum); \
    } \
    return FORTET_OK; \
  }
SQUARES(squares_f32, float)
SQUARES(squares_f64, double)

/* One tile. */
FORTET_HD int norm(const fortet_adam_norm_args *a, int64_t begin, int64_t end, int level) {
  (void)begin, (void)end, (void)level;
  const int64_t chunks = (a->n + FORTET_ADAM_CHUNK - 1) / FORTET_ADAM_CHUNK;
  double sum[FORTET_ADAM_LANES] = {0};
  for (int64_t c = 0; c < chunks; c++) sum[c % FORTET_ADAM_LANES] += a->partial[c];
  *a->norm = fortet_sqrt64(fold(sum));
  if (a->count) ++*a->count;
  return FORTET_OK;
}

#define STEP(NAME, T, MUL, BLEND, SECOND, MOVE, SQRT) \
  FORTET_HD int NAME(const fortet_adam_step_args *a, int64_t begin, int64_t end, int level) { \
    enum { ROOM = 512 }; \
    if (!fortet_adam_finite(a->norm)) return FORTET_OK; \
    const fortet_adam_numbers at = fortet_adam_at(a); \
    const T scale = (T)fortet_adam_scale(a->norm, a->clip), rate = (T)at.rate, root = (T)at.root; \
    const T epsilon = (T)a->epsilon, shrink = (T)at.shrink; \
    const T w1 = (T)a->blend1, w2 = (T)a->blend2, w3 = (T)a->blend3; \
    const int64_t stop = end * FORTET_ADAM_TILE < a->n ? end * FORTET_ADAM_TILE : a->n; \
    T buffer[ROOM]; \
    memset(buffer, 0, sizeof buffer); /* lanes behind the last element are computed, too */ \
    for (int64_t i = begin * FORTET_ADAM_TILE; i < stop; i += ROOM) { \
      const int count = stop - i < ROOM ? (int)(stop - i) : ROOM; \
      const T *const g = (const T *)a->gradient + i; \
      T *const p = (T *)a->params + i, *const m = (T *)a->first + i, *const v = (T *)a->second + i; \
      FORTET_ELEMENTWISE \
      for (int l = 0; l < count; l++) { \
        const T x = MUL(scale, g[l]); \
        m[l] = BLEND(w1, x, m[l]); \
        buffer[l] = v[l] = SECOND(w2, x, v[l]); \
      } \
      SQRT(buffer, fortet_lanes(count), level); \
      FORTET_ELEMENTWISE \
      for (int l = 0; l < count; l++) p[l] = MOVE(p[l], m[l], buffer[l], rate, root, epsilon, shrink); \
      if (!a->ema) continue; \
      T *const e = (T *)a->ema + i; \
      FORTET_ELEMENTWISE \
      for (int l = 0; l < count; l++) e[l] = BLEND(w3, p[l], e[l]); \
    } \
    return FORTET_OK; \
  }
STEP(step_f32, float, fortet_mul32, fortet_adam_blend32, fortet_adam_second32, fortet_adam_move32, fortet_lane_sqrt32)
STEP(step_f64, double, fortet_mul64, fortet_adam_blend64, fortet_adam_second64, fortet_adam_move64, fortet_lane_sqrt64)

FORTET_CPU_KERNEL(adam_squares_f32, squares_f32, fortet_adam_norm_args)
FORTET_CPU_KERNEL(adam_squares_f64, squares_f64, fortet_adam_norm_args)
FORTET_CPU_KERNEL(adam_norm, norm, fortet_adam_norm_args)
FORTET_CPU_KERNEL(adam_step_f32, step_f32, fortet_adam_step_args)
FORTET_CPU_KERNEL(adam_step_f64, step_f64, fortet_adam_step_args)
