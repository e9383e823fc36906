/* ensemble_room.h - the memory in which a worker solves one problem.
 *
 * Potentials are in units of epsilon / log2(e), so that exponents are those of
 * 2: gamma = g / epsilon log2(e). Points of no weight, and the padding of rows
 * to whole vectors, have logarithms of -inf and so no part in any sum. */
#ifndef FORTET_ENSEMBLE_ROOM_H
#define FORTET_ENSEMBLE_ROOM_H

#include "ensemble.h"

enum {
  PAD = 16,  /* rows and columns are padded to a multiple */
  DEPTH = FORTET_ENSEMBLE_DEPTH,
  GRAM = DEPTH + 4 /* a row of the normal equations, and the right-hand side */
};

#define LOG2E 1.44269504088896340736
#define LN2 0.693147180559945309417

typedef struct {
  int64_t n, m, d;
  int64_t ld, nd;           /* m and n, padded */
  const double *x;          /* (n, d) */
  double *cost;             /* (n, ld) */
  double *yt;               /* (d, ld) */
  double epsilon, unit;     /* unit = log2(e) / epsilon */
  double damp1, damp2;      /* rho / (rho + epsilon) */
  double decay2;            /* epsilon / rho2: the wanted marginal is b 2^(-decay2 gamma) */
  double mass;              /* of a */
  double spread;            /* greatest cost less the least */
  double *a, *la, *phi;     /* (nd): weights, log2, potential */
  double *b, *lb, *q, *lq;  /* (ld): weights, log2, square root, its log2 */
  double *gamma, *image;    /* (ld): iterate and what a sweep makes of it */
  double *zero;             /* (ld): gamma of the kept matrix */
  double *fallback, *best;  /* (ld) */
  double *row;              /* (ld): space */
  double *col, *top;        /* (ld): space */
  double *f, *f_last;       /* (ld): weighted residual of the mixing, and the one before */
  double *image_last;       /* (ld) */
  double *phi0, *sums;      /* (nd): phi of the kept matrix, sums over its rows */
  double gram[DEPTH][DEPTH];
  double system[DEPTH][GRAM];
  /* In the element type of the kernel: */
  void *k;                  /* (nd, ld): the kept matrix */
  void *v;                  /* (ld): q 2^(gamma - zero) */
  void *w, *part;           /* (ld) */
  void *weight, *hole;      /* (nd): a, and 1 where that is 0 */
  void *df, *dt;            /* (DEPTH, ld) */
  int32_t held, slot;       /* of the mixing */
  int32_t filled;
  int32_t absorbed, logs;
} fortet_ensemble_room;


static int64_t fortet_ensemble_up(int64_t a) { return (a + PAD - 1) / PAD * PAD; }

/* Lays the arrays out from base on, which is aligned to 64 bytes; base NULL
 * only counts. Answers how many bytes they take. */
static int64_t fortet_ensemble_lay(fortet_ensemble_room *r, char *base, int64_t element, int points) {
  int64_t at = 0;
#define TAKE(field, count, bytes)               \
  do {                                          \
    if (base) r->field = (void *)(base + at);   \
    at += ((count) * (bytes) + 63) / 64 * 64;   \
  } while (0)
  const int64_t ld = r->ld, nd = r->nd;
  TAKE(k, nd * ld, element);
  TAKE(v, ld, element);
  TAKE(w, ld, element);
  TAKE(part, ld, element);
  TAKE(weight, nd, element);
  TAKE(hole, nd, element);
  TAKE(df, DEPTH * ld, element);
  TAKE(dt, DEPTH * ld, element);
  TAKE(a, nd, 8);
  TAKE(la, nd, 8);
  TAKE(phi, nd, 8);
  TAKE(phi0, nd, 8);
  TAKE(sums, nd, 8);
  TAKE(b, ld, 8);
  TAKE(lb, ld, 8);
  TAKE(q, ld, 8);
  TAKE(lq, ld, 8);
  TAKE(gamma, ld, 8);
  TAKE(image, ld, 8);
  TAKE(zero, ld, 8);
  TAKE(fallback, ld, 8);
  TAKE(best, ld, 8);
  TAKE(row, ld, 8);
  TAKE(col, ld, 8);
  TAKE(top, ld, 8);
  TAKE(f, ld, 8);
  TAKE(f_last, ld, 8);
  TAKE(image_last, ld, 8);
  TAKE(cost, r->n * ld, 8);
  TAKE(yt, points ? r->d * ld : 0, 8);
#undef TAKE
  return at;
}

#endif
