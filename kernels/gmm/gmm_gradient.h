/* gmm_gradient.h - losses of a mixture and their parameter gradients, in partial
 * sums of chunks. In a chunk, blocks of samples follow each other; a parameter's
 * derivative is summed over the samples of a block in a vector, then over its
 * lanes. */

/* The partial sums of a chunk, and what blocks need beside BLOCK. */
typedef struct {
  REAL *loss, *logits, *means, *scales;
  REAL share[ROWS]; /* of a row in the loss: weight / n, 0 for rows beyond the chunk */
  REAL value[ROWS];
} F(sums);

INLINE int64_t F(width)(const fortet_mixture *m) { return 1 + m->k + m->k * m->d * (m->axes ? 1 + m->d : 2); }

INLINE void F(begin_sums)(F(sums) * s, const fortet_mixture *m, REAL *partial) {
  memset(partial, 0, (size_t)F(width)(m) * sizeof(REAL));
  s->loss = partial, s->logits = partial + 1;
  s->means = s->logits + m->k, s->scales = s->means + m->k * m->d;
}

INLINE int F(begin_block)(F(sums) * s, double share, int64_t left) {
  const int count = left < ROWS ? (int)left : ROWS;
  for (int i = 0; i < ROWS; i++) s->share[i] = i < count ? (REAL)share : 0;
  return count;
}

/* dS_j, along the axes, gains the sum over rows of (b h' + h b') / 2 - diag(c);
 * b, h and c are (d, ROWS). */
LEVEL_FN void F(add_symmetric)(REAL *to, int64_t d, const REAL *b, const REAL *h, const REAL *c) {
  for (int64_t p = 0; p < d; p++)
    for (int64_t q = 0; q <= p; q++) {
      VEC s = {0};
      EACH s += F(load)(b + p * ROWS + v) * F(load)(h + q * ROWS + v) + F(load)(h + p * ROWS + v) * F(load)(b + q * ROWS + v);
      s *= (REAL)0.5;
      if (p == q) EACH s -= F(load)(c + p * ROWS + v);
      const REAL sum = F(sum)(s);
      to[p * d + q] += sum;
      if (p != q) to[q * d + p] += sum;
    }
}

/* ---- Likelihood. */

/* Adds weight / n sum_b L_t(x_b) over a block: p h / epsilon by r and
 * p (h^2 / epsilon - t / D) / 2 by S, p the share times w_j. part is (3 d, ROWS)
 * with axes. */
INLINE void F(likelihood_of)(const BLOCK *b, F(sums) * s, double t, REAL *part, int axes) {
  const int64_t d = b->d;
  const REAL by_mean = b->over_epsilon, by_scale = b->over_epsilon * (REAL)0.5, half_time = (REAL)(0.5 * t);
  for (int64_t j = 0; j < b->k; j++) F(component_value)(b, j);
  F(softmax)(b, s->value);
  VEC loss = {0};
  EACH loss += F(load)(s->share + v) * F(load)(s->value + v);
  s->loss[0] += F(sum)(loss);
  for (int64_t j = 0; j < b->k; j++) {
    VEC p[VECTORS], all = {0};
    EACH p[v / LANES] = F(load)(b->w + j * ROWS + v) * F(load)(s->share + v), all += p[v / LANES];
    const REAL mass = F(sum)(all);
    s->logits[j] += mass;
    const REAL *const x = axes ? F(along)(b, j, b->x, b->turned) : b->x;
    const REAL *const lag = b->lag + j * d, *const over = b->over + j * d;
    REAL *const means = s->means + j * d, *const scales = s->scales + j * d * (axes ? d : 1);
    for (int64_t k = 0; k < d; k++) {
      const VEC shift = F(all)(lag[k]), inv = F(all)(over[k]);
      VEC first = {0}, second = {0};
      EACH {
        const VEC h = (F(load)(x + k * ROWS + v) - shift) * inv, ph = p[v / LANES] * h;
        first += ph;
        if (axes) {
          F(store)(part + k * ROWS + v, ph * by_scale);
          F(store)(part + (d + k) * ROWS + v, h);
          F(store)(part + (2 * d + k) * ROWS + v, p[v / LANES] * (half_time * over[k]));
        } else {
          second += ph * h;
        }
      }
      means[k] += F(sum)(first) * by_mean;
      if (!axes) scales[k] += F(sum)(second) * by_scale - half_time * over[k] * mass;
    }
    if (axes) F(add_symmetric)(scales, d, part, part + d * ROWS, part + 2 * d * ROWS);
  }
}

LEVEL_FN void F(likelihood_along)(const BLOCK *b, F(sums) * s, double t, REAL *part) { F(likelihood_of)(b, s, t, part, 1); }
LEVEL_FN void F(likelihood_apart)(const BLOCK *b, F(sums) * s, double t) { F(likelihood_of)(b, s, t, 0, 0); }

LEVEL_FN int F(likelihood)(const fortet_gmm_likelihood_args *a, int64_t begin, int64_t end) {
  const fortet_mixture *const m = &a->m;
  const int64_t k = m->k, d = m->d;
  const int64_t first = a->term[0].n ? (a->term[0].n + a->term[0].chunk - 1) / a->term[0].chunk : 0;
  REAL *const memory = (REAL *)aligned_alloc(64, (size_t)(F(mixture_size)(m) + F(fix_size)(m) + F(up)(d * ROWS) + F(up)(k * ROWS) +
                                               F(up)(m->axes ? 3 * d * ROWS : 0)) * sizeof(REAL));
  if (!memory) return FORTET_OUT_OF_MEMORY;
  for (int64_t tile = begin; tile < end; tile++) {
    const fortet_gmm_term *const term = &a->term[tile >= first];
    const int64_t from = (tile - (tile >= first ? first : 0)) * term->chunk;
    const int64_t to = from + term->chunk < term->n ? from + term->chunk : term->n;
    REAL *work = memory;
    BLOCK b = {0};
    F(sums) s;
    F(mixture)(&b, m, &work);
    F(fix)(&b, term->t, &work);
    REAL *const x = F(take)(&work, d * ROWS);
    b.x = x;
    b.w = F(take)(&work, k * ROWS);
    F(begin_sums)(&s, m, (REAL *)a->partial + tile * F(width)(m));
    for (int64_t row = from; row < to; row += ROWS) {
      const int count = F(begin_block)(&s, term->weight / (double)term->n, to - row);
      F(rows_in)((const REAL *)term->x + row * d, d, count, x);
      if (m->axes) F(likelihood_along)(&b, &s, term->t, work);
      else F(likelihood_apart)(&b, &s, term->t);
    }
  }
  free(memory);
  return FORTET_OK;
}

/* ---- Bridge matching. */

/* Arrays (d, ROWS) of a block, the last ones with axes alone. */
typedef struct {
  REAL *target;               /* u, then the loss's derivative e by g */
  REAL *g;
  REAL *along_e, *along_g;    /* both in a component's axes */
  REAL *b, *c;                /* the terms of add_symmetric */
} F(matching);

/* Adds weight / n sum_b |g - u|^2 over a block. With q = w_j D^-1 e and
 * a = w_j <e, g_j - g>: a by la, q + a h / epsilon by r, and
 * q h + a (h^2 / epsilon - t / D) / 2 by S. */
INLINE void F(match_of)(const BLOCK *b, F(sums) * s, const F(matching) * m, int axes) {
  const int64_t d = b->d;
  const REAL by_epsilon = b->over_epsilon;
  for (int64_t j = 0; j < b->k; j++) F(component_moving)(b, j);
  F(softmax)(b, s->value);
  F(drift)(b, m->g, m->along_g);
  VEC loss = {0};
  for (int64_t k = 0; k < d; k++)
    EACH {
      const VEC gap = F(load)(m->g + k * ROWS + v) - F(load)(m->target + k * ROWS + v);
      const VEC share = F(load)(s->share + v) * gap;
      loss += share * gap;
      F(store)(m->target + k * ROWS + v, share + share);
    }
  s->loss[0] += F(sum)(loss);
  for (int64_t j = 0; j < b->k; j++) {
    const REAL *const h = F(kept)(b, j), *const inverse = b->inverse + j * b->slot;
    const REAL *const e = axes ? F(along)(b, j, m->target, m->along_e) : m->target;
    const REAL *const g = axes ? F(along)(b, j, m->g, m->along_g) : m->g;
    REAL *const means = s->means + j * d, *const scales = s->scales + j * d * (axes ? d : 1);
    VEC w[VECTORS], a[VECTORS] = {{0}}, decay[VECTORS], sum = {0};
    for (int64_t k = 0; k < d; k++)
      EACH a[v / LANES] += F(load)(e + k * ROWS + v) * (F(drift_at)(b, h, j, k, v) - F(load)(g + k * ROWS + v));
    EACH {
      w[v / LANES] = F(load)(b->w + j * ROWS + v);
      a[v / LANES] *= w[v / LANES];
      sum += a[v / LANES];
      decay[v / LANES] = a[v / LANES] * F(load)(b->t + v) * (REAL)0.5;
      a[v / LANES] *= by_epsilon;
    }
    s->logits[j] += F(sum)(sum);
    for (int64_t k = 0; k < d; k++) {
      VEC first = {0}, second = {0};
      EACH {
        const VEC hk = F(load)(h + k * ROWS + v), inv = F(load)(inverse + k * ROWS + v);
        const VEC q = w[v / LANES] * F(load)(e + k * ROWS + v) * inv, ah = a[v / LANES] * hk;
        const VEC by = q + ah * (REAL)0.5, fall = decay[v / LANES] * inv;
        first += q + ah;
        if (axes) {
          F(store)(m->b + k * ROWS + v, by);
          F(store)(m->c + k * ROWS + v, fall);
        } else {
          second += by * hk - fall;
        }
      }
      means[k] += F(sum)(first);
      if (!axes) scales[k] += F(sum)(second);
    }
    if (axes) F(add_symmetric)(scales, d, m->b, h, m->c);
  }
}

LEVEL_FN void F(match_along)(const BLOCK *b, F(sums) * s, const F(matching) * m) { F(match_of)(b, s, m, 1); }
LEVEL_FN void F(match_apart)(const BLOCK *b, F(sums) * s, const F(matching) * m) { F(match_of)(b, s, m, 0); }

LEVEL_FN int F(match)(const fortet_gmm_match_args *a, int64_t begin, int64_t end) {
  const fortet_mixture *const m = &a->m;
  const int64_t k = m->k, d = m->d, plane = d * ROWS;
  /* h and 1/D of all components, where the second-level cache holds them. */
  const int64_t slots = 2 * k * plane * (int64_t)sizeof(REAL) <= FORTET_GMM_KEPT ? k : 1;
  REAL *const memory = (REAL *)aligned_alloc(64, (size_t)(F(mixture_size)(m) + F(up)(k * ROWS) + 2 * F(up)(ROWS) + 2 * F(up)(slots * plane) +
                                               (m->axes ? 7 : 3) * F(up)(plane)) * sizeof(REAL));
  if (!memory) return FORTET_OUT_OF_MEMORY;
  REAL *work = memory;
  BLOCK b = {0};
  F(sums) s;
  F(matching) part = {0};
  F(mixture)(&b, m, &work);
  REAL *const x = F(take)(&work, plane);
  b.x = x;
  b.w = F(take)(&work, k * ROWS);
  b.t = F(take)(&work, ROWS), b.rest = F(take)(&work, ROWS);
  b.h = F(take)(&work, slots * plane), b.inverse = F(take)(&work, slots * plane);
  b.slot = slots > 1 ? plane : 0;
  part.target = F(take)(&work, plane), part.g = F(take)(&work, plane);
  if (m->axes) {
    part.along_e = F(take)(&work, plane), part.along_g = F(take)(&work, plane);
    part.b = F(take)(&work, plane), part.c = F(take)(&work, plane);
  }
  for (int64_t tile = begin; tile < end; tile++) {
    const int64_t from = tile * a->chunk, to = from + a->chunk < a->n ? from + a->chunk : a->n;
    F(begin_sums)(&s, m, (REAL *)a->partial + tile * F(width)(m));
    for (int64_t row = from; row < to; row += ROWS) {
      const int count = F(begin_block)(&s, a->weight / (double)a->n, to - row);
      F(rows_in)((const REAL *)a->x + row * d, d, count, x);
      F(rows_in)((const REAL *)a->u + row * d, d, count, part.target);
      F(rows_in)((const REAL *)a->t + row, 1, count, b.t);
      for (int i = 0; i < ROWS; i++) b.rest[i] = 1 - b.t[i];
      if (m->axes) F(match_along)(&b, &s, &part);
      else F(match_apart)(&b, &s, &part);
    }
  }
  free(memory);
  return FORTET_OK;
}

/* ---- The sum over chunks. */

/* sum of count numbers from partial on, over all chunks, in double. */
INLINE void F(total)(const REAL *partial, int64_t chunks, int64_t width, int64_t count, double *out) {
  for (int64_t i = 0; i < count; i++) out[i] = 0;
  for (int64_t c = 0; c < chunks; c++)
    for (int64_t i = 0; i < count; i++) out[i] += (double)partial[c * width + i];
}

LEVEL_FN int F(reduce)(const fortet_gmm_reduce_args *a, int64_t begin, int64_t end) {
  const fortet_mixture *const m = &a->m;
  const int64_t k = m->k, d = m->d, width = F(width)(m), square = m->axes ? d * d : d;
  const REAL *const partial = (const REAL *)a->partial, *const scales = (const REAL *)m->scales;
  const REAL floor = (REAL)a->floor;
  double *const sum = (double *)malloc((size_t)(a->group * square) * sizeof(double));
  if (!sum) return FORTET_OUT_OF_MEMORY;
  for (int64_t tile = begin; tile < end; tile++) {
    const int64_t from = tile * a->group, to = from + a->group < k ? from + a->group : k, count = to - from;
    if (tile == 0 && a->loss) {
      F(total)(partial, a->chunks, width, 1, sum);
      *(REAL *)a->loss = (REAL)sum[0];
    }
    F(total)(partial + 1 + from, a->chunks, width, count, sum);
    for (int64_t j = 0; j < count; j++) ((REAL *)a->dlogits)[from + j] = (REAL)sum[j];

    REAL *const means = (REAL *)a->dmeans + from * d, *const raw = (REAL *)a->draw + from * d;
    F(total)(partial + 1 + k + from * d, a->chunks, width, count * d, sum);
    if (!m->axes) {
      for (int64_t i = 0; i < count * d; i++) means[i] = (REAL)sum[i];
    } else {
      for (int64_t i = 0; i < count * d; i++) means[i] = 0;
      for (int64_t i = 0; i < count * d; i++) {
        const REAL *const axis = (const REAL *)m->axes + (from * d + i) * d, along = (REAL)sum[i];
        REAL *const to_mean = means + i / d * d;
        for (int64_t q = 0; q < d; q++) to_mean[q] += along * axis[q];
      }
    }

    F(total)(partial + 1 + k + k * d + from * square, a->chunks, width, count * square, sum);
    for (int64_t i = 0; i < count * d; i++) {
      const REAL s = scales[from * d + i];
      if (!m->axes) {
        raw[i] = (REAL)sum[i] * (s - floor);
        continue;
      }
      const double *const row = sum + i * d;
      raw[i] = (REAL)row[i % d] * (s - floor);
      if (!a->dturn) continue;
      REAL *const turn = (REAL *)a->dturn + (from * d + i) * d;
      const REAL *const other = scales + (from + i / d) * d;
      for (int64_t q = 0; q < d; q++) turn[q] = 2 * (REAL)row[q] * (s - other[q]);
    }
  }
  free(sum);
  return FORTET_OK;
}
