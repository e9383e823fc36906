/* fdual_law.h - the laws of fdual.h, and the search for a row's root, for the
 * CPU and for devices. */
#ifndef FORTET_FDUAL_LAW_H
#define FORTET_FDUAL_LAW_H

#include "fdual.h"

/* Powers that need no logarithm have a form of their own. */
enum {
  FDUAL_EXP,        /* handled apart: its root is a log-sum-exp */
  FDUAL_LINEAR,     /* a = 2 */
  FDUAL_SQUARE,     /* a = 3/2 */
  FDUAL_ROOT,       /* a = 3 */
  FDUAL_RECIPROCAL, /* a = 0 */
  FDUAL_RECIP_SQUARE, /* a = 1/2 */
  FDUAL_RECIP_ROOT, /* a = -1 */
  FDUAL_POWER,
  FDUAL_JS,
  FDUAL_TV
};

FORTET_HD int fdual_form(const fortet_fdual_pairs *p) {
  switch (p->law) {
    case FORTET_FDUAL_EXP: return FDUAL_EXP;
    case FORTET_FDUAL_JS: return FDUAL_JS;
    case FORTET_FDUAL_TV: return FDUAL_TV;
  }
  return p->a == 2 ? FDUAL_LINEAR : p->a == 1.5 ? FDUAL_SQUARE : p->a == 3 ? FDUAL_ROOT : p->a == 0 ? FDUAL_RECIPROCAL :
         p->a == 0.5 ? FDUAL_RECIP_SQUARE : p->a == -1 ? FDUAL_RECIP_ROOT : FDUAL_POWER;
}

/* Does phi rise? */
FORTET_HD int fdual_rises(const fortet_fdual_pairs *p) {
  return p->law != FORTET_FDUAL_JS && (p->law != FORTET_FDUAL_POWER || p->a > 1);
}

/* phi(z), and in *rate what Newton's step divides by: phi / z of powers, phi' of
 * total variation, -phi' of JS. power = 1 / (a - 1), sharp = 1 / delta. For JS z
 * is expm1 of its z. */
#define FDUAL_DEFINE_PHI(NAME, T, SQRT, EXP, LOG) \
  FORTET_HD T NAME(int form, T z, T power, T sharp, T *rate) { \
    const T zero = 0, one = 1, half = (T)0.5, t = z > zero ? z : zero; \
    T phi; \
    switch (form) { \
      case FDUAL_LINEAR: *rate = z > zero ? one : zero; return t; \
      case FDUAL_SQUARE: *rate = t; return t * t; \
      case FDUAL_ROOT: phi = SQRT(t), *rate = z > zero ? one / phi : zero; return phi; \
      case FDUAL_RECIPROCAL: phi = one / z, *rate = phi * phi; return phi; \
      case FDUAL_RECIP_SQUARE: { \
        const T r = one / z; \
        phi = r * r, *rate = phi * r; \
        return phi; \
      } \
      case FDUAL_RECIP_ROOT: { \
        const T r = one / z; \
        phi = SQRT(r), *rate = phi * r; \
        return phi; \
      } \
      case FDUAL_JS: phi = one / z, *rate = phi * (one + phi); return phi; \
      case FDUAL_TV: { \
        const T over = z - half > zero ? z - half : zero, under = z + half < zero ? z + half : zero; \
        phi = one + (over + under) * sharp; \
        *rate = (over > zero || under < zero) && phi > zero ? sharp : zero; \
        return phi > zero ? phi : zero; \
      } \
      default: /* FDUAL_POWER */ \
        phi = z > zero ? EXP(power * LOG(t)) : zero, *rate = z > zero ? phi / z : zero; \
        return phi; \
    } \
  }
FDUAL_DEFINE_PHI(fdual_phi_f32, float, sqrtf, expf, logf)
FDUAL_DEFINE_PHI(fdual_phi_f64, double, sqrt, exp, log)

/* The search for the root of log sum_j w_j phi(x -+ D_j) = tau, D_j >= 0, where
 * weights are relative to the largest. G = (sum w phi)^(a-1), or exp of the like
 * for JS, is the generalised mean of the z of the pairs: linear for one pair, and
 * for a <= 2 convex or concave in x such that Newton's steps come down to
 * the root from the side of too much mass, without leaving it. */
typedef struct {
  double x, lo, hi, tau;
  double width; /* of the bracket when it was last cut in half */
  double a, tolerance, quick;
  int form, rises, steps, slow, done;
} fdual_root;

/* The x at which one pair of weight one has phi = exp(logphi). */
FORTET_HD double fdual_inverse(int form, double a, double delta, double logphi) {
  if (form == FDUAL_JS) return logphi < -40 ? -logphi : log1p(exp(-logphi));
  if (form == FDUAL_TV) {
    const double over = delta * expm1(logphi);
    return over < 0 ? over - 0.5 : over + 0.5;
  }
  return exp((a - 1) * logphi);
}

/* top is the logarithm of the weight at D = 0, all that of all weights; room is
 * what both may be wrong by. */
FORTET_HD void fdual_begin(fdual_root *s, const fortet_fdual_pairs *p, double tau, double top, double all, int single,
                           double start) {
  const double room = 1e-5;
  s->form = fdual_form(p), s->rises = fdual_rises(p), s->a = p->a, s->tau = tau;
  const double dense = fdual_inverse(s->form, p->a, p->delta, tau - top + room);
  const double thin = fdual_inverse(s->form, p->a, p->delta, tau - all - room);
  s->lo = s->rises ? thin : dense, s->hi = s->rises ? dense : thin;
  s->width = s->hi - s->lo;
  s->steps = s->slow = 0;
  s->tolerance = single ? 5e-7 : 4.4e-16 * (2 + fabs(tau)); /* tau is rounded, too */
  /* Where steps converge quadratically, the error behind the next one is known. */
  s->quick = s->form == FDUAL_JS || p->a <= 1.5 ? (single ? 2e-4 : 2e-8) : 0;
  if (s->form == FDUAL_TV) s->quick = 0;
  s->done = !(s->lo <= s->hi) || s->hi > (single ? 1e38 : 1e307) || (s->form != FDUAL_TV && s->lo < (single ? 1e-37 : 1e-307));
  if (s->done) {
    s->x = NAN;
    return;
  }
  s->x = start == start ? start : dense;
}

/* One step from the sums at x; single says that x is kept in float. */
FORTET_HD void fdual_step(fdual_root *s, double mass, double rate, int single) {
  const double x = s->x, r = log(mass) - s->tau;
  double next = x;
  s->steps++;
  if (r != r) {
    s->x = NAN, s->done = 1;
    return;
  }
  const int inside = x >= s->lo && x <= s->hi;
  if (inside) {
    if ((r > 0) == s->rises)
      s->hi = x;
    else
      s->lo = x;
  }
  if (fabs(r) <= s->tolerance || s->steps >= 200) {
    s->done = 1;
    return;
  }
  if (s->hi - s->lo <= s->width / 2)
    s->width = s->hi - s->lo, s->slow = 0;
  else
    s->slow++;
  if (inside && mass > 0) {
    if (s->form == FDUAL_TV)
      next = x - mass * (-expm1(-r)) / rate;
    else if (s->form == FDUAL_JS)
      next = x + log1p(mass / rate * expm1(r));
    else
      next = x + mass / rate * expm1((1 - s->a) * r);
    if (single) next = (double)(float)next;
    if (next == x || fabs(r) <= s->quick) {
      s->x = next, s->done = 1;
      return;
    }
  }
  if (!(next > s->lo && next < s->hi) || s->slow > 8) {
    next = s->lo > 0 && s->hi > 4 * s->lo ? sqrt(s->lo) * sqrt(s->hi) : s->lo + (s->hi - s->lo) / 2;
    if (single) next = (double)(float)next;
    s->slow = 0;
    if (next == s->lo || next == s->hi) s->done = 1; /* no number lies between */
  }
  s->x = next;
}

/* phi, f(phi) and psi in float64; +inf where z of a falling law is not above 0. */
typedef struct {
  double phi, f, psi;
} fdual_values;

FORTET_HD fdual_values fdual_evaluate(int form, double a, double sharp, double z) {
  fdual_values v;
  double rate;
  if (z <= 0 && (form == FDUAL_JS || (form != FDUAL_EXP && form != FDUAL_TV && a < 1))) { /* outside of the domain */
    v.phi = v.f = v.psi = FORTET_INF;
    return v;
  }
  switch (form) {
    case FDUAL_EXP:
      v.phi = exp(z);
      v.f = v.phi > 0 ? v.phi * z - expm1(z) : z == z ? 1 : z;
      v.psi = expm1(z);
      return v;
    case FDUAL_JS:
      v.phi = 1 / expm1(z);
      v.f = (v.phi > 0 ? v.phi * log(v.phi) : v.phi) - (1 + v.phi) * log((1 + v.phi) / 2);
      v.psi = -log(-2 * expm1(-z));
      return v;
    case FDUAL_TV:
      v.phi = fdual_phi_f64(FDUAL_TV, z, 0, sharp, &rate);
      v.f = fabs(v.phi - 1) / 2;
      v.psi = z < -0.5 ? -0.5 : z;
      return v;
    case FDUAL_RECIPROCAL:
      v.phi = 1 / z;
      v.psi = -log(z);
      v.f = v.phi - 1 - v.psi;
      return v;
  }
  v.phi = fdual_phi_f64(form, z, 1 / (a - 1), 0, &rate);
  /* phi^a, which is phi z where that is no 0 times infinity */
  const double u = z > 0 ? (z < FORTET_INF ? v.phi * z : a < 0 ? z : 0) : z == z ? 0 : z;
  v.psi = (u - 1) / a;
  v.f = ((u - 1) / a - (v.phi - 1)) / (a - 1);
  return v;
}

#endif
