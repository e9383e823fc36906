/* divergences.h - the f-divergences of f-Schroedinger bridges: the conjugate
 * psi = f*, its derivative, and the slope of log psi'.
 *
 * D_f(pi || R) = int f(dpi/dR) dR, psi(y) = sup_{x >= 0} x y - f(x). The dual of
 * min D_f over couplings is sup sum_i int alpha_i dmu_i - int psi(sum_i alpha_i) dR
 * and the optimal plan is dpi = psi'(sum_i alpha_i) dR (Terjek and
 * Gonzalez-Sanchez 2022). Every f is normalised so that psi(0) = 0, psi'(0) = 1.
 *
 *   kind             f(x)                          psi(y)              psi'(y)          domain
 *   KL               x log x - x + 1               e^y - 1             e^y              R
 *   REVERSE_KL       -log x + x - 1                -log(1-y)           1/(1-y)          y < 1
 *   PEARSON          (x-1)^2                       (1+y/2)_+^2 - 1     (1+y/2)_+        R
 *   NEYMAN           (1-x)^2 / x                   2 - 2 sqrt(1-y)     1/sqrt(1-y)      y < 1
 *   HELLINGER        (sqrt x - 1)^2                y/(1-y)             1/(1-y)^2        y < 1
 *   JENSEN_SHANNON   x log x - (1+x) log((1+x)/2)  -log(2-e^y)         e^y/(2-e^y)      y < log 2
 *   ALPHA, a != 0,1  (x^a - a x + a - 1)/(a(a-1))  (u^{a/(a-1)}-1)/a   u^{1/(a-1)}      a > 1: R
 *                                       with u = (1+(a-1)y)_+                           a < 1: y < 1/(1-a)
 *   TOTAL_VARIATION  |x-1| / 2                     max(y, -1/2)        0 or 1           y <= 1/2
 *
 * Beyond cap = (end of the domain) - delta, psi is continued by its tangent
 * line: the dual stays concave and finite, and is the dual of the same problem
 * under the further constraint dpi/dR <= psi'(cap). Total variation is
 * continued by y + (y - 1/2)^2 / (2 delta) instead, the conjugate of
 * |x-1|/2 + delta (x-1)_+^2 / 2; its psi' at the kink y = -1/2 is taken as 0.
 *
 * A NaN stays a NaN. Read by nvcc, g++, gcc and cgo. */
#ifndef FORTET_DIVERGENCES_H
#define FORTET_DIVERGENCES_H

#include <math.h>
#include <stdint.h>

#include "fortet.h"

enum {
  FORTET_KL = 0,
  FORTET_REVERSE_KL = 1,
  FORTET_PEARSON = 2,
  FORTET_NEYMAN = 3,
  FORTET_HELLINGER = 4,
  FORTET_JENSEN_SHANNON = 5,
  FORTET_ALPHA = 6,
  FORTET_TOTAL_VARIATION = 7
};

typedef struct {
  double alpha; /* a of FORTET_ALPHA, neither 0 nor 1 */
  double delta; /* distance of cap from the end of the domain, > 0 */
  double cap;   /* fortet_divergence_cap */
  int32_t kind;
  int32_t reserved;
} fortet_divergence;

/* Where psi goes over into its continuation: +inf where the domain is R. */
FORTET_HD double fortet_divergence_cap(int32_t kind, double alpha, double delta) {
  switch (kind) {
    case FORTET_REVERSE_KL:
    case FORTET_NEYMAN:
    case FORTET_HELLINGER: return 1 - delta;
    case FORTET_JENSEN_SHANNON: return 0.693147180559945309417 - delta;
    case FORTET_ALPHA: return alpha < 1 ? 1 / (1 - alpha) - delta : (double)INFINITY;
    case FORTET_TOTAL_VARIATION: return 0.5;
  }
  return (double)INFINITY;
}

/* fortet_psi_f32 and fortet_psi_f64 return psi(y) and store psi'(y) in *dpsi
 * and (log psi')'(y) in *slope; the latter is 0 where psi' = 0 or constant. */
#define FORTET_DEFINE_PSI(NAME, T, EXP, EXPM1, LOG1P, SQRT)                             \
  FORTET_HD T NAME(const fortet_divergence *f, T y, T *dpsi, T *slope) {     \
    const T cap = (T)f->cap, a = (T)f->alpha, one = 1, two = 2;                         \
    const T yc = y > cap ? cap : y;                                                     \
    T psi, d, s;                                                                        \
    if (f->kind == FORTET_TOTAL_VARIATION) {                                            \
      const T over = y - yc, k = (T)(1 / f->delta);                                     \
      const T low = -one / two;                                                         \
      d = y <= low ? (T)0 : one + over * k;                                             \
      psi = y <= low ? low : y + over * over * k / two;                                 \
      *dpsi = y != y ? y : d;                                                           \
      *slope = y != y ? y : over > 0 ? k / d : (T)0;                                    \
      return psi;                                                                       \
    }                                                                                   \
    switch (f->kind) {                                                                  \
      case FORTET_REVERSE_KL:                                                           \
        d = one / (one - yc), psi = -LOG1P(-yc), s = d;                                 \
        break;                                                                          \
      case FORTET_PEARSON:                                                              \
        d = one + yc / two, d = d < 0 ? (T)0 : d;                                       \
        psi = d > 0 ? yc + yc * yc / 4 : d - one, s = d > 0 ? one / (two + yc) : d;     \
        break;                                                                          \
      case FORTET_NEYMAN: {                                                             \
        const T r = SQRT(one - yc);                                                     \
        d = one / r, psi = two * yc / (one + r), s = one / (two * (one - yc));          \
        break;                                                                          \
      }                                                                                 \
      case FORTET_HELLINGER: {                                                          \
        const T v = one / (one - yc);                                                   \
        d = v * v, psi = yc * v, s = two * v;                                           \
        break;                                                                          \
      }                                                                                 \
      case FORTET_JENSEN_SHANNON: {                                                     \
        const T e = EXPM1(yc), v = one / (one - e);                                     \
        d = EXP(yc) * v, psi = -LOG1P(-e), s = two * v;                                 \
        break;                                                                          \
      }                                                                                 \
      case FORTET_ALPHA: {                                                              \
        const T w = (a - one) * yc, l = LOG1P(w <= -one ? -one : w);                    \
        d = EXP(l / (a - one)), psi = EXPM1(l * a / (a - one)) / a;                     \
        s = w <= -one ? (T)0 : one / (one + w);                                         \
        break;                                                                          \
      }                                                                                 \
      default: /* FORTET_KL */                                                          \
        d = EXP(yc), psi = EXPM1(yc), s = one;                                          \
    }                                                                                   \
    *dpsi = d;                                                                          \
    *slope = y > cap ? (T)0 : y != y ? y : s;                                           \
    return y > cap ? psi + d * (y - cap) : psi;                                         \
  }

FORTET_DEFINE_PSI(fortet_psi_f64, double, exp, expm1, log1p, sqrt)
FORTET_DEFINE_PSI(fortet_psi_f32, float, expf, expm1f, log1pf, sqrtf)

#endif
