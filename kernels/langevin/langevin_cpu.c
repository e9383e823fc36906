/* The Langevin step on the CPU: batches of blocks of coordinates, whose noise
 * is made in the first-level cache. Bound by making normals, 1.6 ns (float32)
 * or 3.5 ns (float64) each with AVX2; without noise by memory, 8 to 16 bytes
 * an element in float32. */
#include "draw_lanes.h"
#include "langevin.h"

#define STEP(NAME, T, WIDTH, NORMAL, UPDATE) \
  FORTET_HD int NAME(const fortet_langevin_args *a, int64_t begin, int64_t end, int level) { \
    const int64_t total = a->n * ((a->d + WIDTH - 1) / WIDTH); \
    const int64_t stop = end * FORTET_DRAW_TILE < total ? end * FORTET_DRAW_TILE : total; \
    const T eta = (T)a->eta, scale = (T)a->scale; \
    const T precision = (T)a->precision; \
    T noise[WIDTH * FORTET_LANES], zeros[WIDTH * FORTET_LANES]; \
    for (int i = 0; i < WIDTH * FORTET_LANES; i++) noise[i] = zeros[i] = 0; \
    for (int64_t p = begin * FORTET_DRAW_TILE; p < stop; p += FORTET_LANES) { \
      const int blocks = stop - p < FORTET_LANES ? (int)(stop - p) : FORTET_LANES; \
      const int64_t at = fortet_draw_first(p, a->d, WIDTH); \
      const int count = (int)(fortet_draw_first(p + blocks, a->d, WIDTH) - at); \
      const T *y = (const T *)a->y + at; \
      const T *score = a->score ? (const T *)a->score + at : zeros; \
      const T *mean = a->mean && precision != 0 ? (const T *)a->mean + at : zeros; \
      T *out = (T *)a->out + at; \
      if (scale != 0) NORMAL(a->draw, a->d, p, blocks, noise, level); \
      FORTET_ELEMENTWISE \
      for (int i = 0; i < count; i++) out[i] = UPDATE(y[i], score[i], mean[i], noise[i], eta, precision, scale); \
    } \
    return FORTET_OK; \
  }
STEP(step_f32, float, FORTET_DRAW_32, fortet_draw_normal32, fortet_langevin32)
STEP(step_f64, double, FORTET_DRAW_64, fortet_draw_normal64, fortet_langevin64)

FORTET_CPU_KERNEL(langevin_f32, step_f32, fortet_langevin_args)
FORTET_CPU_KERNEL(langevin_f64, step_f64, fortet_langevin_args)
