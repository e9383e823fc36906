/* proximal_krylov.h - Newton's method without H, for any d: conjugate gradients
 * on its products with vectors (Nocedal and Wright, "Numerical Optimization",
 * 2006, algorithm 7.1),
 *
 *     H v = (beta + sum_j w_j M_j) v + [sum_j w_j G_j (G_j'v) - F (F'v)] / epsilon,
 *
 * where M_j = D_j^-1 (S_j - I), G_j = g_j - beta (x - y), F = sum_j w_j G_j. With
 * diagonal covariances the first part is diagonal and its magnitude the
 * preconditioner: as many steps as there are components of some weight, and one, are
 * exact. A direction of negative curvature ends the iteration with what there is.
 *
 * One sample at a time: a point tried reads 2 K d numbers, with axes K d^2, and a
 * product m d and m d^2 for the m components that weigh at least 2^-40 (2^-80 in
 * double) of the heaviest; the others are nothing to F in this precision.
 *
 * Included by proximal_body.h. */

typedef struct {
  REAL *p, *a, *term, *bias;     /* (k, d) and c (k): the coefficients of t */
  REAL *ell, *weight, *apart;    /* (k); of the point tried: w_j, and G_j (k, d) of */
  int64_t *active, count;        /* the components of some weight */
  REAL *y, *at, *f, *h, *dir;    /* (d): h is the diagonal of H's first part */
  REAL *r, *v, *hv, *room;       /* (d) */
  REAL value, norm, noise;
} N(state);

/* The coefficients of time t. */
static void N(prepare_rows)(const N(job) *c, N(state) *s, REAL t) {
  const int64_t d = c->d, n = c->k * d;
  N(divide)(c->a->m.axes ? c->turned : c->a->m.means, c->a->m.scales, n, t, c->kappa, s->p, s->a, s->term);
  for (int64_t j = 0; j < c->k; j++) {
    VEC sum = {0};
    int64_t i = j * d;
    const int64_t end = i + d;
    for (; i + LANES <= end; i += LANES) sum += LOAD(s->term + i);
    REAL total = N(sum)(sum);
    for (; i < end; i++) total += s->term[i];
    s->bias[j] = (REAL)1.44269504088896340736 * ((const REAL *)c->a->m.logits)[j] - total;
  }
}

/* sum_k y (2 p + a y) */
INLINE REAL N(energy)(const REAL *p, const REAL *a, const REAL *y, int64_t d) {
  VEC s[2] = {{0}, {0}};
  int64_t i = 0;
  for (; i + 2 * LANES <= d; i += 2 * LANES) {
    const VEC y0 = LOAD(y + i), y1 = LOAD(y + i + LANES);
    s[0] += y0 * ((REAL)2 * LOAD(p + i) + LOAD(a + i) * y0);
    s[1] += y1 * ((REAL)2 * LOAD(p + i + LANES) + LOAD(a + i + LANES) * y1);
  }
  REAL total = N(sum)(s[0] + s[1]);
  for (; i < d; i++) total += y[i] * ((REAL)2 * p[i] + a[i] * y[i]);
  return total;
}

/* Value, F, |F|^2, the active components and h at s->at. */
static void N(try_row)(const N(job) *c, N(state) *s, const REAL *x) {
  const int64_t d = c->d;
  const REAL *A = c->a->m.axes, ln2 = (REAL)0.693147180559945309417;
  REAL top = -INFINITY, sum = 0, bias = 0, least = MANTISSA == 23 ? -40 : -80;
  for (int64_t j = 0; j < c->k; j++) {
    const REAL *z = s->at;
    if (A) { /* room = A y, and p + a A y is kept for what follows */
      for (int64_t i = 0; i < d; i++) s->room[i] = N(dot)(A + (j * d + i) * d, s->at, d);
      z = s->room;
      REAL *u = s->apart + j * d;
      for (int64_t i = 0; i < d; i++) u[i] = s->p[j * d + i] + s->a[j * d + i] * z[i];
    }
    s->ell[j] = s->bias[j] + c->kappa * N(energy)(s->p + j * d, s->a + j * d, z, d);
    top = s->ell[j] > top ? s->ell[j] : top;
  }
  s->count = 0;
  for (int64_t j = 0; j < c->k; j++) {
    const REAL e = s->ell[j] - top;
    if (e < least) continue;
    const REAL w = EXP2(e);
    s->active[s->count] = j;
    s->weight[s->count++] = w;
    sum += w;
    bias += w * s->bias[j];
  }
  REAL away = 0;
  for (int64_t i = 0; i < d; i++) {
    const REAL gap = x[i] - s->at[i];
    away += gap * gap;
    s->f[i] = 0;
    s->h[i] = c->beta;
  }
  for (int64_t q = 0; q < s->count; q++) {
    const int64_t j = s->active[q];
    const REAL w = s->weight[q] /= sum, *p = s->p + j * d, *a = s->a + j * d;
    REAL *g = s->apart + q * d;
    if (A) {
      const REAL *u = s->apart + j * d; /* j >= q: read before it is overwritten */
      for (int64_t i = 0; i < d; i++) s->room[i] = 0;
      for (int64_t i = 0; i < d; i++) N(add)(s->room, u[i], A + (j * d + i) * d, d);
      for (int64_t i = 0; i < d; i++) g[i] = s->room[i] - c->beta * (x[i] - s->at[i]);
    } else {
      for (int64_t i = 0; i < d; i++) g[i] = p[i] + a[i] * s->at[i] - c->beta * (x[i] - s->at[i]);
      N(add)(s->h, w, a, d);
    }
    N(add)(s->f, w, g, d);
  }
  for (int64_t i = 0; i < d; i++) s->room[i] = c->beta * (x[i] - s->at[i]) + s->f[i]; /* g */
  const REAL pull = N(dot)(s->at, s->room, d), potential = c->epsilon * ln2 * (top + LOG2(sum));
  s->norm = N(dot)(s->f, s->f, d);
  s->value = potential + (REAL)0.5 * c->beta * away;
  s->noise = (REAL)(16 * ULP) * (FABS(potential) + c->epsilon * ln2 * FABS(bias / sum) + FABS(pull) +
                                 (REAL)0.5 * c->beta * away);
}

/* hv = H v */
static void N(multiply)(const N(job) *c, const N(state) *s, const REAL *v, REAL *hv) {
  const int64_t d = c->d;
  const REAL *A = c->a->m.axes, unit = 1 / c->epsilon;
  for (int64_t i = 0; i < d; i++) hv[i] = s->h[i] * v[i];
  for (int64_t q = 0; q < s->count; q++) {
    const int64_t j = s->active[q];
    const REAL w = s->weight[q], *g = s->apart + q * d;
    N(add)(hv, unit * w * N(dot)(g, v, d), g, d);
    for (int64_t i = 0; A && i < d; i++) {
      const REAL *axis = A + (j * d + i) * d;
      N(add)(hv, w * s->a[j * d + i] * N(dot)(axis, v, d), axis, d);
    }
  }
  N(add)(hv, -unit * N(dot)(s->f, v, d), s->f, d);
}

/* dir = about -H^-1 F; its slope. */
static REAL N(direct_row)(const N(job) *c, N(state) *s, const fortet_search *f) {
  const int64_t d = c->d;
  const REAL least = (REAL)1e-3 * c->beta;
  REAL *r = s->r, *v = s->v, *hv = s->hv, *z = s->room;
  const double part = fortet_search_forcing(f, c->a->tolerance);
#define SCALED(i) (r[i] / (FABS(s->h[i]) > least ? FABS(s->h[i]) : least))
  REAL rz = 0;
  for (int64_t i = 0; i < d; i++) {
    s->dir[i] = 0;
    r[i] = -s->f[i];
    v[i] = SCALED(i);
  }
  rz = N(dot)(r, v, d);
  for (int64_t step = 0; step < d + 50; step++) {
    N(multiply)(c, s, v, hv);
    const REAL bend = N(dot)(v, hv, d);
    if (!(bend > (REAL)(16 * ULP) * c->beta * N(dot)(v, v, d))) {
      if (step == 0) memcpy(s->dir, v, (size_t)d * sizeof(REAL));
      break;
    }
    const REAL along = rz / bend;
    N(add)(s->dir, along, v, d);
    N(add)(r, -along, hv, d);
    if (N(dot)(r, r, d) <= part * part * s->norm) break;
    for (int64_t i = 0; i < d; i++) z[i] = SCALED(i);
    const REAL next = N(dot)(r, z, d), turn = next / rz;
    rz = next;
    for (int64_t i = 0; i < d; i++) v[i] = z[i] + turn * v[i];
  }
#undef SCALED
  return N(dot)(s->dir, s->f, d);
}

static void N(solve_row)(const N(job) *c, N(state) *s, int64_t b) {
  const fortet_proximal_args *a = c->a;
  const int64_t d = c->d;
  const REAL *x = (const REAL *)a->x + b * d;
  REAL *y = (REAL *)a->y + b * d;
  const REAL *start = a->warm && c->target_beta != FORTET_INF ? y : x;
  double square = 0;
  for (int64_t i = 0; i < d; i++) {
    square += (double)x[i] * (double)x[i];
    s->y[i] = s->at[i] = start[i];
  }
  fortet_search f;
  fortet_search_begin(&f, square, c->target_beta, a->tolerance);
  for (;;) {
    N(try_row)(c, s, x);
    const int verdict = fortet_search_judge(&f, s->value, sqrt((double)s->norm), s->noise);
    if (verdict == FORTET_SEARCH_STOP) break;
    if (verdict == FORTET_SEARCH_TAKE) {
      memcpy(s->y, s->at, (size_t)d * sizeof(REAL));
      if (fortet_search_done(&f, a->max_iterations)) break;
      if (!fortet_search_turn(&f, N(direct_row)(c, s, &f))) break;
    }
    const REAL step = (REAL)f.step;
    for (int64_t i = 0; i < d; i++) s->at[i] = s->y[i] + step * s->dir[i];
  }
  memmove(y, f.value == FORTET_INF ? x : s->y, (size_t)d * sizeof(REAL));
  if (a->value) ((REAL *)a->value)[b] = (REAL)f.value;
  if (a->residual) ((REAL *)a->residual)[b] = (REAL)fortet_search_residual(&f, c->target_beta);
  if (a->iterations) ((int32_t *)a->iterations)[b] = (int32_t)f.newton;
}

static int N(krylov)(const fortet_proximal_args *a, int64_t begin, int64_t end) {
  N(job) c;
  N(begin)(&c, a);
  const int64_t d = c.d, k = c.k, n = k * d;
  REAL *room = malloc((size_t)(5 * n + 3 * k + 9 * d) * sizeof(REAL) + (size_t)k * sizeof(int64_t));
  if (!room) return FORTET_OUT_OF_MEMORY;
  N(state) s;
  s.active = (int64_t *)room;
  REAL *at = (REAL *)(s.active + k);
  REAL **const arrays[] = {&s.p, &s.a, &s.term, &s.apart, &c.turned, &s.bias, &s.ell, &s.weight,
                           &s.y, &s.at, &s.f, &s.h, &s.dir, &s.r, &s.v, &s.hv, &s.room};
  for (int i = 0; i < (int)(sizeof arrays / sizeof arrays[0]); i++) {
    *arrays[i] = at;
    at += i < 5 ? n : i < 8 ? k : d;
  }
  if (a->m.axes) N(turn)(&c);
  if (!c.own) N(prepare_rows)(&c, &s, N(time)(&c, 0));
  const int64_t stop = end * FORTET_PROXIMAL_ROWS < a->n ? end * FORTET_PROXIMAL_ROWS : a->n;
  for (int64_t b = begin * FORTET_PROXIMAL_ROWS; b < stop; b++) {
    if (c.own) N(prepare_rows)(&c, &s, N(time)(&c, b));
    N(solve_row)(&c, &s, b);
  }
  free(room);
  return FORTET_OK;
}
