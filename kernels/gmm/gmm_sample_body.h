/* gmm_sample_body.h - sampling on the CPU in one element type, REAL of BITS;
 * read twice by gmm_sample_cpu.c. Arrays [ROWS] go along the rows of a tile. */

/* sum[0] is the sum of the chains. */
FORTET_HD void F(fold)(REAL sum[CLASSES][ROWS], int classes) {
  for (int h = CLASSES / 2; h > 0; h /= 2)
    for (int c = 0; c < h && c + h < classes; c++)
      for (int l = 0; l < ROWS; l++) sum[c][l] += sum[c + h][l];
}

/* So many rows of a tile have their sums in registers at a time. */
enum { F(HELD) = 64 / sizeof(REAL) };

/* The coordinates of a tile's rows, (ROWS / HELD, d, HELD): HELD rows at a time,
 * coordinates in the order in which the chains take them. */
FORTET_HD void F(arrange)(const REAL *x0, int rows, int64_t d, REAL *x) {
  const int64_t stride = stride_of(d);
  for (int l0 = 0; l0 < ROWS; l0 += F(HELD))
    for (int c = 0; c < classes_of(d); c++)
      for (int64_t k = c; k < d; k += stride, x += F(HELD))
        for (int l = 0; l < F(HELD); l++) x[l] = l0 + l < rows ? x0[(l0 + l) * d + k] : 0;
}

/* sum[0] = a'x of the rows of a tile. */
FORTET_HD void F(project)(const REAL *a, const REAL *x, int64_t d, REAL sum[CLASSES][ROWS]) {
  const int64_t stride = stride_of(d);
  const int classes = classes_of(d);
  for (int l0 = 0; l0 < ROWS; l0 += F(HELD))
    for (int c = 0; c < classes; c++) {
      REAL acc[F(HELD)] = {0};
      for (int64_t k = c; k < d; k += stride, x += F(HELD)) {
        const REAL w = a[k];
        for (int l = 0; l < F(HELD); l++) acc[l] = F(fortet_fma)(w, x[l], acc[l]);
      }
      memcpy(sum[c] + l0, acc, sizeof acc);
    }
  F(fold)(sum, classes);
}

/* sum[0] = r'x + x'(S - I)x / 2 of component j. */
FORTET_HD void F(bracket)(const fortet_mixture *m, int64_t j, const REAL *x, REAL sum[CLASSES][ROWS]) {
  const int64_t d = m->d, stride = stride_of(d);
  const int classes = classes_of(d);
  const REAL *const r = (const REAL *)m->means + j * d, *const s = (const REAL *)m->scales + j * d;
  const REAL half = (REAL)0.5;
  if (m->axes) {
    const REAL *const axes = (const REAL *)m->axes + j * d * d;
    memset(sum, 0, (size_t)classes * sizeof sum[0]);
    const REAL *x0 = x; /* coordinate p of the first rows */
    for (int c = 0; c < classes; c++)
      for (int64_t p = c; p < d; p += stride, x0 += F(HELD)) {
        REAL y[CLASSES][ROWS];
        F(project)(axes + p * d, x, d, y);
        REAL *const acc = sum[c];
        const REAL h = F(fortet_fma)(half, s[p], -half), rp = r[p];
        for (int l0 = 0; l0 < ROWS; l0 += F(HELD))
          for (int l = 0; l < F(HELD); l++)
            acc[l0 + l] = F(fortet_fma)(F(fortet_mul)(h, y[0][l0 + l]), y[0][l0 + l],
                                        F(fortet_fma)(rp, x0[l0 * d + l], acc[l0 + l]));
      }
  } else {
    for (int l0 = 0; l0 < ROWS; l0 += F(HELD))
      for (int c = 0; c < classes; c++) {
        REAL acc[F(HELD)] = {0};
        for (int64_t k = c; k < d; k += stride, x += F(HELD)) {
          const REAL h = F(fortet_fma)(half, s[k], -half), rk = r[k];
          for (int l = 0; l < F(HELD); l++) acc[l] = F(fortet_fma)(x[l], F(fortet_fma)(h, x[l], rk), acc[l]);
        }
        memcpy(sum[c] + l0, acc, sizeof acc);
      }
  }
  F(fold)(sum, classes);
}

/* The components of a tile's rows by inversion of their distribution function;
 * -1 where it is NaN. cumulative is room for (k, ROWS). */
FORTET_HD void F(choose)(const fortet_gmm_sample_args *a, int64_t row, int rows, const REAL *x, REAL *cumulative,
                         INTEGER *component, int level) {
  const int64_t k = a->m.k;
  const REAL inverse = (REAL)(1 / a->m.epsilon);
  REAL sum[CLASSES][ROWS], top[ROWS], total[ROWS], target[ROWS];
  for (int l = 0; l < ROWS; l++) top[l] = (REAL)-FORTET_INF, total[l] = 0, target[l] = 0, component[l] = 0;
  for (int64_t j = 0; j < k; j++) {
    const REAL logit = ((const REAL *)a->m.logits)[j];
    REAL *const z = cumulative + j * ROWS;
    F(bracket)(&a->m, j, x, sum);
    for (int l = 0; l < ROWS; l++) {
      z[l] = F(fortet_fma)(sum[0][l], inverse, logit);
      top[l] = z[l] > top[l] ? z[l] : top[l];
    }
  }
  for (int64_t j = 0; j < k; j++) {
    REAL *const z = cumulative + j * ROWS;
    for (int l = 0; l < ROWS; l++) {
      total[l] += F(fortet_gmm_exp)(z[l] - top[l]);
      z[l] = total[l];
    }
  }
  F(fortet_draw_uniform)(a->draw, 1, row, rows, target, level);
  for (int l = 0; l < ROWS; l++) target[l] = F(fortet_mul)(target[l], total[l]);
  for (int64_t j = 0; j < k; j++) {
    const REAL *const z = cumulative + j * ROWS;
    for (int l = 0; l < ROWS; l++) component[l] += z[l] <= target[l];
  }
  for (int l = 0; l < ROWS; l++) component[l] = total[l] >= 1 ? component[l] : -1;
}

/* a'x of one row. */
FORTET_HD REAL F(dot)(const REAL *a, const REAL *x, int64_t d) {
  if (d <= FORTET_GMM_SAMPLE_CHAIN) {
    REAL acc = 0;
    for (int64_t k = 0; k < d; k++) acc = F(fortet_fma)(a[k], x[k], acc);
    return acc;
  }
  REAL sum[CLASSES] = {0};
  int64_t k = 0;
  for (; k + CLASSES <= d; k += CLASSES)
    for (int c = 0; c < CLASSES; c++) sum[c] = F(fortet_fma)(a[k + c], x[k + c], sum[c]);
  for (int c = 0; k + c < d; c++) sum[c] = F(fortet_fma)(a[k + c], x[k + c], sum[c]);
  for (int h = CLASSES / 2; h > 0; h /= 2)
    for (int c = 0; c < h; c++) sum[c] += sum[c + h];
  return sum[0];
}

/* x1 of one row: of normals and sqrt(epsilon s) in noise and wide, both of
 * which it overwrites, to noise. */
FORTET_HD void F(place)(const fortet_mixture *m, int64_t j, const REAL *x, REAL *noise, REAL *wide) {
  const int64_t d = m->d;
  const REAL *const r = (const REAL *)m->means + j * d, *const s = (const REAL *)m->scales + j * d;
  if (!m->axes) {
    for (int64_t k = 0; k < d; k++) noise[k] = F(fortet_fma)(wide[k], noise[k], F(fortet_fma)(s[k], x[k], r[k]));
    return;
  }
  const REAL *const axes = (const REAL *)m->axes + j * d * d;
  for (int64_t p = 0; p < d; p++)
    noise[p] = F(fortet_fma)(s[p], F(dot)(axes + p * d, x, d), F(fortet_mul)(wide[p], noise[p]));
  memcpy(wide, r, (size_t)d * sizeof(REAL));
  for (int64_t p = 0; p < d; p++)
    for (int64_t k = 0; k < d; k++) wide[k] = F(fortet_fma)(axes[p * d + k], noise[p], wide[k]);
  memcpy(noise, wide, (size_t)d * sizeof(REAL));
}

/* xt of rows of x1. */
FORTET_HD void F(interpolate)(const fortet_gmm_sample_args *a, int64_t row, int rows, const REAL *x1, int level) {
  enum { WIDTH = JOIN(FORTET_DRAW_, BITS) };
  const int64_t d = a->m.d, blocks = (d + WIDTH - 1) / WIDTH, stop = (row + rows) * blocks;
  const REAL epsilon = (REAL)a->m.epsilon;
  const REAL *const x0 = (const REAL *)a->x0 + row * d;
  REAL *const xt = (REAL *)a->xt + row * d;
  REAL far[ROWS], near[ROWS], spread[ROWS], noise[WIDTH * FORTET_LANES];
  for (int l = 0; l < ROWS; l++) {
    far[l] = l < rows && a->t ? ((const REAL *)a->t)[row + l] : (REAL)a->t0;
    near[l] = 1 - far[l];
    spread[l] = F(fortet_mul)(epsilon, F(fortet_mul)(far[l], near[l]));
  }
  F(fortet_lane_sqrt)(spread, ROWS, level);
  fortet_draw draw = a->draw;
  draw.purpose += 2;
  for (int64_t p = row * blocks; p < stop; p += FORTET_LANES) {
    const int have = stop - p < FORTET_LANES ? (int)(stop - p) : FORTET_LANES;
    const int64_t at = fortet_draw_first(p, d, WIDTH) - row * d;
    const int count = (int)(F(fortet_draw_normal)(draw, d, p, have, noise, level) - noise);
    int64_t l = at / d, k = at % d;
    for (int e = 0; e < count; l++, k = 0) {
      const int run = d - k < count - e ? (int)(d - k) : count - e;
      const REAL f = far[l], n = near[l], s = spread[l];
      FORTET_ELEMENTWISE
      for (int i = e; i < e + run; i++)
        xt[at + i] = F(fortet_fma)(s, noise[i], F(fortet_fma)(f, x1[at + i], F(fortet_mul)(n, x0[at + i])));
      e += run;
    }
  }
}

FORTET_HD int F(sample)(const fortet_gmm_sample_args *a, int64_t begin, int64_t end, int level) {
  enum { WIDTH = JOIN(FORTET_DRAW_, BITS) };
  const int64_t d = a->m.d, blocks = (d + WIDTH - 1) / WIDTH;
  const REAL epsilon = (REAL)a->m.epsilon;
  REAL *const room = malloc((size_t)(2 * d + a->m.k) * ROWS * sizeof(REAL));
  if (!room) return FORTET_OUT_OF_MEMORY;
  REAL *const x = room, *const x1 = x + d * ROWS, *const cumulative = x1 + d * ROWS;
  INTEGER component[ROWS];
  for (int64_t tile = begin; tile < end; tile++) {
    const int64_t row = tile * ROWS;
    const int rows = a->n - row < ROWS ? (int)(a->n - row) : ROWS;
    const REAL *const x0 = (const REAL *)a->x0 + row * d;
    F(arrange)(x0, rows, d, x);
    F(choose)(a, row, rows, x, cumulative, component, level);
    if (a->component)
      for (int l = 0; l < rows; l++) ((int32_t *)a->component)[row + l] = (int32_t)component[l];
    if (!a->x1 && !a->xt) continue;

    REAL *const wide = x; /* sqrt(epsilon s), (rows, d): x is not needed any more */
    memset(wide, 0, (size_t)(d * ROWS) * sizeof(REAL));
    for (int l = 0; l < rows; l++) {
      if (component[l] < 0) continue;
      const REAL *const s = (const REAL *)a->m.scales + component[l] * d;
      for (int64_t k = 0; k < d; k++) wide[l * d + k] = F(fortet_mul)(epsilon, s[k]);
    }
    for (int64_t at = 0; at < d * ROWS; at += ROWS) F(fortet_lane_sqrt)(wide + at, ROWS, level);
    fortet_draw draw = a->draw;
    draw.purpose++;
    REAL *out = x1;
    for (int64_t p = row * blocks, stop = (row + rows) * blocks; p < stop; p += FORTET_LANES)
      out = F(fortet_draw_normal)(draw, d, p, stop - p < FORTET_LANES ? (int)(stop - p) : FORTET_LANES, out, level);
    for (int l = 0; l < rows; l++) {
      if (component[l] >= 0) F(place)(&a->m, component[l], x0 + l * d, x1 + l * d, wide + l * d);
      else
        for (int64_t k = 0; k < d; k++) x1[l * d + k] = (REAL)NAN;
    }
    if (a->xt) F(interpolate)(a, row, rows, x1, level);
    if (a->x1) memcpy((REAL *)a->x1 + row * d, x1, (size_t)(rows * d) * sizeof(REAL)); /* may be x0: last */
  }
  free(room);
  return FORTET_OK;
}
