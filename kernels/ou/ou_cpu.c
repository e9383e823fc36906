/* The Ornstein-Uhlenbeck transition on the CPU: batches of blocks of
 * coordinates in the first-level cache. About 35 operations an element for F
 * and Sigma, a division and a square root, and a normal where one is wanted;
 * up to 20 bytes an element in float32. */
#include "draw_lanes.h"
#include "ou.h"
#include "ou_math.h"

#include <string.h>

#define TRANSITION(NAME, T, WIDTH, NORMAL, OU, SQRT, FMA, MUL, DIV) \
  FORTET_HD int NAME(const fortet_ou_args *a, int64_t begin, int64_t end, int level) { \
    enum { ROOM = WIDTH * FORTET_LANES }; \
    const int64_t d = a->d, total = a->n * ((d + WIDTH - 1) / WIDTH); \
    const int64_t stop = end * FORTET_DRAW_TILE < total ? end * FORTET_DRAW_TILE : total; \
    const T *const lambda = (const T *)a->lambda, *const integral = (const T *)a->b; \
    T rate[ROOM], time[ROOM], factor[ROOM], scale[ROOM], noise[ROOM], zeros[ROOM]; \
    memset(zeros, 0, sizeof zeros); \
    memset(rate, 0, sizeof rate); /* lanes behind the last element are computed, too */ \
    for (int e = 0; e < ROOM; e++) time[e] = (T)a->b0; \
    for (int64_t p = begin * FORTET_DRAW_TILE; p < stop; p += FORTET_LANES) { \
      const int blocks = stop - p < FORTET_LANES ? (int)(stop - p) : FORTET_LANES; \
      const int64_t at = fortet_draw_first(p, d, WIDTH); \
      const int count = (int)(fortet_draw_first(p + blocks, d, WIDTH) - at), lanes = fortet_lanes(count); \
      int64_t row = at / d, column = at % d; \
      for (int e = 0; e < count; row++, column = 0) { \
        const int run = d - column < count - e ? (int)(d - column) : count - e; \
        for (int c = 0; c < run; c++) rate[e + c] = lambda[column + c]; \
        if (integral) \
          for (int c = 0; c < run; c++) time[e + c] = integral[row]; \
        e += run; \
      } \
      for (int e = 0; e < lanes; e++) OU(time[e], rate[e], &factor[e], &scale[e]); \
      SQRT(scale, lanes, level); \
      const T *const x0 = a->x0 ? (const T *)a->x0 + at : zeros; \
      T *const mean = factor; /* F is not needed any more */ \
      for (int e = 0; e < count; e++) mean[e] = MUL(factor[e], x0[e]); \
      if (a->mean) memcpy((T *)a->mean + at, mean, (size_t)count * sizeof(T)); \
      if (a->scale) memcpy((T *)a->scale + at, scale, (size_t)count * sizeof(T)); \
      if (!a->xt && !a->score) continue; \
      NORMAL(a->draw, d, p, blocks, noise, level); \
      if (a->xt) { \
        T *const xt = (T *)a->xt + at; \
        for (int e = 0; e < count; e++) xt[e] = FMA(scale[e], noise[e], mean[e]); \
      } \
      if (a->score) { \
        T *const score = (T *)a->score + at; \
        for (int e = 0; e < count; e++) score[e] = DIV(-noise[e], scale[e]); \
      } \
    } \
    return FORTET_OK; \
  }
TRANSITION(transition_f32, float, FORTET_DRAW_32, fortet_draw_normal32, fortet_ou32, fortet_lane_sqrt32, fortet_fma32,
           fortet_mul32, fortet_div32)
TRANSITION(transition_f64, double, FORTET_DRAW_64, fortet_draw_normal64, fortet_ou64, fortet_lane_sqrt64, fortet_fma64,
           fortet_mul64, fortet_div64)

FORTET_CPU_KERNEL(ou_f32, transition_f32, fortet_ou_args)
FORTET_CPU_KERNEL(ou_f64, transition_f64, fortet_ou_args)
