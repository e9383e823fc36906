/* duallse_star.h - the star's passes over pairs for one level and element
 * type; included by duallse_cpu.c after duallse_vec.h, with GROUP: how many
 * rows of squared distances the registers hold.
 *
 * Every pass walks blocks of ROWS x COLS pairs. A block holds exponents in
 * base 2, z = bias_c + scale |x_r - y_c|^2 or bias_c + scale cost_rc, made in
 * registers from a panel of the column points that is packed by dimension.
 * Differences are squared, not products expanded: at small epsilon the
 * exponents are large, and float has no digits to lose. */

#define ROWS 32
#define COLS 128
#define DEPTH 32

/* One side of the pairs is walked by rows, the other by columns. */
typedef struct {
  const REAL *x, *y;           /* row and column points, or NULL */
  const REAL *cost;            /* or the cost at row_step r + col_step c */
  int64_t row_step, col_step, d;
  REAL scale;                  /* -weight log2 e / epsilon */
} F(pairs);

typedef struct {
  REAL z[ROWS][COLS];
  REAL bias[COLS];
  REAL panel[DEPTH][COLS];
} F(block);

/* panel[k][c] = y_(c0 + c)(k0 + k); zeros beyond the last column. */
LEVEL_FN void F(pack)(F(block) *b, const REAL *y, int64_t d, int64_t c0, int cols, int64_t k0, int depth) {
  for (int c = 0; c < cols; c++) {
    const REAL *p = y + (c0 + c) * d + k0;
    for (int k = 0; k < depth; k++) b->panel[k][c] = p[k];
  }
  for (int k = 0; k < depth; k++)
    for (int c = cols; c < COLS; c++) b->panel[k][c] = 0;
}

/* z += sum_k (x_rk - panel_kc)^2 for GROUP rows from r on; rows beyond the
 * last repeat it. */
INLINE void F(distances)(F(block) *b, const REAL *x, int64_t d, int64_t r0, int rows, int r, int64_t k0, int depth, int first) {
  enum { G = GROUP };
  const REAL *p[G];
#pragma GCC unroll 8
  for (int g = 0; g < G; g++) p[g] = x + (r0 + (r + g < rows ? r + g : rows - 1)) * d + k0;
  for (int c = 0; c < COLS; c += 2 * LANES) {
    VEC s0[G], s1[G];
#pragma GCC unroll 8
    for (int g = 0; g < G; g++) {
      s0[g] = first ? F(all)(0) : F(load)(&b->z[r + g][c]);
      s1[g] = first ? F(all)(0) : F(load)(&b->z[r + g][c + LANES]);
    }
    for (int k = 0; k < depth; k++) {
      const VEC y0 = F(load)(&b->panel[k][c]), y1 = F(load)(&b->panel[k][c + LANES]);
#pragma GCC unroll 8
      for (int g = 0; g < G; g++) {
        const VEC u = F(all)(p[g][k]), t0 = u - y0, t1 = u - y1;
        s0[g] += t0 * t0;
        s1[g] += t1 * t1;
      }
    }
#pragma GCC unroll 8
    for (int g = 0; g < G; g++) {
      F(store)(&b->z[r + g][c], s0[g]);
      F(store)(&b->z[r + g][c + LANES], s1[g]);
    }
  }
}

/* Fills b->z for rows [r0, r0 + rows) and columns [c0, c0 + cols), given
 * b->bias. Columns beyond the last have exponent -inf. */
LEVEL_FN void F(exponents)(F(block) *b, const F(pairs) *p, int64_t r0, int rows, int64_t c0, int cols) {
  for (int c = cols; c < COLS; c++) b->bias[c] = -(REAL)INFINITY;
  if (p->cost) {
    const REAL *a = p->cost + r0 * p->row_step + c0 * p->col_step;
    if (p->col_step == 1) {
      for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++) b->z[r][c] = a[r * p->row_step + c];
    } else {
      for (int c = 0; c < cols; c++)
        for (int r = 0; r < rows; r++) b->z[r][c] = a[r * p->row_step + c * p->col_step];
    }
    for (int r = 0; r < rows; r++)
      for (int c = cols; c < COLS; c++) b->z[r][c] = 0;
  } else {
    for (int64_t k0 = 0; k0 < p->d; k0 += DEPTH) {
      const int depth = p->d - k0 < DEPTH ? (int)(p->d - k0) : DEPTH;
      F(pack)(b, p->y, p->d, c0, cols, k0, depth);
      for (int r = 0; r < rows; r += GROUP) F(distances)(b, p->x, p->d, r0, rows, r, k0, depth, k0 == 0);
    }
  }
  const VEC scale = F(all)(p->scale);
  for (int r = 0; r < rows; r++)
    for (int c = 0; c < COLS; c += LANES)
      F(store)(&b->z[r][c], F(load)(&b->bias[c]) + scale * F(load)(&b->z[r][c]));
}

/* out[r d + k] += factor sum_c z_rc (y_ck - x_rk): the moments of weights z. */
LEVEL_FN void F(moments)(F(block) *b, const F(pairs) *p, int64_t r0, int rows, int64_t c0, int cols, REAL factor, REAL *out) {
  for (int64_t k0 = 0; k0 < p->d; k0 += DEPTH) {
    const int depth = p->d - k0 < DEPTH ? (int)(p->d - k0) : DEPTH;
    F(pack)(b, p->y, p->d, c0, cols, k0, depth);
    for (int r = 0; r < rows; r++) {
      const REAL *x = p->x + (r0 + r) * p->d + k0;
      REAL *to = out + (r0 + r) * p->d + k0;
      for (int k = 0; k < depth; k++) {
        const VEC u = F(all)(x[k]);
        VEC s0 = F(all)(0), s1 = s0;
        for (int c = 0; c < COLS; c += 2 * LANES) {
          s0 += F(load)(&b->z[r][c]) * (F(load)(&b->panel[k][c]) - u);
          s1 += F(load)(&b->z[r][c + LANES]) * (F(load)(&b->panel[k][c + LANES]) - u);
        }
        to[k] += factor * F(sum)(s0 + s1);
      }
    }
  }
}

/* The pairs of an arm, with the centre (or its leaves) as rows. */
LEVEL_FN F(pairs) F(arm_pairs)(const fortet_duallse_star_args *a, const fortet_duallse_arm *m, int leaves) {
  F(pairs) p;
  p.x = leaves ? m->points : a->points;
  p.y = leaves ? a->points : m->points;
  p.cost = m->cost;
  p.row_step = leaves ? 1 : m->count;
  p.col_step = leaves ? m->count : 1;
  p.d = a->d;
  p.scale = (REAL)(-m->weight * LOG2E / a->epsilon);
  return p;
}

/* The base weight of node k of n. */
INLINE double F(base)(const void *logw, int64_t n, int64_t k) {
  return logw ? exp((double)((const REAL *)logw)[k]) : 1 / (double)n;
}

/* log b_mk + gamma_mk in base 2 */
INLINE REAL F(leaf_bias)(const fortet_duallse_arm *m, int64_t k) {
  const double w = m->logw ? (double)((const REAL *)m->logw)[k] : -log((double)m->count);
  const double g = m->potential ? (double)((const REAL *)m->potential)[k] : 0;
  return (REAL)((w + g) * LOG2E);
}

LEVEL_FN void F(message)(const fortet_duallse_star_args *a, int64_t begin, int64_t end) {
  const int64_t tiles = (a->n + ROWS - 1) / ROWS;
  F(block) b __attribute__((aligned(64)));
  VEC sum[ROWS];
  REAL top[ROWS];
  for (int64_t t = begin; t < end; t++) {
    const fortet_duallse_arm *m = &a->arm[t / tiles];
    const F(pairs) p = F(arm_pairs)(a, m, 0);
    const int64_t r0 = t % tiles * ROWS;
    const int rows = a->n - r0 < ROWS ? (int)(a->n - r0) : ROWS;
    for (int r = 0; r < rows; r++) top[r] = -(REAL)INFINITY, sum[r] = F(all)(0);
    for (int64_t c0 = 0; c0 < m->count; c0 += COLS) {
      const int cols = m->count - c0 < COLS ? (int)(m->count - c0) : COLS;
      for (int c = 0; c < cols; c++) b.bias[c] = F(leaf_bias)(m, c0 + c);
      F(exponents)(&b, &p, r0, rows, c0, cols);
      for (int r = 0; r < rows; r++) {
        const REAL *z = b.z[r];
        VEC m0 = F(load)(z), m1 = F(load)(z + LANES);
        for (int c = 2 * LANES; c < COLS; c += 2 * LANES) {
          m0 = F(greater)(m0, F(load)(z + c));
          m1 = F(greater)(m1, F(load)(z + c + LANES));
        }
        const REAL high = F(max)(F(greater)(m0, m1));
        if (high > top[r]) { /* the block's rescale; none while all terms are -inf */
          if (top[r] > -(REAL)INFINITY) sum[r] *= F(exp2_down)(F(all)(top[r] - high));
          top[r] = high;
        }
        const VEC shift = F(all)(top[r] > -(REAL)INFINITY ? top[r] : 0);
        VEC s0 = F(all)(0), s1 = s0;
        for (int c = 0; c < COLS; c += 2 * LANES) {
          s0 += F(exp2_down)(F(load)(z + c) - shift);
          s1 += F(exp2_down)(F(load)(z + c + LANES) - shift);
        }
        sum[r] += s0 + s1;
      }
    }
    double *out = a->message + t / tiles * a->n + r0;
    for (int r = 0; r < rows; r++) out[r] = (double)top[r] * LN2 + log((double)F(sum)(sum[r]));
  }
}

/* log P_j - A_mj in base 2: what turns exp z into a share of the plan. A node
 * without mass has none to give, whatever its message. */
INLINE double F(share)(const fortet_duallse_star_args *a, int64_t arm, int64_t j) {
  const double l = a->log_p[j];
  return l == -(double)INFINITY ? l : (l - a->message[arm * a->n + j]) * LOG2E;
}

/* z becomes 2^(z - shift) in row r, and its sum is returned. */
INLINE VEC F(powers)(REAL *z, REAL shift) {
  const VEC s = F(all)(shift);
  VEC s0 = F(all)(0), s1 = s0;
  for (int c = 0; c < COLS; c += 2 * LANES) {
    const VEC e0 = F(exp2)(F(load)(z + c) - s), e1 = F(exp2)(F(load)(z + c + LANES) - s);
    F(store)(z + c, e0);
    F(store)(z + c + LANES, e1);
    s0 += e0;
    s1 += e1;
  }
  return s0 + s1;
}

LEVEL_FN void F(leaves)(const fortet_duallse_star_args *a, int64_t begin, int64_t end) {
  F(block) b __attribute__((aligned(64)));
  VEC sum[ROWS];
  int64_t first = 0;
  for (int64_t arm = 0; arm < a->arms; arm++) {
    const fortet_duallse_arm *m = &a->arm[arm];
    const int64_t tiles = (m->count + ROWS - 1) / ROWS;
    const int64_t lo = begin > first ? begin - first : 0, hi = end - first < tiles ? end - first : tiles;
    first += tiles;
    if (!m->grad_potential && !m->grad_points) continue;
    const F(pairs) p = F(arm_pairs)(a, m, 1);
    const REAL factor = (REAL)(2 * m->weight / a->epsilon);
    REAL *to = m->grad_points;
    for (int64_t t = lo; t < hi; t++) {
      const int64_t r0 = t * ROWS;
      const int rows = m->count - r0 < ROWS ? (int)(m->count - r0) : ROWS;
      for (int r = 0; r < rows; r++) sum[r] = F(all)(0);
      if (to)
        for (int64_t i = r0 * a->d; i < (r0 + rows) * a->d; i++) to[i] = 0;
      for (int64_t c0 = 0; c0 < a->n; c0 += COLS) {
        const int cols = a->n - c0 < COLS ? (int)(a->n - c0) : COLS;
        for (int c = 0; c < cols; c++) b.bias[c] = (REAL)F(share)(a, arm, c0 + c);
        F(exponents)(&b, &p, r0, rows, c0, cols);
        for (int r = 0; r < rows; r++) sum[r] += F(powers)(b.z[r], -F(leaf_bias)(m, r0 + r));
        if (to) F(moments)(&b, &p, r0, rows, c0, cols, factor, to);
      }
      REAL *g = m->grad_potential;
      for (int r = 0; g && r < rows; r++) {
        const int64_t k = r0 + r;
        g[k] = F(sum)(sum[r]);
        if (a->minus_base) g[k] -= (REAL)F(base)(m->logw, m->count, k);
      }
    }
  }
}

LEVEL_FN void F(rows)(const fortet_duallse_star_args *a, int64_t begin, int64_t end) {
  F(block) b __attribute__((aligned(64)));
  REAL *to = a->grad_points;
  for (int64_t t = begin; t < end; t++) {
    const int64_t r0 = t * ROWS, d = a->d;
    const int rows = a->n - r0 < ROWS ? (int)(a->n - r0) : ROWS;
    for (int r = 0; to && r < rows; r++) {
      const double p = a->norm == 0 ? 0 : -2 * a->norm / a->epsilon * exp(a->log_p[r0 + r]);
      for (int64_t i = (r0 + r) * d; i < (r0 + r + 1) * d; i++)
        to[i] = p == 0 ? 0 : (REAL)(p * (double)((const REAL *)a->points)[i]);
    }
    for (int64_t arm = 0; arm < a->arms; arm++) {
      const fortet_duallse_arm *m = &a->arm[arm];
      const int moments = to && !m->cost, one = moments || m->plan;
      if (!one && !m->conditional) continue;
      const F(pairs) p = F(arm_pairs)(a, m, 0);
      const REAL factor = (REAL)(2 * m->weight / a->epsilon);
      for (int64_t c0 = 0; c0 < m->count; c0 += COLS) {
        const int cols = m->count - c0 < COLS ? (int)(m->count - c0) : COLS;
        for (int c = 0; c < cols; c++) b.bias[c] = F(leaf_bias)(m, c0 + c);
        F(exponents)(&b, &p, r0, rows, c0, cols);
        if (m->conditional) {
          REAL row[COLS] __attribute__((aligned(64)));
          for (int r = 0; r < rows; r++) {
            const double low = a->message[arm * a->n + r0 + r];
            memcpy(row, b.z[r], sizeof row);
            F(powers)(row, (REAL)(low > -(double)INFINITY || low != low ? low * LOG2E : 0));
            memcpy((REAL *)m->conditional + (r0 + r) * m->count + c0, row, (size_t)cols * sizeof(REAL));
          }
        }
        if (!one) continue;
        for (int r = 0; r < rows; r++) F(powers)(b.z[r], (REAL)-F(share)(a, arm, r0 + r));
        if (m->plan)
          for (int r = 0; r < rows; r++)
            memcpy((REAL *)m->plan + (r0 + r) * m->count + c0, b.z[r], (size_t)cols * sizeof(REAL));
        if (moments) F(moments)(&b, &p, r0, rows, c0, cols, factor, to);
      }
    }
  }
}

/* sum_k b_k potential_k; a node of weight zero does not count. */
LEVEL_FN double F(linear)(const REAL *potential, const REAL *logw, int64_t n) {
  double s = 0;
  if (!potential) return 0;
  for (int64_t k = 0; k < n; k++) {
    const double w = F(base)(logw, n, k);
    if (w != 0) s += w * (double)potential[k];
  }
  return s;
}

LEVEL_FN void F(centre)(const fortet_duallse_star_args *a, int64_t begin, int64_t end) {
  if (begin >= end) return; /* there is one tile */
  const REAL *beta = a->potential, *logw = a->logw, *extra = a->extra, *y = a->points;
  double top = -(double)INFINITY, sum = 0;
  for (int64_t j = 0; j < a->n; j++) {
    double s = logw ? (double)logw[j] : -log((double)a->n);
    if (beta) s += (double)beta[j];
    if (extra) s += (double)extra[j];
    if (a->norm != 0) {
      double q = 0;
      for (int64_t k = j * a->d; k < (j + 1) * a->d; k++) q += (double)y[k] * (double)y[k];
      s -= a->norm / a->epsilon * q;
    }
    for (int64_t m = 0; m < a->arms; m++) s += a->message[m * a->n + j];
    a->log_p[j] = s;
    if (s > top) top = s;
  }
  const double shift = top > -(double)INFINITY ? top : 0;
  for (int64_t j = 0; j < a->n; j++) sum += exp(a->log_p[j] - shift);
  const double loge = shift + log(sum), by = a->fixed_logz ? a->logz : loge;
  REAL *g = a->grad_potential;
  for (int64_t j = 0; j < a->n; j++) {
    if (a->log_p[j] > -(double)INFINITY || a->log_p[j] != a->log_p[j] || loge != loge) a->log_p[j] -= by;
    if (g) g[j] = (REAL)(exp(a->log_p[j]) - (a->minus_base ? F(base)(logw, a->n, j) : 0));
  }
  if (!a->value) return;
  a->value[0] = loge;
  double linear = F(linear)(beta, logw, a->n);
  for (int64_t m = 0; m < a->arms; m++) linear += F(linear)(a->arm[m].potential, a->arm[m].logw, a->arm[m].count);
  a->value[1] = linear;
}
