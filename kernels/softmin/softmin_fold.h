/* softmin_fold.h - softmin and sweep: log-sum-exp of rows of scores.
 *
 * A row's sum is kept in double relative to the largest score so far and is
 * rescaled only where a block of columns moves that. */

INLINE REAL N(row_max)(const REAL *u, int64_t cols) {
  VEC a[4];
  for (int q = 0; q < 4; q++) a[q] = SPLAT(-INFINITY);
  for (int64_t j = 0; j < cols; j += 4 * LANES) {
    UNROLL for (int q = 0; q < 4; q++) a[q] = N(larger)(LOAD(u + j + q * LANES), a[q]);
  }
  return N(most)(N(larger)(N(larger)(a[0], a[1]), N(larger)(a[2], a[3])));
}

/* sum_j exp2((u_j - top) scale); with keep, the terms replace u. */
INLINE REAL N(exp_sum)(REAL *u, int64_t cols, REAL top, REAL scale, const int keep) {
  VEC a[2] = {{0}, {0}}, t[STREAMS], unit[STREAMS];
  for (int64_t j = 0; j < cols; j += STEP) {
    EACH t[s] = LOAD(u + j + s * LANES) - top;
    EACH t[s] *= scale;
    N(exp2_parts)(t, unit);
    if (keep) {
      EACH t[s] *= unit[s];
      EACH STORE(u + j + s * LANES, t[s]);
      EACH a[s % 2] += t[s];
    } else {
      EACH a[s % 2] += t[s] * unit[s];
    }
  }
  return N(sum)(a[0] + a[1]);
}

/* What a row with a score of +inf adds: +inf, unless there is a NaN. */
static double N(infinite_sum)(const REAL *u, int64_t cols) {
  double s = 0;
  for (int64_t j = 0; j < cols; j++) {
    if (u[j] != u[j]) return NAN;
    if (u[j] > 0 && isinf(u[j])) s = INFINITY;
  }
  return s;
}

typedef struct {
  REAL top;   /* the largest score so far */
  double sum; /* sum of exp2((u - top) scale) */
} N(row);

/* Adds a block of scores to a row. With keep, terms relative to the new top
 * replace them. */
INLINE void N(fold)(const N(job) *c, N(row) *row, REAL *u, int64_t cols, const int keep) {
  REAL top = N(row_max)(u, cols);
  if (top > row->top) {
    if (row->sum != 0) row->sum *= exp2(((double)row->top - (double)top) * c->scale);
    row->top = top;
  }
  if (row->top == (REAL)INFINITY) row->sum += N(infinite_sum)(u, cols);
  else row->sum += N(exp_sum)(u, cols, row->top == (REAL)-INFINITY ? 0 : row->top, (REAL)c->scale, keep);
}

/* softmin_i, of a row that is complete. */
static double N(row_softmin)(const N(job) *c, const N(row) *row, int64_t i) {
  return N(square)(c, i) / c->units - c->p.epsilon * 0.6931471805599453 * ((double)row->top * c->scale + log2(row->sum));
}

/* Rows of a tile share each block of columns while its panels are in L2. Rows
 * of a matrix share nothing, and are read from end to end. */
static void N(fold_rows)(const N(job) *c, int64_t i, int64_t rows, N(row) *state) {
  REAL u[BLOCK_BYTES / sizeof(REAL)] ALIGNED;
  if (c->plan.form == FORM_GIVEN && rows > 1) {
    for (int64_t r = 0; r < rows; r++) N(fold_rows)(c, i + r, 1, state + r);
    return;
  }
  for (int64_t r = 0; r < rows; r++) state[r].top = -INFINITY, state[r].sum = 0;
  for (int64_t j0 = 0; j0 < c->plan.columns; j0 += c->cols) {
    int64_t cols = c->plan.columns - j0 < c->cols ? c->plan.columns - j0 : c->cols;
    for (int64_t b = 0; b < rows; b += c->rows) {
      int64_t some = rows - b < c->rows ? rows - b : c->rows;
      N(scores)(c, i + b, some, j0, cols, u, c->cols);
      for (int64_t r = 0; r < some; r++) N(fold)(c, &state[b + r], u + r * c->cols, cols, 0);
    }
  }
}

static int N(softmin)(const fortet_softmin_args *a, int64_t begin, int64_t end) {
  N(job) c;
  N(begin)(&c, FORTET_OP_SOFTMIN, &a->pairs, a->work);
  N(row) state[TILE_ROWS];
  REAL *out = a->out;
  for (int64_t t = begin; t < end; t++) {
    int64_t i = t * c.plan.tile_rows;
    int64_t rows = c.p.n - i < c.plan.tile_rows ? c.p.n - i : c.plan.tile_rows;
    N(fold_rows)(&c, i, rows, state);
    for (int64_t r = 0; r < rows; r++) out[i + r] = (REAL)N(row_softmin)(&c, &state[r], i + r);
  }
  return FORTET_OK;
}

static int N(softmin_pack)(const fortet_softmin_args *a, int64_t begin, int64_t end) {
  N(job) c;
  N(begin)(&c, FORTET_OP_SOFTMIN, &a->pairs, a->work);
  N(pack_tiles)(&c, begin, end, 0);
  return FORTET_OK;
}

/* sums_j += unit sum_r w_r e_rj, over R rows in REAL and then in double. */
INLINE void N(add_rows)(const REAL *e, int64_t ld, int64_t cols, const REAL *w, double unit, double *sums, const int R) {
  for (int64_t j = 0; j < cols; j += LANES) {
    VEC s = LOAD(e + j) * w[0];
    UNROLL for (int r = 1; r < R; r++) s += LOAD(e + r * ld + j) * w[r];
    N(add_wide)(sums + j, s, unit);
  }
}

/* sums_j += sum_r w_r e_rj. Weights may lie outside the range of REAL: each
 * eight are divided by their largest. */
static void N(add_columns)(const REAL *e, int64_t ld, int64_t rows, int64_t cols, const double *w, double *sums) {
  for (int64_t r = 0, some; r < rows; r += some) {
    some = rows - r >= 8 ? 8 : rows - r >= 4 ? 4 : 1;
    REAL part[8];
    double unit = 0;
    for (int64_t q = 0; q < some; q++)
      if (!(w[r + q] <= unit)) unit = w[r + q]; /* NaN stays */
    if (unit == 0) continue;
    for (int64_t q = 0; q < some; q++) part[q] = (REAL)(isinf(unit) ? w[r + q] == unit : w[r + q] / unit);
    if (some == 8) N(add_rows)(e + r * ld, ld, cols, part, unit, sums, 8);
    else if (some == 4) N(add_rows)(e + r * ld, ld, cols, part, unit, sums, 4);
    else N(add_rows)(e + r * ld, ld, cols, part, unit, sums, 1);
  }
}

/* Writes out_i and returns w_i / sum, by which row i enters the column sums. */
static double N(row_done)(const N(job) *c, const fortet_sweep_args *a, const N(row) *row, int64_t i) {
  double f = N(row_softmin)(c, row, i);
  ((REAL *)a->out)[i] = (REAL)f;
  if (isinf(f)) return f > 0 ? 0 : NAN;
  double z = a->loga ? (double)((const REAL *)a->loga)[i] : 0;
  if (a->damp != 1) z += (a->damp - 1) * f / c->p.epsilon;
  return exp(z) / row->sum;
}

/* Terms of a few rows against every column are kept until the sums of these
 * rows are known, so that a pair costs one exponential. Terms are relative to
 * the top of their time, which is kept per row and block. */
static void N(sweep_kept)(const N(job) *c, const fortet_sweep_args *a, int64_t i0, int64_t i1, REAL *u, double *sums) {
  double w[TILE_ROWS], part[TILE_ROWS];
  N(row) state[TILE_ROWS];
  REAL tops[MOST_BLOCKS];
  int64_t ld = c->plan.stride;
  for (int64_t i = i0; i < i1; i += c->plan.sweep_rows) {
    int64_t rows = i1 - i < c->plan.sweep_rows ? i1 - i : c->plan.sweep_rows;
    int64_t together = c->plan.form == FORM_GIVEN ? 1 : rows; /* see fold_rows */
    for (int64_t r = 0; r < rows; r++) state[r].top = -INFINITY, state[r].sum = 0;
    for (int64_t r0 = 0; r0 < rows; r0 += together) {
      REAL *top = tops;
      for (int64_t j0 = 0; j0 < c->plan.columns; j0 += c->cols, top += rows) {
        int64_t cols = c->plan.columns - j0 < c->cols ? c->plan.columns - j0 : c->cols;
        N(scores)(c, i + r0, together, j0, cols, u + r0 * ld + j0, ld);
        for (int64_t r = r0; r < r0 + together; r++) {
          N(fold)(c, &state[r], u + r * ld + j0, cols, 1);
          top[r] = state[r].top;
        }
      }
    }
    for (int64_t r = 0; r < rows; r++) w[r] = N(row_done)(c, a, &state[r], i + r);
    const REAL *top = tops;
    for (int64_t j0 = 0; j0 < c->plan.columns; j0 += c->cols, top += rows) {
      int64_t cols = c->plan.columns - j0 < c->cols ? c->plan.columns - j0 : c->cols;
      for (int64_t r = 0; r < rows; r++)
        part[r] = top[r] == state[r].top ? w[r] : w[r] * exp2(((double)top[r] - (double)state[r].top) * c->scale);
      N(add_columns)(u + j0, ld, rows, cols, part, sums + j0);
    }
  }
}

/* Where even a few rows of scores would leave the cache, they are computed twice. */
static void N(sweep_again)(const N(job) *c, const fortet_sweep_args *a, int64_t i0, int64_t i1, double *sums) {
  REAL u[BLOCK_BYTES / sizeof(REAL)] ALIGNED;
  double w[TILE_ROWS];
  N(row) state[TILE_ROWS];
  for (int64_t i = i0; i < i1; i += TILE_ROWS) {
    int64_t rows = i1 - i < TILE_ROWS ? i1 - i : TILE_ROWS;
    N(fold_rows)(c, i, rows, state);
    for (int64_t r = 0; r < rows; r++) w[r] = N(row_done)(c, a, &state[r], i + r);
    for (int64_t j0 = 0; j0 < c->plan.columns; j0 += c->cols) {
      int64_t cols = c->plan.columns - j0 < c->cols ? c->plan.columns - j0 : c->cols;
      for (int64_t b = 0; b < rows; b += c->rows) {
        int64_t some = rows - b < c->rows ? rows - b : c->rows;
        N(scores)(c, i + b, some, j0, cols, u, c->cols);
        for (int64_t r = 0; r < some; r++) {
          REAL top = state[b + r].top;
          N(exp_sum)(u + r * c->cols, cols, isinf(top) ? 0 : top, (REAL)c->scale, 1);
        }
        N(add_columns)(u, c->cols, some, cols, w + b, sums + j0);
      }
    }
  }
}

/* One tile is one group of rows with its own column sums. */
static int N(sweep)(const fortet_sweep_args *a, int64_t begin, int64_t end) {
  N(job) c;
  N(begin)(&c, FORTET_OP_SWEEP, &a->pairs, a->work);
  for (int64_t t = begin; t < end; t++) {
    int64_t i0 = t * c.plan.group_rows, i1 = i0 + c.plan.group_rows;
    if (i1 > c.p.n) i1 = c.p.n;
    double *sums = (double *)((char *)a->work + c.plan.sums) + t * c.plan.columns;
    memset(sums, 0, (size_t)c.plan.columns * sizeof *sums);
    if (c.plan.sweep_rows == 0) {
      N(sweep_again)(&c, a, i0, i1, sums);
      continue;
    }
    REAL *u = (REAL *)((char *)a->work + c.plan.scores) + t * c.plan.sweep_rows * c.plan.stride;
    N(sweep_kept)(&c, a, i0, i1, u, sums);
  }
  return FORTET_OK;
}

static int N(sweep_pack)(const fortet_sweep_args *a, int64_t begin, int64_t end) {
  N(job) c;
  N(begin)(&c, FORTET_OP_SWEEP, &a->pairs, a->work);
  N(pack_tiles)(&c, begin, end, 0);
  return FORTET_OK;
}

/* Adds the groups, in their order. */
static int N(sweep_finish)(const fortet_sweep_args *a, int64_t begin, int64_t end) {
  fortet_softmin_plan plan;
  fortet_softmin_cpu_plan(FORTET_OP_SWEEP, &a->pairs, sizeof(REAL), &plan);
  const double *sums = (const double *)((const char *)a->work + plan.sums);
  for (int64_t t = begin; t < end; t++) {
    int64_t j0 = t * FINISH_COLUMNS, j1 = j0 + FINISH_COLUMNS;
    if (j1 > a->pairs.m) j1 = a->pairs.m;
    for (int64_t j = j0; j < j1; j++) a->col[j] = sums[j];
    for (int64_t g = 1; g < plan.tiles; g++)
      for (int64_t j = j0; j < j1; j++) a->col[j] += sums[g * plan.columns + j];
  }
  return FORTET_OK;
}

/* See fortet_softmin_rate_f32. */
static double N(rate)(int exponentials, int64_t rounds) {
  volatile REAL sink; /* keeps the work */
  if (exponentials) {
    REAL u[500 * LANES] ALIGNED;
    for (int j = 0; j < 500 * LANES; j++) u[j] = (REAL)(j % 97) * (REAL)-0.1;
    REAL s = 0;
    for (int64_t i = 0; i < 2 * rounds; i++) s += N(exp_sum)(u, 500 * LANES, (REAL)i, 1, 0);
    sink = s;
  } else {
    VEC a[10], b = SPLAT(0.5), c = SPLAT(rounds);
    for (int r = 0; r < 10; r++) a[r] = SPLAT(r);
    for (int64_t i = 0; i < 100 * rounds; i++)
      UNROLL for (int r = 0; r < 10; r++) a[r] = a[r] * b + c;
    for (int r = 1; r < 10; r++) a[0] += a[r];
    sink = N(sum)(a[0]);
  }
  (void)sink;
  return 1000.0 * LANES * (double)rounds;
}
