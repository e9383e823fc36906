/* duallse_penalty.h - penalties of f-divergences over tuples for one level and
 * element type; included by duallse_cpu.c after duallse_star.h. */

#define SPAN 256

/* The tuples (j, i, k) of centre j for k in one span: gathers sum w psi into
 * value, sum_k w psi' into mass[i] and sum_i w psi' into column. kind is a
 * constant in every call, so that each divergence has a loop of its own. */
INLINE void F(tuples_of)(int kind, const fortet_divergence *f, REAL beta, const REAL *alpha, const REAL *a, int64_t n1,
                         const REAL *gamma, const REAL *b, REAL *column, double *mass, double *value) {
  for (int64_t i = 0; i < n1; i++) {
    const VEC s = F(all)((alpha ? alpha[i] : 0) + beta), ai = F(all)(a[i]);
    VEC psi_sum = F(all)(0), mass_sum = psi_sum;
    for (int k = 0; k < SPAN; k += LANES) {
      const VEC w = ai * F(load)(b + k);
      const IVEC none = (IVEC)(w == F(all)(0));
      VEC d;
      const VEC psi = F(conjugate)(kind, f, s + F(load)(gamma + k), &d);
      const VEC q = F(select)(none, F(all)(0), w * d);
      psi_sum += F(select)(none, F(all)(0), w * psi);
      mass_sum += q;
      F(store)(column + k, F(load)(column + k) + q);
    }
    mass[i] += (double)F(sum)(mass_sum);
    *value += (double)F(sum)(psi_sum);
  }
}

LEVEL_FN void F(triple)(const fortet_duallse_triple_args *a, int64_t begin, int64_t end) {
  REAL gamma[SPAN] __attribute__((aligned(64))), b[SPAN] __attribute__((aligned(64)));
  REAL column[SPAN] __attribute__((aligned(64)));
  const fortet_divergence *f = &a->divergence;
  for (int64_t j = begin; j < end; j++) {
    const REAL beta = a->beta ? ((const REAL *)a->beta)[j] : 0;
    const REAL *plan = (const REAL *)a->plan + j * a->n1, *alpha = a->alpha;
    double *mass = a->part1 + j * a->n1, value = 0, total = 0;
    for (int64_t i = 0; i < a->n1; i++) mass[i] = 0;
    for (int64_t k0 = 0; k0 < a->n2; k0 += SPAN) {
      const int count = a->n2 - k0 < SPAN ? (int)(a->n2 - k0) : SPAN;
      for (int k = 0; k < SPAN; k++) {
        const int in = k < count;
        gamma[k] = in && a->gamma ? ((const REAL *)a->gamma)[k0 + k] : 0;
        b[k] = !in ? 0 : a->conditional ? ((const REAL *)a->conditional)[j * a->n2 + k0 + k] : 1;
        column[k] = 0;
      }
#define KIND(kind) \
  case kind: F(tuples_of)(kind, f, beta, alpha, plan, a->n1, gamma, b, column, mass, &value); break;
      switch (f->kind) {
        KIND(FORTET_KL)
        KIND(FORTET_REVERSE_KL)
        KIND(FORTET_PEARSON)
        KIND(FORTET_NEYMAN)
        KIND(FORTET_HELLINGER)
        KIND(FORTET_JENSEN_SHANNON)
        KIND(FORTET_ALPHA)
        KIND(FORTET_TOTAL_VARIATION)
      }
#undef KIND
      for (int k = 0; k < count; k++) a->part2[j * a->n2 + k0 + k] = (double)column[k];
    }
    for (int64_t i = 0; i < a->n1; i++) total += mass[i];
    a->part[2 * j] = value;
    a->part[2 * j + 1] = total;
  }
}

/* grad_k = sum_j part_jk (- b_k) for the columns of one span */
LEVEL_FN void F(columns)(const fortet_duallse_triple_args *a, const double *part, const void *logw, REAL *grad, int64_t n, int64_t k0) {
  double sum[SPAN] = {0};
  const int count = n - k0 < SPAN ? (int)(n - k0) : SPAN;
  if (!grad) return;
  for (int64_t j = 0; j < a->n; j++)
    for (int k = 0; k < count; k++) sum[k] += part[j * n + k0 + k];
  for (int k = 0; k < count; k++) grad[k0 + k] = (REAL)(sum[k] - (a->minus_base ? F(base)(logw, n, k0 + k) : 0));
}

LEVEL_FN void F(triple_reduce)(const fortet_duallse_triple_args *a, int64_t begin, int64_t end) {
  const int64_t tiles1 = (a->n1 + SPAN - 1) / SPAN;
  for (int64_t t = begin; t < end; t++) {
    if (t > tiles1) {
      F(columns)(a, a->part2, a->logw2, a->grad_gamma, a->n2, (t - 1 - tiles1) * SPAN);
    } else if (t > 0) {
      F(columns)(a, a->part1, a->logw1, a->grad_alpha, a->n1, (t - 1) * SPAN);
    } else {
      double value = 0;
      REAL *grad = a->grad_beta;
      for (int64_t j = 0; j < a->n; j++) value += a->part[2 * j];
      for (int64_t j = 0; grad && j < a->n; j++)
        grad[j] = (REAL)(a->part[2 * j + 1] - (a->minus_base ? F(base)(a->logw, a->n, j) : 0));
      if (!a->value) continue;
      a->value[0] = value;
      a->value[1] = F(linear)(a->beta, a->logw, a->n) + F(linear)(a->alpha, a->logw1, a->n1) +
                    F(linear)(a->gamma, a->logw2, a->n2);
      a->value[2] = *a->logz;
    }
  }
}

/* ---- given tuples */

LEVEL_FN void F(tuple_weight)(const fortet_duallse_tuples_args *a, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; t++) {
    const int64_t lo = t * TUPLES, hi = lo + TUPLES < a->count ? lo + TUPLES : a->count;
    double top = -(double)INFINITY, sum = 0;
    for (int64_t b = lo; b < hi; b++) {
      double y = 0, q = -(double)((const REAL *)a->cost)[b] / a->epsilon;
      for (int m = 0; m < a->marginals; m++) {
        const int64_t i = a->index[b * a->marginals + m];
        const REAL *v = a->marginal[m].potential;
        if (i < 0 || i >= a->marginal[m].size) q = (double)NAN;
        else if (v) y += (double)v[i];
      }
      a->y[b] = y;
      a->q[b] = q;
      if (a->q[b] > top) top = a->q[b];
    }
    const double shift = top > -(double)INFINITY ? top : 0;
    for (int64_t b = lo; b < hi; b++) sum += exp(a->q[b] - shift);
    a->part[3 * t] = shift;
    a->part[3 * t + 1] = sum;
  }
}

/* log sum_b exp(-cost_b / epsilon), from the parts of all tiles */
LEVEL_FN double F(tuple_logz)(const fortet_duallse_tuples_args *a) {
  const int64_t tiles = (a->count + TUPLES - 1) / TUPLES;
  double top = -(double)INFINITY, sum = 0;
  for (int64_t t = 0; t < tiles; t++)
    if (a->part[3 * t] > top && a->part[3 * t + 1] != 0) top = a->part[3 * t];
  if (!(top > -(double)INFINITY)) top = 0;
  for (int64_t t = 0; t < tiles; t++) {
    const double s = a->part[3 * t + 1];
    sum += s == 0 ? 0 : s * exp(a->part[3 * t] - top);
  }
  return top + log(sum);
}

INLINE void F(tuple_span)(int kind, const fortet_divergence *f, const double *y, double *q, double by, int count, double *value) {
  REAL v[SPAN] __attribute__((aligned(64))), w[SPAN] __attribute__((aligned(64)));
  VEC sum = F(all)(0);
  for (int k = 0; k < SPAN; k++) {
    v[k] = k < count ? (REAL)y[k] : 0;
    w[k] = k < count ? (REAL)(q[k] - by) : -(REAL)INFINITY;
  }
  for (int k = 0; k < SPAN; k += LANES) {
    VEC d;
    const VEC u = F(exp)(F(load)(w + k)), psi = F(conjugate)(kind, f, F(load)(v + k), &d);
    const IVEC none = (IVEC)(u == F(all)(0));
    sum += F(select)(none, F(all)(0), u * psi);
    F(store)(w + k, F(select)(none, F(all)(0), u * d));
  }
  for (int k = 0; k < count; k++) q[k] = (double)w[k];
  *value += (double)F(sum)(sum);
}

LEVEL_FN void F(tuple_apply)(const fortet_duallse_tuples_args *a, int64_t begin, int64_t end) {
  const fortet_divergence *f = &a->divergence;
  const double by = a->fixed_logz ? a->logz + log((double)a->count) : F(tuple_logz)(a);
  for (int64_t t = begin; t < end; t++) {
    const int64_t lo = t * TUPLES, hi = lo + TUPLES < a->count ? lo + TUPLES : a->count;
    double value = 0;
    for (int64_t b = lo; b < hi; b += SPAN) {
      const int count = hi - b < SPAN ? (int)(hi - b) : SPAN;
#define KIND(kind) \
  case kind: F(tuple_span)(kind, f, a->y + b, a->q + b, by, count, &value); break;
      switch (f->kind) {
        KIND(FORTET_KL)
        KIND(FORTET_REVERSE_KL)
        KIND(FORTET_PEARSON)
        KIND(FORTET_NEYMAN)
        KIND(FORTET_HELLINGER)
        KIND(FORTET_JENSEN_SHANNON)
        KIND(FORTET_ALPHA)
        KIND(FORTET_TOTAL_VARIATION)
      }
#undef KIND
    }
    a->part[3 * t + 2] = value;
  }
}

/* Tile 0 is the scalars; tile 1 + m walks all tuples for marginal m. */
LEVEL_FN void F(tuple_reduce)(const fortet_duallse_tuples_args *a, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; t++) {
    if (t == 0) {
      if (!a->value) continue;
      double value = 0, linear = 0;
      for (int64_t s = 0; s < (a->count + TUPLES - 1) / TUPLES; s++) value += a->part[3 * s + 2];
      for (int m = 0; m < a->marginals; m++)
        linear += F(linear)(a->marginal[m].potential, a->marginal[m].logw, a->marginal[m].size);
      a->value[0] = value;
      a->value[1] = linear;
      a->value[2] = F(tuple_logz)(a) - log((double)a->count);
      continue;
    }
    const fortet_duallse_marginal *m = &a->marginal[t - 1];
    REAL *grad = m->grad;
    if (!grad) continue;
    double *sum = m->sum;
    for (int64_t i = 0; i < m->size; i++) sum[i] = 0;
    for (int64_t b = 0; b < a->count; b++) {
      const int64_t i = a->index[b * a->marginals + t - 1];
      if (i >= 0 && i < m->size) sum[i] += a->q[b];
    }
    for (int64_t i = 0; i < m->size; i++)
      grad[i] = (REAL)(sum[i] - (a->minus_base ? F(base)(m->logw, m->size, i) : 0));
  }
}

/* ---- psi of each element */

INLINE void F(psi_span)(int kind, const fortet_divergence *f, const REAL *y, REAL *psi, REAL *dpsi) {
  for (int k = 0; k < SPAN; k += LANES) {
    VEC d;
    F(store)(psi + k, F(conjugate)(kind, f, F(load)(y + k), &d));
    F(store)(dpsi + k, d);
  }
}

LEVEL_FN void F(psi)(const fortet_duallse_psi_args *a, int64_t begin, int64_t end) {
  REAL y[SPAN] __attribute__((aligned(64))), psi[SPAN] __attribute__((aligned(64))), dpsi[SPAN] __attribute__((aligned(64)));
  const int64_t last = end * ELEMENTS < a->n ? end * ELEMENTS : a->n;
  const fortet_divergence *f = &a->divergence;
  for (int64_t i = begin * ELEMENTS; i < last; i += SPAN) {
    const int count = last - i < SPAN ? (int)(last - i) : SPAN;
    for (int k = 0; k < SPAN; k++) y[k] = k < count ? ((const REAL *)a->y)[i + k] : 0;
#define KIND(kind) \
  case kind: F(psi_span)(kind, f, y, psi, dpsi); break;
    switch (f->kind) {
      KIND(FORTET_KL)
      KIND(FORTET_REVERSE_KL)
      KIND(FORTET_PEARSON)
      KIND(FORTET_NEYMAN)
      KIND(FORTET_HELLINGER)
      KIND(FORTET_JENSEN_SHANNON)
      KIND(FORTET_ALPHA)
      KIND(FORTET_TOTAL_VARIATION)
    }
#undef KIND
    if (a->psi) memcpy((REAL *)a->psi + i, psi, (size_t)count * sizeof(REAL));
    if (a->dpsi) memcpy((REAL *)a->dpsi + i, dpsi, (size_t)count * sizeof(REAL));
    if (!a->slope) continue;
    for (int k = 0; k < count; k++) {
      REAL d, s;
      SCALAR_PSI(f, y[k], &d, &s);
      ((REAL *)a->slope)[i + k] = s;
    }
  }
}
