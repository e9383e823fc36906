/* cost_tile.h - the tiles of one element type at one instruction level;
 * cost_cpu.c includes it with
 *
 *     TILES      name of the function that is defined
 *     AT         its target attribute
 *     T, LANES   element type, elements of a vector
 *     ROWS       ROWS(X) is X(0) X(1) ... for the rows of a register block
 *     ROW_COUNT  how many these are: a divisor of ROW_ROOM
 *     SQRT       square root of a vector in memory, in place
 *
 * A register block is ROW_COUNT rows by two vectors of columns: its sums stay
 * in registers while a block of coordinates passes, of which a panel of y lies
 * transposed in the first-level cache and x is broadcast from where it is. */

typedef T VECTOR(TILES) __attribute__((vector_size(LANES * sizeof(T)), aligned(sizeof(T)), may_alias));
#define V VECTOR(TILES)
#define LOAD(p) (*(const V *)(p))
#define STORE(p, v) (*(V *)(p) = (v))

/* 1 / |p|, by LANES sums. */
AT static T SUBNAME(TILES, inverse)(const T *p, int64_t d) {
  V sums = (V){0};
  int64_t k = 0;
  for (; k + LANES <= d; k += LANES) {
    const V v = LOAD(p + k);
    sums += v * v;
  }
  T sum = 0;
  for (int l = 0; l < LANES; l++) sum += sums[l];
  for (; k < d; k++) sum += p[k] * p[k];
  return (T)1 / (T)sqrt((double)sum);
}

/* sums[r][0, 2 LANES) += |x_r - y_j|^2 over count coordinates. */
AT static void SUBNAME(TILES, block)(const T *const *x, const T *panel, int count, T *sums, int first) {
#define POINT(r) const T *const x##r = x[r];
#define BEGIN(r) \
  V a##r = first ? (V){0} : LOAD(sums + r * FORTET_COST_COLUMNS), \
    b##r = first ? (V){0} : LOAD(sums + r * FORTET_COST_COLUMNS + LANES);
#define STEP(r) \
  { \
    const T p = x##r[k]; \
    const V s = p - y0, t = p - y1; \
    a##r += s * s; \
    b##r += t * t; \
  }
#define END(r) \
  STORE(sums + r * FORTET_COST_COLUMNS, a##r); \
  STORE(sums + r * FORTET_COST_COLUMNS + LANES, b##r);
  ROWS(POINT)
  ROWS(BEGIN)
  for (int k = 0; k < count; k++, panel += FORTET_COST_COLUMNS) {
    const V y0 = LOAD(panel), y1 = LOAD(panel + LANES);
    ROWS(STEP)
  }
  ROWS(END)
#undef POINT
#undef BEGIN
#undef STEP
#undef END
}

AT static int TILES(const fortet_cost_args *a, int64_t begin, int64_t end) {
  const int64_t n = a->n, m = a->m, d = a->d;
  const int64_t across = (m + FORTET_COST_COLUMNS - 1) / FORTET_COST_COLUMNS;
  const int64_t down = (n + FORTET_COST_ROWS - 1) / FORTET_COST_ROWS;
  const int cosine = a->cost == FORTET_COSINE;
  T sums[ROW_ROOM * FORTET_COST_COLUMNS] ALIGNED, panel[DEPTH * FORTET_COST_COLUMNS] ALIGNED;
  T unit[ROW_COUNT * DEPTH] ALIGNED; /* coordinates of unit vectors, for the cosine */
  T row_inverse[FORTET_COST_ROWS], column_inverse[FORTET_COST_COLUMNS];

  for (int64_t tile = begin; tile < end; tile++) {
    const int64_t q = tile / (across * down);
    const int64_t i0 = tile / across % down * FORTET_COST_ROWS, j0 = tile % across * FORTET_COST_COLUMNS;
    const int rows = n - i0 < FORTET_COST_ROWS ? (int)(n - i0) : FORTET_COST_ROWS;
    const int columns = m - j0 < FORTET_COST_COLUMNS ? (int)(m - j0) : FORTET_COST_COLUMNS;
    const T *const x = (const T *)a->x + q * a->x_stride + i0 * d;
    const T *const y = (const T *)a->y + q * a->y_stride + j0 * d;
    if (cosine) {
      for (int i = 0; i < rows; i++) row_inverse[i] = SUBNAME(TILES, inverse)(x + i * d, d);
      for (int j = 0; j < columns; j++) column_inverse[j] = SUBNAME(TILES, inverse)(y + j * d, d);
    }
    for (int64_t k0 = 0; k0 < d; k0 += DEPTH) {
      const int count = d - k0 < DEPTH ? (int)(d - k0) : DEPTH;
      for (int j = 0; j < FORTET_COST_COLUMNS; j++) { /* columns behind the last one repeat it */
        const int c = j < columns ? j : columns - 1;
        const T *const from = y + c * d + k0;
        if (cosine)
          for (int k = 0; k < count; k++) panel[k * FORTET_COST_COLUMNS + j] = from[k] * column_inverse[c];
        else
          for (int k = 0; k < count; k++) panel[k * FORTET_COST_COLUMNS + j] = from[k];
      }
      for (int i = 0; i < rows; i += ROW_COUNT) {
        const T *point[ROW_COUNT];
        for (int r = 0; r < ROW_COUNT; r++) { /* and so do rows */
          const int c = i + r < rows ? i + r : rows - 1;
          point[r] = x + c * d + k0;
          if (!cosine) continue;
          T *const to = unit + r * DEPTH;
          for (int k = 0; k < count; k++) to[k] = point[r][k] * row_inverse[c];
          point[r] = to;
        }
        for (int j = 0; j < columns; j += 2 * LANES)
          SUBNAME(TILES, block)(point, panel + j, count, sums + i * FORTET_COST_COLUMNS + j, k0 == 0);
      }
    }
    const int filled = rows * FORTET_COST_COLUMNS;
    if (cosine || a->cost == FORTET_HALF_SQEUCLIDEAN)
      for (int e = 0; e < filled; e += LANES) STORE(sums + e, LOAD(sums + e) * (T)0.5);
    else if (a->cost == FORTET_EUCLIDEAN)
      for (int e = 0; e < filled; e += LANES) SQRT(sums + e);
    if (a->out) {
      T *const out = (T *)a->out + (q * n + i0) * m + j0;
      for (int i = 0; i < rows; i++) memcpy(out + i * m, sums + i * FORTET_COST_COLUMNS, (size_t)columns * sizeof(T));
    }
    if (a->out_t) TRANSPOSE(sums, rows, columns, (T *)a->out_t + (q * m + j0) * n + i0, n);
  }
  return FORTET_OK;
}

#undef V
#undef LOAD
#undef STORE
#undef TILES
#undef AT
#undef T
#undef LANES
#undef ROWS
#undef ROW_COUNT
#undef SQRT
#undef TRANSPOSE
