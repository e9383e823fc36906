/* fold.h - the sum of rows in the order of a balanced binary tree:
 *
 *     out_j = sum over s < rows of in[s, j],   j < m,   in: (rows, width)
 *
 * Neighbours are added first. With v_0[s] = in[s, j],
 *
 *     v_k[s] = v_{k-1}[2s] + v_{k-1}[2s + 1]
 *
 * where a row that does not exist counts as -0, which changes no number that it
 * is added to, until one v is left. So v_k[s] is the fold of the 2^k rows from
 * 2^k s on, as far as they exist, and the fold of the folds of aligned groups of
 * 2^k rows is the fold of the rows: whoever adds which part, the bits are the
 * same. (In double; float is added in double and rounded once, at the end, so
 * that the fold of rounded folds is not.) The fold of one row is a copy of it.
 *
 * Kernels: fold_f32, fold_f64. Read by nvcc, g++, gcc and cgo. */
#ifndef FORTET_FOLD_H
#define FORTET_FOLD_H

#include "fortet.h"

/* Rows that are added in registers; columns of a CPU tile. */
enum { FORTET_FOLD_GROUP = 8, FORTET_FOLD_TILE = 8192 };

typedef struct {
  const void *in;       /* (rows, width) */
  void *out;            /* (m) */
  int64_t rows, width, m; /* rows, m > 0; width >= m */
} fortet_fold_args;

#endif
