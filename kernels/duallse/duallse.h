/* duallse.h - dual losses of entropic and f-divergence multi-marginal
 * transport over the nodes of a batch, with their gradients.
 *
 * The cost is a star: a centre y_j, j < n, and arms m < M of leaves t_mk, k < n_m,
 *
 *     c(j, k_1..k_M) = norm |y_j|^2 + sum_m weight_m c_m(y_j, t_mk_m),
 *     c_m = |y_j - t_mk|^2 or a given matrix.
 *
 * One arm is the two-marginal problem, two arms the chain x - y - t. Base
 * weights b_j = exp logw_j of the centre and b_mk of the leaves are 1/n and
 * 1/n_m where logw is NULL. All sums run over all tuples (V-statistic).
 *
 *     z_mjk = log b_mk + gamma_mk - weight_m c_m / epsilon
 *     A_mj  = log sum_k exp z_mjk                              (messages)
 *     s_j   = log b_j + beta_j + extra_j - norm |y_j|^2 / epsilon + sum_m A_mj
 *     logE  = log sum_j exp s_j
 *     P_j   = exp(s_j - logE),  P_k|j = exp(z_mjk - A_mj),  P_mjk = P_j P_k|j
 *     dlogE/dbeta_j = P_j,  dlogE/dgamma_mk = sum_j P_mjk
 *     dlogE/dt_mk = 2 weight_m / epsilon sum_j P_mjk (y_j - t_mk)
 *     dlogE/dy_j = -2 norm / epsilon P_j y_j + sum_m 2 weight_m / epsilon sum_k P_mjk (t_mk - y_j)
 *
 * A weight of zero is logw = -inf. Potentials are finite or -inf; a NaN or
 * +inf makes every result it takes part in NaN. Arrays are row-major; elements
 * are float in kernels named _f32, double in _f64, and double where the struct
 * says so. Sums have a fixed order, so that results repeat bit for bit.
 *
 * Read by nvcc, g++, gcc and cgo. */
#ifndef FORTET_DUALLSE_H
#define FORTET_DUALLSE_H

#include "fortet.h"
#include "divergences.h"

enum { FORTET_DUALLSE_ARMS = 8 };

typedef struct {
  const void *potential; /* gamma (count), or NULL: zeros */
  const void *logw;      /* (count), or NULL: -log count */
  const void *points;    /* (count, d), or NULL with cost */
  const void *cost;      /* (n, count), or NULL with points */
  void *grad_potential;  /* (count) or NULL */
  void *grad_points;     /* (count, d) or NULL */
  void *plan;            /* P_mjk (n, count) or NULL */
  void *conditional;     /* P_k|j (n, count) or NULL */
  int64_t count;
  double weight;
} fortet_duallse_arm;

/* Four kernels in this order; those whose outputs are all NULL may be left out.
 *   duallse_message   message; tiles: arms * ceil(n / 32), arm by arm
 *   duallse_centre    log_p, value, grad_potential of the centre; one tile
 *   duallse_leaves    grad_potential and grad_points of the arms;
 *                     tiles: ceil(count / 32) of each arm in turn
 *   duallse_rows      grad_points of the centre, plan, conditional;
 *                     tiles: ceil(n / 32)
 */
typedef struct {
  const void *potential; /* beta (n), or NULL: zeros */
  const void *logw;      /* (n), or NULL: -log n */
  const void *extra;     /* (n), or NULL: zeros */
  const void *points;    /* (n, d), or NULL where nothing needs them */
  void *grad_potential;  /* (n) or NULL */
  void *grad_points;     /* (n, d) or NULL */
  double *value;         /* (2): logE and sum_j b_j beta_j + sum_mk b_mk gamma_mk; or NULL */
  double *message;       /* (arms, n): A_mj */
  double *log_p;         /* (n): log P_j, or s_j - logz where fixed_logz */
  int64_t n, d;
  double epsilon, norm;
  double logz;           /* with fixed_logz */
  int32_t fixed_logz;
  int32_t arms;          /* 1 to FORTET_DUALLSE_ARMS */
  int32_t minus_base;    /* grad_potential holds P - b: the gradient of the negative dual */
  int32_t reserved;
  fortet_duallse_arm arm[FORTET_DUALLSE_ARMS];
} fortet_duallse_star_args;

/* The penalty of an f-divergence over all tuples (j, i, k) of a star with one
 * or two arms:
 *
 *     penalty = sum w_jik psi(beta_j + alpha_i + gamma_k),  w_jik = plan_ji conditional_jk
 *     gradients: sum w psi' over the tuples that use the node
 *
 * plan and conditional are those of duallse_rows at zero potentials. Nothing of
 * the size of the tuples is stored.
 *   duallse_triple          the tuples of centre j; n tiles
 *   duallse_triple_reduce   sums over j; tiles: 1 + ceil(n1 / 256) + ceil(n2 / 256)
 */
typedef struct {
  const void *beta, *alpha, *gamma; /* (n), (n1), (n2), or NULL: zeros */
  const void *logw, *logw1, *logw2; /* base weights, or NULL: uniform */
  const void *plan;                 /* (n, n1) */
  const void *conditional;          /* (n, n2), or NULL with n2 = 1: one */
  void *grad_beta, *grad_alpha, *grad_gamma; /* each may be NULL */
  double *value;                    /* (3): penalty, sum b beta + sum b alpha + sum b gamma, *logz */
  const double *logz;               /* value of the star at zero potentials */
  double *part;                     /* (n, 2): workspace, penalty and mass of centre j */
  double *part1;                    /* (n, n1): workspace */
  double *part2;                    /* (n, n2): workspace */
  int64_t n, n1, n2;
  fortet_divergence divergence;
  int32_t minus_base;
  int32_t reserved;
} fortet_duallse_triple_args;

/* The same over given tuples b < count of marginals m < marginals:
 *
 *     w_b = exp(-cost_b / epsilon - logz),  logz = log sum_b exp(-cost_b / epsilon)
 *     penalty = sum_b w_b psi(y_b),  y_b = sum_m potential_m[index_bm]
 *
 * or w_b = exp(-cost_b / epsilon - logz) / count with fixed_logz. A tuple with an
 * index outside its marginal has the weight NaN.
 *   duallse_tuple_weight    y and logit of each tuple; tiles: ceil(count / 1024)
 *   duallse_tuple_apply     w psi and w psi'; tiles: ceil(count / 1024)
 *   duallse_tuple_reduce    sums; 1 + marginals tiles
 */
typedef struct {
  const void *potential; /* (size) */
  const void *logw;      /* (size), or NULL: -log size */
  void *grad;            /* (size) or NULL */
  double *sum;           /* (size): workspace, where there is a grad */
  int64_t size;
} fortet_duallse_marginal;

typedef struct {
  const int32_t *index; /* (count, marginals) */
  const void *cost;     /* (count) */
  double *value;        /* (3): penalty, sum b potential, log mean exp(-cost / epsilon) */
  double *y, *q;        /* (count) each: workspace */
  double *part;         /* (ceil(count / 1024), 3): workspace */
  int64_t count;
  double epsilon;
  double logz;
  int32_t fixed_logz;
  int32_t marginals;    /* 1 to FORTET_DUALLSE_ARMS + 1 */
  int32_t minus_base;
  int32_t reserved;
  fortet_divergence divergence;
  fortet_duallse_marginal marginal[FORTET_DUALLSE_ARMS + 1];
} fortet_duallse_tuples_args;

/* duallse_psi: psi, psi' and (log psi')' of each element; tiles: ceil(n / 4096).
 * Each output may be NULL. */
typedef struct {
  const void *y; /* (n) */
  void *psi, *dpsi, *slope; /* (n) */
  int64_t n;
  fortet_divergence divergence;
} fortet_duallse_psi_args;

#endif
