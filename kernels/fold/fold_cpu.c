/* The fold on the CPU, bound by memory: each row is read once, 8 rows at a time,
 * (rows + 1) m elements in all. Sums of 8 rows wait for their neighbour in a
 * cache-sized array, one for each level of the tree. */
#include "fold.h"
#include "levels.h"

enum { COLUMNS = 128, LEVELS = 40 };

/* The 8 rows of a group, of which there are left; the others are -0. */
#define GROUP(NAME, T) \
  FORTET_HD void NAME(const T *in, int64_t left, int64_t width, int count, double *sum) { \
    if (left >= FORTET_FOLD_GROUP) { \
      const T *const r0 = in, *const r1 = r0 + width, *const r2 = r1 + width, *const r3 = r2 + width; \
      const T *const r4 = r3 + width, *const r5 = r4 + width, *const r6 = r5 + width, *const r7 = r6 + width; \
      FORTET_ELEMENTWISE \
      for (int l = 0; l < count; l++) \
        sum[l] = (((double)r0[l] + (double)r1[l]) + ((double)r2[l] + (double)r3[l])) + \
                 (((double)r4[l] + (double)r5[l]) + ((double)r6[l] + (double)r7[l])); \
      return; \
    } \
    double v[FORTET_FOLD_GROUP / 2][COLUMNS]; \
    int n = 0; \
    for (int64_t s = 0; s < left; s += 2, n++) { \
      const T *const r = in + s * width; \
      if (s + 1 < left) { \
        FORTET_ELEMENTWISE \
        for (int l = 0; l < count; l++) v[n][l] = (double)r[l] + (double)r[l + width]; \
      } else { \
        FORTET_ELEMENTWISE \
        for (int l = 0; l < count; l++) v[n][l] = (double)r[l]; \
      } \
    } \
    for (; n > 1; n = (n + 1) / 2) \
      for (int i = 0; i < n; i += 2) { \
        if (i + 1 < n) { \
          FORTET_ELEMENTWISE \
          for (int l = 0; l < count; l++) v[i / 2][l] = v[i][l] + v[i + 1][l]; \
        } else { \
          FORTET_ELEMENTWISE \
          for (int l = 0; l < count; l++) v[i / 2][l] = v[i][l]; \
        } \
      } \
    for (int l = 0; l < count; l++) sum[l] = v[0][l]; \
  }
GROUP(group_f32, float)
GROUP(group_f64, double)

FORTET_HD void add(const double *left, double *sum, int count) {
  FORTET_ELEMENTWISE
  for (int l = 0; l < count; l++) sum[l] = left[l] + sum[l];
}

#define FOLD(NAME, T, GROUP) \
  FORTET_HD int NAME(const fortet_fold_args *a, int64_t begin, int64_t end, int level) { \
    (void)level; \
    double waiting[LEVELS][COLUMNS], sum[COLUMNS]; \
    const int64_t stop = end * FORTET_FOLD_TILE < a->m ? end * FORTET_FOLD_TILE : a->m; \
    for (int64_t j = begin * FORTET_FOLD_TILE; j < stop; j += COLUMNS) { \
      const int count = stop - j < COLUMNS ? (int)(stop - j) : COLUMNS; \
      const T *const in = (const T *)a->in + j; \
      T *const out = (T *)a->out + j; \
      int64_t done = 0; /* groups; a bit that is set is a sum that waits */ \
      for (int64_t s = 0;; s += FORTET_FOLD_GROUP, done++) { \
        GROUP(in + s * a->width, a->rows - s, a->width, count, sum); \
        int k = 0; \
        for (; done >> k & 1; k++) add(waiting[k], sum, count); \
        if (s + FORTET_FOLD_GROUP >= a->rows) { \
          /* The right one at all levels above. */ \
          for (; done >> k; k++) \
            if (done >> k & 1) add(waiting[k], sum, count); \
          break; \
        } \
        for (int l = 0; l < count; l++) waiting[k][l] = sum[l]; \
      } \
      FORTET_ELEMENTWISE \
      for (int l = 0; l < count; l++) out[l] = (T)sum[l]; \
    } \
    return FORTET_OK; \
  }
FOLD(fold_f32_tiles, float, group_f32)
FOLD(fold_f64_tiles, double, group_f64)

FORTET_CPU_KERNEL(fold_f32, fold_f32_tiles, fortet_fold_args)
FORTET_CPU_KERNEL(fold_f64, fold_f64_tiles, fortet_fold_args)
