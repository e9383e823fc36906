/* gmm_block.h - a block of ROWS samples against the components of a mixture,
 * one after the other: ell_j, h_j and g_j of mixture.h and their softmax.
 *
 * Arrays of a block are transposed, (coordinate, row): lanes of a vector are
 * samples, and a component's parameters are the same for all of them. So sums
 * over coordinates and over components need no shuffles, for d = 1 as for
 * d = 1000. Everything is computed of
 *
 *     h_j = D_j^-1 (x - t r_j),  g_j = r_j + (S_j - I) h_j
 *
 * by 2 epsilon ell_j = ... + x'g_j + r_j'h_j, x - t g_j = h_j, and
 *
 *     d ell_j / d r_j = h_j / epsilon,  d ell_j / d S_j = (h_j h_j' / epsilon - t D_j^-1) / 2
 *
 * With axes, r_j and x are turned into them first, and h_j and g_j are along them. */

enum { F(rows) = VECTORS * F(lanes) };
#define ROWS F(rows)
#define EACH _Pragma("GCC unroll 4") for (int v = 0; v < ROWS; v += LANES)

typedef struct {
  const REAL *logits, *means, *scales, *axes; /* means: A_j r_j with axes */
  int64_t k, d;
  REAL over_epsilon;
  const REAL *x; /* (d, ROWS) */
  REAL *turned;  /* (d, ROWS): A_j x of the last component, with axes */
  REAL *w;       /* (k, ROWS): ell_j, after softmax w_j */
  REAL *h;       /* (d, ROWS), slot elements after that of the component before */
  int64_t slot;  /* 0: there is room for one component; it is computed again when needed */

  /* Where each sample has its own time: */
  REAL *t, *rest; /* (ROWS): t, 1 - t */
  REAL *inverse;  /* as h: 1/D_j */

  /* Where all have one, prepared by fix: */
  int fixed;
  const REAL *lag, *over; /* (k, d): t r_j, 1/D_j */
  const REAL *bias;       /* (k): la_j - 1/2 log det D_j */
} F(block);
#define BLOCK F(block)

/* ---- Memory of a tile. */

/* Elements of work in 64 bytes, which every part is rounded up to. */
INLINE int64_t F(up)(int64_t n) { return (n + 63) / 64 * 64; }

/* The next n elements. */
INLINE REAL *F(take)(REAL **work, int64_t n) {
  REAL *const p = *work;
  *work += F(up)(n);
  return p;
}

/* ---- Rows in and out. */

/* out (d, ROWS) of count rows of in; the last row also stands for those that a
 * block lacks. */
INLINE void F(rows_in)(const REAL *in, int64_t d, int count, REAL *out) {
  for (int row = 0; row < ROWS; row++) {
    const REAL *const from = in + (row < count ? row : count - 1) * d;
    for (int64_t k = 0; k < d; k++) out[k * ROWS + row] = from[k];
  }
}
INLINE void F(rows_out)(const REAL *in, int64_t d, int count, REAL *out) {
  for (int row = 0; row < count; row++)
    for (int64_t k = 0; k < d; k++) out[row * d + k] = in[k * ROWS + row];
}

/* ---- Axes. */

/* out_p = sum_q A_pq in_q */
LEVEL_FN void F(turn)(const REAL *axes, int64_t d, const REAL *in, REAL *out) {
  for (int64_t p = 0; p < d; p++) {
    VEC s[VECTORS] = {{0}};
    for (int64_t q = 0; q < d; q++) {
      const VEC a = F(all)(axes[p * d + q]);
      EACH s[v / LANES] += a * F(load)(in + q * ROWS + v);
    }
    EACH F(store)(out + p * ROWS + v, s[v / LANES]);
  }
}

/* out_q += sum_p A_pq in_p */
LEVEL_FN void F(turn_back)(const REAL *axes, int64_t d, const REAL *in, REAL *out) {
  for (int64_t q = 0; q < d; q++) {
    VEC s[VECTORS];
    EACH s[v / LANES] = F(load)(out + q * ROWS + v);
    for (int64_t p = 0; p < d; p++) {
      const VEC a = F(all)(axes[p * d + q]);
      EACH s[v / LANES] += a * F(load)(in + p * ROWS + v);
    }
    EACH F(store)(out + q * ROWS + v, s[v / LANES]);
  }
}

INLINE REAL F(dot)(const REAL *a, const REAL *b, int64_t d) {
  VEC s = {0};
  int64_t k = 0;
  for (; k + LANES <= d; k += LANES) s += F(load)(a + k) * F(load)(b + k);
  REAL out = F(sum)(s);
  for (; k < d; k++) out += a[k] * b[k];
  return out;
}

/* x along the axes of component j. */
INLINE const REAL *F(along)(const BLOCK *b, int64_t j, const REAL *x, REAL *turned) {
  if (!b->axes) return x;
  F(turn)(b->axes + j * b->d * b->d, b->d, x, turned);
  return turned;
}

/* ---- What a tile prepares once. */

/* Elements of the parts of work that mixture takes, and fix. */
INLINE int64_t F(mixture_size)(const fortet_mixture *m) { return m->axes ? F(up)(m->k * m->d) + F(up)(m->d * ROWS) : 0; }
INLINE int64_t F(fix_size)(const fortet_mixture *m) { return 2 * F(up)(m->k * m->d) + F(up)(m->k + LANES); }

INLINE void F(mixture)(BLOCK *b, const fortet_mixture *m, REAL **work) {
  const int64_t k = m->k, d = m->d;
  b->logits = (const REAL *)m->logits, b->means = (const REAL *)m->means;
  b->scales = (const REAL *)m->scales, b->axes = (const REAL *)m->axes;
  b->k = k, b->d = d, b->over_epsilon = (REAL)(1 / m->epsilon);
  if (!b->axes) return;
  REAL *const means = F(take)(work, k * d);
  for (int64_t i = 0; i < k * d; i++) means[i] = F(dot)(b->axes + i * d, b->means + i / d * d, d);
  b->means = means;
  b->turned = F(take)(work, d * ROWS);
}

/* All samples are at time t. Here the lanes of a vector are components. */
LEVEL_FN void F(fix)(BLOCK *b, double t, REAL **work) {
  const int64_t k = b->k, d = b->d;
  REAL *const lag = F(take)(work, k * d), *const over = F(take)(work, k * d), *const bias = F(take)(work, k + LANES);
  const REAL time = (REAL)t, rest = (REAL)(1 - t);
  for (int64_t i = 0; i < k * d; i++) lag[i] = time * b->means[i], over[i] = 1 / (rest + time * b->scales[i]);
  for (int64_t j = 0; j < k; j += LANES) {
    VEC product = F(all)(1);
    IVEC exponent = {0};
    for (int64_t i = 0; i < d; i++) {
      VEC inverse;
#pragma GCC unroll 16
      for (int l = 0; l < LANES; l++) inverse[l] = over[(j + l < k ? j + l : k - 1) * d + i];
      product = F(take_exponent)(product * inverse, &exponent);
    }
    F(store)(bias + j, F(log_split)(product, exponent) * (REAL)0.5);
  }
  for (int64_t j = 0; j < k; j++) bias[j] += b->logits[j];
  b->fixed = 1, b->lag = lag, b->over = over, b->bias = bias;
}

/* ---- A component. */

enum { F(is_fixed) = 1, F(keeps) = 2, F(values) = 4 };

/* VALUES: ell_j. KEEPS: h_j and, if not FIXED, 1/D_j. Two vectors go side by
 * side, which is what the registers hold. */
INLINE void F(component)(const BLOCK *b, int64_t j, int wanted) {
  const int fixed = wanted & F(is_fixed), keeps = wanted & F(keeps), values = wanted & F(values);
  const int64_t d = b->d;
  const REAL *const r = b->means + j * d, *const s = b->scales + j * d;
  const REAL *const lag = b->lag + (fixed ? j * d : 0), *const over = b->over + (fixed ? j * d : 0);
  const REAL *const x = F(along)(b, j, b->x, b->turned);
  REAL *const h = b->h + j * b->slot, *const inverse = b->inverse + (fixed ? 0 : j * b->slot);
#define PAIR _Pragma("GCC unroll 2") for (int v = 0; v < 2; v++)
  for (int at = 0; at < ROWS; at += 2 * LANES) {
    VEC t[2] = {{0}}, rest[2] = {{0}}, q[2] = {{0}}, product[2];
    IVEC exponent[2] = {{0}};
    PAIR {
      product[v] = F(all)(1);
      if (!fixed) t[v] = F(load)(b->t + at + v * LANES), rest[v] = F(load)(b->rest + at + v * LANES);
    }
    for (int64_t k = 0; k < d; k++) {
      const VEC mean = F(all)(r[k]), scale = F(all)(s[k]), slope = scale - 1;
      PAIR {
        const int64_t i = k * ROWS + at + v * LANES;
        const VEC xk = F(load)(x + i);
        VEC hk;
        if (fixed) {
          hk = (xk - F(all)(lag[k])) * F(all)(over[k]);
        } else {
          const VEC stretch = rest[v] + t[v] * scale, inv = 1 / stretch;
          hk = (xk - t[v] * mean) * inv;
          if (keeps) F(store)(inverse + i, inv);
          if (values) product[v] = F(take_exponent)(product[v] * stretch, &exponent[v]);
        }
        if (keeps) F(store)(h + i, hk);
        if (values) q[v] += xk * (mean + slope * hk) + mean * hk;
      }
    }
    if (values)
      PAIR {
        const VEC half = q[v] * ((REAL)0.5 * b->over_epsilon);
        const VEC ell = fixed ? half + b->bias[j] : half + (b->logits[j] - (REAL)0.5 * F(log_split)(product[v], exponent[v]));
        F(store)(b->w + j * ROWS + at + v * LANES, ell);
      }
  }
#undef PAIR
}

LEVEL_FN void F(component_moving)(const BLOCK *b, int64_t j) { F(component)(b, j, F(keeps) | F(values)); }
LEVEL_FN void F(component_fixed)(const BLOCK *b, int64_t j) { F(component)(b, j, F(is_fixed) | F(keeps) | F(values)); }
LEVEL_FN void F(component_value)(const BLOCK *b, int64_t j) { F(component)(b, j, F(is_fixed) | F(values)); }
LEVEL_FN void F(component_again)(const BLOCK *b, int64_t j) {
  if (b->fixed) F(component)(b, j, F(is_fixed) | F(keeps));
  else F(component)(b, j, F(keeps));
}

/* h_j, computed again where there is no room to keep it. */
INLINE const REAL *F(kept)(const BLOCK *b, int64_t j) {
  if (!b->slot) F(component_again)(b, j);
  return b->h + j * b->slot;
}

/* 1/D_j at coordinate k, of the vector that begins at row v. */
INLINE VEC F(inverse_at)(const BLOCK *b, int64_t j, int64_t k, int v) {
  return b->fixed ? F(all)(b->over[j * b->d + k]) : F(load)(b->inverse + j * b->slot + k * ROWS + v);
}

/* ---- All components. */

/* w: weights instead of ell; value (ROWS): L. Components of weight zero, with
 * ell = -inf, are dead; a NaN anywhere makes the sample's results NaN. */
LEVEL_FN void F(softmax)(const BLOCK *b, REAL *value) {
  VEC top[VECTORS], sum[VECTORS];
  EACH top[v / LANES] = F(load)(b->w + v), sum[v / LANES] = F(all)(0);
  for (int64_t j = 1; j < b->k; j++)
    EACH {
      const VEC ell = F(load)(b->w + j * ROWS + v), *const most = &top[v / LANES];
      top[v / LANES] = F(select)((IVEC)(ell > *most), ell, *most);
    }
  for (int64_t j = 0; j < b->k; j++)
    EACH {
      const VEC p = F(exp_down)(F(load)(b->w + j * ROWS + v) - top[v / LANES]);
      F(store)(b->w + j * ROWS + v, p);
      sum[v / LANES] += p;
    }
  EACH {
    F(store)(value + v, top[v / LANES] + F(log)(sum[v / LANES]));
    sum[v / LANES] = 1 / sum[v / LANES];
  }
  for (int64_t j = 0; j < b->k; j++)
    EACH F(store)(b->w + j * ROWS + v, F(load)(b->w + j * ROWS + v) * sum[v / LANES]);
}

/* g_j along the axes at coordinate k, of the vector that begins at row v. */
INLINE VEC F(drift_at)(const BLOCK *b, const REAL *h, int64_t j, int64_t k, int v) {
  const int64_t i = j * b->d + k;
  return b->means[i] + (b->scales[i] - 1) * F(load)(h + k * ROWS + v);
}

/* g (d, ROWS) = sum_j w_j g_j, after softmax. spare (d, ROWS) is needed with axes. */
LEVEL_FN void F(drift)(const BLOCK *b, REAL *g, REAL *spare) {
  const int64_t d = b->d;
  memset(g, 0, (size_t)(d * ROWS) * sizeof(REAL));
  for (int64_t j = 0; j < b->k; j++) {
    const REAL *const h = F(kept)(b, j);
    VEC w[VECTORS];
    EACH w[v / LANES] = F(load)(b->w + j * ROWS + v);
    if (b->axes) {
      for (int64_t k = 0; k < d; k++)
        EACH F(store)(spare + k * ROWS + v, w[v / LANES] * F(drift_at)(b, h, j, k, v));
      F(turn_back)(b->axes + j * d * d, d, spare, g);
    } else {
      for (int64_t k = 0; k < d; k++)
        EACH F(store)(g + k * ROWS + v, F(load)(g + k * ROWS + v) + w[v / LANES] * F(drift_at)(b, h, j, k, v));
    }
  }
}
