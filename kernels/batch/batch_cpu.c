/* Batches on the CPU. gather copies rows, bound by memory; bridge takes a
 * normal and four operations an element, and per row a uniform, a division and
 * two square roots. */
#include "batch.h"
#include "draw_lanes.h"

#include <string.h>

#define GATHER(NAME, T) \
  FORTET_HD int NAME(const fortet_batch_gather_args *a, int64_t begin, int64_t end, int level) { \
    const int64_t d = a->d, rows = d < FORTET_BATCH_TILE ? FORTET_BATCH_TILE / d : 1; \
    const int64_t stop = end * rows < a->batch ? end * rows : a->batch; \
    const fortet_draw draw = fortet_batch_draw(a->draw, a->count); \
    uint32_t words[4][FORTET_LANES]; \
    for (int64_t b = begin * rows; b < stop; b += FORTET_LANES) { \
      const int count = stop - b < FORTET_LANES ? (int)(stop - b) : FORTET_LANES; \
      int64_t index[FORTET_LANES]; \
      fortet_lane_words(draw, 1, b, count, words, level); \
      for (int l = 0; l < count; l++) index[l] = fortet_batch_index(words[0][l], words[1][l], a->n); \
      if (a->index32) \
        for (int l = 0; l < count; l++) a->index32[b + l] = (int32_t)index[l]; \
      if (a->index64) memcpy(a->index64 + b, index, (size_t)count * sizeof index[0]); \
      T *const to = (T *)a->out + b * d; \
      const T *const from = (const T *)a->rows; \
      if (d == 2) \
        for (int l = 0; l < count; l++) to[2 * l] = from[2 * index[l]], to[2 * l + 1] = from[2 * index[l] + 1]; \
      else \
        for (int l = 0; l < count; l++) memcpy(to + l * d, from + index[l] * d, (size_t)d * sizeof(T)); \
    } \
    return FORTET_OK; \
  }
GATHER(gather_f32, float)
GATHER(gather_f64, double)

/* Batches of blocks, as in every kernel that draws; the rows that a batch
 * touches, at most one a block, get their coefficients first. */
#define BRIDGE(NAME, T, WIDTH, UNIFORM, NORMAL, SQRT, FMA, MUL, DIV) \
  FORTET_HD int NAME(const fortet_batch_bridge_args *a, int64_t begin, int64_t end, int level) { \
    enum { ROOM = WIDTH * FORTET_LANES }; \
    const int64_t d = a->d, of_row = (d + WIDTH - 1) / WIDTH, total = a->n * of_row; \
    const int64_t stop = end * FORTET_DRAW_TILE < total ? end * FORTET_DRAW_TILE : total; \
    const T epsilon = (T)a->epsilon, range = (T)(1 - a->safe); \
    T near[FORTET_LANES], far[FORTET_LANES], spread[FORTET_LANES], steep[FORTET_LANES]; \
    T x0[ROOM], x1[ROOM], noise[ROOM]; \
    memset(far, 0, sizeof far); /* lanes behind the last row are computed, too */ \
    const fortet_draw times_of = fortet_batch_draw(a->draw, a->count); \
    fortet_draw normals = times_of; \
    normals.purpose++; \
    for (int64_t p = begin * FORTET_DRAW_TILE; p < stop; p += FORTET_LANES) { \
      const int blocks = stop - p < FORTET_LANES ? (int)(stop - p) : FORTET_LANES; \
      const int64_t at = fortet_draw_first(p, d, WIDTH), first = p / of_row; \
      const int count = (int)(fortet_draw_first(p + blocks, d, WIDTH) - at); \
      const int rows = (int)((p + blocks - 1) / of_row - first) + 1, lanes = fortet_lanes(rows); \
      if (a->given) { \
        memcpy(far, (const T *)a->given + first, (size_t)rows * sizeof(T)); \
      } else { \
        UNIFORM(times_of, 1, first, rows, far, level); \
        for (int r = 0; r < rows; r++) far[r] = MUL(range, far[r]); \
      } \
      if (a->t) { /* a row belongs to the batch of its first block */ \
        const int begun = first * of_row < p; \
        memcpy((T *)a->t + first + begun, far + begun, (size_t)(rows - begun) * sizeof(T)); \
      } \
      if (!a->xt && !a->u) continue; \
      for (int r = 0; r < lanes; r++) { \
        near[r] = FMA((T)-1, far[r], (T)1); /* 1 - far, never one fma of its product */ \
        spread[r] = MUL(epsilon, MUL(far[r], near[r])); \
        steep[r] = DIV(MUL(epsilon, far[r]), near[r]); \
      } \
      SQRT(spread, lanes, level); \
      SQRT(steep, lanes, level); \
      memcpy(x0, (const T *)a->x0 + at, (size_t)count * sizeof(T)); \
      memcpy(x1, (const T *)a->x1 + at, (size_t)count * sizeof(T)); \
      NORMAL(normals, d, p, blocks, noise, level); \
      T *const xt = a->xt ? (T *)a->xt + at : NULL, *const u = a->u ? (T *)a->u + at : NULL; \
      int64_t column = at - first * d; \
      for (int e = 0, r = 0; e < count; r++, column = 0) { \
        const int run = d - column < count - e ? (int)(d - column) : count - e; \
        const T n = near[r], f = far[r], s = spread[r], q = steep[r]; \
        if (xt) \
          for (int c = e; c < e + run; c++) xt[c] = FMA(s, noise[c], FMA(f, x1[c], MUL(n, x0[c]))); \
        if (u) \
          for (int c = e; c < e + run; c++) u[c] = FMA(-q, noise[c], x1[c] - x0[c]); \
        e += run; \
      } \
    } \
    return FORTET_OK; \
  }
BRIDGE(bridge_f32, float, FORTET_DRAW_32, fortet_draw_uniform32, fortet_draw_normal32, fortet_lane_sqrt32, fortet_fma32,
       fortet_mul32, fortet_div32)
BRIDGE(bridge_f64, double, FORTET_DRAW_64, fortet_draw_uniform64, fortet_draw_normal64, fortet_lane_sqrt64, fortet_fma64,
       fortet_mul64, fortet_div64)

FORTET_CPU_KERNEL(batch_gather_f32, gather_f32, fortet_batch_gather_args)
FORTET_CPU_KERNEL(batch_gather_f64, gather_f64, fortet_batch_gather_args)
FORTET_CPU_KERNEL(batch_bridge_f32, bridge_f32, fortet_batch_bridge_args)
FORTET_CPU_KERNEL(batch_bridge_f64, bridge_f64, fortet_batch_bridge_args)
