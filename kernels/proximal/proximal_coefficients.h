/* proximal_coefficients.h - what depends on t alone. With log2 e / (2 epsilon) = kappa,
 * in the axes of a component
 *
 *     p = r / D,  a = (s - 1) / D,  c = log2(e) la - sum_k [log2(D)/2 + t kappa r p]
 *     g = p + a y,  log2(e) ell = c + kappa sum_k y (p + g)
 *
 * Included by proximal_body.h. */

typedef struct {
  const fortet_proximal_args *a;
  int64_t d, k;
  REAL beta, epsilon, kappa;
  double target_beta; /* beta as REAL has it, infinities included */
  /* Where H is formed: c, p, and a or the matrix A'aA packed by rows, of every
   * component; own: once per lane, for every lane has its own t. */
  REAL *coef, *ell;
  int64_t record;
  int own;
  REAL *flat;  /* room for p, a and the terms of c */
  REAL *turned; /* with axes: A r */
} N(job);

INLINE void N(begin)(N(job) *c, const fortet_proximal_args *a) {
  c->a = a;
  c->d = a->m.d;
  c->k = a->m.k;
  c->target_beta = (double)(REAL)a->beta;
  c->beta = c->target_beta == FORTET_INF ? 0 : (REAL)a->beta;
  c->epsilon = (REAL)a->m.epsilon;
  c->kappa = (REAL)(0.5 * 1.44269504088896340736 / a->m.epsilon);
  c->own = a->t != NULL;
}

INLINE REAL N(time)(const N(job) *c, int64_t i) { return c->a->t ? ((const REAL *)c->a->t)[i] : (REAL)c->a->t0; }

/* n numbers of each: p, a, and the terms of c. */
INLINE void N(divide)(const REAL *r, const REAL *s, int64_t n, REAL t, REAL kappa, REAL *p, REAL *a, REAL *term) {
  for (int64_t i = 0; i < n; i += LANES) {
    const int64_t some = n - i < LANES ? n - i : LANES;
    REAL rs[LANES], ss[LANES], out[3][LANES];
    for (int l = 0; l < LANES; l++) rs[l] = 0, ss[l] = 1;
    memcpy(rs, r + i, (size_t)some * sizeof(REAL));
    memcpy(ss, s + i, (size_t)some * sizeof(REAL));
    const VEC sv = LOAD(ss), rv = LOAD(rs), scale = ((REAL)1 - t) + t * sv;
    const VEC pv = rv / scale;
    STORE(out[0], pv);
    STORE(out[1], (sv - (REAL)1) / scale);
    STORE(out[2], N(log2)(scale) * (REAL)0.5 + t * kappa * rv * pv);
    memcpy(p + i, out[0], (size_t)some * sizeof(REAL));
    memcpy(a + i, out[1], (size_t)some * sizeof(REAL));
    memcpy(term + i, out[2], (size_t)some * sizeof(REAL));
  }
}

/* sum_i a_i b_i */
INLINE REAL N(dot)(const REAL *a, const REAL *b, int64_t n) {
  VEC s[2] = {{0}, {0}};
  int64_t i = 0;
  for (; i + 2 * LANES <= n; i += 2 * LANES) {
    s[0] += LOAD(a + i) * LOAD(b + i);
    s[1] += LOAD(a + i + LANES) * LOAD(b + i + LANES);
  }
  REAL total = N(sum)(s[0] + s[1]);
  for (; i < n; i++) total += a[i] * b[i];
  return total;
}

/* out += u a */
INLINE void N(add)(REAL *out, REAL u, const REAL *a, int64_t n) {
  FORTET_ELEMENTWISE
  for (int64_t i = 0; i < n; i++) out[i] += u * a[i];
}

/* A r of every component. */
INLINE void N(turn)(const N(job) *c) {
  const REAL *A = c->a->m.axes, *r = c->a->m.means;
  for (int64_t j = 0; j < c->k; j++)
    for (int64_t i = 0; i < c->d; i++) c->turned[j * c->d + i] = N(dot)(A + (j * c->d + i) * c->d, r + j * c->d, c->d);
}

/* Where H is formed: the coefficients of time t, for lane l or for all. */
static void N(prepare)(const N(job) *c, REAL t, int l) {
  const int64_t d = c->d, n = c->k * d;
  const REAL *A = c->a->m.axes, *la = c->a->m.logits;
  REAL *p = c->flat, *a = p + n, *term = a + n;
  const int64_t step = c->own ? LANES : 1;
  N(divide)(A ? c->turned : c->a->m.means, c->a->m.scales, n, t, c->kappa, p, a, term);
  for (int64_t j = 0; j < c->k; j++, p += d, a += d, term += d) {
    REAL *out = c->coef + j * c->record * step + l, sum = 0;
    for (int64_t i = 0; i < d; i++) sum += term[i];
    out[0] = (REAL)1.44269504088896340736 * la[j] - sum;
    out += step;
    if (!A) {
      for (int64_t i = 0; i < d; i++) out[i * step] = p[i], out[(d + i) * step] = a[i];
      continue;
    }
    REAL row[FORTET_PROXIMAL_DENSE];
    for (int64_t i = 0; i < d; i++) row[i] = 0;
    for (int64_t q = 0; q < d; q++) N(add)(row, p[q], A + (j * d + q) * d, d);
    for (int64_t i = 0; i < d; i++, out += step) *out = row[i];
    for (int64_t i = 0; i < d; i++) {
      for (int64_t e = 0; e <= i; e++) row[e] = 0;
      for (int64_t q = 0; q < d; q++) {
        const REAL *axis = A + (j * d + q) * d;
        N(add)(row, a[q] * axis[i], axis, i + 1);
      }
      for (int64_t e = 0; e <= i; e++, out += step) *out = row[e];
    }
  }
}
