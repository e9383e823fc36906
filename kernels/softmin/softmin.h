/* softmin.h - the streaming log-sum-exp over cost, potential and log weight
 * that every Sinkhorn-like method iterates. Nothing of size n x m is stored.
 *
 * Throughout, with c_ij = c(x_i, y_j) or a given matrix entry,
 *
 *     z_ij = logb_j + (g_j - c_ij) / epsilon
 *     softmin_i = -epsilon log sum_j exp z_ij
 *     p_ij = exp(z_ij + f_i / epsilon)
 *
 * so that rows of p sum to one where f_i = softmin_i. g or logb may be NULL,
 * which means zeros.
 *
 * Infinities. A weight of zero is logb_j = -inf, a forbidden pair a matrix
 * entry of +inf: either makes z_ij = -inf and p_ij = 0, whatever f_i is. A row
 * without any finite z_ij has softmin_i = +inf and p_ij = 0 in it. z_ij = +inf
 * makes softmin_i = -inf, and NaN of what sums p. NaN in a row's data makes
 * that row's results NaN. Coordinates of points must be finite; others may make
 * results NaN.
 * Exponentials below the smallest normal number of the element type may be 0.
 *
 * Entry points of a device library, with T one of f32, f64, tf32, bf16x3:
 *     int fortet_softmin_T(void *stream, const void *fortet_softmin_args)
 *     int fortet_sweep_T  (void *stream, const void *fortet_sweep_args)
 *     int fortet_apply_T  (void *stream, const void *fortet_apply_args)
 * Elements are double for _f64 and float for the others, which name how the
 * products of coordinates are computed. A combination that a library lacks
 * answers FORTET_UNSUPPORTED.
 *
 * Read by nvcc, g++, gcc and cgo. */
#ifndef FORTET_SOFTMIN_H
#define FORTET_SOFTMIN_H

#include "fortet.h"
#include "costs.h"

/* What the pairs are: points and a ground cost, or a matrix. FORTET_COSINE is
 * not among the costs here: normalise the points and use
 * FORTET_HALF_SQEUCLIDEAN, to which it is then equal. */
typedef struct {
  const void *x;      /* (n, d); NULL with FORTET_MATRIX */
  const void *y;      /* (m, d); NULL with FORTET_MATRIX */
  const void *matrix; /* (n, m) row-major, with FORTET_MATRIX; else NULL */
  const void *g;      /* (m) or NULL */
  const void *logb;   /* (m) or NULL */
  int64_t n, m, d;
  double epsilon;
  int32_t cost;       /* costs.h */
  int32_t reserved;
} fortet_pairs;

/* softmin: out_i = softmin_i */
typedef struct {
  fortet_pairs pairs;
  void *out;  /* (n) */
  void *work; /* fortet_softmin_work(...) bytes, aligned to 256 */
} fortet_softmin_args;

/* sweep: one pass over all pairs for both halves of a Sinkhorn iteration.
 *     out_i = softmin_i
 *     w_i   = exp(loga_i + (damp - 1) out_i / epsilon)
 *     col_j = sum_i w_i p_ij   with f_i = softmin_i in p
 * A row of softmin_i = +inf adds nothing to col, nor does one of loga_i = -inf
 * unless it is NaN. Since exponentials may underflow, col_j = 0 says that no
 * row reaches column j within the range of the element type; the transposed
 * softmin still has its logarithm.
 * damp = 1 for a balanced source, rho / (rho + epsilon) for a KL penalty:
 * then col is the second marginal of the plan of potentials (damp out, g). */
typedef struct {
  fortet_pairs pairs;
  const void *loga; /* (n) or NULL */
  double damp;
  void *out;        /* (n) */
  double *col;      /* (m), always double */
  void *work;       /* as in fortet_softmin_args */
} fortet_sweep_args;

/* apply: the plan, applied, for given f (any potentials).
 *     mass_i = sum_j p_ij
 *     mean_i = sum_j p_ij c_ij
 *     r_i    = sum_j p_ij v_j
 *     grad_i = sum_j p_ij dc/dx(x_i, y_j)   (0 where x_i = y_j for FORTET_EUCLIDEAN)
 * Each output may be NULL. grad is not available with FORTET_MATRIX. */
typedef struct {
  fortet_pairs pairs;
  const void *f; /* (n) */
  const void *v; /* (m, k) or NULL */
  int64_t k;
  void *mass;    /* (n) or NULL */
  void *mean;    /* (n) or NULL */
  void *r;       /* (n, k) or NULL */
  void *grad;    /* (n, d) or NULL */
  void *work;    /* as in fortet_softmin_args */
} fortet_apply_args;

/* Operations and precisions, for fortet_softmin_work. */
enum { FORTET_OP_SOFTMIN = 0, FORTET_OP_SWEEP = 1, FORTET_OP_APPLY = 2 };
enum { FORTET_NATIVE = 0, FORTET_TF32 = 1, FORTET_BF16X3 = 2 };

/* ---- Workspace of a device library. (The CPU kernels lay out their own.) */

/* Points of up to this many dimensions are held in registers, in the element
 * type, and need no copy. */
enum { FORTET_SOFTMIN_POINT_DIM = 8 };

/* Rows of a block and columns of a tile of each kind of kernel, columns of v
 * that a block multiplies with, and the blocks that a launch should have: enough
 * for 15 on each multiprocessor of an H100, so that the last ones do not leave
 * most of it idle. The division depends on nothing else, so neither do results. */
enum {
  FORTET_SOFTMIN_POINT_ROWS = 256,
  FORTET_SOFTMIN_POINT_APPLY_ROWS = 128,
  FORTET_SOFTMIN_POINT_COLUMNS = 128,
  FORTET_SOFTMIN_POINT_VALUES = 4,
  FORTET_SOFTMIN_TILE_ROWS = 128, /* of float; half as many of double */
  FORTET_SOFTMIN_TILE_COLUMNS = 64,
  FORTET_SOFTMIN_TENSOR_ROWS = 128,
  FORTET_SOFTMIN_TENSOR_COLUMNS = 128,
  FORTET_SOFTMIN_PAD = 128,   /* points are padded to a multiple of this */
  FORTET_SOFTMIN_PAD_DIM = 32, /* and dimensions to one of this, or of half in native precision */
  FORTET_SOFTMIN_BLOCKS = 2048
};

/* A launch goes over blocks of rows and splits of the columns, of so many
 * tiles each (the last may have fewer); partial results of splits are merged in their order. */
typedef struct {
  int64_t splits, tiles;
} fortet_softmin_split;

static inline fortet_softmin_split fortet_softmin_divide(int64_t n, int64_t m, int64_t rows, int64_t columns,
                                                         int64_t repeats, int64_t least) {
  const int64_t blocks = (n + rows - 1) / rows * repeats, all = (m + columns - 1) / columns;
  const int64_t want = (FORTET_SOFTMIN_BLOCKS + blocks - 1) / blocks;
  fortet_softmin_split s;
  s.tiles = want < all ? (all + want - 1) / want : 1;
  if (s.tiles < least) s.tiles = least;
  s.splits = (all + s.tiles - 1) / s.tiles;
  return s;
}

/* Where the parts of the workspace begin, in bytes. Without prepared points
 * (cost matrix, low dimension) there are only bias and part. */
typedef struct {
  int64_t np, mp, dp;          /* padded sizes; dp = 0 without prepared points */
  fortet_softmin_split rows;   /* softmin, the first half of sweep, apply but grad */
  fortet_softmin_split back;   /* the second half of sweep */
  fortet_softmin_split slopes; /* grad of apply, where it is a launch of its own */
  int64_t centre;              /* (d) */
  int64_t x, y;                /* (np, dp) and (mp, dp), in the kernels' order */
  int64_t half_x, half_y;      /* (np) and (mp) */
  int64_t bias;                /* (max(np, mp)) */
  int64_t part;                /* partial results */
  int64_t bytes;
} fortet_softmin_layout;

static inline fortet_softmin_layout fortet_softmin_lay_out(int32_t op, int32_t precision, const fortet_pairs *p,
                                                           int64_t element, int64_t k) {
  const int64_t n = p->n, m = p->m, d = p->cost == FORTET_MATRIX ? 0 : p->d;
  const int low = precision == FORTET_NATIVE && p->cost != FORTET_MATRIX && d <= FORTET_SOFTMIN_POINT_DIM;
  const int prepared = p->cost != FORTET_MATRIX && !low;
  const int64_t pad = FORTET_SOFTMIN_PAD;
  const int64_t pad_dim = precision == FORTET_NATIVE ? FORTET_SOFTMIN_PAD_DIM / 2 : FORTET_SOFTMIN_PAD_DIM;
  /* Tensor core kernels keep their rows in shared memory: at least two tiles of
   * columns pass by them. */
  const int64_t least = precision == FORTET_NATIVE ? 1 : 2;
  int64_t rows, columns, part, at = 0;
  fortet_softmin_layout l;

  if (low) {
    rows = op == FORTET_OP_APPLY ? FORTET_SOFTMIN_POINT_APPLY_ROWS : FORTET_SOFTMIN_POINT_ROWS;
    columns = FORTET_SOFTMIN_POINT_COLUMNS;
  } else if (precision == FORTET_NATIVE) {
    rows = FORTET_SOFTMIN_TILE_ROWS * 4 / element;
    columns = FORTET_SOFTMIN_TILE_COLUMNS;
  } else {
    rows = FORTET_SOFTMIN_TENSOR_ROWS;
    columns = FORTET_SOFTMIN_TENSOR_COLUMNS;
  }
  l.np = (n + pad - 1) / pad * pad;
  l.mp = (m + pad - 1) / pad * pad;
  l.dp = prepared ? (d + pad_dim - 1) / pad_dim * pad_dim : 0;
  if (op == FORTET_OP_APPLY) {
    const int64_t wide = low ? FORTET_SOFTMIN_POINT_VALUES : FORTET_SOFTMIN_TILE_COLUMNS;
    int64_t slopes;
    l.rows = fortet_softmin_divide(n, m, rows, columns, k > wide ? (k + wide - 1) / wide : 1, least);
    l.back = l.rows;
    l.slopes = fortet_softmin_divide(n, m, rows, columns, d > wide ? (d + wide - 1) / wide : 1, least);
    part = l.rows.splits * n * (2 + k + (low ? d : 0));
    slopes = prepared ? l.slopes.splits * n * (2 + d) : 0;
    part = part > slopes ? part : slopes;
  } else {
    int64_t back;
    l.rows = fortet_softmin_divide(n, m, rows, columns, 1, least);
    l.back = fortet_softmin_divide(m, n, rows, columns, 1, least);
    l.slopes = l.rows;
    part = 2 * l.rows.splits * n;
    back = op == FORTET_OP_SWEEP ? 2 * l.back.splits * m : 0;
    part = part > back ? part : back;
  }
#define FORTET_SOFTMIN_PLACE(name, count) \
  l.name = at;                            \
  at += ((count) * element + 255) / 256 * 256
  FORTET_SOFTMIN_PLACE(centre, prepared ? d : 0);
  FORTET_SOFTMIN_PLACE(x, l.np * l.dp);
  FORTET_SOFTMIN_PLACE(y, l.mp * l.dp);
  FORTET_SOFTMIN_PLACE(half_x, prepared ? l.np : 0);
  FORTET_SOFTMIN_PLACE(half_y, prepared ? l.mp : 0);
  FORTET_SOFTMIN_PLACE(bias, l.np > l.mp ? l.np : l.mp);
  FORTET_SOFTMIN_PLACE(part, part);
#undef FORTET_SOFTMIN_PLACE
  l.bytes = at;
  return l;
}

/* fortet_softmin_work is the size in bytes of the workspace that a device
 * library needs for an operation on pairs of elements of the given size. k is
 * that of apply, else 0. */
static inline int64_t fortet_softmin_work(int32_t op, int32_t precision, const fortet_pairs *p, int64_t element,
                                          int64_t k) {
  return fortet_softmin_lay_out(op, precision, p, element, k).bytes;
}

#endif
