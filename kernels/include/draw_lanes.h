/* draw_lanes.h - draws for CPU kernels, many blocks at a time, in loops over
 * lanes that compilers turn into vector instructions. Every function is inlined
 * into the caller's instruction level; results are bit-equal on all of them.
 *
 * An array (n, d) is a sequence of n * blocks(d) blocks, row by row; block p
 * holds the elements from fortet_draw_first(p) on, width of them or, at the
 * end of a row, what is left.
 *
 * GCC vectorises a square root only where it need not set errno; a source that
 * includes this header includes nothing before it. */
#ifndef FORTET_DRAW_LANES_H
#define FORTET_DRAW_LANES_H

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-math-errno", "no-trapping-math")
#endif

#include "draw.h"

/* Lanes of one batch: arrays of 4 x 128 words stay in the first-level cache. */
enum { FORTET_LANES = 128 };

/* Tiles of CPU kernels that draw: so many blocks each. */
enum { FORTET_DRAW_TILE = 4096 };

/* The index of the first element of block p in an array of rows of d. */
FORTET_HD int64_t fortet_draw_first(int64_t p, int64_t d, int64_t width) {
  const int64_t blocks = (d + width - 1) / width;
  return p / blocks * d + p % blocks * width;
}

/* The words of blocks [p, p + count), count <= FORTET_LANES. Writes up to the
 * next multiple of 16. */
FORTET_HD void fortet_lane_words(fortet_draw s, int64_t blocks, int64_t p, int count,
                                 uint32_t v[4][FORTET_LANES]) {
  const int lanes = (count + 15) & ~15;
  int64_t row = p / blocks, block = p % blocks;
  if (blocks == 1) {
    for (int l = 0; l < lanes; l++) {
      const uint64_t i = s.index + (uint64_t)row + (uint64_t)l;
      v[0][l] = (uint32_t)i;
      v[1][l] = (uint32_t)(i >> 32);
      v[3][l] = s.purpose << 24;
    }
  } else {
    for (int l = 0; l < lanes; l++) {
      const uint64_t i = s.index + (uint64_t)row;
      v[0][l] = (uint32_t)i;
      v[1][l] = (uint32_t)(i >> 32);
      v[3][l] = s.purpose << 24 | (uint32_t)block;
      if (++block == blocks) block = 0, row++;
    }
  }
  for (int l = 0; l < lanes; l++) {
    const fortet_words w = fortet_philox(s.seed, v[0][l], v[1][l], s.step, v[3][l]);
    v[0][l] = w.v[0];
    v[1][l] = w.v[1];
    v[2][l] = w.v[2];
    v[3][l] = w.v[3];
  }
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
FORTET_HD uint32_t *fortet_draw_bits(fortet_draw s, int64_t d, int64_t p, int count, uint32_t *out) {
  uint32_t v[4][FORTET_LANES];
  fortet_lane_words(s, (d + 3) / 4, p, count, v);
  return fortet_unlane_u32(v, d, p, count, out);
}

FORTET_HD float *fortet_draw_uniform32(fortet_draw s, int64_t d, int64_t p, int count, float *out) {
  uint32_t v[4][FORTET_LANES];
  float u[4][FORTET_LANES];
  fortet_lane_words(s, (d + 3) / 4, p, count, v);
  for (int j = 0; j < 4; j++)
    for (int l = 0; l < count; l++) u[j][l] = fortet_uniform32(v[j][l]);
  return fortet_unlane_f32(u, d, p, count, out);
}

FORTET_HD double *fortet_draw_uniform64(fortet_draw s, int64_t d, int64_t p, int count, double *out) {
  uint32_t v[4][FORTET_LANES];
  double u[2][FORTET_LANES];
  fortet_lane_words(s, (d + 1) / 2, p, count, v);
  for (int j = 0; j < 2; j++)
    for (int l = 0; l < count; l++) u[j][l] = fortet_uniform64(fortet_word64(v[2 * j][l], v[2 * j + 1][l]));
  return fortet_unlane_f64(u, d, p, count, out);
}

FORTET_HD float *fortet_draw_normal32(fortet_draw s, int64_t d, int64_t p, int count, float *out) {
  uint32_t v[4][FORTET_LANES];
  float z[4][FORTET_LANES];
  const int lanes = (count + 15) & ~15, pairs = d > 2 ? 2 : 1;
  fortet_lane_words(s, (d + 3) / 4, p, count, v);
  for (int j = 0; j < pairs; j++)
    for (int l = 0; l < lanes; l++) fortet_normal32(v[2 * j][l], v[2 * j + 1][l], &z[2 * j][l], &z[2 * j + 1][l]);
  return fortet_unlane_f32(z, d, p, count, out);
}

FORTET_HD double *fortet_draw_normal64(fortet_draw s, int64_t d, int64_t p, int count, double *out) {
  uint32_t v[4][FORTET_LANES];
  double z[2][FORTET_LANES];
  const int lanes = (count + 15) & ~15;
  fortet_lane_words(s, (d + 1) / 2, p, count, v);
  for (int l = 0; l < lanes; l++)
    fortet_normal64(fortet_word64(v[0][l], v[1][l]), fortet_word64(v[2][l], v[3][l]), &z[0][l], &z[1][l]);
  return fortet_unlane_f64(z, d, p, count, out);
}

#endif
