/* ou_math.h - F and Sigma of an Ornstein-Uhlenbeck transition in exact.h's
 * arithmetic, bit-equal on all devices.
 *
 * With w = -b lambda / 2 = k log 2 + r, |r| <= log(2) / 2, and the polynomial
 * q = expm1(r) / r = 1 + r P(r),
 *
 *     F = exp w = 2^k (1 + r q)
 *     E = expm1 w = 2^k r q + (2^k - 1)
 *     Sigma = b q (1 + F) / 2 for k = 0, else -E (1 + F) / lambda,
 *
 * since expm1(2w) = E (2 + E) = E (1 + F), and E / w = q for k = 0. No two
 * terms cancel, and lambda = 0 is no special case: then q = F = 1.
 *
 * P is minimax, found by the Remez exchange in 60 digits; the exponent behind
 * it is the error of r q against expm1, relative to r. */
#ifndef FORTET_OU_MATH_H
#define FORTET_OU_MATH_H

#include "exact.h"

FORTET_HD void fortet_ou32(float b, float lambda, float *factor, float *variance) {
  float w = fortet_mul32(fortet_mul32(-0.5f, b), lambda);
  w = w < -104.0f ? -104.0f : w; /* F = 0 */
  w = w > 89.0f ? 89.0f : w;     /* F = inf; NaN stays */
  const float magic = 0x1.8p23f; /* brings the nearest integer to the low bits */
  const float shifted = fortet_fma32(w, 0x1.715476p+0f, magic);
  const float k = shifted - magic;
  const float r = fortet_fma32(k, -0x1.7f7d1cp-20f, fortet_fma32(k, -0x1.62e4p-1f, w));
  float p = 0x1.a1a218p-13f; /* 2^-32.0 */
  p = fortet_fma32(p, r, 0x1.6d7528p-10f);
  p = fortet_fma32(p, r, 0x1.111090p-7f);
  p = fortet_fma32(p, r, 0x1.5554aep-5f);
  p = fortet_fma32(p, r, 0x1.555556p-3f);
  p = fortet_fma32(p, r, 0.5f);
  const float q = fortet_fma32(r, p, 1.0f);
  /* 2^k as a product of two, for k beyond the exponents; i = k + 256. */
  const uint32_t i = fortet_bits32(shifted) - fortet_bits32(magic) + 256u;
  const float two1 = fortet_float32(((i >> 1) - 1u) << 23);
  const float two2 = fortet_float32((i - (i >> 1) - 1u) << 23);
  const float f = fortet_mul32(fortet_fma32(r, q, 1.0f), two1);
  const float e = fortet_fma32(fortet_mul32(fortet_mul32(r, q), two1), two2, fortet_fma32(two1, two2, -1.0f));
  const float sum = fortet_fma32(f, two2, 1.0f); /* 1 + F */
  const float near = fortet_mul32(b, fortet_mul32(q, fortet_mul32(0.5f, sum)));
  const float far = fortet_div32(fortet_mul32(-e, sum), lambda);
  *factor = fortet_mul32(f, two2);
  /* A choice by bits, since a branch around a division is no loop of vectors. */
  const uint32_t choose = (uint32_t)0 - (uint32_t)(i == 256u);
  *variance = fortet_float32((fortet_bits32(near) & choose) | (fortet_bits32(far) & ~choose));
}

FORTET_HD void fortet_ou64(double b, double lambda, double *factor, double *variance) {
  double w = fortet_mul64(fortet_mul64(-0.5, b), lambda);
  w = w < -746.0 ? -746.0 : w;
  w = w > 710.0 ? 710.0 : w;
  const double magic = 0x1.8p52;
  const double shifted = fortet_fma64(w, 0x1.71547652b82fep+0, magic);
  const double k = shifted - magic;
  const double r = fortet_fma64(k, -0x1.a39ef35793c76p-33, fortet_fma64(k, -0x1.62e42fee00000p-1, w));
  double p = 0x1.1f95b63fd80e5p-29; /* 2^-61.7 */
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
  const double q = fortet_fma64(r, p, 1.0);
  const uint64_t i = fortet_bits64(shifted) - fortet_bits64(magic) + 2048u;
  const double two1 = fortet_float64(((i >> 1) - 1u) << 52);
  const double two2 = fortet_float64((i - (i >> 1) - 1u) << 52);
  const double f = fortet_mul64(fortet_fma64(r, q, 1.0), two1);
  const double e = fortet_fma64(fortet_mul64(fortet_mul64(r, q), two1), two2, fortet_fma64(two1, two2, -1.0));
  const double sum = fortet_fma64(f, two2, 1.0);
  const double near = fortet_mul64(b, fortet_mul64(q, fortet_mul64(0.5, sum)));
  const double far = fortet_div64(fortet_mul64(-e, sum), lambda);
  *factor = fortet_mul64(f, two2);
  /* A choice by bits, since a branch around a division is no loop of vectors. */
  const uint64_t choose = (uint64_t)0 - (uint64_t)(i == 2048u);
  *variance = fortet_float64((fortet_bits64(near) & choose) | (fortet_bits64(far) & ~choose));
}

#endif
