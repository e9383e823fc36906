/* draw.h - the project's only source of randomness: Philox4x32-10 of Salmon,
 * Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011),
 * and its maps to uniforms and normals.
 *
 * A draw is a pure function of (seed, sample index, step, purpose, coordinate)
 * and so depends neither on batch size nor on device, order or worker count.
 * The key is the seed; the counter is
 *
 *     (index low, index high, step, purpose << 24 | block)
 *
 * and yields four words. They serve, for bits and float32, the coordinates
 * 4 block .. 4 block + 3, a word each; for float64 the coordinates 2 block and
 * 2 block + 1, two words each, the low one first.
 *
 * Normals are pairs by Box and Muller (1958): one word gives the radius
 * sqrt(-2 log u), the next one the angle; the even coordinate is radius times
 * cosine, the odd one radius times sine. Logarithm, sine and cosine are the
 * polynomials below, evaluated in exact.h's arithmetic: bits, uniforms and
 * normals are bit-equal on all devices. Radii reach 6.66 in float32 and 8.57 in
 * float64; beyond lie 2.8e-11 and 1.0e-17 of a true normal.
 *
 * The polynomials are minimax, found by the Remez exchange in 60 digits and
 * rounded; the exponent behind each is the relative error of the approximation
 * alone. float64 normals are within 4 units in the last place of the exact
 * image of their bits. */
#ifndef FORTET_DRAW_H
#define FORTET_DRAW_H

#include "exact.h"

/* Whose draws: seed, sample index of row 0, step and purpose (below 256). */
typedef struct {
  uint64_t seed, index;
  uint32_t step, purpose;
} fortet_draw;

/* How many coordinates one block of four words serves. */
enum { FORTET_DRAW_32 = 4, FORTET_DRAW_64 = 2 };

typedef struct {
  uint32_t v[4];
} fortet_words;

/* Ten rounds; the constants are the paper's. */
FORTET_HD fortet_words fortet_philox(uint64_t key, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3) {
  uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
#if defined(__CUDACC__)
#pragma unroll
#elif defined(__GNUC__) && !defined(__clang__)
#pragma GCC unroll 10
#endif
  for (int round = 0; round < 10; round++) {
    const uint64_t p = (uint64_t)0xD2511F53u * c0, q = (uint64_t)0xCD9E8D57u * c2;
    c0 = (uint32_t)(q >> 32) ^ c1 ^ k0;
    c2 = (uint32_t)(p >> 32) ^ c3 ^ k1;
    c1 = (uint32_t)q;
    c3 = (uint32_t)p;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  fortet_words w = {{c0, c1, c2, c3}};
  return w;
}

/* The words of one block of one row. */
FORTET_HD fortet_words fortet_draw_words(fortet_draw s, int64_t row, uint32_t block) {
  const uint64_t i = s.index + (uint64_t)row;
  return fortet_philox(s.seed, (uint32_t)i, (uint32_t)(i >> 32), s.step, s.purpose << 24 | block);
}

FORTET_HD uint64_t fortet_word64(uint32_t low, uint32_t high) { return (uint64_t)high << 32 | low; }

/* Uniform in (0, 1): (the top 23 bits + 1/2) / 2^23, exactly. */
FORTET_HD float fortet_uniform32(uint32_t w) { return fortet_float32(w >> 9 | 0x3f800000u) - 0x1.fffffep-1f; }

/* Uniform in (0, 1): (the top 52 bits + 1/2) / 2^52, exactly. */
FORTET_HD double fortet_uniform64(uint64_t w) {
  return fortet_float64(w >> 12 | 0x3ff0000000000000u) - 0x1.fffffffffffffp-1;
}

/* log u for u in (0, 1], normal: u = 2^k (1 + f) with 1 + f in [sqrt 1/2, sqrt 2),
 * log1p f = f - f^2/2 + f^3 Q(f). */
FORTET_HD float fortet_log32(float u) {
  const uint32_t i = fortet_bits32(u) + (0x3f800000u - 0x3f3504f3u);
  const float k = (float)((int32_t)(i >> 23) - 127);
  const float f = fortet_float32((i & 0x7fffffu) + 0x3f3504f3u) - 1.0f;
  float q = -0x1.41ef2p-4f; /* 2^-27.3 */
  q = fortet_fma32(q, f, 0x1.07d116p-3f);
  q = fortet_fma32(q, f, -0x1.0ce054p-3f);
  q = fortet_fma32(q, f, 0x1.226e42p-3f);
  q = fortet_fma32(q, f, -0x1.54788ep-3f);
  q = fortet_fma32(q, f, 0x1.99a596p-3f);
  q = fortet_fma32(q, f, -0x1.000222p-2f);
  q = fortet_fma32(q, f, 0x1.55554ap-2f);
  q = fortet_fma32(q, f, -0.5f);
  const float low = fortet_fma32(k, 0x1.7f7d1cp-20f, fortet_mul32(fortet_mul32(f, f), q));
  return fortet_fma32(k, 0x1.62e4p-1f, f + low);
}

/* As above, with s = f / (2 + f):
 * log1p f = 2 atanh s = f - (f^2/2 - s (f^2/2 + s^2 R(s^2))). */
FORTET_HD double fortet_log64(double u) {
  const uint64_t i = fortet_bits64(u) + (0x3ff0000000000000u - 0x3fe6a09e667f3bcdu);
  const double k = fortet_float64(i >> 52 | 0x4330000000000000u) - (0x1p52 + 1023.0);
  const double f = fortet_float64((i & 0xfffffffffffffu) + 0x3fe6a09e667f3bcdu) - 1.0;
  const double s = fortet_div64(f, 2.0 + f), z = fortet_mul64(s, s);
  double r = 0x1.2f5723cd59b19p-3; /* 2^-59.4 */
  r = fortet_fma64(r, z, 0x1.3999f70840165p-3);
  r = fortet_fma64(r, z, 0x1.7466884a6ea3bp-3);
  r = fortet_fma64(r, z, 0x1.c71c50b688ef1p-3);
  r = fortet_fma64(r, z, 0x1.2492494379623p-2);
  r = fortet_fma64(r, z, 0x1.999999997e3e2p-2);
  r = fortet_fma64(r, z, 0x1.5555555555597p-1);
  const double half = fortet_mul64(fortet_mul64(0.5, f), f);
  const double t = fortet_fma64(s, fortet_fma64(z, r, half), fortet_mul64(k, 0x1.a39ef35793c76p-33));
  return fortet_fma64(k, 0x1.62e42fee00000p-1, f - fortet_fma64(fortet_mul64(0.5, f), f, -t));
}

/* sin and cos of t right angles, |t| <= 1/2. */
FORTET_HD void fortet_sincos32(float t, float *sine, float *cosine) {
  const float z = fortet_mul32(t, t);
  float s = -0x1.2dd046p-8f; /* 2^-28.0 */
  s = fortet_fma32(s, z, 0x1.466032p-4f);
  s = fortet_fma32(s, z, -0x1.4abbc0p-1f);
  s = fortet_fma32(s, z, -0x1.777a5cp-25f);
  *sine = fortet_fma32(t, 0x1.921fb6p+0f, fortet_mul32(t, s));
  float c = 0x1.d9f7b8p-11f; /* 2^-33.8 */
  c = fortet_fma32(c, z, -0x1.55c664p-6f);
  c = fortet_fma32(c, z, 0x1.03c1dep-2f);
  c = fortet_fma32(c, z, -0x1.3bd3ccp+0f);
  *cosine = fortet_fma32(c, z, 1.0f);
}

FORTET_HD void fortet_sincos64(double t, double *sine, double *cosine) {
  const double z = fortet_mul64(t, t);
  double s = -0x1.6c63ccaef0f51p-31; /* 2^-68.7 */
  s = fortet_fma64(s, z, 0x1.e8eef00e4e32bp-25);
  s = fortet_fma64(s, z, -0x1.e3074b7dfb6c7p-19);
  s = fortet_fma64(s, z, 0x1.50783485eeb9ap-13);
  s = fortet_fma64(s, z, -0x1.32d2cce62ade6p-8);
  s = fortet_fma64(s, z, 0x1.466bc6775aadbp-4);
  s = fortet_fma64(s, z, -0x1.4abbce625be53p-1);
  s = fortet_fma64(s, z, 0x1.1a62633145c07p-54);
  *sine = fortet_fma64(t, 0x1.921fb54442d18p+0, fortet_mul64(t, s));
  double c = -0x1.b26fe9c7b3513p-28; /* 2^-64.4 */
  c = fortet_fma64(c, z, 0x1.f9cc6ad507055p-22);
  c = fortet_fma64(c, z, -0x1.a6d1ecb747b01p-16);
  c = fortet_fma64(c, z, 0x1.e1f50683b4378p-11);
  c = fortet_fma64(c, z, -0x1.55d3c7e3c95bcp-6);
  c = fortet_fma64(c, z, 0x1.03c1f081b5ab0p-2);
  c = fortet_fma64(c, z, -0x1.3bd3cc9be45dep+0);
  *cosine = fortet_fma64(c, z, 1.0);
}

/* Two normals of two words are turn(b, sqrt(radius2(a))).
 *
 * Radius: u = (31 bits + 1/2) / 2^31, rounded. Angle: the top two bits choose
 * the quadrant, the others t right angles within 1/2 of its middle; a quadrant
 * turns (cos, sin) by swapping them and their signs. */
FORTET_HD float fortet_radius2_32(uint32_t a) {
  const float u = fortet_mul32((float)(int32_t)(a >> 1) + 0.5f, 0x1p-31f);
  return fortet_mul32(-2.0f, fortet_log32(u));
}
FORTET_HD void fortet_turn32(uint32_t b, float radius, float *even, float *odd) {
  float sine, cosine;
  fortet_sincos32(fortet_mul32((float)(int32_t)(b << 2 | 2u), 0x1p-32f), &sine, &cosine);
  const uint32_t s = fortet_bits32(sine), c = fortet_bits32(cosine);
  const uint32_t swap = (s ^ c) & (0u - (b >> 30 & 1u));
  const uint32_t sign = 0x80000000u;
  *even = fortet_mul32(radius, fortet_float32((c ^ swap) ^ ((b ^ b << 1) & sign)));
  *odd = fortet_mul32(radius, fortet_float32((s ^ swap) ^ (b & sign)));
}
FORTET_HD void fortet_normal32(uint32_t a, uint32_t b, float *even, float *odd) {
  fortet_turn32(b, fortet_sqrt32(fortet_radius2_32(a)), even, odd);
}

/* As above of two double words, with u = (52 bits + 1/2) / 2^52, exactly. */
FORTET_HD double fortet_radius2_64(uint64_t a) { return fortet_mul64(-2.0, fortet_log64(fortet_uniform64(a))); }
FORTET_HD void fortet_turn64(uint64_t b, double radius, double *even, double *odd) {
  double sine, cosine;
  fortet_sincos64(fortet_uniform64(b << 2) - 0.5, &sine, &cosine);
  const uint64_t s = fortet_bits64(sine), c = fortet_bits64(cosine);
  const uint64_t swap = (s ^ c) & ((uint64_t)0 - (b >> 62 & 1u));
  const uint64_t sign = 0x8000000000000000u;
  *even = fortet_mul64(radius, fortet_float64((c ^ swap) ^ ((b ^ b << 1) & sign)));
  *odd = fortet_mul64(radius, fortet_float64((s ^ swap) ^ (b & sign)));
}
FORTET_HD void fortet_normal64(uint64_t a, uint64_t b, double *even, double *odd) {
  fortet_turn64(b, fortet_sqrt64(fortet_radius2_64(a)), even, odd);
}

#endif
