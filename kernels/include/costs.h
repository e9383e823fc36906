/* costs.h - the ground costs c(x, y) that kernels evaluate. */
#ifndef FORTET_COSTS_H
#define FORTET_COSTS_H

enum {
  FORTET_SQEUCLIDEAN = 0,      /* |x - y|^2 */
  FORTET_HALF_SQEUCLIDEAN = 1, /* |x - y|^2 / 2 */
  FORTET_EUCLIDEAN = 2,        /* |x - y| */
  FORTET_COSINE = 3,           /* 1 - <x, y> / (|x| |y|) */
  FORTET_MATRIX = 4            /* a given matrix */
};

#endif
