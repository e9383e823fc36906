/* gmm_evaluate.h - value, drift, weights and derivatives of the drift at blocks
 * of samples.
 *
 * The Jacobian is Dg = sum_j w_j (A_j' diag(e_j) A_j + c_j c_j' / epsilon) with
 * e_j = (s_j - 1) / D_j and c_j = g_j - g. With axes its first part takes
 * k d^3 operations a sample where the whole is wanted, and k d^2 for its product
 * with a vector; without, k d^2 and k d. */

/* Arrays (d, ROWS) of a block, of c and e for each component where slot is not 0. */
typedef struct {
  REAL *g, *along;
  REAL *v, *product; /* Dg v */
  REAL *c, *e;
  int64_t slot;
  REAL value[ROWS], trace[ROWS], norm2[ROWS];
} F(point);

/* c_j, without axes along the unit vectors, and e_j along the axes. */
LEVEL_FN void F(spread)(const BLOCK *b, const F(point) * p, int64_t j, REAL *c, REAL *e) {
  const int64_t d = b->d;
  const REAL *const h = F(kept)(b, j);
  REAL *const own = b->axes ? p->along : c;
  for (int64_t k = 0; k < d; k++)
    EACH {
      const int64_t i = k * ROWS + v;
      F(store)(own + i, F(drift_at)(b, h, j, k, v));
      F(store)(e + i, (b->scales[j * d + k] - 1) * F(inverse_at)(b, j, k, v));
    }
  if (b->axes) {
    memset(c, 0, (size_t)(d * ROWS) * sizeof(REAL));
    F(turn_back)(b->axes + j * d * d, d, own, c);
  }
  for (int64_t i = 0; i < d * ROWS; i += LANES) F(store)(c + i, F(load)(c + i) - F(load)(p->g + i));
}

/* Adds a component to the trace and to Dg v. */
LEVEL_FN void F(add_products)(const BLOCK *b, F(point) * p, int64_t j, const REAL *c, const REAL *e) {
  const int64_t d = b->d;
  VEC w[VECTORS], diagonal[VECTORS] = {{0}}, square[VECTORS] = {{0}}, along[VECTORS] = {{0}};
  EACH w[v / LANES] = F(load)(b->w + j * ROWS + v);
  for (int64_t i = 0; i < d * ROWS; i += ROWS)
    EACH {
      const VEC ck = F(load)(c + i + v);
      diagonal[v / LANES] += F(load)(e + i + v);
      square[v / LANES] += ck * ck;
      if (p->v) along[v / LANES] += ck * F(load)(p->v + i + v);
    }
  EACH F(store)(p->trace + v, F(load)(p->trace + v) + w[v / LANES] * (diagonal[v / LANES] + square[v / LANES] * b->over_epsilon));
  if (!p->v) return;
  const REAL *const turned = F(along)(b, j, p->v, p->along);
  for (int64_t k = 0; k < d; k++)
    EACH {
      const int64_t i = k * ROWS + v;
      const VEC own = w[v / LANES] * F(load)(e + i) * F(load)(turned + i);
      if (b->axes) F(store)(p->along + i, own);
      VEC sum = F(load)(p->product + i) + F(load)(c + i) * (w[v / LANES] * along[v / LANES] * b->over_epsilon);
      if (!b->axes) sum += own;
      F(store)(p->product + i, sum);
    }
  if (b->axes) F(turn_back)(b->axes + j * d * d, d, p->along, p->product);
}

/* The Jacobian, entry by entry: (count, d, d) into out if that is there. */
LEVEL_FN void F(jacobian)(const BLOCK *b, F(point) * p, int count, REAL *out) {
  const int64_t d = b->d;
  memset(p->norm2, 0, sizeof p->norm2);
  for (int64_t row = 0; row < d; row++)
    for (int64_t column = 0; column <= row; column++) {
      VEC s[VECTORS] = {{0}};
      for (int64_t j = 0; j < b->k; j++) {
        const REAL *const c = p->c + j * p->slot, *const e = p->e + j * p->slot;
        VEC first[VECTORS] = {{0}};
        if (b->axes) {
          const REAL *const axes = b->axes + j * d * d;
          for (int64_t k = 0; k < d; k++) {
            const VEC both = F(all)(axes[k * d + row] * axes[k * d + column]);
            EACH first[v / LANES] += both * F(load)(e + k * ROWS + v);
          }
        } else if (row == column) {
          EACH first[v / LANES] = F(load)(e + row * ROWS + v);
        }
        EACH {
          const VEC rank = F(load)(c + row * ROWS + v) * F(load)(c + column * ROWS + v) * b->over_epsilon;
          s[v / LANES] += F(load)(b->w + j * ROWS + v) * (first[v / LANES] + rank);
        }
      }
      EACH F(store)(p->norm2 + v, F(load)(p->norm2 + v) + s[v / LANES] * s[v / LANES] * (REAL)(row == column ? 1 : 2));
      if (!out) continue;
      REAL entry[ROWS];
      EACH F(store)(entry + v, s[v / LANES]);
      for (int i = 0; i < count; i++) out[(i * d + row) * d + column] = out[(i * d + column) * d + row] = entry[i];
    }
}

LEVEL_FN void F(evaluate_block)(const fortet_gmm_evaluate_args *a, const BLOCK *b, F(point) * p, int64_t row, int count) {
  const int64_t d = b->d;
  if (b->fixed)
    for (int64_t j = 0; j < b->k; j++) F(component_fixed)(b, j);
  else
    for (int64_t j = 0; j < b->k; j++) F(component_moving)(b, j);
  F(softmax)(b, p->value);
  if (a->value) memcpy((REAL *)a->value + row, p->value, (size_t)count * sizeof(REAL));
  if (a->weights) F(rows_out)(b->w, b->k, count, (REAL *)a->weights + row * b->k);
  const int whole = a->jacobian || a->norm2;
  if (!a->drift && !a->product && !a->trace && !whole) return;
  F(drift)(b, p->g, p->along);
  if (a->drift) F(rows_out)(p->g, d, count, (REAL *)a->drift + row * d);
  if (!a->product && !a->trace && !whole) return;
  memset(p->trace, 0, sizeof p->trace);
  if (p->v) memset(p->product, 0, (size_t)(d * ROWS) * sizeof(REAL));
  for (int64_t j = 0; j < b->k; j++) {
    REAL *const c = p->c + j * p->slot, *const e = p->e + j * p->slot;
    F(spread)(b, p, j, c, e);
    if (p->v || a->trace) F(add_products)(b, p, j, c, e);
  }
  if (a->trace) memcpy((REAL *)a->trace + row, p->trace, (size_t)count * sizeof(REAL));
  if (a->product) F(rows_out)(p->product, d, count, (REAL *)a->product + row * d);
  if (!whole) return;
  F(jacobian)(b, p, count, a->jacobian ? (REAL *)a->jacobian + row * d * d : 0);
  if (a->norm2) memcpy((REAL *)a->norm2 + row, p->norm2, (size_t)count * sizeof(REAL));
}

LEVEL_FN int F(evaluate)(const fortet_gmm_evaluate_args *a, int64_t begin, int64_t end) {
  const fortet_mixture *const m = &a->m;
  const int64_t k = m->k, d = m->d, plane = d * ROWS, fixed = !a->t;
  const int64_t slots = (fixed ? 1 : 2) * k * plane * (int64_t)sizeof(REAL) <= FORTET_GMM_KEPT ? k : 1;
  const int whole = a->jacobian || a->norm2;
  const int64_t spreads = whole ? k : a->product || a->trace ? 1 : 0;
  const int64_t size = F(mixture_size)(m) + (fixed ? F(fix_size)(m) : 2 * F(up)(ROWS)) + F(up)(k * ROWS) +
                       (fixed ? 1 : 2) * F(up)(slots * plane) + (a->product ? 5 : 3) * F(up)(plane) + 2 * F(up)(spreads * plane);
  REAL *const memory = (REAL *)aligned_alloc(64, (size_t)size * sizeof(REAL));
  if (!memory) return FORTET_OUT_OF_MEMORY;
  REAL *work = memory;
  BLOCK b = {0};
  F(point) p = {0};
  F(mixture)(&b, m, &work);
  if (fixed) F(fix)(&b, a->t0, &work);
  else b.t = F(take)(&work, ROWS), b.rest = F(take)(&work, ROWS), b.inverse = F(take)(&work, slots * plane);
  b.w = F(take)(&work, k * ROWS);
  b.h = F(take)(&work, slots * plane);
  b.slot = slots > 1 ? plane : 0;
  REAL *const x = F(take)(&work, plane);
  b.x = x;
  p.g = F(take)(&work, plane), p.along = F(take)(&work, plane);
  if (a->product) p.v = F(take)(&work, plane), p.product = F(take)(&work, plane);
  p.c = F(take)(&work, spreads * plane), p.e = F(take)(&work, spreads * plane);
  p.slot = whole ? plane : 0;
  for (int64_t tile = begin; tile < end; tile++) {
    const int64_t stop = (tile + 1) * FORTET_GMM_ROWS < a->n ? (tile + 1) * FORTET_GMM_ROWS : a->n;
    for (int64_t row = tile * FORTET_GMM_ROWS; row < stop; row += ROWS) {
      const int count = stop - row < ROWS ? (int)(stop - row) : ROWS;
      F(rows_in)((const REAL *)a->x + row * d, d, count, x);
      if (p.v) F(rows_in)((const REAL *)a->v + row * d, d, count, p.v);
      if (!fixed) {
        F(rows_in)((const REAL *)a->t + row, 1, count, b.t);
        for (int i = 0; i < ROWS; i++) b.rest[i] = 1 - b.t[i];
      }
      F(evaluate_block)(a, &b, &p, row, count);
    }
  }
  free(memory);
  return FORTET_OK;
}

/* out = floor + exp(clamp(raw)). */
LEVEL_FN int F(scales)(const fortet_gmm_scales_args *a, int64_t begin, int64_t end) {
  const REAL *const raw = (const REAL *)a->raw;
  REAL *const out = (REAL *)a->out;
  const int64_t stop = end * FORTET_GMM_ELEMENTS < a->n ? end * FORTET_GMM_ELEMENTS : a->n;
  for (int64_t i = begin * FORTET_GMM_ELEMENTS; i < stop; i++) {
    REAL r = raw[i];
    r = r < -14 ? -14 : r > 14 ? 14 : r;
    out[i] = (REAL)(a->floor + EXP(r));
  }
  return FORTET_OK;
}
