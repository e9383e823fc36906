/* mixture.h - a Gaussian-mixture potential, the argument of kernels on light
 * Schroedinger bridges (Korotin, Gushchin and Burnaev, "Light Schroedinger
 * bridge", 2024). On the time interval [0, 1] of the reference sqrt(epsilon) W:
 *
 *     v(y)     = sum_j exp(la_j) N(y | r_j, epsilon S_j)
 *     h_t(x)   = E exp(|x1|^2 / (2 epsilon)) v(x1),  x1 = x + sqrt(epsilon (1 - t)) n
 *     D_j(t)   = (1 - t) I + t S_j
 *     ell_j    = la_j - 1/2 log det D_j
 *                + [2 r_j' D_j^-1 x + x' (S_j - I) D_j^-1 x - t r_j' D_j^-1 r_j] / (2 epsilon)
 *     L_t(x)   = log sum_j exp(ell_j) = log h_t(x) + (d/2) log(2 pi epsilon)
 *     w_j      = exp(ell_j - L_t)
 *     g_j(t,x) = D_j^-1 (r_j + (S_j - I) x)
 *     g(t,x)   = epsilon grad log h_t = sum_j w_j g_j, the drift
 *     Dg(t,x)  = sum_j w_j D_j^-1 (S_j - I) + (1/epsilon) sum_j w_j (g_j - g)(g_j - g)'
 *
 * Nothing here cancels, neither towards t = 0 nor towards t = 1. Covariances are
 * given by eigenvalues and eigenvectors, S_j = A_j' diag(s_j) A_j: in the axes
 * A_j every formula is one of diagonal matrices. */
#ifndef FORTET_MIXTURE_H
#define FORTET_MIXTURE_H

#include "fortet.h"

typedef struct {
  const void *logits; /* (k) la_j */
  const void *means;  /* (k, d) r_j */
  const void *scales; /* (k, d) s_j > 0 */
  const void *axes;   /* (k, d, d), rows are eigenvectors of S_j, or NULL: the unit vectors */
  int64_t k, d;       /* > 0 */
  double epsilon;     /* > 0 */
} fortet_mixture;

#endif
