/* fdual_body.h - all of fdual_cpu.c that depends on the element type:
 *
 *     REAL, INT    the type and an integer of its size
 *     F(x)         x with a suffix of the type
 *     SINGLE       1 for float
 *     MAGIC, SHIFT 1.5 2^mantissa + bias, and the bits of the mantissa
 *     LEAST, MOST  where exponentials are cut off */

/* expm1(x) = 2^n r q(r) + (2^n - 1), x = n log 2 + r, by Taylor's polynomial,
 * whose first term left out is below half a unit; x in [LEAST, MOST]. */
FORTET_HD REAL F(expm1_lane)(REAL x, REAL *power) {
#if SINGLE
  static const REAL c[] = {1.0f / 5040, 1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f};
  const REAL head = 0x1.62e4p-1f, tail = 0x1.7f7d1cp-20f;
#else
  static const REAL c[] = {1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320,
                           1.0 / 5040, 1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5, 1.0};
  const REAL head = 6.93147180369123816490e-01, tail = 1.90821492927058770002e-10;
#endif
  x = x < LEAST ? LEAST : x;
  x = x > MOST ? MOST : x;
  const REAL shifted = x * (REAL)1.44269504088896340736 + MAGIC, n = shifted - MAGIC;
  const REAL r = (x - n * head) - n * tail;
  REAL q = c[0];
#pragma GCC unroll 16
  for (int i = 1; i < (int)(sizeof c / sizeof c[0]); i++) q = q * r + c[i];
  union {
    REAL real;
    INT bits;
  } scale;
  scale.real = shifted;
  scale.bits = (INT)((UINT)scale.bits << SHIFT);
  *power = scale.real;
  return scale.real * (r * q);
}
FORTET_HD REAL F(expm1)(REAL x) {
  REAL power;
  const REAL e = F(expm1_lane)(x, &power);
  return e + (power - 1);
}
/* exp, 0 below LEAST. */
FORTET_HD REAL F(exp)(REAL x) {
  REAL power;
  const REAL e = F(expm1_lane)(x, &power);
  return x < LEAST ? 0 : e + power;
}

/* The costs of row i, in (padded). Beyond the last column they are 0. */
FORTET_HD void F(costs)(const fortet_fdual_pairs *p, int64_t i, int64_t padded, REAL *c) {
  const int64_t m = p->m, d = p->d;
  if (p->cost == FORTET_MATRIX) {
    memcpy(c, (const REAL *)p->matrix + i * m, (size_t)m * sizeof(REAL));
    for (int64_t j = m; j < padded; j++) c[j] = 0;
    return;
  }
  const REAL *const x = (const REAL *)p->x + i * d;
  for (int64_t j = 0; j < padded; j++) c[j] = 0;
  for (int64_t from = 0; from < m; from += PANEL) {
    const int64_t stop = from + PANEL < m ? from + PANEL : m;
    for (int64_t k = 0; k < d; k++) {
      const REAL *const y = (const REAL *)p->yt + k * m;
      for (int64_t j = from; j < stop; j++) {
        const REAL t = x[k] - y[j];
        c[j] += t * t;
      }
    }
  }
  if (p->cost == FORTET_EUCLIDEAN)
    for (int64_t j = 0; j < m; j++) c[j] = F(root)(c[j]);
  if (p->cost == FORTET_HALF_SQEUCLIDEAN)
    for (int64_t j = 0; j < m; j++) c[j] *= (REAL)0.5;
}

/* A row: z_j without p in e, log weights without shift in l. Pairs of weight zero
 * get the e of a phi of zero. Answers whether a NaN is among those that count. */
FORTET_HD int F(exponents)(const fortet_fdual_pairs *p, int64_t padded, int rises, const REAL *c, REAL *e, REAL *l) {
  const int64_t m = p->m;
  const REAL slope = (REAL)p->slope, decay = (REAL)p->decay, none = rises ? -(REAL)INFINITY : (REAL)INFINITY;
  const REAL *const q = (const REAL *)p->q, *const logb = (const REAL *)p->logb;
  INT wrong = 0;
  for (int64_t j = 0; j < m; j++) {
    const REAL w = (logb ? logb[j] : 0) - (decay != 0 ? decay * c[j] : 0);
    const REAL z = q[j] + (slope != 0 ? slope * c[j] : 0);
    const int zero = w == -(REAL)INFINITY;
    e[j] = zero ? none : z;
    l[j] = w;
    wrong |= (zero ? 0 : 1) & ((z != z) | (w != w));
  }
  for (int64_t j = m; j < padded; j++) e[j] = none, l[j] = -(REAL)INFINITY;
  return wrong != 0;
}

FORTET_HD REAL F(largest)(const REAL *v, int64_t padded, int sign) {
  REAL top[LANES];
  for (int k = 0; k < LANES; k++) top[k] = -(REAL)INFINITY;
  for (int64_t j = 0; j < padded; j += LANES)
    for (int k = 0; k < LANES; k++) {
      const REAL x = sign < 0 ? -v[j + k] : v[j + k];
      top[k] = x > top[k] ? x : top[k];
    }
  for (int k = 1; k < LANES; k++) top[0] = top[k] > top[0] ? top[k] : top[0];
  return sign < 0 ? -top[0] : top[0];
}

/* sum_j w_j phi and sum_j w_j rate, by panels, so that float sums are short. */
FORTET_HD void F(sums)(int form, const fortet_fdual_pairs *p, int64_t padded, REAL x, int rises, const REAL *depth,
                       const REAL *w, double *mass, double *rate) {
  const REAL power = (REAL)(1 / (p->a - 1)), sharp = (REAL)(1 / p->delta), base = form == FDUAL_JS ? SCALAR_EXPM1(x) : x;
  double total = 0, slope = 0;
  for (int64_t from = 0; from < padded; from += PANEL) {
    const int64_t stop = from + PANEL < padded ? from + PANEL : padded;
    REAL a[LANES], b[LANES];
    for (int k = 0; k < LANES; k++) a[k] = b[k] = 0;
    for (int64_t j = from; j < stop; j += LANES)
      for (int k = 0; k < LANES; k++) {
        const REAL t = depth[j + k];
        const REAL z = form == FDUAL_JS ? base * (t + 1) + t : rises ? base - t : base + t;
        REAL r;
        const REAL phi = F(phi)(form, z, power, sharp, &r);
        a[k] += w[j + k] * phi;
        b[k] += w[j + k] * r;
      }
    for (int half = LANES / 2; half > 0; half /= 2)
      for (int k = 0; k < half; k++) a[k] += a[k + half], b[k] += b[k + half];
    total += (double)a[0], slope += (double)b[0];
  }
  *mass = total, *rate = slope;
}

/* The same with the form as a constant, so that the loop becomes vectors. */
FORTET_HD void F(all_sums)(int form, const fortet_fdual_pairs *p, int64_t padded, REAL x, const REAL *depth, const REAL *w,
                           double *mass, double *rate) {
  switch (form) {
    case FDUAL_LINEAR: F(sums)(FDUAL_LINEAR, p, padded, x, 1, depth, w, mass, rate); break;
    case FDUAL_SQUARE: F(sums)(FDUAL_SQUARE, p, padded, x, 1, depth, w, mass, rate); break;
    case FDUAL_ROOT: F(sums)(FDUAL_ROOT, p, padded, x, 1, depth, w, mass, rate); break;
    case FDUAL_RECIPROCAL: F(sums)(FDUAL_RECIPROCAL, p, padded, x, 0, depth, w, mass, rate); break;
    case FDUAL_RECIP_SQUARE: F(sums)(FDUAL_RECIP_SQUARE, p, padded, x, 0, depth, w, mass, rate); break;
    case FDUAL_RECIP_ROOT: F(sums)(FDUAL_RECIP_ROOT, p, padded, x, 0, depth, w, mass, rate); break;
    case FDUAL_JS: F(sums)(FDUAL_JS, p, padded, x, 0, depth, w, mass, rate); break;
    case FDUAL_TV: F(sums)(FDUAL_TV, p, padded, x, 1, depth, w, mass, rate); break;
    default: F(sums)(FDUAL_POWER, p, padded, x, p->a > 1, depth, w, mass, rate);
  }
}

/* Row i of the exponential law: a log-sum-exp. */
FORTET_HD double F(soft_row)(const fortet_fdual_pairs *p, int64_t padded, REAL *e, const REAL *l) {
  for (int64_t j = 0; j < padded; j++) e[j] = l[j] == -(REAL)INFINITY ? l[j] : e[j] + l[j];
  const REAL top = F(largest)(e, padded, 1);
  if (top == -(REAL)INFINITY) return NAN;
  double sum = 0;
  for (int64_t from = 0; from < padded; from += PANEL) {
    const int64_t stop = from + PANEL < padded ? from + PANEL : padded;
    REAL a[LANES];
    for (int k = 0; k < LANES; k++) a[k] = 0;
    for (int64_t j = from; j < stop; j += LANES)
      for (int k = 0; k < LANES; k++) a[k] += F(exp)(e[j + k] - top);
    for (int half = LANES / 2; half > 0; half /= 2)
      for (int k = 0; k < half; k++) a[k] += a[k + half];
    sum += (double)a[0];
  }
  return -((double)top + log(sum) + p->shift);
}

FORTET_HD int F(rows)(const fortet_fdual_rows_args *args, int64_t begin, int64_t end, int level) {
  (void)level;
  const fortet_fdual_pairs *const p = &args->pairs;
  const int64_t padded = (p->m + LANES - 1) / LANES * LANES;
  const int rises = fdual_rises(p), form = fdual_form(p);
  const REAL *const start = (const REAL *)args->start;
  REAL *const out = (REAL *)args->p;
  REAL *const room = malloc((size_t)(3 * padded) * sizeof(REAL));
  if (!room) return FORTET_OUT_OF_MEMORY;
  REAL *const c = room, *const e = c + padded, *const l = e + padded;
  const int64_t stop = end * FORTET_FDUAL_ROWS < p->n ? end * FORTET_FDUAL_ROWS : p->n;
  for (int64_t i = begin * FORTET_FDUAL_ROWS; i < stop; i++) {
    const double from = start ? (double)start[i] : NAN;
    double root = NAN, mass = NAN;
    int32_t steps = 1;
    F(costs)(p, i, padded, c);
    const int wrong = F(exponents)(p, padded, rises, c, e, l);
    if (wrong) {
    } else if (form == FDUAL_EXP) {
      root = F(soft_row)(p, padded, e, l);
      mass = exp(from - root);
    } else {
      const REAL edge = F(largest)(e, padded, rises ? 1 : -1), heaviest = F(largest)(l, padded, 1);
      REAL *const depth = c; /* the costs are not needed any more */
      REAL at_edge[LANES];
      for (int k = 0; k < LANES; k++) at_edge[k] = -(REAL)INFINITY;
      for (int64_t j = 0; j < padded; j += LANES)
        for (int k = 0; k < LANES; k++) {
          const REAL t = rises ? edge - e[j + k] : e[j + k] - edge;
          at_edge[k] = t == 0 && l[j + k] > at_edge[k] ? l[j + k] : at_edge[k];
          depth[j + k] = t;
        }
      for (int k = 1; k < LANES; k++) at_edge[0] = at_edge[k] > at_edge[0] ? at_edge[k] : at_edge[0];
      if (form == FDUAL_JS)
        for (int64_t j = 0; j < padded; j++) depth[j] = F(expm1)(depth[j]);
      double all = 0;
      for (int64_t j = 0; j < padded; j++) l[j] = F(exp)(l[j] - heaviest);
      for (int64_t j = 0; j < padded; j++) all += (double)l[j];
      const double tau = -((double)heaviest + p->shift);
      const REAL first = (REAL)(from + (double)edge); /* NaN without a start */
      const int feasible = rises || first > 0;
      fdual_root s;
      fdual_begin(&s, p, tau, (double)at_edge[0] - (double)heaviest, log(all), SINGLE, feasible ? (double)first : NAN);
      mass = s.done || first != first ? NAN : FORTET_INF;
      while (!s.done) {
        double total, rate;
        const REAL x = (REAL)s.x;
        s.x = (double)x;
        F(all_sums)(form, p, padded, x, depth, l, &total, &rate);
        if (s.steps == 0 && feasible && first == first) mass = total * exp(-tau);
        fdual_step(&s, total, rate, SINGLE);
      }
      root = s.x - (double)edge;
      steps = s.steps;
    }
    out[i] = (REAL)root;
    if (args->mass) args->mass[i] = mass;
    if (args->steps) args->steps[i] = steps;
  }
  free(room);
  return FORTET_OK;
}

FORTET_HD int F(eval)(const fortet_fdual_eval_args *args, int64_t begin, int64_t end, int level) {
  (void)level;
  const fortet_fdual_pairs *const p = &args->pairs;
  const int64_t padded = (p->m + LANES - 1) / LANES * LANES;
  const int form = fdual_form(p), rises = fdual_rises(p);
  const double sharp = 1 / p->delta;
  REAL *const c = malloc((size_t)padded * sizeof(REAL));
  if (!c) return FORTET_OUT_OF_MEMORY;
  const REAL *const q = (const REAL *)p->q, *const logb = (const REAL *)p->logb;
  const int64_t stop = end * FORTET_FDUAL_ROWS < p->n ? end * FORTET_FDUAL_ROWS : p->n;
  for (int64_t i = begin * FORTET_FDUAL_ROWS; i < stop; i++) {
    double mass = 0, cost = 0, f = 0, psi = 0, edge = rises ? -FORTET_INF : FORTET_INF;
    const double own = (double)((const REAL *)args->p)[i];
    F(costs)(p, i, padded, c);
    for (int64_t j = 0; j < p->m; j++) {
      const double cj = (double)c[j];
      const double logw = (logb ? (double)logb[j] : 0) - (p->decay != 0 ? p->decay * cj : 0) + p->shift;
      if (logw == -FORTET_INF) continue;
      const double z = own + (double)q[j] + (p->slope != 0 ? p->slope * cj : 0), w = exp(logw);
      const fdual_values v = fdual_evaluate(form, p->a, sharp, z);
      mass += w * v.phi;
      if (!(v.phi == 0)) cost += w * v.phi * cj;
      f += w * v.f;
      psi += w * v.psi;
      if (rises ? z > edge : z < edge) edge = z;
    }
    if (args->mass) args->mass[i] = mass;
    if (args->cost) args->cost[i] = cost;
    if (args->f) args->f[i] = f;
    if (args->psi) args->psi[i] = psi;
    if (args->edge) args->edge[i] = edge;
  }
  free(c);
  return FORTET_OK;
}

#undef REAL
#undef INT
#undef UINT
#undef F
#undef SINGLE
#undef MAGIC
#undef SHIFT
#undef LEAST
#undef MOST
#undef SCALAR_EXPM1
