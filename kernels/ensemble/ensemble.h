/* ensemble.h - many small entropic transport problems in one launch, each
 * solved by one worker or one block. Problem p has n_p source and m_p target
 * points; arrays of all problems are concatenated. With the costs c_ij of
 * costs.h, at the epsilon of the problem,
 *
 *     P_ij = a_i b_j exp((f_i + g_j - c_ij) / epsilon)
 *     f = rho1 / (rho1 + epsilon) softmin(g),   f = softmin(g) where rho1 = inf
 *
 * and the same for g. The iterate is g; the residual of a sweep is that of the
 * plan of (f(g), g),
 *
 *     sum_j |sum_i P_ij - b_j exp(-g_j / rho2)| / sum_i a_i
 *
 * Sweeps multiply with the kept matrix exp((f0 + g0 - c)/epsilon), a_i^(1/2),
 * b_j^(1/2), in the element type of the kernel; potentials are double. It is
 * made again where a potential moves out of the range in which no entry that
 * was lost matters (absorption), and where a sum underflows all the same, the
 * sweep is repeated as log-sum-exps in double. Iterates are mixed by Anderson's
 * method. What is reported is evaluated in double from the costs.
 *
 * Every array is double but where stated. Kernels: ensemble_f32, ensemble_f64.
 * Read by nvcc, g++, gcc and cgo. */
#ifndef FORTET_ENSEMBLE_H
#define FORTET_ENSEMBLE_H

#include "costs.h"
#include "fortet.h"

/* Columns of values. */
enum {
  FORTET_ENSEMBLE_EPSILON,  /* absolute */
  FORTET_ENSEMBLE_MEAN,     /* mean cost under a x b */
  FORTET_ENSEMBLE_COST,     /* <C, P> */
  FORTET_ENSEMBLE_PRIMAL,
  FORTET_ENSEMBLE_DUAL,
  FORTET_ENSEMBLE_MASS,     /* sum P */
  FORTET_ENSEMBLE_SOURCE,   /* |P1 - a|_1 */
  FORTET_ENSEMBLE_TARGET,   /* |P'1 - b|_1 */
  FORTET_ENSEMBLE_RESIDUAL, /* as above */
  FORTET_ENSEMBLE_VALUES
};

/* Columns of counts (int32). */
enum {
  FORTET_ENSEMBLE_STATUS,
  FORTET_ENSEMBLE_SWEEPS,   /* at all epsilons */
  FORTET_ENSEMBLE_ABSORBED, /* how often the matrix was made */
  FORTET_ENSEMBLE_LOGS,     /* sweeps as log-sum-exps */
  FORTET_ENSEMBLE_COUNTS
};

/* How a problem ended. */
enum {
  FORTET_ENSEMBLE_CONVERGED = 1, /* the residual in double is at most the tolerance */
  FORTET_ENSEMBLE_MAX_SWEEPS,
  FORTET_ENSEMBLE_STALLED,
  FORTET_ENSEMBLE_CANCELED,
  FORTET_ENSEMBLE_DIVERGED /* something is not finite, or epsilon is not above 0 */
};

typedef struct {
  const double *x, *y;        /* (sum n, d), (sum m, d), or NULL with matrix */
  const double *matrix;       /* costs (n_p, m_p) of all problems, or NULL */
  const double *a, *b;        /* (sum n), (sum m) of at least 0, or NULL: 1/n_p and 1/m_p */
  const int64_t *rows;        /* (problems + 1): where the source points of p begin */
  const int64_t *columns;     /* (problems + 1): the same for targets */
  const int64_t *pairs;       /* (problems + 1): the same for costs, with matrix */
  const int64_t *order;       /* (count): which problems to solve; others are not touched */
  const int32_t *stop;        /* (1), or NULL: as soon as it is not 0, sweeps end, and what has not begun is not touched */
  const double *epsilon;      /* (problems) */
  const double *rho1, *rho2;  /* (problems), inf for an exact marginal, or NULL: all exact */
  double *f, *g;              /* (sum n), (sum m): potentials; g is the start where warm and finite */
  double *map;                /* (sum n, d): barycentric map, or NULL */
  double *values;             /* (problems, FORTET_ENSEMBLE_VALUES) */
  int32_t *counts;            /* (problems, FORTET_ENSEMBLE_COUNTS) */
  void *work;                 /* fortet_ensemble_work() bytes on a GPU */
  int64_t count, d, n_most, m_most; /* the last two: sizes of the largest problems */
  double tolerance;
  double anneal;              /* starts above epsilon where epsilon < anneal mean cost; 0: never */
  int32_t cost, mean;         /* mean: epsilon is in units of the mean cost */
  int32_t warm, mix;          /* mix: Anderson's method; else plain sweeps */
  int32_t max_sweeps;         /* 0: only reports on the start */
  int32_t give_up;            /* sweeps in which the residual must halve; 0: no such condition.
                               * ensemble_f32 then leaves what wants annealing at once, with NaN */
} fortet_ensemble_args;

enum {
  FORTET_ENSEMBLE_DEPTH = 16,   /* differences that the mixing remembers */
  FORTET_ENSEMBLE_PATIENCE = 60, /* sweeps without a new least residual: stalled */
  FORTET_ENSEMBLE_COARSE_SWEEPS = 40, /* at most, at an epsilon on the way */
  FORTET_ENSEMBLE_VECTORS = 19 /* of double in the room of a GPU block */
};
#define FORTET_ENSEMBLE_RIDGE 1e-4  /* of the mixing, relative to differences of length 1 */
#define FORTET_ENSEMBLE_COARSE 1e-2 /* residual at which annealing goes on */
#define FORTET_ENSEMBLE_START 0.5   /* annealing starts from half the mean cost and halves */

/* Bytes of the arrays in which a GPU block solves problems of up to n x m
 * points: vectors and costs, matrix, and the mixing's memory. */
FORTET_HD int64_t fortet_ensemble_room_bytes(int64_t n, int64_t m, int64_t element) {
  const int64_t most = n > m ? n : m;
  const int64_t bytes = (FORTET_ENSEMBLE_VECTORS * most + n * m) * 8 + (n * m + n + m + 2 * FORTET_ENSEMBLE_DEPTH * m) * element;
  return (bytes + 255) / 256 * 256;
}

/* How many GPU blocks share the problems: as many as there are while their
 * rooms take no more than 1 GiB, but 16 at least. */
FORTET_HD int64_t fortet_ensemble_blocks(const fortet_ensemble_args *a, int64_t element) {
  int64_t blocks = ((int64_t)1 << 30) / fortet_ensemble_room_bytes(a->n_most, a->m_most, element);
  if (blocks < 16) blocks = 16;
  if (blocks > 4096) blocks = 4096;
  return blocks < a->count ? blocks : a->count;
}

FORTET_HD int64_t fortet_ensemble_work(const fortet_ensemble_args *a, int64_t element) {
  return fortet_ensemble_blocks(a, element) * fortet_ensemble_room_bytes(a->n_most, a->m_most, element);
}

#endif
