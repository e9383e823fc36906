/* ensemble_solve.h - the iteration of a problem for one element type at one
 * level. Included by ensemble_level.h with
 *
 *     TYPE, REAL, BITS   f32 or f64, float or double, the unsigned of its size
 *     LANES              numbers of REAL per vector; (WIDTH / 8) doubles
 *     LOWEST, RANGE, LOST  see there */

#define N(name) JOIN(name, TYPE, LEVEL)

typedef REAL N(vec) __attribute__((vector_size(LANES * sizeof(REAL))));
typedef REAL N(mem) __attribute__((vector_size(LANES * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));
typedef BITS N(bits) __attribute__((vector_size(LANES * sizeof(REAL))));
#define VEC N(vec)
#define LOAD(p) ((VEC) * (const N(mem) *)(p))
#define STORE(p, v) (*(N(mem) *)(p) = (v))
#define SPLAT(a) ((REAL)(a) - (VEC){0})

/* Vectors of doubles, and as many numbers of REAL. */
#define WIDE_LANES (WIDTH / 8)
#define WIDE D(vec)
#define LOAD_WIDE(p) ((WIDE) * (const D(mem) *)(p))
#define STORE_WIDE(p, v) (*(D(mem) *)(p) = (v))
#define SPLAT_WIDE(a) ((double)(a) - (WIDE){0})
typedef REAL N(narrow) __attribute__((vector_size(WIDE_LANES * sizeof(REAL))));
typedef REAL N(narrow_mem) __attribute__((vector_size(WIDE_LANES * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));
#define STORE_NARROW(p, v) (*(N(narrow_mem) *)(p) = __builtin_convertvector(v, N(narrow)))
#define LOAD_NARROW(p) __builtin_convertvector(*(const N(narrow_mem) *)(p), WIDE)

/* Rows that a sweep takes at once: the chains of sums that hide an addition's
 * latency, a multiple of LANES. */
#define BLOCK (LANES > 8 ? LANES : 8)

/* The sums of LANES vectors, in a vector. */
INLINE VEC N(fold)(const VEC *a) {
#if defined(__clang__)
  REAL t[LANES];
  for (int l = 0; l < LANES; l++) {
    VEC v = a[l];
    for (int w = LANES / 2; w > 0; w /= 2)
      for (int k = 0; k < w; k++) v[k] += v[k + w];
    t[l] = v[0];
  }
  return LOAD(t);
#else
  VEC t[LANES];
  UNROLL for (int l = 0; l < LANES; l++) t[l] = a[l];
  UNROLL for (int w = 1; w < LANES; w *= 2) {
    N(bits) low, high;
    UNROLL for (int l = 0; l < LANES; l++) {
      low[l] = (BITS)(l & w ? LANES + l - w : l);
      high[l] = (BITS)(l & w ? LANES + l : l + w);
    }
    UNROLL for (int l = 0; l < LANES; l += 2 * w)
      t[l] = __builtin_shuffle(t[l], t[l + w], low) + __builtin_shuffle(t[l], t[l + w], high);
  }
  return t[0];
#endif
}

INLINE REAL N(sum)(VEC v) {
  REAL s[LANES];
  STORE(s, v);
  for (int w = LANES / 2; w > 0; w /= 2)
    for (int l = 0; l < w; l++) s[l] += s[l + w];
  return s[0];
}

/* Makes the matrix at gamma and at the phi for which every row has a one
 * before the weights: sums over rows are then near the weights. */
static void N(absorb)(D(room) *r) {
  REAL *const k = r->k;
  r->absorbed++;
  memcpy(r->zero, r->gamma, (size_t)r->ld * sizeof(double));
  D(nearest)(r, r->gamma, r->phi0);
  for (int64_t j = 0; j < r->ld; j += WIDE_LANES) STORE_WIDE(r->row + j, LOAD_WIDE(r->zero + j) + LOAD_WIDE(r->lq + j));
  for (int64_t i = 0; i < r->n; i++) {
    const double *const c = r->cost + i * r->ld;
    const double h = r->phi0[i] + r->la[i] / 2;
    for (int64_t j = 0; j < r->ld; j += WIDE_LANES) {
      const WIDE t = (h + LOAD_WIDE(r->row + j)) - LOAD_WIDE(c + j) * r->unit;
      const WIDE e = D(select)((D(bits))(t < SPLAT_WIDE(LOWEST)), SPLAT_WIDE(0), D(power)(t));
      STORE_NARROW(k + i * r->ld + j, e);
    }
  }
}

/* y of a block of rows: a / sums with exact marginals, where a row without
 * weight has the sum 0 and the hole 1. */
INLINE VEC N(scaled)(const D(room) *r, int64_t i, VEC sums) {
  if (r->damp1 == 1) return LOAD((const REAL *)r->weight + i) / (sums + LOAD((const REAL *)r->hole + i));
  REAL y[LANES], s[LANES];
  STORE(s, sums + LOAD((const REAL *)r->hole + i));
  for (int l = 0; l < LANES; l += WIDE_LANES) {
    /* sum = a^(1/2) 2^phi0 sum_j b_j 2^(gamma - c), so softmin = phi0 + log2(a)/2 - log2(sum) */
    const WIDE a = LOAD_WIDE(r->a + i + l), phi0 = LOAD_WIDE(r->phi0 + i + l);
    const D(bits) live = (D(bits))(a > SPLAT_WIDE(0));
    const WIDE la = D(select)(live, LOAD_WIDE(r->la + i + l), SPLAT_WIDE(0));
    const WIDE phi = ((phi0 - D(log2)(LOAD_NARROW(s + l))) + la * 0.5) * r->damp1;
    STORE_NARROW(y + l, D(select)(live, D(power)((phi - phi0) + la * 0.5), SPLAT_WIDE(0)));
  }
  return LOAD(y);
}

enum { N(chunk) = 4 * PAD }; /* rows whose contributions are added in REAL */

/* w = K' y and y = a / (K v); answers the least sum over a row. */
static REAL N(multiply)(D(room) *r) {
  REAL *const k = r->k, *const v = r->v, *const part = r->part;
  const int64_t ld = r->ld;
  VEC low = SPLAT(INFINITY);
  memset(r->col, 0, (size_t)ld * sizeof(double));
  for (int64_t first = 0; first < r->nd; first += N(chunk)) {
    const int64_t last = first + N(chunk) < r->nd ? first + N(chunk) : r->nd;
    memset(part, 0, (size_t)ld * sizeof(REAL));
    for (int64_t i = first; i < last; i += BLOCK) {
      const REAL *const rows = k + i * ld;
      VEC sum[BLOCK];
      REAL y[BLOCK];
      UNROLL for (int l = 0; l < BLOCK; l++) sum[l] = SPLAT(0);
      for (int64_t j = 0; j < ld; j += LANES) {
        const VEC x = LOAD(v + j);
        UNROLL for (int l = 0; l < BLOCK; l++) sum[l] += LOAD(rows + l * ld + j) * x;
      }
      UNROLL for (int l = 0; l < BLOCK; l += LANES) {
        const VEC s = N(fold)(sum + l), held = s + LOAD((const REAL *)r->hole + i + l);
        /* NaN, too, makes it low */
        low = (VEC)(((N(bits))held & (N(bits))(held < low)) | ((N(bits))low & ~(N(bits))(held < low)));
        low += s - s;
        STORE(y + l, N(scaled)(r, i + l, s));
      }
      for (int64_t j = 0; j < ld; j += LANES) {
        VEC w = LOAD(part + j);
        UNROLL for (int l = 0; l < BLOCK; l++) w += LOAD(rows + l * ld + j) * y[l];
        STORE(part + j, w);
      }
    }
    for (int64_t j = 0; j < ld; j += WIDE_LANES) STORE_WIDE(r->col + j, LOAD_WIDE(r->col + j) + LOAD_NARROW(part + j));
  }
  REAL least[LANES];
  STORE(least, low);
  for (int l = 1; l < LANES; l++)
    if (!(least[l] >= least[0])) least[0] = least[l];
  return least[0];
}

/* The image of gamma, and the residual. */
static double N(sweep)(D(room) *r) {
  WIDE far = SPLAT_WIDE(0);
  for (int64_t j = 0; j < r->ld; j += WIDE_LANES) {
    const WIDE moved = LOAD_WIDE(r->gamma + j) - LOAD_WIDE(r->zero + j);
    far = D(larger)(D(magnitude)(moved), far);
  }
  if (!(D(most)(far) <= RANGE)) N(absorb)(r);
  for (int64_t j = 0; j < r->ld; j += WIDE_LANES) {
    const WIDE moved = LOAD_WIDE(r->gamma + j) - LOAD_WIDE(r->zero + j);
    STORE_NARROW((REAL *)r->v + j, LOAD_WIDE(r->q + j) * D(power)(moved));
  }
  int lost = !(N(multiply)(r) >= (REAL)LOST);
  WIDE residual = SPLAT_WIDE(0), least = SPLAT_WIDE(INFINITY);
  for (int64_t j = 0; j < r->ld; j += WIDE_LANES) {
    const WIDE gamma = LOAD_WIDE(r->gamma + j), w = LOAD_WIDE(r->col + j);
    const D(bits) live = (D(bits))(LOAD_WIDE(r->b + j) > SPLAT_WIDE(0));
    const WIDE held = D(select)(live, w, SPLAT_WIDE(1));
    const WIDE lq = D(select)(live, LOAD_WIDE(r->lq + j), SPLAT_WIDE(0));
    least = D(less)(held, least);
    residual += D(magnitude)(LOAD_NARROW((REAL *)r->v + j) * w - D(wanted)(r, j));
    const WIDE image = ((LOAD_WIDE(r->zero + j) + lq) - D(log2)(held)) * r->damp2;
    STORE_WIDE(r->image + j, D(select)(live, image, gamma));
  }
  const double total = D(sum)(residual) / r->mass;
  lost |= !(-D(most)(-least) >= LOST) || !(total < INFINITY);
  return lost ? D(log_sweep)(r) : total;
}

static void N(forget)(D(room) *r) { r->held = r->slot = r->filled = 0; }

/* Type-II Anderson mixing (Walker and Ni 2011) of gamma and its image, in the
 * metric of the target's weights: gamma becomes the next iterate. */
static void N(mix)(D(room) *r) {
  const int64_t ld = r->ld;
  for (int64_t j = 0; j < ld; j += WIDE_LANES)
    STORE_WIDE(r->f + j, (LOAD_WIDE(r->image + j) - LOAD_WIDE(r->gamma + j)) * LOAD_WIDE(r->q + j));
  if (r->filled) {
    REAL *const df = (REAL *)r->df + r->slot * ld, *const dt = (REAL *)r->dt + r->slot * ld;
    WIDE square = SPLAT_WIDE(0);
    for (int64_t j = 0; j < ld; j += WIDE_LANES) {
      const WIDE t = LOAD_WIDE(r->f + j) - LOAD_WIDE(r->f_last + j);
      square += t * t;
    }
    const double scale = 1 / sqrt(D(sum)(square));
    if (!(scale < 0x1p100)) {
      N(forget)(r);
    } else {
      for (int64_t j = 0; j < ld; j += WIDE_LANES) {
        STORE_NARROW(df + j, (LOAD_WIDE(r->f + j) - LOAD_WIDE(r->f_last + j)) * scale);
        STORE_NARROW(dt + j, (LOAD_WIDE(r->image + j) - LOAD_WIDE(r->image_last + j)) * scale);
      }
      if (r->held < DEPTH) r->held++;
      for (int p = 0; p < r->held; p++) {
        const REAL *const other = (REAL *)r->df + p * ld;
        VEC s = SPLAT(0);
        for (int64_t j = 0; j < ld; j += LANES) s += LOAD(df + j) * LOAD(other + j);
        r->gram[r->slot][p] = r->gram[p][r->slot] = N(sum)(s);
      }
      r->gram[r->slot][r->slot] = 1 + FORTET_ENSEMBLE_RIDGE;
      r->slot = (r->slot + 1) % DEPTH;
    }
  }
  const int held = r->held;
  double factor[DEPTH];
  memset(r->system, 0, sizeof r->system);
  for (int p = 0; p < held; p++) {
    const REAL *const df = (REAL *)r->df + p * ld;
    WIDE s = SPLAT_WIDE(0);
    for (int64_t j = 0; j < ld; j += WIDE_LANES) s += LOAD_NARROW(df + j) * LOAD_WIDE(r->f + j);
    for (int c = 0; c < held; c++) r->system[p][c] = r->gram[p][c];
    r->system[p][DEPTH] = D(sum)(s);
  }
  /* Elimination without pivots: the matrix is positive definite. */
  for (int p = 0; p < held; p++) {
    const double *const pivot = r->system[p];
    const double inverse = 1 / pivot[p];
    for (int i = p + 1; i < held; i++) {
      double *const row = r->system[i];
      const double c = row[p] * inverse;
      for (int j = p / 4 * 4; j < GRAM; j++) row[j] -= c * pivot[j];
    }
  }
  for (int p = held - 1; p >= 0; p--) {
    double s = r->system[p][DEPTH];
    for (int c = p + 1; c < held; c++) s -= r->system[p][c] * factor[c];
    factor[p] = s / r->system[p][p];
  }
  memcpy(r->f_last, r->f, (size_t)ld * sizeof(double));
  memcpy(r->image_last, r->image, (size_t)ld * sizeof(double));
  WIDE far = SPLAT_WIDE(0);
  for (int64_t j = 0; j < ld; j += WIDE_LANES) {
    WIDE step = SPLAT_WIDE(0);
    for (int p = 0; p < held; p++) step += LOAD_NARROW((REAL *)r->dt + p * ld + j) * factor[p];
    far = D(larger)(D(magnitude)(step), far);
    STORE_WIDE(r->gamma + j, LOAD_WIDE(r->image + j) - step);
  }
  r->filled = 1;
  /* Potentials differ by no more than costs do. The residual, which is never
   * above 2, does not tell such a step from a good one where it is large. */
  if (!(D(most)(far) <= r->spread * r->unit)) {
    N(forget)(r);
    memcpy(r->gamma, r->image, (size_t)ld * sizeof(double));
  }
}

/* Iterates at r->epsilon to the tolerance or for so many sweeps, which it
 * counts down. A mixed step that makes the residual worse is taken back, and
 * plain ones follow. gamma ends as the iterate of the least residual. */
static int N(iterate)(D(room) *r, const fortet_ensemble_args *a, double tolerance, int32_t *sweeps) {
  const size_t bytes = (size_t)r->ld * sizeof(double);
  double accepted = INFINITY, best = INFINITY, mark = INFINITY;
  int mixed = 0, plain = 0, penalty = 1, since = 0, marked = 0;
  int status = FORTET_ENSEMBLE_MAX_SWEEPS;
  N(forget)(r);
  N(absorb)(r);
  memcpy(r->best, r->gamma, bytes);
  while (*sweeps > 0) {
    if (a->stop && __atomic_load_n(a->stop, __ATOMIC_RELAXED)) {
      status = FORTET_ENSEMBLE_CANCELED;
      break;
    }
    const double residual = N(sweep)(r);
    --*sweeps;
    if (residual <= tolerance) return FORTET_ENSEMBLE_CONVERGED;
    if (mixed && !(residual <= 2 * accepted)) {
      memcpy(r->gamma, r->fallback, bytes);
      N(forget)(r);
      plain = penalty;
      penalty = penalty < 32 ? 2 * penalty : 64;
      mixed = 0;
      continue;
    }
    if (!(residual < INFINITY)) {
      status = FORTET_ENSEMBLE_DIVERGED;
      break;
    }
    if (residual < best) {
      best = residual, since = 0;
      memcpy(r->best, r->gamma, bytes);
    } else if (++since > FORTET_ENSEMBLE_PATIENCE) {
      status = FORTET_ENSEMBLE_STALLED;
      break;
    }
    if (best <= mark / 2) {
      mark = best, marked = 0;
    } else if (a->give_up > 0 && ++marked > a->give_up) {
      status = FORTET_ENSEMBLE_STALLED;
      break;
    }
    accepted = residual;
    memcpy(r->fallback, r->image, bytes);
    mixed = a->mix && plain == 0;
    if (mixed) {
      N(mix)(r);
    } else {
      if (plain > 0) plain--;
      memcpy(r->gamma, r->image, bytes);
    }
  }
  memcpy(r->gamma, r->best, bytes);
  return status;
}

/* What depends on epsilon. gamma is kept as a potential in the cost's unit. */
static void N(at)(D(room) *r, double epsilon, double rho1, double rho2) {
  const double change = r->epsilon > 0 ? r->epsilon / epsilon : 1;
  for (int64_t j = 0; j < r->ld; j++) r->gamma[j] *= change;
  r->epsilon = epsilon;
  r->unit = LOG2E / epsilon;
  r->damp1 = rho1 == FORTET_INF ? 1 : rho1 / (rho1 + epsilon);
  r->damp2 = rho2 == FORTET_INF ? 1 : rho2 / (rho2 + epsilon);
  r->decay2 = epsilon / rho2;
}

/* Solves problem p in r, whose arrays lie at base. */
static void N(problem)(D(room) *r, const fortet_ensemble_args *a, int64_t p) {
  const int64_t i0 = a->rows[p], j0 = a->columns[p];
  double *const values = a->values + p * FORTET_ENSEMBLE_VALUES;
  int32_t *const counts = a->counts + p * FORTET_ENSEMBLE_COUNTS;
  const double rho1 = a->rho1 ? a->rho1[p] : FORTET_INF, rho2 = a->rho2 ? a->rho2[p] : FORTET_INF;
  double *const f = a->f + i0, *const g = a->g + j0;
  int32_t sweeps = a->max_sweeps;
  int status = FORTET_ENSEMBLE_MAX_SWEEPS;

  r->x = a->x ? a->x + i0 * r->d : NULL;
  D(costs)(r, a, a->y ? a->y + j0 * r->d : NULL, a->matrix ? a->matrix + a->pairs[p] : NULL);
  const double mean = D(weigh)(r, a->a ? a->a + i0 : NULL, a->b ? a->b + j0 : NULL, rho1 == FORTET_INF && rho2 == FORTET_INF);
  const double epsilon = a->epsilon[p] * (a->mean ? mean : 1);
  for (int64_t i = 0; i < r->nd; i++) {
    ((REAL *)r->weight)[i] = (REAL)r->a[i];
    ((REAL *)r->hole)[i] = r->a[i] > 0 ? 0 : 1;
  }
  memset((REAL *)r->k + r->n * r->ld, 0, (size_t)((r->nd - r->n) * r->ld) * sizeof(REAL));

  const int sound = epsilon > 0 && epsilon < INFINITY && mean < INFINITY, low = epsilon < a->anneal * mean;
  const int leave = sizeof(REAL) < sizeof(double) && a->give_up > 0 && low; /* to the other kernel */
  if (sound && !leave) {
    int warm = a->warm;
    for (int64_t j = 0; j < r->m && warm; j++) warm = fabs(g[j]) < INFINITY;
    double from = warm || !low ? epsilon : mean * FORTET_ENSEMBLE_START;
    r->epsilon = 0;
    N(at)(r, from, rho1, rho2);
    if (warm)
      for (int64_t j = 0; j < r->ld; j++) r->gamma[j] = j < r->m ? g[j] * r->unit : 0;
    else
      D(start)(r);
    for (; from > epsilon && status != FORTET_ENSEMBLE_CANCELED; from /= 2) {
      int32_t left = sweeps < FORTET_ENSEMBLE_COARSE_SWEEPS ? sweeps : FORTET_ENSEMBLE_COARSE_SWEEPS;
      sweeps -= left;
      N(at)(r, from, rho1, rho2);
      status = N(iterate)(r, a, a->tolerance > FORTET_ENSEMBLE_COARSE ? a->tolerance : FORTET_ENSEMBLE_COARSE, &left);
      sweeps += left;
    }
    N(at)(r, epsilon, rho1, rho2);
    if (status != FORTET_ENSEMBLE_CANCELED && a->max_sweeps > 0) status = N(iterate)(r, a, a->tolerance, &sweeps);
    const double residual = D(report)(r, rho1, rho2, f, g, a->map ? a->map + i0 * r->d : NULL, values);
    if (!(fabs(values[FORTET_ENSEMBLE_PRIMAL]) < INFINITY && fabs(values[FORTET_ENSEMBLE_DUAL]) < INFINITY)) {
      status = FORTET_ENSEMBLE_DIVERGED;
    } else if (residual <= a->tolerance) {
      status = FORTET_ENSEMBLE_CONVERGED;
    } else if (status == FORTET_ENSEMBLE_CONVERGED) {
      status = FORTET_ENSEMBLE_STALLED; /* only in the precision of the sweeps */
    }
  } else {
    for (int64_t i = 0; i < r->n; i++) f[i] = NAN;
    for (int64_t j = 0; j < r->m; j++) g[j] = NAN;
    for (int64_t k = 0; a->map && k < r->n * r->d; k++) a->map[i0 * r->d + k] = NAN;
    for (int k = 0; k < FORTET_ENSEMBLE_VALUES; k++) values[k] = NAN;
    status = sound ? FORTET_ENSEMBLE_STALLED : FORTET_ENSEMBLE_DIVERGED;
  }
  values[FORTET_ENSEMBLE_EPSILON] = epsilon;
  values[FORTET_ENSEMBLE_MEAN] = mean;
  counts[FORTET_ENSEMBLE_STATUS] = status;
  counts[FORTET_ENSEMBLE_SWEEPS] = a->max_sweeps - sweeps;
  counts[FORTET_ENSEMBLE_ABSORBED] = r->absorbed;
  counts[FORTET_ENSEMBLE_LOGS] = r->logs;
}

static int N(tiles)(const void *args, int64_t begin, int64_t end) {
  const fortet_ensemble_args *const a = args;
  for (int64_t t = begin; t < end; t++) {
    const int64_t p = a->order[t];
    if (a->stop && __atomic_load_n(a->stop, __ATOMIC_RELAXED)) return FORTET_OK;
    D(room) r;
    memset(&r, 0, sizeof r);
    r.n = a->rows[p + 1] - a->rows[p];
    r.m = a->columns[p + 1] - a->columns[p];
    r.d = a->d;
    r.nd = fortet_ensemble_up(r.n);
    r.ld = fortet_ensemble_up(r.m);
    const int64_t bytes = fortet_ensemble_lay(&r, NULL, sizeof(REAL), a->x != NULL);
    char *const base = malloc((size_t)bytes + 64);
    if (!base) return FORTET_OUT_OF_MEMORY;
    fortet_ensemble_lay(&r, (char *)(((uintptr_t)base + 63) & ~(uintptr_t)63), sizeof(REAL), a->x != NULL);
    N(problem)(&r, a, p);
    free(base);
  }
  return FORTET_OK;
}

#undef N
#undef TYPE
#undef REAL
#undef BITS
#undef LANES
#undef LOWEST
#undef RANGE
#undef LOST
#undef VEC
#undef LOAD
#undef STORE
#undef SPLAT
#undef WIDE_LANES
#undef WIDE
#undef LOAD_WIDE
#undef STORE_WIDE
#undef SPLAT_WIDE
#undef STORE_NARROW
#undef LOAD_NARROW
#undef BLOCK
