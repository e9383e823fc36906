/* axis_body.h - the CPU kernels of axis for REAL in vectors of LANES, with MR
 * rows in registers. Included by axis_cpu.c, once per level and type; N(name)
 * makes names unique. The arithmetic is GCC vector extensions, which gcc and
 * clang lower to whatever the target has. */

typedef REAL N(vec) __attribute__((vector_size(LANES * sizeof(REAL))));
typedef REAL N(mem) __attribute__((vector_size(LANES * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));
typedef BITS N(bits) __attribute__((vector_size(LANES * sizeof(REAL))));
#define VEC N(vec)
#define LOAD(p) ((VEC) * (const N(mem) *)(p))
#define STORE(p, v) (*(N(mem) *)(p) = (v))
#define SPLAT(a) ((REAL)(a) - (VEC){0})

/* Factors of a product carry 2^SHIFT, and are 0 below 2^(SHIFT + LEAST), so that
 * products lie in the normal range and their sums below the largest number.
 * LN2 is in two parts (fdlibm's in double), the first with enough trailing zeros
 * for its multiples to be exact. WIDE is how far, in nats, a row of logk may
 * range without a block's sum getting lost. */
#if defined(REAL_IS_DOUBLE)
enum { N(MANTISSA) = 52, N(BIAS) = 1023, N(SHIFT) = 500, N(LEAST) = -1011, N(BLOCK) = AXIS_MOST_BLOCK };
#define ROUNDER 0x1.8p52
#define HIDDEN 0x1p52
#define LN2_HEAD 6.93147180369123816490e-01
#define LN2_TAIL 1.90821492927058770002e-10
#define WIDE 600.0
#else
enum { N(MANTISSA) = 23, N(BIAS) = 127, N(SHIFT) = 60, N(LEAST) = -123, N(BLOCK) = AXIS_MOST_BLOCK / 2 };
#define ROUNDER 0x1.8p23f
#define HIDDEN 0x1p23f
#define LN2_HEAD 0.693359375f
#define LN2_TAIL -2.12194440e-4f
#define WIDE 55.0
#endif
#define MANTISSA N(MANTISSA)
#define SHIFT N(SHIFT)
#define BLOCK N(BLOCK)
enum { N(columns) = AXIS_COLUMN_BYTES / sizeof(REAL) };
#define COLUMNS N(columns)

INLINE VEC N(select)(N(bits) mask, VEC yes, VEC no) { return (VEC)(((N(bits))yes & mask) | ((N(bits))no & ~mask)); }

/* a where a > b, else b: NaN in b passes, NaN in a does not. */
INLINE VEC N(larger)(VEC a, VEC b) {
#ifdef VECTOR_MAX
  return VECTOR_MAX(a, b);
#else
  return N(select)((N(bits))(a > b), a, b);
#endif
}

INLINE REAL N(sum)(VEC v) {
  REAL s[LANES];
  STORE(s, v);
  for (int w = LANES / 2; w > 0; w /= 2)
    for (int l = 0; l < w; l++) s[l] += s[l + w];
  return s[0];
}

INLINE REAL N(most)(VEC v) {
  REAL s[LANES];
  STORE(s, v);
  for (int w = LANES / 2; w > 0; w /= 2)
    for (int l = 0; l < w; l++) s[l] = s[l + w] > s[l] ? s[l + w] : s[l];
  return s[0];
}

/* 2^shift exp(x) for x <= 0, 0 below exp(LEAST log 2); NaN stays. exp r, |r| <=
 * log(2)/2, is its Taylor sum: 5e-18 in double and 5e-9 in float off. */
INLINE VEC N(exp)(VEC x, const int shift) {
  const REAL least = (REAL)(N(LEAST) * 0.6931471805599453), magic = (REAL)ROUNDER + (REAL)(N(BIAS) + shift);
  const N(bits) under = (N(bits))(x < SPLAT(least));
  x = N(larger)(SPLAT(least), x);
  const VEC t = x * (REAL)1.4426950408889634 + magic;
  const VEC k = t - magic;
  const VEC r = (x - k * (REAL)LN2_HEAD) - k * (REAL)LN2_TAIL;
#if defined(REAL_IS_DOUBLE)
  static const double c[] = {1 / 6227020800., 1 / 479001600., 1 / 39916800., 1 / 3628800., 1 / 362880., 1 / 40320., 1 / 5040.,
                             1 / 720.,        1 / 120.,       1 / 24.,       1 / 6.,       0.5,         1,          1};
#else
  static const float c[] = {1 / 5040.f, 1 / 720.f, 1 / 120.f, 1 / 24.f, 1 / 6.f, 0.5f, 1, 1};
#endif
  VEC p = SPLAT(c[0]);
  UNROLL for (int i = 1; i < (int)(sizeof c / sizeof c[0]); i++) p = p * r + c[i];
  p *= (VEC)((N(bits))t << MANTISSA);
  return (VEC)((N(bits))p & ~under);
}

/* log(x) - 2 SHIFT log 2 for normal x > 0: x = 2^e u with u around 1, and log u is
 * the series of 2 atanh((u - 1)/(u + 1)), 1e-18 in double and 2e-9 in float off. */
INLINE VEC N(log)(VEC x) {
  const N(bits) one = (N(bits))SPLAT(1), fraction = ((BITS)1 << MANTISSA) - 1 - (N(bits)){0};
  VEC u = (VEC)(((N(bits))x & fraction) | one);
  const N(bits) big = (N(bits))(u > SPLAT(1.4142135623730951));
  u = N(select)(big, u * (REAL)0.5, u);
  VEC e = (VEC)(((N(bits))x >> MANTISSA) | (N(bits))SPLAT(HIDDEN)) - (REAL)HIDDEN;
  e -= (REAL)(N(BIAS) + 2 * SHIFT) - (VEC)((N(bits))SPLAT(1) & big);
  const VEC s = (u - (REAL)1) / (u + (REAL)1), q = s * s;
#if defined(REAL_IS_DOUBLE)
  static const double c[] = {2 / 21., 2 / 19., 2 / 17., 2 / 15., 2 / 13., 2 / 11., 2 / 9., 2 / 7., 2 / 5., 2 / 3.};
#else
  static const float c[] = {2 / 9.f, 2 / 7.f, 2 / 5.f, 2 / 3.f};
#endif
  VEC p = SPLAT(c[0]);
  UNROLL for (int i = 1; i < (int)(sizeof c / sizeof c[0]); i++) p = p * q + c[i];
  return e * (REAL)LN2_HEAD + ((s * (REAL)2 + s * q * p) + e * (REAL)LN2_TAIL);
}

/* What a call needs, and where its columns are. */
typedef struct {
  const fortet_axis_args *a;
  fortet_axis_plan plan;
  const double *range;
  int64_t block; /* rows of in per block */
  REAL *top, *kernel;
} N(job);

static N(job) N(begin)(const fortet_axis_args *a, const int ranged) {
  N(job) c = {.a = a, .block = BLOCK};
  fortet_axis_cpu_plan(a, sizeof(REAL), &c.plan);
  if (c.plan.direct) return c;
  c.range = (const double *)((const char *)a->work + c.plan.range);
  c.top = (REAL *)((char *)a->work + c.plan.top);
  c.kernel = (REAL *)((char *)a->work + c.plan.kernel);
  if (ranged)
    for (int64_t i = 0; i < a->m; i++)
      if (c.range[i] > WIDE) c.block = AXIS_NARROW;
  return c;
}

/* The range of each row of logk, or why it has none. */
static int N(scan)(const fortet_axis_args *a, int64_t begin, int64_t end) {
  const N(job) c = N(begin)(a, 0);
  double *range = (double *)((char *)a->work + c.plan.range);
  for (int64_t i = begin * AXIS_QUANTUM; i < end * AXIS_QUANTUM; i++) {
    REAL least = INFINITY, most = -INFINITY;
    int bad = 0;
    for (int64_t j = 0; i < a->m && j < a->n; j++) {
      const REAL k = ((const REAL *)a->logk)[i * a->n + j];
      bad |= !(k < (REAL)INFINITY);
      most = k > most ? k : most;
      least = k < least && k > (REAL)-INFINITY ? k : least;
    }
    range[i] = bad ? BAD : most == (REAL)-INFINITY ? DEAD : (double)most - (double)least;
  }
  return FORTET_OK;
}

/* exp logk, relative to the largest of a row's block, in panels of MR rows: all
 * rows of a panel lie together for each j. Rows of padding are 0. */
static int N(prepare)(const fortet_axis_args *a, int64_t begin, int64_t end) {
  const N(job) c = N(begin)(a, 1);
  const int64_t n = a->n;
  for (int64_t i = begin * AXIS_QUANTUM; i < end * AXIS_QUANTUM; i++) {
    REAL *to = c.kernel + i / MR * MR * n + i % MR;
    for (int64_t j0 = 0; j0 < n; j0 += c.block) {
      const int64_t some = n - j0 < c.block ? n - j0 : c.block;
      REAL u[BLOCK + LANES] ALIGNED, most = -INFINITY;
      for (int64_t j = 0; j < up(some, LANES); j++) u[j] = -INFINITY;
      if (i < a->m) memcpy(u, (const REAL *)a->logk + i * n + j0, (size_t)some * sizeof(REAL));
      for (int64_t j = 0; j < some; j++) most = u[j] > most ? u[j] : most;
      c.top[j0 / c.block * c.plan.rows + i] = most;
      const VEC base = SPLAT(most == (REAL)-INFINITY ? 0 : most);
      for (int64_t j = 0; j < some; j += LANES) STORE(u + j, N(exp)(LOAD(u + j) - base, SHIFT));
      for (int64_t j = 0; j < some; j++) to[(j0 + j) * MR] = u[j];
    }
  }
  return FORTET_OK;
}

/* log sum_j exp(k_j + v_j), the z one by one. */
static double N(piece)(const REAL *k, const REAL *v, int64_t n) {
  VEC high = SPLAT(-INFINITY);
  int64_t j = 0;
  for (; j + LANES <= n; j += LANES) high = N(larger)(LOAD(k + j) + LOAD(v + j), high);
  REAL top = N(most)(high), rest[LANES];
  for (int64_t l = 0; l < LANES; l++) {
    rest[l] = j + l < n ? k[j + l] + v[j + l] : (REAL)-INFINITY;
    top = rest[l] > top ? rest[l] : top;
  }
  if (top == (REAL)INFINITY) {
    for (j = 0; j < n; j++)
      if (k[j] + v[j] != k[j] + v[j]) return NAN;
    return FORTET_INF;
  }
  const VEC base = SPLAT(top == (REAL)-INFINITY ? 0 : top);
  VEC s[2] = {{0}, {0}};
  for (j = 0; j + 2 * LANES <= n; j += 2 * LANES)
    UNROLL for (int q = 0; q < 2; q++) s[q] += N(exp)(LOAD(k + j + q * LANES) + LOAD(v + j + q * LANES) - base, 0);
  for (; j + LANES <= n; j += LANES) s[0] += N(exp)(LOAD(k + j) + LOAD(v + j) - base, 0);
  return (double)top + log((double)N(sum)(s[0] + s[1] + N(exp)(LOAD(rest) - base, 0)));
}

/* The same for a column whose elements lie apart, by pieces that are copied; they
 * merge as the terms of a sum of their own. */
static double N(one)(const REAL *k, const REAL *in, int64_t stride, int64_t n) {
  enum { PIECE = 1024 };
  REAL v[PIECE] ALIGNED;
  double top = -FORTET_INF, sum = 0;
  for (int64_t j0 = 0; j0 < n; j0 += PIECE) {
    const int64_t some = n - j0 < PIECE ? n - j0 : PIECE;
    const REAL *piece = in + j0;
    if (stride != 1) {
      for (int64_t j = 0; j < some; j++) v[j] = in[(j0 + j) * stride];
      piece = v;
    }
    const double z = N(piece)(k + j0, piece, some);
    if (z == -FORTET_INF) continue;
    if (z <= top) { /* false for NaN, which then reaches sum or stays there */
      sum += z == top ? 1 : exp(z - top);
    } else {
      sum = (sum == 0 ? 0 : sum * exp(top - z)) + 1;
      top = z;
    }
  }
  return top + log(sum);
}

/* lse becomes a result: of count elements at a distance of each other. */
INLINE void N(put)(const fortet_axis_args *a, int64_t at, int64_t stride, const REAL *lse, int64_t count) {
  const REAL *add = (const REAL *)a->add;
  for (int64_t k = 0; k < count; k++) {
    const int64_t here = at + k * stride;
    const double r = fortet_axis_result((double)lse[k], a->scale, add ? (double)add[here] : 0);
    if (a->out) ((REAL *)a->out)[here] = (REAL)r;
    if (a->mass) a->mass[here] = exp(r);
  }
}

/* A tile of the direct pass: some rows i, all columns. */
static void N(direct)(const fortet_axis_args *a, int64_t columns, int64_t i0, int64_t i1) {
  for (int64_t c = 0; c < columns; c++) {
    const int64_t o = c / a->inner, r = c % a->inner;
    REAL lse[AXIS_DIRECT_ROWS];
    for (int64_t i = i0; i < i1; i++)
      lse[i - i0] = (REAL)N(one)((const REAL *)a->logk + i * a->n, (const REAL *)a->in + o * a->n * a->inner + r, a->inner, a->n);
    N(put)(a, (o * a->m + i0) * a->inner + r, a->inner, lse, i1 - i0);
  }
}

/* The columns of a tile. */
typedef struct {
  int64_t count;
  int64_t in[COLUMNS], out[COLUMNS]; /* where they begin */
  int together, any_bad;             /* next to each other in memory; see bad */
  unsigned char bad[COLUMNS], live[COLUMNS]; /* holds +inf or NaN; holds something above -inf */
} N(tile);

/* Copies rows j0 … of the columns to e, as exponentials relative to their largest,
 * which goes to top. Columns of padding are 0. */
static void N(pack)(const N(job) *c, N(tile) *t, int64_t j0, int64_t some, REAL *e, REAL *top) {
  const REAL *in = (const REAL *)c->a->in;
  const int64_t inner = c->a->inner;
  if (t->together && t->count == COLUMNS) {
    for (int64_t j = 0; j < some; j++) memcpy(e + j * COLUMNS, in + t->in[0] + (j0 + j) * inner, AXIS_COLUMN_BYTES);
  } else {
    for (int64_t k = 0; k < COLUMNS; k++)
      for (int64_t j = 0; j < some; j++)
        e[j * COLUMNS + k] = k < t->count ? in[t->in[k] + (j0 + j) * inner] : (REAL)-INFINITY;
  }
  for (int64_t k = 0; k < COLUMNS; k += LANES) {
    VEC most = SPLAT(-INFINITY);
    N(bits) bad = {0};
    for (int64_t j = 0; j < some; j++) {
      const VEC v = LOAD(e + j * COLUMNS + k);
      most = N(larger)(v, most);
      bad |= ~(N(bits))(v < SPLAT(INFINITY));
    }
    STORE(top + k, most);
    const VEC base = N(select)((N(bits))(most == SPLAT(-INFINITY)), SPLAT(0), most);
    for (int64_t j = 0; j < some; j++) STORE(e + j * COLUMNS + k, N(exp)(LOAD(e + j * COLUMNS + k) - base, SHIFT));
    for (int64_t l = 0; l < LANES; l++) {
      t->bad[k + l] |= bad[l] != 0;
      t->any_bad |= bad[l] != 0;
      t->live[k + l] |= most[l] > (REAL)-INFINITY;
    }
  }
}

/* Adds a block to the sums of a panel of MR rows: sum stands for sum exp(top). */
INLINE void N(multiply)(const REAL *kernel, const REAL *e, int64_t some, const REAL *row_top, const REAL *column_top,
                        REAL *top, REAL *sum, const int first) {
  for (int64_t k = 0; k < COLUMNS; k += 2 * LANES) {
    VEC s[MR][2];
    UNROLL for (int r = 0; r < MR; r++) s[r][0] = s[r][1] = (VEC){0};
    for (int64_t j = 0; j < some; j++) {
      const VEC x = LOAD(e + j * COLUMNS + k), y = LOAD(e + j * COLUMNS + k + LANES);
      UNROLL for (int r = 0; r < MR; r++) {
        s[r][0] += x * kernel[j * MR + r];
        s[r][1] += y * kernel[j * MR + r];
      }
    }
    UNROLL for (int r = 0; r < MR; r++) {
      UNROLL for (int h = 0; h < 2; h++) {
        REAL *const at = sum + r * COLUMNS + k + h * LANES, *const high = top + r * COLUMNS + k + h * LANES;
        const VEC t = LOAD(column_top + k + h * LANES) + row_top[r];
        if (first) {
          STORE(high, t);
          STORE(at, s[r][h]);
          continue;
        }
        const VEC had = LOAD(high), before = LOAD(at);
        const N(bits) higher = (N(bits))(t > had);
        const VEC more = N(select)(higher, t, had), less = N(select)(higher, had, t);
        const VEC f = N(exp)(N(select)((N(bits))(less == SPLAT(-INFINITY)), less, less - more), 0);
        STORE(high, more);
        STORE(at, N(select)(higher, before * f + s[r][h], before + s[r][h] * f));
      }
    }
  }
}

/* The sums of a row become log-sum-exps, in place of the tops; those that may
 * have lost something are taken one by one. */
static void N(row_done)(const N(job) *c, const N(tile) *t, int64_t i, REAL *top, const REAL *sum) {
  const fortet_axis_args *a = c->a;
  /* What was lost is below n 2^LEAST, which has to be beyond the last digit. */
  const REAL least = (REAL)a->n * (REAL)ldexp(1, 2 * SHIFT + N(LEAST) + MANTISSA + 1);
  const int bad_row = c->range[i] == BAD, dead_row = c->range[i] == DEAD;
  int doubtful = bad_row | t->any_bad;
  for (int64_t k = 0; k < COLUMNS; k++) doubtful |= !(sum[k] >= least);
  for (int64_t k = 0; k < COLUMNS; k += LANES) STORE(top + k, LOAD(top + k) + N(log)(LOAD(sum + k)));
  for (int64_t k = 0; doubtful && k < t->count; k++) {
    const int bad = bad_row | t->bad[k];
    if (!bad && sum[k] >= least) continue;
    if (!bad && (dead_row || !t->live[k])) top[k] = -INFINITY;
    else top[k] = (REAL)N(one)((const REAL *)a->logk + i * a->n, (const REAL *)a->in + t->in[k], a->inner, a->n);
  }
  if (t->together) {
    N(put)(a, t->out[0] + i * a->inner, 1, top, t->count);
    return;
  }
  for (int64_t k = 0; k < t->count; k++) N(put)(a, t->out[k] + i * a->inner, 1, top + k, 1);
}

static int N(pass)(const fortet_axis_args *a, int64_t begin, int64_t end) {
  const N(job) c = N(begin)(a, 1);
  REAL e[BLOCK * COLUMNS] ALIGNED, top[AXIS_ROWS * COLUMNS] ALIGNED, sum[AXIS_ROWS * COLUMNS] ALIGNED,
      column_top[COLUMNS] ALIGNED;
  for (int64_t tile = begin; tile < end; tile++) {
    if (c.plan.direct) {
      const int64_t i0 = tile * AXIS_DIRECT_ROWS, i1 = i0 + AXIS_DIRECT_ROWS;
      N(direct)(a, c.plan.columns, i0, i1 < a->m ? i1 : a->m);
      continue;
    }
    const int64_t c0 = tile / c.plan.row_tiles * COLUMNS, i0 = tile % c.plan.row_tiles * AXIS_ROWS;
    const int64_t rows = c.plan.rows - i0 < AXIS_ROWS ? c.plan.rows - i0 : AXIS_ROWS;
    N(tile) t;
    memset(&t, 0, sizeof t);
    t.count = c.plan.columns - c0 < COLUMNS ? c.plan.columns - c0 : COLUMNS;
    for (int64_t k = 0; k < t.count; k++) {
      const int64_t o = (c0 + k) / a->inner, r = (c0 + k) % a->inner;
      t.in[k] = o * a->n * a->inner + r;
      t.out[k] = o * a->m * a->inner + r;
    }
    t.together = t.in[t.count - 1] - t.in[0] == t.count - 1;
    for (int64_t j0 = 0; j0 < a->n; j0 += c.block) {
      const int64_t some = a->n - j0 < c.block ? a->n - j0 : c.block;
      N(pack)(&c, &t, j0, some, e, column_top);
      for (int64_t q = 0; q < rows; q += MR) {
        const int64_t i = i0 + q;
        const REAL *kernel = c.kernel + i * a->n + j0 * MR, *row_top = c.top + j0 / c.block * c.plan.rows + i;
        if (j0 == 0) N(multiply)(kernel, e, some, row_top, column_top, top + q * COLUMNS, sum + q * COLUMNS, 1);
        else N(multiply)(kernel, e, some, row_top, column_top, top + q * COLUMNS, sum + q * COLUMNS, 0);
      }
    }
    for (int64_t q = 0; q < rows && i0 + q < a->m; q++) N(row_done)(&c, &t, i0 + q, top + q * COLUMNS, sum + q * COLUMNS);
  }
  return FORTET_OK;
}

#undef N
#undef REAL
#undef REAL_IS_DOUBLE
#undef BITS
#undef LANES
#undef MR
#undef VECTOR_MAX
#undef VEC
#undef LOAD
#undef STORE
#undef SPLAT
#undef ROUNDER
#undef HIDDEN
#undef LN2_HEAD
#undef LN2_TAIL
#undef WIDE
#undef MANTISSA
#undef SHIFT
#undef BLOCK
#undef COLUMNS
