/* softmin_apply.h - products with the plan.
 *
 * A block of p is computed once and used for everything asked for. Its product
 * with many columns of v, or with Y in FORM_PRODUCT, is a matrix product on the
 * register tile of softmin_score.h; with few columns, a dot product each. */

/* Plan entries of one row: p_j = exp2((weight_j - c_j) scale + top), where
 * c_j = square - u_j, not below 0 for squares. Writes p, and c over u; returns
 * sum p and adds sum p c to mean. */
INLINE REAL N(plan_row)(const N(job) *c, const REAL *weight, int64_t cols, REAL square, REAL top, REAL *u, REAL *p,
                        double *mean) {
  const REAL scale = (REAL)c->scale;
  const VEC least = c->plan.form == FORM_PRODUCT ? (VEC){0} : SPLAT(-INFINITY);
  VEC mass = {0}, cost = {0}, cj[STREAMS], e[STREAMS];
  for (int64_t j = 0; j < cols; j += STEP) {
    EACH cj[s] = N(larger)(least, square - LOAD(u + j + s * LANES));
    EACH e[s] = (LOAD(weight + j + s * LANES) - cj[s]) * scale + top;
    N(exp2)(e);
    EACH STORE(u + j + s * LANES, cj[s]);
    EACH STORE(p + j + s * LANES, e[s]);
    EACH mass += e[s];
    EACH cost += N(where)((N(bits))(e[s] != 0), cj[s] * e[s]);
  }
  *mean += N(sum)(cost);
  return N(sum)(mass);
}

/* plan_row for f = +inf: p is 0 where z = -inf, and +inf elsewhere. */
static REAL N(plan_row_infinite)(const REAL *weight, int64_t cols, REAL square, REAL *u, REAL *p, double *mean) {
  REAL mass = 0;
  for (int64_t j = 0; j < cols; j++) {
    u[j] = square - u[j];
    REAL a = weight[j] - u[j];
    p[j] = a < 0 && isinf(a) ? 0 : a + (REAL)INFINITY;
    mass += p[j];
    if (p[j] != 0) *mean += (double)p[j] * u[j];
  }
  return mass;
}

/* Rows of v at columns [k0, k0 + kn) as a panel [j][PANEL], less centre; 0 beyond. */
static void N(pack_v)(const REAL *v, int64_t rows, int64_t cols, int64_t ld, int64_t k0, int64_t kn, const REAL *centre,
                      REAL *out) {
  for (int64_t j = 0; j < cols; j++)
    for (int64_t k = 0; k < PANEL; k++)
      out[j * PANEL + k] = j < rows && k < kn ? v[j * ld + k0 + k] - (centre ? centre[k0 + k] : 0) : 0;
}

/* out (rows, k) += p (rows, cols) v (cols, k), where out has ld = k elements
 * between rows and is set, not added to, for the first block. */
static void N(multiply_many)(const REAL *p, int64_t ldp, int64_t rows, int64_t cols, const REAL *v, int64_t valid, int64_t k,
                             const REAL *centre, int first, REAL *out) {
  REAL pt[APPLY_ROWS * CHUNK] ALIGNED, panel[CHUNK * PANEL] ALIGNED, t[APPLY_ROWS * PANEL] ALIGNED;
  for (int64_t j0 = 0; j0 < cols; j0 += CHUNK) {
    int64_t jn = cols - j0 < CHUNK ? cols - j0 : CHUNK, left = valid - j0 < jn ? valid - j0 : jn;
    if (left <= 0) break;
    for (int64_t b = 0; b < rows; b += MR)
      for (int r = 0; r < MR; r++)
        for (int64_t j = 0; j < jn; j++) pt[b * jn + j * MR + r] = b + r < rows ? p[(b + r) * ldp + j0 + j] : 0;
    for (int64_t k0 = 0; k0 < k; k0 += PANEL) {
      int64_t kn = k - k0 < PANEL ? k - k0 : PANEL;
      N(pack_v)(v + j0 * k, left, jn, k, k0, kn, centre, panel);
      for (int64_t b = 0; b < rows; b += MR) N(register_tile)(pt + b * jn, panel, jn, t + b * PANEL, PANEL, 1, 0, 0, 0);
      for (int64_t r = 0; r < rows; r++)
        for (int64_t l = 0; l < kn; l++) {
          REAL *o = out + r * k + k0 + l;
          *o = first && j0 == 0 ? t[r * PANEL + l] : *o + t[r * PANEL + l];
        }
    }
  }
}

/* The same for k <= FEW, with v transposed: vt (k, cols). */
static void N(multiply_few)(const REAL *p, int64_t ldp, int64_t rows, int64_t cols, const REAL *v, int64_t valid, int64_t k,
                            int first, REAL *out) {
  REAL vt[FEW * APPLY_COLS] ALIGNED;
  for (int64_t q = 0; q < k; q++)
    for (int64_t j = 0; j < cols; j++) vt[q * cols + j] = j < valid ? v[j * k + q] : 0;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t q = 0; q < k; q++) {
      VEC a = {0}, b = {0};
      for (int64_t j = 0; j < cols; j += PANEL) {
        a += LOAD(p + r * ldp + j) * LOAD(vt + q * cols + j);
        b += LOAD(p + r * ldp + j + LANES) * LOAD(vt + q * cols + j + LANES);
      }
      REAL s = N(sum)(a + b);
      out[r * k + q] = first ? s : out[r * k + q] + s;
    }
}

/* grad_k += factor sum_j q_j (x_k - y_jk), by differences. */
static void N(gradient_row)(const N(job) *c, int64_t i, const REAL *q, int64_t j0, int64_t cols, REAL factor, int first,
                            REAL *grad) {
  int64_t d = c->p.d;
  for (int64_t k = 0; k < d; k++) {
    VEC x = SPLAT(c->x[i * d + k]), a = {0}, b = {0};
    for (int64_t j = 0; j < cols; j += PANEL) {
      const REAL *y = c->panels + (j0 + j) * d + k * PANEL;
      a += LOAD(q + j) * (x - LOAD(y));
      b += LOAD(q + j + LANES) * (x - LOAD(y + LANES));
    }
    REAL s = factor * N(sum)(a + b);
    grad[k] = first ? s : grad[k] + s;
  }
}

/* p / c, and 0 where c = 0: weights of x - y in the gradient of a distance. */
static void N(over_distance)(REAL *p, const REAL *cost, int64_t cols) {
  for (int64_t j = 0; j < cols; j += LANES) {
    VEC cj = LOAD(cost + j);
    STORE(p + j, N(where)((N(bits))(cj != 0), LOAD(p + j) / cj));
  }
}

typedef struct {
  REAL square, top;
  double mass, mean;
} N(plan_state);

static void N(apply_rows)(const N(job) *c, const fortet_apply_args *a, int64_t i, int64_t rows) {
  REAL u[APPLY_ROWS * APPLY_COLS] ALIGNED, p[APPLY_ROWS * APPLY_COLS] ALIGNED;
  N(plan_state) state[APPLY_ROWS];
  const REAL *f = a->f, *v = a->v;
  REAL *r_out = a->r, *grad = a->grad;
  int64_t d = c->p.d, k = a->k, ld = APPLY_COLS;
  const int product = c->plan.form == FORM_PRODUCT;
  for (int64_t r = 0; r < rows; r++) {
    state[r].square = (REAL)N(square)(c, i + r);
    state[r].top = (REAL)(f[i + r] * c->scale * c->units);
    state[r].mass = state[r].mean = 0;
  }
  for (int64_t j0 = 0; j0 < c->plan.columns; j0 += APPLY_COLS) {
    int64_t cols = c->plan.columns - j0 < APPLY_COLS ? c->plan.columns - j0 : APPLY_COLS;
    int64_t valid = c->p.m - j0 < cols ? c->p.m - j0 : cols;
    int first = j0 == 0;
    N(scores)(c, i, rows, j0, cols, u, ld);
    for (int64_t r = 0; r < rows; r++) {
      N(plan_state) *s = &state[r];
      REAL *ur = u + r * ld, *pr = p + r * ld;
      if (f[i + r] == (REAL)INFINITY) s->mass += N(plan_row_infinite)(c->weight + j0, cols, s->square, ur, pr, &s->mean);
      else s->mass += N(plan_row)(c, c->weight + j0, cols, s->square, s->top, ur, pr, &s->mean);
    }
    if (r_out && k <= FEW) N(multiply_few)(p, ld, rows, cols, v + j0 * k, valid, k, first, r_out + i * k);
    else if (r_out) N(multiply_many)(p, ld, rows, cols, v + j0 * k, valid, k, 0, first, r_out + i * k);
    if (grad && product) N(multiply_many)(p, ld, rows, cols, c->y + j0 * d, valid, d, c->centre, first, grad + i * d);
    else if (grad)
      for (int64_t r = 0; r < rows; r++) {
        if (c->root) N(over_distance)(p + r * ld, u + r * ld, cols);
        REAL factor = c->root ? 1 : (REAL)(2 / c->units);
        N(gradient_row)(c, i + r, p + r * ld, j0, cols, factor, first, grad + (i + r) * d);
      }
  }
  for (int64_t r = 0; r < rows; r++) {
    if (a->mass) ((REAL *)a->mass)[i + r] = (REAL)state[r].mass;
    if (a->mean) ((REAL *)a->mean)[i + r] = (REAL)(state[r].mean / c->units);
    for (int64_t q = 0; grad && product && q < d; q++) {
      REAL *g = grad + (i + r) * d + q;
      double x = c->x[(i + r) * d + q] - c->centre[q];
      *g = (REAL)(2 / c->units * (x * state[r].mass - *g));
    }
  }
}

static int N(apply)(const fortet_apply_args *a, int64_t begin, int64_t end) {
  N(job) c;
  N(begin)(&c, FORTET_OP_APPLY, &a->pairs, a->work);
  for (int64_t t = begin; t < end; t++) {
    int64_t i = t * c.plan.tile_rows;
    N(apply_rows)(&c, a, i, c.p.n - i < c.plan.tile_rows ? c.p.n - i : c.plan.tile_rows);
  }
  return FORTET_OK;
}

static int N(apply_pack)(const fortet_apply_args *a, int64_t begin, int64_t end) {
  N(job) c;
  N(begin)(&c, FORTET_OP_APPLY, &a->pairs, a->work);
  N(pack_tiles)(&c, begin, end, 1);
  return FORTET_OK;
}
