/* proximal_search.h - one sample's search: the decisions of the safeguarded
 * Newton method, which are the same wherever its vectors are computed.
 *
 * From y the point y + step p is tried, where p is a descent direction: step = 1
 * first. It is taken where the objective falls by 1e-4 of what its slope
 * promises (Armijo). Where that promise is below the rounding of the objective,
 * the objective cannot tell, and the point is taken where |F| falls by a tenth
 * of what Newton's method promises, |F| being computed without cancellation.
 * Else the step is shortened to the minimum of the parabola through what is
 * known, or to a half or a tenth of it (Nocedal and Wright, "Numerical
 * Optimization", 2006, section 3.5). */
#ifndef FORTET_PROXIMAL_SEARCH_H
#define FORTET_PROXIMAL_SEARCH_H

#include "proximal.h"

typedef struct {
  double scale, target; /* max(1, |x|), and |F| where the sample is done */
  double value, norm;   /* the objective and |F| at y */
  double slope, step;   /* F(y)'p < 0; 0 before the first direction */
  int64_t newton;       /* steps made */
  int32_t tries;        /* points tried along p */
} fortet_search;

enum { FORTET_SEARCH_TAKE, FORTET_SEARCH_SHORTEN, FORTET_SEARCH_STOP };

/* square = |x|^2. beta is infinite where the element type has it so. */
FORTET_HD void fortet_search_begin(fortet_search *s, double square, double beta, double tolerance) {
  s->scale = square > 1 ? sqrt(square) : 1;
  s->target = beta * tolerance * s->scale;
  s->value = s->norm = FORTET_INF;
  s->slope = s->step = 0;
  s->newton = 0;
  s->tries = 0;
}

/* Judges the point that was tried; noise bounds the rounding of value. */
FORTET_HD int fortet_search_judge(fortet_search *s, double value, double norm, double noise) {
  const int finite = value - value == 0 && norm - norm == 0;
  const double promise = -s->slope * s->step, rise = value - s->value;
  const int first = s->slope == 0, blind = promise <= noise;
  int good = finite;
  if (!first && finite) good = blind ? rise <= noise && norm <= (1 - 0.1 * s->step) * s->norm : rise <= -1e-4 * promise;
  if (good) {
    s->value = value;
    s->norm = norm;
    s->newton += !first;
    return FORTET_SEARCH_TAKE;
  }
  s->tries++;
  if (first || s->tries >= (blind ? 8 : 40)) return FORTET_SEARCH_STOP;
  double part = finite ? 0.5 : 0.1;
  if (finite && !blind) {
    part = 0.5 * promise / (rise + promise);
    part = part < 0.1 ? 0.1 : part > 0.5 ? 0.5 : part;
  }
  s->step *= part;
  return FORTET_SEARCH_SHORTEN;
}

/* Whether y, just taken, is the end. */
FORTET_HD int fortet_search_done(const fortet_search *s, int64_t max_iterations) {
  return s->norm <= s->target || s->newton >= max_iterations;
}

/* Turns to a new direction; answers whether it descends. */
FORTET_HD int fortet_search_turn(fortet_search *s, double slope) {
  s->slope = slope;
  s->step = 1;
  s->tries = 0;
  return slope < 0;
}

/* How exact, against |F|, a direction need be: as the quadratic convergence of
 * Newton's method can use. */
FORTET_HD double fortet_search_forcing(const fortet_search *s, double tolerance) {
  const double part = s->norm / s->target * tolerance;
  return part > 1e-2 ? 1e-2 : part < 1e-6 ? 1e-6 : part;
}

/* What is reported. Where not even the start was taken, value is +inf. */
FORTET_HD double fortet_search_residual(const fortet_search *s, double beta) {
  if (s->value == FORTET_INF) return FORTET_INF;
  return beta == FORTET_INF ? 0 : s->norm / (beta * s->scale);
}

#endif
