/* softmin_score.h - packing, and the scores of a block of pairs.
 *
 * Scores are u_ij with z_ij log2(e) = u_ij scale + (a number per row). For
 * FORM_PRODUCT,
 *     u_ij = bias_j + 2 <x_i - centre, y_j - centre>,  bias_j = g_j + epsilon logb_j - |y_j - centre|^2,
 * and the number per row is -|x_i - centre|^2; otherwise that is zero and
 *     u_ij = bias_j - c_ij,                            bias_j = g_j + epsilon logb_j.
 * The cost |x - y|^2 / 2 at epsilon is |x - y|^2 at 2 epsilon with g doubled.
 *
 * Y is packed in panels of PANEL = 2 LANES columns: panel q holds y_jk of its
 * columns at [q][k][j - q PANEL], and X, for blocked forms, in groups of MR rows,
 * at [i / MR][k][i % MR], so that the innermost loop over k reads both operands
 * in order. Columns are padded with y = centre and bias = -inf. */

#define PANEL (2 * LANES)
#define STEP (STREAMS * LANES) /* columns are whole steps, see COLUMN_PAD */
#define PANEL_CHUNK (16384 / (PANEL * (int)sizeof(REAL)))
#define CHUNK (PANEL_CHUNK < 256 ? PANEL_CHUNK : 256) /* coordinates of a panel that stay in L1 */
#define BLOCK_BYTES 49152                             /* of scores, on the stack */

typedef struct {
  fortet_pairs p;
  fortet_softmin_plan plan;
  const REAL *x, *y, *matrix;
  REAL *centre, *bias, *weight, *panels, *sources;
  double *squares; /* |x_i - centre|^2, for FORM_PRODUCT */
  double units;   /* 2 for FORTET_HALF_SQEUCLIDEAN: u is in units of cost / 2 */
  double scale;   /* log2(e) / (units epsilon) */
  int root;       /* distances, not their squares */
  int64_t rows, cols; /* of a block of scores that the stack holds */
} N(job);

static void N(begin)(N(job) *c, int32_t op, const fortet_pairs *p, void *work) {
  fortet_softmin_cpu_plan(op, p, sizeof(REAL), &c->plan);
  c->p = *p;
  c->x = p->x, c->y = p->y, c->matrix = p->matrix;
  char *w = work;
  c->centre = (REAL *)(w + c->plan.centre), c->bias = (REAL *)(w + c->plan.bias);
  c->weight = (REAL *)(w + c->plan.weight), c->panels = (REAL *)(w + c->plan.panels);
  c->sources = (REAL *)(w + c->plan.sources), c->squares = (double *)(w + c->plan.squares);
  c->units = p->cost == FORTET_HALF_SQEUCLIDEAN ? 2 : 1;
  c->scale = 1.4426950408889634 / (c->units * p->epsilon);
  c->root = p->cost == FORTET_EUCLIDEAN;
  /* Rows share a panel that is in cache; columns share the fixed cost of a row. */
  int floats = sizeof(REAL) == 4;
  if (c->plan.form == FORM_DIRECT || c->plan.form == FORM_GIVEN) c->rows = 4, c->cols = floats ? 1024 : 512;
  else if (floats && p->d <= 64) c->rows = 24, c->cols = 512;
  else c->rows = floats ? 48 : 24, c->cols = 256;
}

/* A centre of the y, near which products of coordinates lose least: the mean of
 * at most 64 of them, at coordinates [k0, k0 + kn). Any value is right;
 * infinities and NaN are left out so that they stay with their own points. */
static void N(find_centre)(const N(job) *c, int64_t k0, int64_t kn, REAL *centre) {
  double sum[CHUNK] = {0}, count[CHUNK] = {0};
  int64_t step = (c->p.m + 63) / 64;
  for (int64_t j = 0; j < c->p.m && c->plan.form == FORM_PRODUCT; j += step)
    for (int64_t k = 0; k < kn; k++) {
      double v = c->y[j * c->p.d + k0 + k];
      int finite = v - v == 0;
      sum[k] += finite ? v : 0;
      count[k] += finite;
    }
  for (int64_t k = 0; k < kn; k++) centre[k] = count[k] > 0 ? (REAL)(sum[k] / count[k]) : 0;
}

/* out_kl = factor (v_lk - centre_k) for l < some, 0 for l < wide, at coordinates k < kn, a
 * cache line of every point at a time: points may lie a power of two apart. */
static void N(transpose)(const REAL *v, int64_t d, int64_t some, int64_t wide, int64_t kn, const REAL *centre, REAL factor,
                         REAL *out) {
  const int64_t line = 64 / (int64_t)sizeof(REAL);
  for (int64_t k0 = 0; k0 < kn; k0 += line) {
    int64_t k1 = k0 + line < kn ? k0 + line : kn;
    for (int64_t l = 0; l < some; l++)
      for (int64_t k = k0; k < k1; k++) out[k * wide + l] = factor * (v[l * d + k] - centre[k]);
    for (int64_t l = some; l < wide; l++)
      for (int64_t k = k0; k < k1; k++) out[k * wide + l] = 0;
  }
}

/* Packs columns [j0, j1), whole panels, and their bias. With cost_bias, for
 * apply, bias holds the cost's part alone and weight g_j + epsilon logb_j. */
static void N(pack)(const N(job) *c, int64_t j0, int64_t j1, int cost_bias) {
  double norm[PACK_COLUMNS] = {0};
  REAL centre[CHUNK];
  const REAL *g = c->p.g, *logb = c->p.logb;
  int64_t d = c->plan.form == FORM_GIVEN ? 0 : c->p.d, m = c->p.m;
  for (int64_t k0 = 0; k0 < d; k0 += CHUNK) {
    int64_t kn = d - k0 < CHUNK ? d - k0 : CHUNK;
    N(find_centre)(c, k0, kn, centre);
    if (j0 == 0) memcpy(c->centre + k0, centre, (size_t)kn * sizeof(REAL));
    for (int64_t q = j0; q < j1; q += PANEL) {
      REAL *out = c->panels + q * d + k0 * PANEL;
      const REAL *y = c->y + q * d + k0;
      int64_t some = m - q < PANEL ? m - q : PANEL;
      N(transpose)(y, d, some, PANEL, kn, centre, 1, out);
      if (c->plan.form != FORM_PRODUCT) continue;
      WIDE s[PANEL / WIDE_LANES] = {{0}};
      for (int64_t k = 0; k < kn; k++)
        UNROLL for (size_t h = 0; h < PANEL / WIDE_LANES; h++) {
          WIDE v = LOAD_WIDE(out + k * PANEL + h * WIDE_LANES);
          s[h] += v * v;
        }
      for (size_t h = 0; h < PANEL / WIDE_LANES; h++) *(N(wide_mem) *)(norm + q - j0 + h * WIDE_LANES) += s[h];
    }
  }
  for (int64_t j = j0; j < j1; j++) {
    double w = j < m ? c->units * ((g ? (double)g[j] : 0) + (logb ? c->p.epsilon * logb[j] : 0)) : -INFINITY;
    c->bias[j] = (REAL)(cost_bias ? -norm[j - j0] : w - norm[j - j0]);
    if (cost_bias) c->weight[j] = (REAL)w;
  }
}

/* Packs rows [i0, i1) of blocked forms: centred, and doubled for FORM_PRODUCT;
 * 0 beyond the last row. */
static void N(pack_rows)(const N(job) *c, int64_t i0, int64_t i1) {
  double norm[PACK_ROWS] = {0};
  REAL centre[CHUNK];
  int64_t d = c->p.d;
  const REAL factor = c->plan.form == FORM_PRODUCT ? 2 : 1;
  for (int64_t k0 = 0; k0 < d; k0 += CHUNK) {
    int64_t kn = d - k0 < CHUNK ? d - k0 : CHUNK;
    N(find_centre)(c, k0, kn, centre);
    for (int64_t b = i0; b < i1; b += MR) {
      REAL *out = c->sources + b * d + k0 * MR;
      const REAL *x = c->x + b * d + k0;
      int64_t some = i1 - b < MR ? i1 - b : MR;
      N(transpose)(x, d, some, MR, kn, centre, factor, out);
      if (c->plan.form != FORM_PRODUCT) continue;
      double s[MR] = {0};
      for (int64_t k = 0; k < kn; k++)
        for (int r = 0; r < MR; r++) s[r] += (double)out[k * MR + r] * out[k * MR + r];
      for (int r = 0; r < some; r++) norm[b + r - i0] += s[r] / 4; /* the factor, squared */
    }
  }
  if (c->plan.form == FORM_PRODUCT) memcpy(c->squares + i0, norm, (size_t)(i1 - i0) * sizeof *norm);
}

static void N(pack_tiles)(const N(job) *c, int64_t begin, int64_t end, int cost_bias) {
  int64_t tiles = (c->plan.columns + PACK_COLUMNS - 1) / PACK_COLUMNS;
  for (int64_t t = begin; t < end; t++) {
    if (t < tiles) {
      int64_t j0 = t * PACK_COLUMNS, j1 = j0 + PACK_COLUMNS;
      N(pack)(c, j0, j1 < c->plan.columns ? j1 : c->plan.columns, cost_bias);
    } else {
      int64_t i0 = (t - tiles) * PACK_ROWS, i1 = i0 + PACK_ROWS;
      N(pack_rows)(c, i0, i1 < c->p.n ? i1 : c->p.n);
    }
  }
}

/* What scores leave out of z_ij for row i: |x_i - centre|^2. */
static double N(square)(const N(job) *c, int64_t i) { return c->plan.form == FORM_PRODUCT ? c->squares[i] : 0; }

/* FORM_DIRECT: rows [i, i + R) against columns [j0, j0 + cols). Per pair D
 * subtractions and D multiply-adds; R rows share the loads of Y. */
INLINE void N(direct_rows)(const N(job) *c, int64_t i, int64_t j0, int64_t cols, REAL *u, int64_t ld,
                           const int D, const int R, const int root) {
  VEC x[4][DIRECT_LIMIT];
  for (int r = 0; r < R; r++)
    for (int k = 0; k < D; k++) x[r][k] = SPLAT(c->x[(i + r) * D + k]);
  for (int64_t q = 0; q < cols; q += PANEL) {
    const REAL *panel = c->panels + (j0 + q) * D;
    for (int h = 0; h < PANEL; h += LANES) {
      VEC bias = LOAD(c->bias + j0 + q + h);
      VEC y[DIRECT_LIMIT];
      UNROLL for (int k = 0; k < D; k++) y[k] = LOAD(panel + k * PANEL + h);
      UNROLL for (int r = 0; r < R; r++) {
        VEC t = x[r][0] - y[0];
        VEC s = t * t;
        UNROLL for (int k = 1; k < D; k++) {
          t = x[r][k] - y[k];
          s += t * t;
        }
        if (root) s = N(root)(s);
        STORE(u + r * ld + q + h, bias - s);
      }
    }
  }
}

INLINE void N(direct_case)(const N(job) *c, int64_t i, int64_t rows, int64_t j0, int64_t cols, REAL *u,
                           int64_t ld, const int D) {
  int64_t r = 0;
  if (c->root) {
    for (; r + 4 <= rows; r += 4) N(direct_rows)(c, i + r, j0, cols, u + r * ld, ld, D, 4, 1);
    for (; r < rows; r++) N(direct_rows)(c, i + r, j0, cols, u + r * ld, ld, D, 1, 1);
  } else {
    for (; r + 4 <= rows; r += 4) N(direct_rows)(c, i + r, j0, cols, u + r * ld, ld, D, 4, 0);
    for (; r < rows; r++) N(direct_rows)(c, i + r, j0, cols, u + r * ld, ld, D, 1, 0);
  }
}

static void N(direct)(const N(job) *c, int64_t i, int64_t rows, int64_t j0, int64_t cols, REAL *u, int64_t ld) {
  switch (c->p.d) {
  case 1: N(direct_case)(c, i, rows, j0, cols, u, ld, 1); break;
  case 2: N(direct_case)(c, i, rows, j0, cols, u, ld, 2); break;
  case 3: N(direct_case)(c, i, rows, j0, cols, u, ld, 3); break;
  case 4: N(direct_case)(c, i, rows, j0, cols, u, ld, 4); break;
  case 5: N(direct_case)(c, i, rows, j0, cols, u, ld, 5); break;
  case 6: N(direct_case)(c, i, rows, j0, cols, u, ld, 6); break;
  case 7: N(direct_case)(c, i, rows, j0, cols, u, ld, 7); break;
  case 8: N(direct_case)(c, i, rows, j0, cols, u, ld, 8); break;
  }
}

/* FORM_GIVEN. The last columns are copied, so that nothing behind the matrix
 * is read. */
static void N(given)(const N(job) *c, int64_t i, int64_t rows, int64_t j0, int64_t cols, REAL *u, int64_t ld) {
  int64_t whole = c->p.m - j0 < cols ? (c->p.m - j0) / LANES * LANES : cols;
  for (int64_t r = 0; r < rows; r++) {
    const REAL *row = c->matrix + (i + r) * c->p.m + j0;
    for (int64_t j = 0; j < whole; j += LANES) {
      __builtin_prefetch((const char *)(row + j) + 2048); /* across the page that stops the processor's own */
      STORE(u + r * ld + j, LOAD(c->bias + j0 + j) - LOAD(row + j));
    }
    for (int64_t j = whole; j < cols; j++) u[r * ld + j] = j0 + j < c->p.m ? c->bias[j0 + j] - row[j] : -INFINITY;
  }
}

/* The register tile: MR rows by one panel, over kn coordinates. Per k: 2 loads
 * of Y, MR broadcasts of x and 2 MR multiply-adds. Each chunk of coordinates
 * sums from zero, so that rounding grows with the chunk and not with d. */
INLINE void N(register_tile)(const REAL *x, const REAL *y, int64_t kn, REAL *u, int64_t ld, int first,
                             const REAL *bias, const int difference, int root) {
  VEC a[MR][2];
  UNROLL for (int r = 0; r < MR; r++) a[r][0] = a[r][1] = (VEC){0};
  for (int64_t k = 0; k < kn; k++) {
    VEC y0 = LOAD(y + k * PANEL), y1 = LOAD(y + k * PANEL + LANES);
    UNROLL for (int r = 0; r < MR; r++) {
      VEC v = SPLAT(x[k * MR + r]);
      if (difference) {
        VEC t0 = v - y0, t1 = v - y1;
        a[r][0] += t0 * t0;
        a[r][1] += t1 * t1;
      } else {
        a[r][0] += v * y0;
        a[r][1] += v * y1;
      }
    }
  }
  UNROLL for (int r = 0; r < MR; r++) {
    REAL *out = u + r * ld;
    if (!first) {
      a[r][0] += LOAD(out);
      a[r][1] += LOAD(out + LANES);
    }
    if (bias && difference) {
      if (root) a[r][0] = N(root)(a[r][0]), a[r][1] = N(root)(a[r][1]);
      a[r][0] = LOAD(bias) - a[r][0];
      a[r][1] = LOAD(bias + LANES) - a[r][1];
    } else if (bias) {
      a[r][0] += LOAD(bias);
      a[r][1] += LOAD(bias + LANES);
    }
    STORE(out, a[r][0]);
    STORE(out + LANES, a[r][1]);
  }
}

/* Rows from i, a multiple of MR. A panel stays in L1 while all of them pass. */
INLINE void N(blocked)(const N(job) *c, int64_t i, int64_t rows, int64_t j0, int64_t cols, REAL *u, int64_t ld,
                       const int difference) {
  int64_t d = c->p.d;
  for (int64_t k0 = 0; k0 < d; k0 += CHUNK) {
    int64_t kn = d - k0 < CHUNK ? d - k0 : CHUNK;
    int last = k0 + kn == d;
    for (int64_t q = 0; q < cols; q += PANEL) {
      const REAL *y = c->panels + (j0 + q) * d + k0 * PANEL, *bias = last ? c->bias + j0 + q : 0;
      for (int64_t b = 0; b < rows; b += MR)
        N(register_tile)(c->sources + (i + b) * d + k0 * MR, y, kn, u + b * ld + q, ld, k0 == 0, bias, difference, c->root);
    }
  }
}

static void N(blocked_difference)(const N(job) *c, int64_t i, int64_t rows, int64_t j0, int64_t cols, REAL *u, int64_t ld) {
  N(blocked)(c, i, rows, j0, cols, u, ld, 1);
}

static void N(blocked_product)(const N(job) *c, int64_t i, int64_t rows, int64_t j0, int64_t cols, REAL *u, int64_t ld) {
  N(blocked)(c, i, rows, j0, cols, u, ld, 0);
}

/* Scores of rows [i, i + rows) against columns [j0, j0 + cols), whole panels,
 * into u with ld elements between rows. Blocked forms write a multiple of MR
 * rows. */
static void N(scores)(const N(job) *c, int64_t i, int64_t rows, int64_t j0, int64_t cols, REAL *u, int64_t ld) {
  switch (c->plan.form) {
  case FORM_DIRECT: N(direct)(c, i, rows, j0, cols, u, ld); break;
  case FORM_DIFFERENCE: N(blocked_difference)(c, i, rows, j0, cols, u, ld); break;
  case FORM_PRODUCT: N(blocked_product)(c, i, rows, j0, cols, u, ld); break;
  case FORM_GIVEN: N(given)(c, i, rows, j0, cols, u, ld); break;
  }
}
