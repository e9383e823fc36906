/* proximal_dense.h - Newton's method with H in full, for small d: LANES samples
 * side by side, each in its own state of its own search; a lane whose sample is
 * done takes the next one. A point tried costs, per component, one exponential and
 * about 4 d + d^2 multiply-adds, from tables of K (2 d + 1) numbers in the
 * first-level cache; the factorisation of H, d^3 / 6, is small beside them.
 * Every lane's arithmetic is its own, so that no sample sees another.
 *
 * Included by proximal_body.h. */

enum { N(MOST) = FORTET_PROXIMAL_DENSE, N(PACKED) = N(MOST) * (N(MOST) + 1) / 2 };

typedef struct {
  VEC x[N(MOST)], y[N(MOST)], p[N(MOST)], at[N(MOST)]; /* at = y + step p is tried */
  VEC f[N(MOST)], h[N(PACKED)];                       /* F and H, packed by rows, at the point tried */
  VEC value, norm, noise, slope;                      /* there; slope of the direction found */
} N(lanes);

#define ROW(i) ((i) * ((i) + 1) / 2)

/* F is a mean of g_j - beta (x - y): at the solution the second is g, so that
 * neither F nor the covariance of the g_j suffers from cancellation. */
INLINE void N(evaluate)(const N(job) *c, N(lanes) *s, const int d, const int full, const int own) {
  const int64_t record = c->record * (own ? LANES : 1);
  const REAL kappa = c->kappa, unit = 1 / c->epsilon;
  VEC y[N(MOST)], ref[N(MOST)], g[N(MOST)], f[N(MOST)], h[N(PACKED)];
  VEC top = SPLAT(-INFINITY), sum = {0}, bias = {0}, away = {0};
#define COEF(i) (own ? LOAD(rec + (int64_t)(i) * LANES) : SPLAT(rec[i]))
#define DRIFT(i, out) \
  VEC out = COEF(1 + (i)); \
  if (full) { \
    for (int e = 0; e < d; e++) out += COEF(1 + d + (e < (i) ? ROW(i) + e : ROW(e) + (i))) * y[e]; \
  } else { \
    out += COEF(1 + d + (i)) * y[i]; \
  }
  for (int i = 0; i < d; i++) {
    const VEC gap = s->x[i] - s->at[i];
    y[i] = s->at[i];
    ref[i] = c->beta * gap;
    away += gap * gap;
    f[i] = SPLAT(0);
    for (int e = 0; e <= i; e++) h[ROW(i) + e] = SPLAT(0);
  }
  const REAL *rec = c->coef;
  for (int64_t j = 0; j < c->k; j++, rec += record) {
    VEC z = {0};
    for (int i = 0; i < d; i++) {
      DRIFT(i, gi)
      z += y[i] * (COEF(1 + i) + gi);
    }
    z = COEF(0) + kappa * z;
    STORE(c->ell + j * LANES, z);
    top = N(larger)(z, top);
  }
  rec = c->coef;
  for (int64_t j = 0; j < c->k; j++, rec += record) {
    const VEC w = N(exp2)(LOAD(c->ell + j * LANES) - top);
    sum += w;
    bias += w * COEF(0);
    for (int i = 0; i < d; i++) {
      DRIFT(i, gi)
      g[i] = gi - ref[i];
      const VEC u = w * g[i], v = u * unit;
      f[i] += u;
      for (int e = 0; e <= i; e++) h[ROW(i) + e] += v * g[e];
      if (!full) h[ROW(i) + i] += w * COEF(1 + d + i);
    }
    if (full)
      for (int e = 0; e < ROW(d); e++) h[e] += w * COEF(1 + d + e);
  }
  const VEC share = (REAL)1 / sum;
  const REAL ln2 = (REAL)0.693147180559945309417;
  VEC square = {0}, pull = {0};
  for (int i = 0; i < d; i++) {
    f[i] *= share;
    square += f[i] * f[i];
    pull += y[i] * (ref[i] + f[i]);
    s->f[i] = f[i];
    for (int e = 0; e <= i; e++) s->h[ROW(i) + e] = h[ROW(i) + e] * share - f[i] * f[e] * unit;
    s->h[ROW(i) + i] += c->beta;
  }
  const VEC quadratic = away * ((REAL)0.5 * c->beta), potential = (top + N(log2)(sum)) * (c->epsilon * ln2);
  s->value = potential + quadratic;
  s->norm = square;
  s->noise = (N(magnitude)(potential) + N(magnitude)(bias * share) * (c->epsilon * ln2) + N(magnitude)(pull) + quadratic) *
             (REAL)(16 * ULP);
#undef COEF
#undef DRIFT
}

static void N(evaluate_1)(const N(job) *c, N(lanes) *s) { N(evaluate)(c, s, 1, 0, 0); }
static void N(evaluate_2)(const N(job) *c, N(lanes) *s) { N(evaluate)(c, s, 2, 0, 0); }
static void N(evaluate_3)(const N(job) *c, N(lanes) *s) { N(evaluate)(c, s, 3, 0, 0); }
static void N(evaluate_diagonal)(const N(job) *c, N(lanes) *s) { N(evaluate)(c, s, (int)c->d, 0, 0); }
static void N(evaluate_diagonal_own)(const N(job) *c, N(lanes) *s) { N(evaluate)(c, s, (int)c->d, 0, 1); }
static void N(evaluate_full)(const N(job) *c, N(lanes) *s) { N(evaluate)(c, s, (int)c->d, 1, 0); }
static void N(evaluate_full_own)(const N(job) *c, N(lanes) *s) { N(evaluate)(c, s, (int)c->d, 1, 1); }

/* p = -(H + shift)^-1 f by L D L'; the mask of the lanes where H + shift is
 * positive definite. */
INLINE N(bits) N(factor)(const N(lanes) *s, const int d, VEC shift, VEC *p) {
  VEC l[N(PACKED)], pivot[N(MOST)], row[N(MOST)], most = SPLAT(0);
  for (int i = 0; i < d; i++) most = N(larger)(N(magnitude)(s->h[ROW(i) + i]), most);
  const VEC least = most * (REAL)(16 * ULP);
  N(bits) good = ~(N(bits)){0};
  for (int i = 0; i < d; i++) {
    VEC left = s->h[ROW(i) + i] + shift, v = -s->f[i];
    for (int e = 0; e < i; e++) {
      row[e] = s->h[ROW(i) + e];
      for (int q = 0; q < e; q++) row[e] -= row[q] * l[ROW(e) + q];
      l[ROW(i) + e] = row[e] * pivot[e];
      left -= row[e] * l[ROW(i) + e];
      v -= l[ROW(i) + e] * p[e];
    }
    good &= (N(bits))(left > least);
    pivot[i] = (REAL)1 / left;
    p[i] = v;
  }
  for (int i = d - 1; i >= 0; i--) {
    p[i] *= pivot[i];
    for (int q = i + 1; q < d; q++) p[i] -= l[ROW(q) + i] * p[q];
  }
  return good;
}

/* The directions of the lanes wanted; where H is not positive definite, of H
 * and a shift, which grows until it is. */
INLINE void N(direct)(const N(job) *c, N(lanes) *s, const int d, N(bits) wanted) {
  VEC p[N(MOST)], found[N(MOST)], shift = SPLAT(0);
  N(bits) good = ~wanted;
  for (int i = 0; i < d; i++) p[i] = SPLAT(0);
  for (int tries = 0; tries < 40; tries++) {
    const N(bits) now = N(factor)(s, d, shift, found) & ~good;
    for (int i = 0; i < d; i++) p[i] = N(select)(now, found[i], p[i]);
    good |= now;
    BITS each[LANES], all = ~(BITS)0;
    STORE(each, (VEC)good);
    for (int l = 0; l < LANES; l++) all &= each[l];
    if (all) break;
    if (tries == 0) {
      for (int i = 0; i < d; i++) shift = N(larger)(-s->h[ROW(i) + i], shift);
      shift += (REAL)0.01 * c->beta;
    } else {
      shift *= (REAL)4;
    }
  }
  s->slope = SPLAT(0);
  for (int i = 0; i < d; i++) {
    s->p[i] = N(select)(wanted, p[i], s->p[i]);
    s->slope += s->p[i] * s->f[i];
  }
}
static void N(direct_1)(const N(job) *c, N(lanes) *s, const BITS *w) { N(direct)(c, s, 1, (N(bits))LOAD((const REAL *)w)); }
static void N(direct_2)(const N(job) *c, N(lanes) *s, const BITS *w) { N(direct)(c, s, 2, (N(bits))LOAD((const REAL *)w)); }
static void N(direct_3)(const N(job) *c, N(lanes) *s, const BITS *w) { N(direct)(c, s, 3, (N(bits))LOAD((const REAL *)w)); }
static void N(direct_any)(const N(job) *c, N(lanes) *s, const BITS *w) {
  N(direct)(c, s, (int)c->d, (N(bits))LOAD((const REAL *)w));
}

typedef struct {
  fortet_search search[LANES];
  int64_t sample[LANES]; /* -1: none */
} N(searches);

#define AT(v, l) (((REAL *)&(v))[l])

/* Writes sample's results from lane l, which is free then. */
INLINE void N(finish)(const N(job) *c, const N(lanes) *s, N(searches) *q, int l) {
  const fortet_proximal_args *a = c->a;
  const fortet_search *f = &q->search[l];
  const int64_t b = q->sample[l];
  const VEC *y = f->value == FORTET_INF ? s->x : s->y;
  for (int i = 0; i < c->d; i++) ((REAL *)a->y)[b * c->d + i] = AT(y[i], l);
  if (a->value) ((REAL *)a->value)[b] = (REAL)f->value;
  if (a->residual) ((REAL *)a->residual)[b] = (REAL)fortet_search_residual(f, c->target_beta);
  if (a->iterations) ((int32_t *)a->iterations)[b] = (int32_t)f->newton;
  q->sample[l] = -1;
}

/* Gives sample b to lane l. */
INLINE void N(take)(const N(job) *c, N(lanes) *s, N(searches) *q, int l, int64_t b) {
  const fortet_proximal_args *a = c->a;
  const REAL *x = (const REAL *)a->x + b * c->d, *y = a->warm ? (const REAL *)a->y + b * c->d : x;
  double square = 0;
  for (int i = 0; i < c->d; i++) {
    square += (double)x[i] * (double)x[i];
    AT(s->x[i], l) = x[i];
    AT(s->y[i], l) = c->target_beta == FORTET_INF ? x[i] : y[i];
    AT(s->p[i], l) = 0;
  }
  fortet_search_begin(&q->search[l], square, c->target_beta, a->tolerance);
  q->sample[l] = b;
  if (c->own) N(prepare)(c, N(time)(c, b), l);
}

static void N(solve_lanes)(const N(job) *c, int64_t next, int64_t stop) {
  const int d = (int)c->d, full = c->a->m.axes != NULL;
  void (*evaluate)(const N(job) *, N(lanes) *) = c->own ? (full ? N(evaluate_full_own) : N(evaluate_diagonal_own))
                                                 : full ? N(evaluate_full)
                                                 : d == 1 ? N(evaluate_1)
                                                 : d == 2 ? N(evaluate_2)
                                                 : d == 3 ? N(evaluate_3)
                                                          : N(evaluate_diagonal);
  void (*direct)(const N(job) *, N(lanes) *, const BITS *) = d == 1   ? N(direct_1)
                                                             : d == 2 ? N(direct_2)
                                                             : d == 3 ? N(direct_3)
                                                                      : N(direct_any);
  N(lanes) s;
  N(searches) q;
  memset(&s, 0, sizeof s);
  memset(&q, 0, sizeof q);
  for (int l = 0; l < LANES; l++) q.sample[l] = -1;
  for (;;) {
    int busy = 0;
    REAL step[LANES] ALIGNED;
    for (int l = 0; l < LANES; l++) {
      if (q.sample[l] < 0 && next < stop) N(take)(c, &s, &q, l, next++);
      busy += q.sample[l] >= 0;
      step[l] = (REAL)q.search[l].step;
    }
    if (!busy) return;
    const VEC steps = LOAD(step);
    for (int i = 0; i < d; i++) s.at[i] = s.y[i] + steps * s.p[i];
    evaluate(c, &s);

    BITS turns[LANES] ALIGNED, any = 0;
    for (int l = 0; l < LANES; l++) {
      turns[l] = 0;
      if (q.sample[l] < 0) continue;
      fortet_search *f = &q.search[l];
      switch (fortet_search_judge(f, AT(s.value, l), sqrt((double)AT(s.norm, l)), AT(s.noise, l))) {
        case FORTET_SEARCH_TAKE:
          for (int i = 0; i < d; i++) AT(s.y[i], l) = AT(s.at[i], l);
          if (fortet_search_done(f, c->a->max_iterations)) N(finish)(c, &s, &q, l);
          else any |= turns[l] = ~(BITS)0;
          break;
        case FORTET_SEARCH_STOP: N(finish)(c, &s, &q, l);
      }
    }
    if (!any) continue;
    direct(c, &s, turns);
    for (int l = 0; l < LANES; l++)
      if (turns[l] && !fortet_search_turn(&q.search[l], AT(s.slope, l))) N(finish)(c, &s, &q, l);
  }
}

static int N(dense)(const fortet_proximal_args *a, int64_t begin, int64_t end) {
  N(job) c;
  N(begin)(&c, a);
  const int64_t d = c.d, k = c.k;
  c.record = 1 + d + (a->m.axes ? ROW(d) : d);
  const int64_t coef = k * c.record * (c.own ? LANES : 1), ell = k * LANES, flat = 3 * k * d;
  REAL *room = malloc((size_t)(coef + ell + flat + k * d) * sizeof(REAL));
  if (!room) return FORTET_OUT_OF_MEMORY;
  c.coef = room;
  c.ell = c.coef + coef;
  c.flat = c.ell + ell;
  c.turned = c.flat + flat;
  memset(c.coef, 0, (size_t)coef * sizeof(REAL)); /* lanes without a sample compute, too */
  if (a->m.axes) N(turn)(&c);
  if (!c.own) N(prepare)(&c, N(time)(&c, 0), 0);
  for (int64_t tile = begin; tile < end; tile++) {
    const int64_t row = tile * FORTET_PROXIMAL_DENSE_ROWS, stop = row + FORTET_PROXIMAL_DENSE_ROWS;
    N(solve_lanes)(&c, row, stop < a->n ? stop : a->n);
  }
  free(room);
  return FORTET_OK;
}
#undef AT
#undef ROW
