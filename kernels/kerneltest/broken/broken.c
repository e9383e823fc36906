#include "broken.h"

#include <math.h>

/* One tile is FORTET_BROKEN_TILE elements. */
int fortet_broken_cpu(const void *args, int64_t begin, int64_t end, int level) {
  const fortet_broken_args *a = args;
  (void)level;
  if (a->fault == 9) return FORTET_UNSUPPORTED;
  for (int64_t tile = begin; tile < end; tile++) {
    int64_t lo = tile * FORTET_BROKEN_TILE, hi = lo + FORTET_BROKEN_TILE;
    if (hi > a->n) hi = a->n;
    for (int64_t i = lo; i < hi; i++) {
      switch (a->fault) {
      case 1: if (i + 1 == a->n) continue; break;               /* forgets the last element */
      case 2: if (hi - lo < FORTET_BROKEN_TILE) continue; break; /* forgets the short tile */
      case 3: a->y[a->n] = 1; break;                             /* writes behind the array */
      case 4: a->y[-1] = 1; break;                               /* writes before it */
      case 5: a->x[i] += 1; break;                               /* changes its input */
      }
      a->y[i] = 2 * a->x[i];
      if (a->fault == 6 && i == a->n / 2) a->y[i] = NAN;      /* one NaN */
      if (a->fault == 7) a->y[i] *= 1 + 0x1p-18f;             /* inaccurate by 32 units in the last place */
      if (a->fault == 8 && i == a->n / 2) a->y[i] = INFINITY; /* one overflow */
    }
  }
  return FORTET_OK;
}
