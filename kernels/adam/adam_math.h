/* adam_math.h - the arithmetic of a step in exact.h's, bit-equal on all
 * devices. An average is (1 - w) old + w x with 1 - w inside of an fma: for
 * w = 1 it is x, and it takes no rounded 1 - w, whose error of u would be one
 * of u / w in the average that it settles at. */
#ifndef FORTET_ADAM_MATH_H
#define FORTET_ADAM_MATH_H

#include "adam.h"
#include "exact.h"

#include <float.h>

/* What changes from step to step. */
typedef struct {
  double rate, root, shrink;
} fortet_adam_numbers;

FORTET_HD fortet_adam_numbers fortet_adam_at(const fortet_adam_step_args *a) {
  fortet_adam_numbers at = {a->rate, a->root, a->shrink};
  if (a->table) {
    const double *const row = a->table + 3 * ((*a->count - 1u) % (uint64_t)a->rows);
    at.rate = row[0], at.root = row[1], at.shrink = row[2];
  }
  return at;
}

FORTET_HD int fortet_adam_finite(const double *norm) { return !norm || *norm < FORTET_INF; }

FORTET_HD double fortet_adam_scale(const double *norm, double clip) {
  return norm && clip > 0 && *norm > clip ? fortet_div64(clip, *norm) : 1.0;
}

FORTET_HD float fortet_adam_blend32(float w, float x, float old) {
  return fortet_fma32(w, x, fortet_fma32(-w, old, old));
}
FORTET_HD double fortet_adam_blend64(double w, double x, double old) {
  return fortet_fma64(w, x, fortet_fma64(-w, old, old));
}

/* v, whose infinity would be a NaN one step later. NaN stays. */
FORTET_HD float fortet_adam_second32(float w, float g, float old) {
  const float v = fortet_adam_blend32(w, fortet_mul32(g, g), old);
  return v > FLT_MAX ? FLT_MAX : v;
}
FORTET_HD double fortet_adam_second64(double w, double g, double old) {
  const double v = fortet_adam_blend64(w, fortet_mul64(g, g), old);
  return v > DBL_MAX ? DBL_MAX : v;
}

/* p of m and sqrt v. */
FORTET_HD float fortet_adam_move32(float p, float m, float root_v, float rate, float root, float epsilon, float shrink) {
  const float q = fortet_div32(m, fortet_fma32(root_v, root, epsilon));
  return fortet_fma32(-rate, q, fortet_fma32(-shrink, p, p));
}
FORTET_HD double fortet_adam_move64(double p, double m, double root_v, double rate, double root, double epsilon,
                                    double shrink) {
  const double q = fortet_div64(m, fortet_fma64(root_v, root, epsilon));
  return fortet_fma64(-rate, q, fortet_fma64(-shrink, p, p));
}

#endif
