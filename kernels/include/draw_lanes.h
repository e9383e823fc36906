/* draw_lanes.h - draws for CPU kernels, many blocks at a time, in loops over
 * lanes that compilers turn into vector instructions. FORTET_HD functions are
 * inlined into their caller's instruction level (levels.h), which they are
 * told; results are bit-equal at all levels.
 *
 * An array (n, d) is a sequence of n * blocks(d) blocks, row by row; block p
 * holds the elements from fortet_draw_first(p) on, width of them or, at the
 * end of a row, what is left. */
#ifndef FORTET_DRAW_LANES_H
#define FORTET_DRAW_LANES_H

#include "draw.h"
#include "levels.h"

#if defined(FORTET_X86_LEVELS)
#include <immintrin.h>
#endif

/* Lanes of one batch: arrays of 4 x 128 words stay in the first-level cache. */
enum { FORTET_LANES = 128 };

/* Tiles of CPU kernels that draw: so many blocks each. */
enum { FORTET_DRAW_TILE = 4096 };

/* The index of the first element of block p in an array of rows of d. */
FORTET_HD int64_t fortet_draw_first(int64_t p, int64_t d, int64_t width) {
  const int64_t blocks = (d + width - 1) / width;
  return p / blocks * d + p % blocks * width;
}

/* ---- What vectorisers do not find: the wide products of Philox, which come
 * for every other lane; and square roots, which might have to set errno. */

#define FORTET_PHILOX_LANES(AT, NAME, V, STEP, F, COMBINE) \
  AT static void NAME(uint64_t seed, uint32_t step, int lanes, uint32_t v[4][FORTET_LANES]) { \
    const V m0 = F##_set1_epi64x(0xD2511F53), m1 = F##_set1_epi64x(0xCD9E8D57); \
    for (int l = 0; l < lanes; l += STEP) { \
      const V w0 = F##_LOAD(&v[0][l]), w1 = F##_LOAD(&v[1][l]), w3 = F##_LOAD(&v[3][l]); \
      /* even lanes and odd ones, in the low halves of 64-bit lanes */ \
      V a0 = w0, a1 = w1, a2 = F##_set1_epi32((int)step), a3 = w3; \
      V b0 = F##_srli_epi64(w0, 32), b1 = F##_srli_epi64(w1, 32), b2 = a2, b3 = F##_srli_epi64(w3, 32); \
      uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32); \
      for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) { \
        const V key0 = F##_set1_epi32((int)k0), key1 = F##_set1_epi32((int)k1); \
        const V ap = F##_mul_epu32(m0, a0), aq = F##_mul_epu32(m1, a2); \
        const V bp = F##_mul_epu32(m0, b0), bq = F##_mul_epu32(m1, b2); \
        a0 = F##_XOR(F##_srli_epi64(aq, 32), F##_XOR(a1, key0)); \
        b0 = F##_XOR(F##_srli_epi64(bq, 32), F##_XOR(b1, key0)); \
        a2 = F##_XOR(F##_srli_epi64(ap, 32), F##_XOR(a3, key1)); \
        b2 = F##_XOR(F##_srli_epi64(bp, 32), F##_XOR(b3, key1)); \
        a1 = aq, b1 = bq, a3 = ap, b3 = bp; \
      } \
      F##_STORE(&v[0][l], COMBINE(a0, F##_slli_epi64(b0, 32))); \
      F##_STORE(&v[1][l], COMBINE(a1, F##_slli_epi64(b1, 32))); \
      F##_STORE(&v[2][l], COMBINE(a2, F##_slli_epi64(b2, 32))); \
      F##_STORE(&v[3][l], COMBINE(a3, F##_slli_epi64(b3, 32))); \
    } \
  }

#if defined(FORTET_X86_LEVELS)
#define _mm256_LOAD(p) _mm256_loadu_si256((const __m256i *)(p))
#define _mm256_STORE(p, x) _mm256_storeu_si256((__m256i *)(p), x)
#define _mm256_XOR _mm256_xor_si256
#define FORTET_COMBINE_256(even, odd) _mm256_blend_epi32(even, odd, 0xaa)
#define _mm512_LOAD(p) _mm512_loadu_si512(p)
#define _mm512_STORE(p, x) _mm512_storeu_si512(p, x)
#define _mm512_XOR _mm512_xor_si512
#define _mm512_set1_epi64x _mm512_set1_epi64
#define FORTET_COMBINE_512(even, odd) _mm512_mask_blend_epi32(0xaaaa, even, odd)
FORTET_PHILOX_LANES(FORTET_AT_AVX2, fortet_philox_avx2, __m256i, 8, _mm256, FORTET_COMBINE_256)
FORTET_PHILOX_LANES(FORTET_AT_AVX512, fortet_philox_avx512, __m512i, 16, _mm512, FORTET_COMBINE_512)

FORTET_AT_AVX2 static void fortet_sqrt32_avx2(float *x, int lanes) {
  for (int l = 0; l < lanes; l += 8) _mm256_storeu_ps(x + l, _mm256_sqrt_ps(_mm256_loadu_ps(x + l)));
}
FORTET_AT_AVX2 static void fortet_sqrt64_avx2(double *x, int lanes) {
  for (int l = 0; l < lanes; l += 4) _mm256_storeu_pd(x + l, _mm256_sqrt_pd(_mm256_loadu_pd(x + l)));
}
FORTET_AT_AVX512 static void fortet_sqrt32_avx512(float *x, int lanes) {
  for (int l = 0; l < lanes; l += 16) _mm512_storeu_ps(x + l, _mm512_sqrt_ps(_mm512_loadu_ps(x + l)));
}
FORTET_AT_AVX512 static void fortet_sqrt64_avx512(double *x, int lanes) {
  for (int l = 0; l < lanes; l += 8) _mm512_storeu_pd(x + l, _mm512_sqrt_pd(_mm512_loadu_pd(x + l)));
}
#endif

/* lanes is a multiple of 16 in what follows. v holds the counters but v[2],
 * which is step, and is overwritten by the words. */
FORTET_HD void fortet_lane_philox(uint64_t seed, uint32_t step, int lanes, uint32_t v[4][FORTET_LANES], int level) {
#if defined(FORTET_X86_LEVELS)
  if (level == FORTET_AVX512) {
    fortet_philox_avx512(seed, step, lanes, v);
    return;
  }
  if (level == FORTET_AVX2) {
    fortet_philox_avx2(seed, step, lanes, v);
    return;
  }
#endif
  (void)level;
  for (int l = 0; l < lanes; l++) {
    const fortet_words w = fortet_philox(seed, v[0][l], v[1][l], step, v[3][l]);
    for (int j = 0; j < 4; j++) v[j][l] = w.v[j];
  }
}

FORTET_HD void fortet_lane_sqrt32(float *x, int lanes, int level) {
#if defined(FORTET_X86_LEVELS)
  if (level == FORTET_AVX512) {
    fortet_sqrt32_avx512(x, lanes);
    return;
  }
  if (level == FORTET_AVX2) {
    fortet_sqrt32_avx2(x, lanes);
    return;
  }
#endif
  (void)level;
  for (int l = 0; l < lanes; l++) x[l] = fortet_sqrt32(x[l]);
}

FORTET_HD void fortet_lane_sqrt64(double *x, int lanes, int level) {
#if defined(FORTET_X86_LEVELS)
  if (level == FORTET_AVX512) {
    fortet_sqrt64_avx512(x, lanes);
    return;
  }
  if (level == FORTET_AVX2) {
    fortet_sqrt64_avx2(x, lanes);
    return;
  }
#endif
  (void)level;
  for (int l = 0; l < lanes; l++) x[l] = fortet_sqrt64(x[l]);
}

/* ---- Draws of blocks. */

/* How many lanes serve so many blocks. */
FORTET_HD int fortet_lanes(int count) { return (count + 15) & ~15; }

/* The words of blocks [p, p + count), count <= FORTET_LANES. */
FORTET_HD void fortet_lane_words(fortet_draw s, int64_t blocks, int64_t p, int count, uint32_t v[4][FORTET_LANES],
                                 int level) {
  const int lanes = fortet_lanes(count);
  const uint64_t first = s.index + (uint64_t)(p / blocks);
  uint32_t block = (uint32_t)(p % blocks);
  if (blocks == 1) {
    for (int l = 0; l < lanes; l++) {
      const uint64_t i = first + (uint64_t)l;
      v[0][l] = (uint32_t)i;
      v[1][l] = (uint32_t)(i >> 32);
      v[3][l] = s.purpose << 24;
    }
  } else {
    uint64_t i = first;
    for (int l = 0; l < lanes; l++) {
      v[0][l] = (uint32_t)i;
      v[1][l] = (uint32_t)(i >> 32);
      v[3][l] = s.purpose << 24 | block;
      const int last = ++block == (uint32_t)blocks;
      i += (uint64_t)last;
      block = last ? 0 : block;
    }
  }
  fortet_lane_philox(s.seed, s.step, lanes, v, level);
}

/* Copies the lanes of count blocks, the first of which is block p, to
 * consecutive elements. Answers the end. */
#define FORTET_UNLANE(NAME, T, WIDTH) \
  FORTET_HD T *NAME(T v[WIDTH][FORTET_LANES], int64_t d, int64_t p, int count, T *out) { \
    const int64_t blocks = (d + WIDTH - 1) / WIDTH; \
    if (d % WIDTH == 0) { \
      for (int l = 0; l < count; l++) \
        for (int j = 0; j < WIDTH; j++) out[WIDTH * l + j] = v[j][l]; \
      return out + (int64_t)count * WIDTH; \
    } \
    if (d == 2) { \
      for (int l = 0; l < count; l++) out[2 * l] = v[0][l], out[2 * l + 1] = v[1][l]; \
      return out + (int64_t)count * 2; \
    } \
    int64_t left = d - p % blocks * WIDTH; /* in this row */ \
    for (int l = 0; l < count; l++) { \
      const int have = left < WIDTH ? (int)left : WIDTH; \
      for (int j = 0; j < have; j++) *out++ = v[j][l]; \
      left = left > WIDTH ? left - WIDTH : d; \
    } \
    return out; \
  }
FORTET_UNLANE(fortet_unlane_u32, uint32_t, 4)
FORTET_UNLANE(fortet_unlane_f32, float, 4)
FORTET_UNLANE(fortet_unlane_f64, double, 2)
#undef FORTET_UNLANE

/* Each of the following writes the draws of blocks [p, p + count) of an array
 * of rows of d, count <= FORTET_LANES, to consecutive elements. They answer the
 * end. */
FORTET_HD uint32_t *fortet_draw_bits(fortet_draw s, int64_t d, int64_t p, int count, uint32_t *out, int level) {
  uint32_t v[4][FORTET_LANES];
  fortet_lane_words(s, (d + 3) / 4, p, count, v, level);
  return fortet_unlane_u32(v, d, p, count, out);
}

FORTET_HD float *fortet_draw_uniform32(fortet_draw s, int64_t d, int64_t p, int count, float *out, int level) {
  uint32_t v[4][FORTET_LANES];
  float u[4][FORTET_LANES];
  fortet_lane_words(s, (d + 3) / 4, p, count, v, level);
  for (int j = 0; j < 4; j++)
    for (int l = 0; l < fortet_lanes(count); l++) u[j][l] = fortet_uniform32(v[j][l]);
  return fortet_unlane_f32(u, d, p, count, out);
}

FORTET_HD double *fortet_draw_uniform64(fortet_draw s, int64_t d, int64_t p, int count, double *out, int level) {
  uint32_t v[4][FORTET_LANES];
  double u[2][FORTET_LANES];
  fortet_lane_words(s, (d + 1) / 2, p, count, v, level);
  for (int j = 0; j < 2; j++)
    for (int l = 0; l < fortet_lanes(count); l++)
      u[j][l] = fortet_uniform64(fortet_word64(v[2 * j][l], v[2 * j + 1][l]));
  return fortet_unlane_f64(u, d, p, count, out);
}

FORTET_HD float *fortet_draw_normal32(fortet_draw s, int64_t d, int64_t p, int count, float *out, int level) {
  uint32_t v[4][FORTET_LANES];
  float z[4][FORTET_LANES], radius[FORTET_LANES];
  const int lanes = fortet_lanes(count), pairs = d > 2 ? 2 : 1;
  fortet_lane_words(s, (d + 3) / 4, p, count, v, level);
  for (int j = 0; j < pairs; j++) {
    for (int l = 0; l < lanes; l++) radius[l] = fortet_radius2_32(v[2 * j][l]);
    fortet_lane_sqrt32(radius, lanes, level);
    for (int l = 0; l < lanes; l++) fortet_turn32(v[2 * j + 1][l], radius[l], &z[2 * j][l], &z[2 * j + 1][l]);
  }
  return fortet_unlane_f32(z, d, p, count, out);
}

FORTET_HD double *fortet_draw_normal64(fortet_draw s, int64_t d, int64_t p, int count, double *out, int level) {
  uint32_t v[4][FORTET_LANES];
  double z[2][FORTET_LANES], radius[FORTET_LANES];
  const int lanes = fortet_lanes(count);
  fortet_lane_words(s, (d + 1) / 2, p, count, v, level);
  for (int l = 0; l < lanes; l++) radius[l] = fortet_radius2_64(fortet_word64(v[0][l], v[1][l]));
  fortet_lane_sqrt64(radius, lanes, level);
  for (int l = 0; l < lanes; l++)
    fortet_turn64(fortet_word64(v[2][l], v[3][l]), radius[l], &z[0][l], &z[1][l]);
  return fortet_unlane_f64(z, d, p, count, out);
}

#endif
