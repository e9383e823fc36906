/* Draws on the CPU: batches of lanes, see draw_lanes.h. Compute-bound: about
 * 11 vector instructions a float32 normal against 4 bytes written. */
#include "draw_lanes.h"
#include "philox.h"

#define FILL(NAME, T, WIDTH, DRAW) \
  FORTET_HD int NAME(const fortet_philox_args *a, int64_t begin, int64_t end, int level) { \
    const int64_t total = a->n * ((a->d + WIDTH - 1) / WIDTH); \
    int64_t p = begin * FORTET_DRAW_TILE, stop = end * FORTET_DRAW_TILE; \
    if (stop > total) stop = total; \
    T *out = (T *)a->out + fortet_draw_first(p, a->d, WIDTH); \
    for (; p < stop; p += FORTET_LANES) { \
      const int count = stop - p < FORTET_LANES ? (int)(stop - p) : FORTET_LANES; \
      out = DRAW(a->draw, a->d, p, count, out, level); \
    } \
    return FORTET_OK; \
  }
FILL(fill_bits, uint32_t, 4, fortet_draw_bits)
FILL(fill_uniform_f32, float, 4, fortet_draw_uniform32)
FILL(fill_uniform_f64, double, 2, fortet_draw_uniform64)
FILL(fill_normal_f32, float, 4, fortet_draw_normal32)
FILL(fill_normal_f64, double, 2, fortet_draw_normal64)

FORTET_CPU_KERNEL(philox_bits, fill_bits, fortet_philox_args)
FORTET_CPU_KERNEL(philox_uniform_f32, fill_uniform_f32, fortet_philox_args)
FORTET_CPU_KERNEL(philox_uniform_f64, fill_uniform_f64, fortet_philox_args)
FORTET_CPU_KERNEL(philox_normal_f32, fill_normal_f32, fortet_philox_args)
FORTET_CPU_KERNEL(philox_normal_f64, fill_normal_f64, fortet_philox_args)
