/* gemm_few.h - products with at most FEW rows, which read B once, as it lies:
 * sums of its rows where columns are neighbours, else dot products with them.
 * Included by gemm_body.h. bytes: those of B; 2 FEW flops an element, at most. */

#define TERMS 8           /* rows of B that pass together */
#define DOT_DEPTH 512     /* terms of a dot product before they are added to the rest */

/* acc_r += sum of count terms of row r of A times rows of B, for columns [0, columns). */
INLINE void N(add_rows)(const REAL (*x)[TERMS], const REAL *b, int64_t row, int64_t columns, REAL (*acc)[FEW_COLUMNS], const int R,
                        const int count) {
  int64_t j = 0;
  for (; j + LANES <= columns; j += LANES) {
    VEC t[FEW], v = LOAD(b + j);
    UNROLL for (int r = 0; r < R; r++) t[r] = x[r][0] * v;
    UNROLL for (int u = 1; u < count; u++) {
      v = LOAD(b + u * row + j);
      UNROLL for (int r = 0; r < R; r++) t[r] += x[r][u] * v;
    }
    UNROLL for (int r = 0; r < R; r++) STORE(acc[r] + j, LOAD(acc[r] + j) + t[r]);
  }
  for (; j < columns; j++)
    UNROLL for (int r = 0; r < R; r++) {
      REAL t = x[r][0] * b[j];
      UNROLL for (int u = 1; u < count; u++) t += x[r][u] * b[u * row + j];
      acc[r][j] += t;
    }
}

INLINE void N(sums_of_rows)(const REAL *a, const fortet_gemm_matrix *as, const REAL *b, int64_t row, int64_t columns, int64_t depth,
                            REAL (*acc)[FEW_COLUMNS], const int R) {
  REAL x[FEW][TERMS];
  int64_t k = 0;
  for (; k + TERMS <= depth; k += TERMS) {
    for (int r = 0; r < R; r++)
      for (int u = 0; u < TERMS; u++) x[r][u] = a[r * as->row + (k + u) * as->column];
    N(add_rows)(x, b + k * row, row, columns, acc, R, TERMS);
  }
  for (; k < depth; k++) {
    for (int r = 0; r < R; r++) x[r][0] = a[r * as->row + k * as->column];
    N(add_rows)(x, b + k * row, row, columns, acc, R, 1);
  }
}

/* acc_rj += the product of row r of x and row j of B. */
INLINE void N(dot_products)(const REAL *a, const fortet_gemm_matrix *as, const REAL *b, int64_t column, int64_t columns,
                            int64_t depth, REAL (*acc)[FEW_COLUMNS], const int R) {
  REAL x[FEW][DOT_DEPTH];
  for (int64_t k0 = 0; k0 < depth; k0 += DOT_DEPTH) {
    const int64_t kn = least(DOT_DEPTH, depth - k0);
    for (int r = 0; r < R; r++)
      for (int64_t k = 0; k < kn; k++) x[r][k] = a[r * as->row + (k0 + k) * as->column];
    for (int64_t j = 0; j < columns; j++) {
      const REAL *const v = b + j * column + k0;
      VEC s[FEW][4] = {{{0}}};
      int64_t k = 0;
      for (; k + 4 * LANES <= kn; k += 4 * LANES)
        UNROLL for (int h = 0; h < 4; h++)
          UNROLL for (int r = 0; r < R; r++) s[r][h] += LOAD(x[r] + k + h * LANES) * LOAD(v + k + h * LANES);
      for (; k + LANES <= kn; k += LANES)
        UNROLL for (int r = 0; r < R; r++) s[r][0] += LOAD(x[r] + k) * LOAD(v + k);
      UNROLL for (int r = 0; r < R; r++) {
        REAL t = N(sum)((s[r][0] + s[r][1]) + (s[r][2] + s[r][3]));
        for (int64_t rest = k; rest < kn; rest++) t += x[r][rest] * v[rest];
        acc[r][j] += t;
      }
    }
  }
}

/* Columns [j0, j1), at most FEW_COLUMNS, of all rows of matrix s, over terms
 * [k0, k1). */
static void N(few)(const fortet_gemm_round *round, int64_t s, int64_t j0, int64_t j1, int64_t k0, int64_t k1, N(target) t) {
  REAL acc[FEW][FEW_COLUMNS];
  const fortet_gemm_matrix *as = &round->g.a, *bs = &round->g.b;
  const REAL *a = (const REAL *)as->data + s * as->stride + k0 * as->column;
  const REAL *b = (const REAL *)bs->data + s * bs->stride + k0 * bs->row + j0 * bs->column;
  const int64_t rows = round->g.m, columns = j1 - j0;
  for (int64_t r = 0; r < rows; r++) memset(acc[r], 0, (size_t)columns * sizeof(REAL));
#define CASE(R)                                                                                     \
  case R:                                                                                           \
    if (by_rows(&round->g)) N(sums_of_rows)(a, as, b, bs->row, columns, k1 - k0, acc, R);              \
    else N(dot_products)(a, as, b, bs->column, columns, k1 - k0, acc, R);                           \
    break
  switch (rows) { CASE(1); CASE(2); CASE(3); CASE(4); }
#undef CASE
  for (int64_t r = 0; r < rows; r++)
    for (int64_t j = 0; j < columns; j++) N(put)(&t, r, j0 + j, acc[r][j]);
}

#undef TERMS
#undef DOT_DEPTH
