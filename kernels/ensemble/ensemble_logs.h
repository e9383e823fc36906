/* ensemble_logs.h - what is done in double at one level: costs, starts, sweeps
 * as log-sum-exps, and the report. Potentials as ensemble_room.h says. */

typedef fortet_ensemble_room N(room);

INLINE VEC N(less)(VEC a, VEC b) { return N(select)((N(bits))(a < b), a, b); }

INLINE VEC N(root)(VEC a) {
#ifdef VECTOR_SQRT
  return VECTOR_SQRT(a);
#else
  for (int l = 0; l < LANES; l++) a[l] = __builtin_sqrt(a[l]);
  return a;
#endif
}

/* 2^t, at most 2^1000. */
INLINE VEC N(power)(VEC t) { return N(exp2)(N(select)((N(bits))(t > SPLAT(1000)), SPLAT(1000), t)); }

INLINE double N(most)(VEC v) {
  double s = v[0];
  for (int l = 1; l < LANES; l++) s = v[l] > s ? v[l] : s;
  return s;
}

/* The costs, in rows of ld, 0 in the padding. */
static void N(costs)(N(room) *r, const fortet_ensemble_args *a, const double *y, const double *matrix) {
  if (matrix) {
    for (int64_t i = 0; i < r->n; i++) {
      memcpy(r->cost + i * r->ld, matrix + i * r->m, (size_t)r->m * sizeof(double));
      memset(r->cost + i * r->ld + r->m, 0, (size_t)(r->ld - r->m) * sizeof(double));
    }
    return;
  }
  for (int64_t k = 0; k < r->d; k++) {
    for (int64_t j = 0; j < r->m; j++) r->yt[k * r->ld + j] = y[j * r->d + k];
    for (int64_t j = r->m; j < r->ld; j++) r->yt[k * r->ld + j] = y[k];
  }
  const double factor = a->cost == FORTET_HALF_SQEUCLIDEAN ? 0.5 : 1;
  for (int64_t i = 0; i < r->n; i++) {
    const double *const x = r->x + i * r->d;
    double *const c = r->cost + i * r->ld;
    for (int64_t j = 0; j < r->ld; j += 2 * LANES) {
      VEC s0 = SPLAT(0), s1 = SPLAT(0);
      for (int64_t k = 0; k < r->d; k++) {
        const VEC t0 = LOAD(r->yt + k * r->ld + j) - x[k], t1 = LOAD(r->yt + k * r->ld + j + LANES) - x[k];
        s0 += t0 * t0;
        s1 += t1 * t1;
      }
      if (a->cost == FORTET_EUCLIDEAN) s0 = N(root)(s0), s1 = N(root)(s1);
      STORE(c + j, s0 * factor);
      STORE(c + j + LANES, s1 * factor);
    }
  }
}

/* Weights, their logarithms and roots; b is scaled to the mass of a where both
 * marginals are exact. Answers the mean cost under both. */
static double N(weigh)(N(room) *r, const double *a, const double *b, int balanced) {
  double ma = 0, mb = 0, mean = 0;
  for (int64_t i = 0; i < r->nd; i++) {
    r->a[i] = i >= r->n ? 0 : a ? a[i] : 1 / (double)r->n;
    ma += r->a[i];
  }
  for (int64_t j = 0; j < r->ld; j++) {
    r->b[j] = j >= r->m ? 0 : b ? b[j] : 1 / (double)r->m;
    mb += r->b[j];
  }
  r->mass = ma;
  const double scale = balanced ? ma / mb : 1;
  for (int64_t i = 0; i < r->nd; i++) r->la[i] = r->a[i] > 0 ? log2(r->a[i]) : -FORTET_INF;
  for (int64_t j = 0; j < r->ld; j++) {
    r->b[j] *= scale;
    r->q[j] = sqrt(r->b[j]);
    r->lb[j] = r->b[j] > 0 ? log2(r->b[j]) : -FORTET_INF;
    r->lq[j] = r->lb[j] / 2;
  }
  VEC least = SPLAT(r->cost[0]), greatest = least;
  for (int64_t i = 0; i < r->n; i++) {
    VEC s = SPLAT(0);
    for (int64_t j = 0; j < r->ld; j += LANES) {
      const VEC c = LOAD(r->cost + i * r->ld + j);
      s += c * LOAD(r->b + j);
      least = N(less)(c, least);
      greatest = N(larger)(c, greatest);
    }
    mean += r->a[i] * N(sum)(s);
  }
  r->spread = N(most)(greatest) + N(most)(-least);
  return mean / (ma * mb * scale);
}

/* phi_i = min_j c_ij - gamma_j over targets with weight. */
static void N(nearest)(N(room) *r, const double *gamma, double *phi) {
  for (int64_t j = 0; j < r->ld; j += LANES)
    STORE(r->row + j, N(select)((N(bits))(LOAD(r->b + j) > SPLAT(0)), LOAD(gamma + j), SPLAT(-FORTET_INF)));
  for (int64_t i = 0; i < r->nd; i++) {
    VEC s = SPLAT(FORTET_INF);
    const double *const c = r->cost + i * r->ld;
    if (i < r->n)
      for (int64_t j = 0; j < r->ld; j += LANES) s = N(less)(LOAD(c + j) * r->unit - LOAD(r->row + j), s);
    phi[i] = i < r->n ? -N(most)(-s) : 0;
  }
}

/* The start: phi_i = min_j c_ij, gamma_j = min_i c_ij - phi_i. Then the matrix
 * has a one in every row and column, and nothing above. */
static void N(start)(N(room) *r) {
  memset(r->gamma, 0, (size_t)r->ld * sizeof(double));
  N(nearest)(r, r->gamma, r->phi);
  for (int64_t j = 0; j < r->ld; j += LANES) {
    VEC s = SPLAT(FORTET_INF);
    for (int64_t i = 0; i < r->n; i++)
      if (r->a[i] > 0) s = N(less)(LOAD(r->cost + i * r->ld + j) * r->unit - r->phi[i], s);
    STORE(r->gamma + j, s);
  }
}

/* -log2 sum_j b_j 2^(gamma_j - c_ij); leaves the terms in r->row, relative to
 * the greatest, and their sum in *sum. */
INLINE double N(softmin)(N(room) *r, int64_t i, double *sum) {
  const double *const c = r->cost + i * r->ld;
  VEC top = SPLAT(-FORTET_INF), s = SPLAT(0);
  for (int64_t j = 0; j < r->ld; j += LANES) {
    const VEC t = (LOAD(r->lb + j) + LOAD(r->gamma + j)) - LOAD(c + j) * r->unit;
    STORE(r->row + j, t);
    top = N(larger)(t, top);
  }
  const double z = N(most)(top);
  for (int64_t j = 0; j < r->ld; j += LANES) {
    const VEC e = N(exp2)(LOAD(r->row + j) - z);
    STORE(r->row + j, e);
    s += e;
  }
  *sum = N(sum)(s);
  return -(z + log2(*sum));
}

/* image_j = -log2 sum_i a_i 2^(phi_i - c_ij), without the damping. */
static void N(columns)(N(room) *r) {
  for (int64_t j = 0; j < r->ld; j++) r->top[j] = -FORTET_INF, r->col[j] = 0;
  for (int64_t i = 0; i < r->n; i++) {
    const double h = r->la[i] + r->phi[i];
    if (!(r->a[i] > 0)) continue;
    for (int64_t j = 0; j < r->ld; j += LANES)
      STORE(r->top + j, N(larger)(h - LOAD(r->cost + i * r->ld + j) * r->unit, LOAD(r->top + j)));
  }
  for (int64_t i = 0; i < r->n; i++) {
    const double h = r->la[i] + r->phi[i];
    if (!(r->a[i] > 0)) continue;
    for (int64_t j = 0; j < r->ld; j += LANES) {
      const VEC t = (h - LOAD(r->cost + i * r->ld + j) * r->unit) - LOAD(r->top + j);
      STORE(r->col + j, LOAD(r->col + j) + N(exp2)(t));
    }
  }
  for (int64_t j = 0; j < r->ld; j += LANES) STORE(r->image + j, -(LOAD(r->top + j) + N(log2)(LOAD(r->col + j))));
}

/* What the optimality conditions ask of the marginal of target j. */
INLINE VEC N(wanted)(const N(room) *r, int64_t j) {
  const VEC b = LOAD(r->b + j);
  if (r->decay2 == 0) return b;
  return b * N(power)(LOAD(r->gamma + j) * -r->decay2);
}

/* A sweep as log-sum-exps: image of gamma, and the residual. */
static double N(log_sweep)(N(room) *r) {
  double sum;
  r->logs++;
  for (int64_t i = 0; i < r->n; i++) r->phi[i] = r->damp1 * N(softmin)(r, i, &sum);
  N(columns)(r);
  VEC residual = SPLAT(0);
  for (int64_t j = 0; j < r->ld; j += LANES) {
    const VEC gamma = LOAD(r->gamma + j), soft = LOAD(r->image + j), b = LOAD(r->b + j);
    residual += N(magnitude)(b * N(power)(gamma - soft) - N(wanted)(r, j));
    STORE(r->image + j, N(select)((N(bits))(b > SPLAT(0)), soft * r->damp2, gamma));
  }
  return N(sum)(residual) / r->mass;
}

/* rho KL(p | q), 0 for an exact marginal. */
static double N(penalty)(double rho, double p, double q) {
  if (rho == FORTET_INF) return 0;
  return rho * ((q - p) + (p > 0 ? p * log(p / q) : 0));
}

/* w f, or -rho w (exp(-f / rho) - 1) with a penalty. */
static double N(linear)(double rho, double f, double w) {
  if (w == 0) return 0;
  return rho == FORTET_INF ? w * f : -rho * w * expm1(-f / rho);
}

/* The plan of gamma: potentials, map and values; answers the residual. */
static double N(report)(N(room) *r, double rho1, double rho2, double *f, double *g, double *map, double *values) {
  const double scale = r->epsilon * LN2;
  double mass = 0, mass_b = 0, cost = 0, potential = 0, primal = 0, dual = 0, source = 0, target = 0, residual = 0, sum;
  for (int64_t j = 0; j < r->ld; j++) r->col[j] = 0, mass_b += r->b[j];
  for (int64_t i = 0; i < r->n; i++) {
    const double soft = N(softmin)(r, i, &sum);
    r->phi[i] = r->damp1 * soft;
    f[i] = scale * r->phi[i];
    const double row = r->a[i] * exp2(r->phi[i] - soft), part = row / sum; /* row mass, and that of a term */
    const double *const c = r->cost + i * r->ld;
    VEC costs = SPLAT(0);
    for (int64_t j = 0; j < r->ld; j += LANES) {
      const VEC e = LOAD(r->row + j);
      costs += e * LOAD(c + j);
      STORE(r->col + j, LOAD(r->col + j) + e * part);
    }
    for (int64_t k = 0; map && k < r->d; k++) {
      VEC s = SPLAT(0);
      for (int64_t j = 0; j < r->ld; j += LANES) s += LOAD(r->row + j) * LOAD(r->yt + k * r->ld + j);
      map[i * r->d + k] = N(sum)(s) / sum;
    }
    cost += part * N(sum)(costs);
    mass += row;
    source += fabs(row - r->a[i]);
    if (row > 0) potential += row * f[i];
    dual += N(linear)(rho1, f[i], r->a[i]);
    primal += N(penalty)(rho1, row, r->a[i]);
  }
  for (int64_t j = 0; j < r->m; j++) {
    if (r->b[j] > 0) continue;
    /* The potential extends to where there is no mass. */
    memcpy(r->f, r->col, (size_t)r->ld * sizeof(double));
    N(columns)(r);
    memcpy(r->col, r->f, (size_t)r->ld * sizeof(double));
    for (int64_t k = j; k < r->m; k++)
      if (!(r->b[k] > 0)) r->gamma[k] = r->damp2 * r->image[k];
    break;
  }
  for (int64_t j = 0; j < r->m; j++) {
    const double v = r->col[j], b = r->b[j];
    g[j] = scale * r->gamma[j];
    target += fabs(v - b);
    residual += fabs(v - (r->decay2 == 0 ? b : b * exp2(-r->decay2 * r->gamma[j])));
    if (v > 0) potential += v * g[j];
    dual += N(linear)(rho2, g[j], b);
    primal += N(penalty)(rho2, v, b);
  }
  const double outer = r->mass * mass_b;
  values[FORTET_ENSEMBLE_COST] = cost;
  /* <C, P> + epsilon KL(P | a x b), where <C, P> cancels. */
  values[FORTET_ENSEMBLE_PRIMAL] = potential - r->epsilon * (mass - outer) + primal;
  values[FORTET_ENSEMBLE_DUAL] = dual - r->epsilon * (mass - outer);
  values[FORTET_ENSEMBLE_MASS] = mass;
  values[FORTET_ENSEMBLE_SOURCE] = source;
  values[FORTET_ENSEMBLE_TARGET] = target;
  values[FORTET_ENSEMBLE_RESIDUAL] = residual / r->mass;
  return residual / r->mass;
}
