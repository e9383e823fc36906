/* gmm_sample.h - what sampling fixes for all devices, so that they choose the
 * same components and write the same bits: orders of sums and the exponential,
 * in exact.h's arithmetic.
 *
 * A sum over d coordinates is one chain of fmas in ascending order up to
 * d = FORTET_GMM_SAMPLE_CHAIN; above, chains over k = c mod 32, c = 0 .. 31, which are
 * added as the lanes of a warp are: at distances 16, 8, 4, 2, 1. The sum over
 * components is in ascending order. */
#ifndef FORTET_GMM_SAMPLE_H
#define FORTET_GMM_SAMPLE_H

#include "exact.h"

enum {
  FORTET_GMM_SAMPLE_CHAIN = 8,
  FORTET_GMM_SAMPLE_CLASSES = 32,
  FORTET_GMM_SAMPLE_ROWS = 64 /* of a CPU tile */
};

/* exp z for z <= 0; NaN stays. What lies below the normal numbers is the
 * smallest of them instead of 0: it decides no draw, since draws compare sums
 * with u times a total of at least 1, and u >= 2^-24. z = k log 2 + r and
 * exp r = 1 + r (1 + r P(r)), P the polynomial of ou_math.h with its errors
 * 2^-32 and 2^-61.7. */
FORTET_HD float fortet_gmm_exp32(float z) {
  const float w = z < -87.0f ? -87.0f : z;
  const float magic = 0x1.8p23f; /* brings the nearest integer to the low bits */
  const float shifted = fortet_fma32(w, 0x1.715476p+0f, magic), k = shifted - magic;
  const float r = fortet_fma32(k, -0x1.7f7d1cp-20f, fortet_fma32(k, -0x1.62e4p-1f, w));
  float p = 0x1.a1a218p-13f;
  p = fortet_fma32(p, r, 0x1.6d7528p-10f);
  p = fortet_fma32(p, r, 0x1.111090p-7f);
  p = fortet_fma32(p, r, 0x1.5554aep-5f);
  p = fortet_fma32(p, r, 0x1.555556p-3f);
  p = fortet_fma32(p, r, 0.5f);
  p = fortet_fma32(p, r, 1.0f);
  p = fortet_fma32(p, r, 1.0f);
  const float two = fortet_float32((fortet_bits32(shifted) - fortet_bits32(magic) + 127u) << 23);
  return fortet_mul32(p, two);
}

FORTET_HD double fortet_gmm_exp64(double z) {
  const double w = z < -708.0 ? -708.0 : z;
  const double magic = 0x1.8p52;
  const double shifted = fortet_fma64(w, 0x1.71547652b82fep+0, magic), k = shifted - magic;
  const double r = fortet_fma64(k, -0x1.a39ef35793c76p-33, fortet_fma64(k, -0x1.62e42fee00000p-1, w));
  double p = 0x1.1f95b63fd80e5p-29;
  p = fortet_fma64(p, r, 0x1.af5f32c188f2dp-26);
  p = fortet_fma64(p, r, 0x1.27e4c56caca40p-22);
  p = fortet_fma64(p, r, 0x1.71ddf81688d93p-19);
  p = fortet_fma64(p, r, 0x1.a01a01b0ce775p-16);
  p = fortet_fma64(p, r, 0x1.a01a01affb1d7p-13);
  p = fortet_fma64(p, r, 0x1.6c16c16c14409p-10);
  p = fortet_fma64(p, r, 0x1.111111110f67dp-7);
  p = fortet_fma64(p, r, 0x1.555555555555ap-5);
  p = fortet_fma64(p, r, 0x1.5555555555559p-3);
  p = fortet_fma64(p, r, 0.5);
  p = fortet_fma64(p, r, 1.0);
  p = fortet_fma64(p, r, 1.0);
  const double two = fortet_float64((fortet_bits64(shifted) - fortet_bits64(magic) + 1023u) << 52);
  return fortet_mul64(p, two);
}

#endif
