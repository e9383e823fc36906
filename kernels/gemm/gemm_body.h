/* gemm_body.h - the CPU kernels for one type at one instruction level.
 *
 * Included by gemm_cpu.c with
 *     REAL      float or double
 *     LANES     numbers per vector
 *     MR        rows of the register tile, a divisor of ROW_QUANTUM:
 *               2 MR + 3 vectors fit the registers
 *     N(name)   name, made unique
 *
 * B is packed in panels of PANEL columns, panel q as [q][k][PANEL], and rows of
 * A in groups of MR, as [i / MR][k][MR], so that the innermost loop over k reads
 * both in order. Both are padded with zeros to whole panels and groups. */

typedef REAL N(vec) __attribute__((vector_size(LANES * sizeof(REAL))));
typedef REAL N(mem) __attribute__((vector_size(LANES * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));
#define VEC N(vec)
#define LOAD(p) ((VEC) * (const N(mem) *)(p))
#define STORE(p, v) (*(N(mem) *)(p) = (v))
#define SPLAT(a) ((REAL)(a) - (VEC){0})

#define PANEL (2 * LANES)
/* Terms summed from zero before they reach C: a panel of them takes at most 3/4
 * of a first-level cache of 32 KiB, and TILE_ROWS of A at most 60 KiB of stack. */
#define DEEPEST (61440 / (TILE_ROWS * (int)sizeof(REAL)))
#define PANEL_DEPTH (24576 / (PANEL * (int)sizeof(REAL)))
#define CHUNK (DEEPEST < PANEL_DEPTH ? DEEPEST : PANEL_DEPTH)

INLINE REAL N(sum)(VEC v) {
  REAL s[LANES];
  STORE(s, v);
  for (int w = LANES / 2; w > 0; w /= 2)
    for (int l = 0; l < w; l++) s[l] += s[l + w];
  return s[0];
}

/* Where sums go: c = alpha sum + beta c + bias, or a part of a split sum. An
 * activation would be applied here, where a bias is. */
typedef struct {
  REAL *c;
  int64_t row, column;
  REAL alpha, beta; /* beta = 0: c is not read */
  const REAL *bias; /* or NULL */
  int64_t bias_row, bias_column;
} N(target);

/* The target of part h of the sums of matrix s in this round, from (0, 0). */
static N(target) N(target_of)(const fortet_gemm_round *r, int64_t s, int64_t h) {
  const fortet_gemm_args *g = &r->g;
  const int first = r->k0 == 0, last = r->k1 == g->k;
  N(target) t = {(REAL *)g->c.data + s * g->c.stride, g->c.row, g->c.column, (REAL)g->alpha, first ? (REAL)g->beta : 1,
                 last ? (const REAL *)g->bias : 0, g->bias_row, g->bias_column};
  if (r->plan.splits > 1) {
    t.c = (REAL *)((char *)g->work + r->plan.parts) + (s * r->plan.splits + h) * g->m * g->n;
    t.row = g->n, t.column = 1;
    t.alpha = 1, t.beta = !first;
    t.bias = 0;
  }
  return t;
}

INLINE void N(put)(const N(target) *t, int64_t i, int64_t j, REAL sum) {
  REAL *const c = t->c + i * t->row + j * t->column;
  REAL v = t->alpha * sum;
  if (t->beta != 0) v += t->beta * *c;
  if (t->bias) v += t->bias[i * t->bias_row + j * t->bias_column];
  *c = v;
}

/* The same for LANES columns, where columns are neighbours. */
INLINE void N(put_vector)(const N(target) *t, int64_t i, int64_t j, VEC sum) {
  REAL *const c = t->c + i * t->row + j;
  VEC v = t->alpha * sum;
  if (t->beta != 0) v += t->beta * LOAD(c);
  if (t->bias) v += t->bias_column ? LOAD(t->bias + j) : SPLAT(t->bias[i * t->bias_row]);
  STORE(c, v);
}

/* ---- Packing. */

/* out_kl = element (k, l) of v for l < some, 0 for l < wide: steps by k and by l. */
INLINE void N(interleave)(const REAL *v, int64_t by_k, int64_t by_l, int64_t some, const int wide, int64_t depth, REAL *out) {
  if (some < wide) memset(out, 0, (size_t)(depth * wide) * sizeof(REAL));
  if (by_l == 1 && some == wide) {
    for (int64_t k = 0; k < depth; k++)
      for (int l = 0; l < wide; l++) out[k * wide + l] = v[k * by_k + l];
  } else if (by_l == 1) {
    for (int64_t k = 0; k < depth; k++)
      for (int64_t l = 0; l < some; l++) out[k * wide + l] = v[k * by_k + l];
  } else { /* a cache line of every l at a time: they may lie a power of two apart */
    const int64_t line = 64 / (int64_t)sizeof(REAL);
    for (int64_t k0 = 0; k0 < depth; k0 += line) {
      const int64_t k1 = least(k0 + line, depth);
      for (int64_t l = 0; l < some; l++)
        for (int64_t k = k0; k < k1; k++) out[k * wide + l] = v[k * by_k + l * by_l];
    }
  }
}

static int64_t N(panels_of_matrix)(const fortet_gemm_round *r) { return up(r->j1 - r->j0, COLUMN_PAD) * (r->k1 - r->k0); }

static REAL *N(panels)(const fortet_gemm_round *r, int64_t s) {
  return (REAL *)((char *)r->g.work + r->plan.panels) + (r->plan.shared ? 0 : (s - r->s0) * N(panels_of_matrix)(r));
}

static int N(pack)(const fortet_gemm_round *r, int64_t begin, int64_t end) {
  const fortet_gemm_matrix *b = &r->g.b;
  const int64_t depth = r->k1 - r->k0, across = pieces(r->j1 - r->j0, PACK_COLUMNS), down = pieces(depth, PACK_DEPTH);
  for (int64_t t = begin; t < end; t++) {
    const int64_t k0 = t % down * PACK_DEPTH, kn = least(PACK_DEPTH, depth - k0);
    const int64_t j0 = r->j0 + t / down % across * PACK_COLUMNS, j1 = least(j0 + PACK_COLUMNS, r->j1);
    const int64_t first = r->s0 + t / down / across * r->plan.group;
    const int64_t last = r->plan.shared ? first + 1 : least(first + r->plan.group, r->s1);
    for (int64_t s = first; s < last; s++) {
      const REAL *v = (const REAL *)b->data + s * b->stride + (r->k0 + k0) * b->row;
      REAL *const panels = N(panels)(r, s);
      for (int64_t j = j0; j < j1; j += PANEL)
        N(interleave)(v + j * b->column, b->row, b->column, least(PANEL, j1 - j), PANEL, kn,
                      panels + (j - r->j0) * depth + k0 * PANEL);
    }
  }
  return FORTET_OK;
}

/* ---- The register tile: MR rows by one panel, over depth terms. */

INLINE void N(register_tile)(const REAL *a, const REAL *b, int64_t depth, const N(target) *t, int64_t i, int64_t j) {
  VEC sum[MR][2];
  UNROLL for (int r = 0; r < MR; r++) sum[r][0] = sum[r][1] = (VEC){0};
  for (int64_t k = 0; k < depth; k++) {
    const VEC b0 = LOAD(b + k * PANEL), b1 = LOAD(b + k * PANEL + LANES);
    UNROLL for (int r = 0; r < MR; r++) {
      const VEC v = SPLAT(a[k * MR + r]);
      sum[r][0] += v * b0;
      sum[r][1] += v * b1;
    }
  }
  UNROLL for (int r = 0; r < MR; r++) {
    N(put_vector)(t, i + r, j, sum[r][0]);
    N(put_vector)(t, i + r, j + LANES, sum[r][1]);
  }
}

/* A register tile of which some rows and columns do not exist. */
static void N(edge_tile)(const REAL *a, const REAL *b, int64_t depth, const N(target) *t, int64_t i, int64_t rows, int64_t j,
                         int64_t columns) {
  REAL room[MR * PANEL];
  const N(target) inside = {room, PANEL, 1, 1, 0, 0, 0, 0};
  N(register_tile)(a, b, depth, &inside, 0, 0);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < columns; c++) N(put)(t, i + r, j + c, room[r * PANEL + c]);
}

static void N(full_tile)(const REAL *a, const REAL *b, int64_t depth, const N(target) *t, int64_t i, int64_t j) {
  N(register_tile)(a, b, depth, t, i, j);
}

/* Rows [i0, i1) and columns [j0, j1) of matrix s, over terms [k0, k1). */
static void N(block)(const fortet_gemm_round *r, int64_t s, int64_t i0, int64_t i1, int64_t j0, int64_t j1, int64_t k0, int64_t k1,
                     N(target) t) {
  REAL rows[TILE_ROWS * CHUNK] __attribute__((aligned(64)));
  const fortet_gemm_matrix *a = &r->g.a;
  const REAL *const panels = N(panels)(r, s), *const bias = t.bias;
  const int64_t depth = r->k1 - r->k0;
  for (int64_t k = k0; k < k1; k += CHUNK) {
    const int64_t kn = least(CHUNK, k1 - k);
    t.bias = k + kn == k1 ? bias : 0;
    for (int64_t i = i0; i < i1; i += MR)
      N(interleave)((const REAL *)a->data + s * a->stride + i * a->row + k * a->column, a->column, a->row, least(MR, i1 - i), MR,
                    kn, rows + (i - i0) * kn);
    for (int64_t j = j0; j < j1; j += PANEL) {
      const REAL *const panel = panels + (j - r->j0) * depth + (k - r->k0) * PANEL;
      for (int64_t i = i0; i < i1; i += MR) {
        const REAL *const group = rows + (i - i0) * kn;
        if (i + MR <= i1 && j + PANEL <= j1) N(full_tile)(group, panel, kn, &t, i, j);
        else N(edge_tile)(group, panel, kn, &t, i, least(MR, i1 - i), j, least(PANEL, j1 - j));
      }
    }
    t.beta = 1;
  }
}

#include "gemm_few.h"

static int N(product)(const fortet_gemm_round *r, int64_t begin, int64_t end) {
  const fortet_gemm_plan *p = &r->plan;
  const int64_t across = pieces(r->j1 - r->j0, p->tile_columns), down = pieces(r->g.m, p->tile_rows);
  const int64_t part = pieces(r->k1 - r->k0, p->splits);
  for (int64_t t = begin; t < end; t++) {
    const int64_t h = t % p->splits, k0 = r->k0 + h * part, k1 = least(k0 + part, r->k1);
    const int64_t j0 = r->j0 + t / p->splits % across * p->tile_columns, j1 = least(j0 + p->tile_columns, r->j1);
    const int64_t i0 = t / p->splits / across % down * p->tile_rows, i1 = least(i0 + p->tile_rows, r->g.m);
    const int64_t first = r->s0 + t / p->splits / across / down * p->group, last = least(first + p->group, r->s1);
    for (int64_t s = first; s < last && k0 < k1; s++) {
      if (p->few) N(few)(r, s, j0, j1, k0, k1, N(target_of)(r, s, h));
      else N(block)(r, s, i0, i1, j0, j1, k0, k1, N(target_of)(r, s, h));
    }
  }
  return FORTET_OK;
}

/* Adds the parts of split sums in their order; without parts, sums are 0. */
static int N(finish)(const fortet_gemm_round *r, int64_t begin, int64_t end) {
  const fortet_gemm_args *g = &r->g;
  const int64_t down = pieces(g->m, r->plan.finish_rows), size = g->m * g->n;
  for (int64_t t = begin; t < end; t++) {
    const int64_t s = t / down, i0 = t % down * r->plan.finish_rows, i1 = least(i0 + r->plan.finish_rows, g->m);
    const REAL *const parts = (const REAL *)((const char *)g->work + r->plan.parts) + s * r->plan.splits * size;
    const N(target) to = {(REAL *)g->c.data + s * g->c.stride, g->c.row, g->c.column, (REAL)g->alpha, (REAL)g->beta,
                          (const REAL *)g->bias, g->bias_row, g->bias_column};
    for (int64_t i = i0; i < i1; i++)
      for (int64_t j = 0; j < g->n; j++) {
        REAL sum = 0;
        for (int64_t h = 0; h < r->plan.splits; h++) sum += parts[h * size + i * g->n + j];
        N(put)(&to, i, j, sum);
      }
  }
  return FORTET_OK;
}

#undef REAL
#undef LANES
#undef MR
#undef N
#undef VEC
#undef LOAD
#undef STORE
#undef SPLAT
#undef PANEL
#undef DEEPEST
#undef PANEL_DEPTH
#undef CHUNK
