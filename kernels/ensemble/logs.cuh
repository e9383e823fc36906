/* logs.cuh - what a block does in double: starts, sweeps as log-sum-exps, and
 * the report. Warps take rows, threads take columns. */
#ifndef FORTET_ENSEMBLE_LOGS_CUH
#define FORTET_ENSEMBLE_LOGS_CUH

namespace {

/* phi_i = min_j c_ij - gamma_j over targets with weight. */
template <class T>
__device__ void nearest(const Room<T> &r, const double *gamma, double *phi) {
  for (int64_t i = threadIdx.x / 32; i < r.n; i += kWarps) {
    double s = -FORTET_INF;
    for (int64_t j = threadIdx.x % 32; j < r.m; j += 32)
      if (r.b()[j] > 0) s = fortet_fmax(s, gamma[j] - r.cost()[i * r.m + j] * r.unit);
    s = fortet_warp_max(s);
    if (threadIdx.x % 32 == 0) phi[i] = -s;
  }
  __syncthreads();
}

/* The start: phi_i = min_j c_ij, gamma_j = min_i c_ij - phi_i. */
template <class T>
__device__ void start(const Room<T> &r) {
  for (int64_t j = threadIdx.x; j < r.m; j += kThreads) r.gamma()[j] = 0;
  __syncthreads();
  nearest(r, r.gamma(), r.phi());
  for (int64_t j = threadIdx.x; j < r.m; j += kThreads) {
    double s = -FORTET_INF;
    for (int64_t i = 0; i < r.n; i++)
      if (r.a()[i] > 0) s = fortet_fmax(s, r.phi()[i] - r.cost()[i * r.m + j] * r.unit);
    r.gamma()[j] = -s;
  }
  __syncthreads();
}

/* -log2 sum_j b_j 2^(gamma_j - c_ij) by a warp; leaves the terms in row,
 * relative to the greatest, and their sum in *sum. */
template <class T>
__device__ double softmin(const Room<T> &r, int64_t i, double *row, double *sum) {
  double top = -FORTET_INF, s = 0;
  for (int64_t j = threadIdx.x % 32; j < r.m; j += 32) {
    const double t = (r.lb()[j] + r.gamma()[j]) - r.cost()[i * r.m + j] * r.unit;
    row[j] = t;
    top = fortet_fmax(top, t);
  }
  top = fortet_warp_max(top);
#pragma unroll 1
  for (int64_t j = threadIdx.x % 32; j < r.m; j += 32) s += row[j] = exp2(row[j] - top);
  *sum = fortet_warp_sum(s);
  return -(top + log2(*sum));
}

/* -log2 sum_i a_i 2^(phi_i - c_ij) by a thread. */
template <class T>
__device__ double column(const Room<T> &r, int64_t j) {
  double top = -FORTET_INF, s = 0;
  for (int64_t i = 0; i < r.n; i++) top = fortet_fmax(top, r.la()[i] + r.phi()[i] - r.cost()[i * r.m + j] * r.unit);
#pragma unroll 1
  for (int64_t i = 0; i < r.n; i++) s += exp2((r.la()[i] + r.phi()[i] - r.cost()[i * r.m + j] * r.unit) - top);
  return -(top + log2(s));
}

/* What the optimality conditions ask of the marginal of target j. */
template <class T>
__device__ double wanted(const Room<T> &r, int64_t j) {
  return r.decay2 == 0 ? r.b()[j] : r.b()[j] * exp2(-r.decay2 * r.gamma()[j]);
}

/* A sweep as log-sum-exps: image of gamma, and the residual. */
template <class T>
__device__ double log_sweep(Room<T> &r) {
  r.logs++;
  const unsigned warp = threadIdx.x / 32;
#pragma unroll 1
  for (int64_t i = warp; i < r.n; i += kWarps) {
    double sum;
    const double soft = softmin(r, i, r.row(warp), &sum);
    if (threadIdx.x % 32 == 0) r.phi()[i] = r.damp1 * soft;
  }
  __syncthreads();
  double residual = 0;
#pragma unroll 1
  for (int64_t j = threadIdx.x; j < r.m; j += kThreads) {
    const double gamma = r.gamma()[j], soft = column(r, j);
    residual += fabs(r.b()[j] * exp2(gamma - soft) - wanted(r, j));
    r.image()[j] = r.b()[j] > 0 ? r.damp2 * soft : gamma;
  }
  return fortet_block_sum(residual) / r.mass;
}

/* rho KL(p | q), 0 for an exact marginal. */
__device__ __forceinline__ double penalty(double rho, double p, double q) {
  if (rho == FORTET_INF) return 0;
  return rho * ((q - p) + (p > 0 ? p * log(p / q) : 0.0));
}

/* w f, or -rho w (exp(-f / rho) - 1) with a penalty. */
__device__ __forceinline__ double linear(double rho, double f, double w) {
  if (w == 0) return 0;
  return rho == FORTET_INF ? w * f : -rho * w * expm1(-f / rho);
}

/* The plan of gamma: potentials, map and values; answers the residual. */
template <class T>
__device__ double report(Room<T> &r, const fortet_ensemble_args &a, double rho1, double rho2, double *f, double *g,
                         double *map, double *values) {
  const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const double scale = r.epsilon * 0.693147180559945309417;
  double mass = 0, mass_b = 0, cost = 0, potential = 0, primal = 0, dual = 0, source = 0, target = 0, residual = 0;
#pragma unroll 1
  for (int64_t i = warp; i < r.n; i += kWarps) {
    double sum;
    const double soft = softmin(r, i, r.row(warp), &sum), phi = r.damp1 * soft, w = r.a()[i];
    const double mine = scale * phi, all = w * exp2(phi - soft);
    for (int64_t k = 0; map && k < r.d; k++) {
      double s = 0;
      for (int64_t j = lane; j < r.m; j += 32) s += r.row(warp)[j] * a.y[(g - a.g + j) * r.d + k];
      s = fortet_warp_sum(s);
      if (lane == 0) map[i * r.d + k] = s / sum;
    }
    if (lane == 0) {
      r.phi()[i] = phi;
      f[i] = mine;
      mass += all;
      source += fabs(all - w);
      if (all > 0) potential += all * mine;
      dual += linear(rho1, mine, w);
      primal += penalty(rho1, all, w);
    }
  }
  __syncthreads();
#pragma unroll 1
  for (int64_t j = threadIdx.x; j < r.m; j += kThreads) {
    const double b = r.b()[j];
    if (!(b > 0)) { /* the potential extends to where there is no mass */
      g[j] = scale * (r.damp2 * column(r, j));
      continue;
    }
    const double h = r.lb()[j] + r.gamma()[j], mine = scale * r.gamma()[j];
    double v = 0;
#pragma unroll 1
    for (int64_t i = 0; i < r.n; i++) {
      const double c = r.cost()[i * r.m + j], e = exp2(h + (r.la()[i] + r.phi()[i]) - c * r.unit);
      v += e;
      cost += e * c;
    }
    g[j] = mine;
    mass_b += b;
    target += fabs(v - b);
    residual += fabs(v - wanted(r, j));
    if (v > 0) potential += v * mine;
    dual += linear(rho2, mine, b);
    primal += penalty(rho2, v, b);
  }
  mass = fortet_block_sum(mass);
  mass_b = fortet_block_sum(mass_b);
  cost = fortet_block_sum(cost);
  potential = fortet_block_sum(potential);
  primal = fortet_block_sum(primal);
  dual = fortet_block_sum(dual);
  source = fortet_block_sum(source);
  target = fortet_block_sum(target);
  residual = fortet_block_sum(residual) / r.mass;
  if (threadIdx.x == 0) {
    const double outer = r.mass * mass_b;
    values[FORTET_ENSEMBLE_COST] = cost;
    /* <C, P> + epsilon KL(P | a x b), where <C, P> cancels. */
    values[FORTET_ENSEMBLE_PRIMAL] = potential - r.epsilon * (mass - outer) + primal;
    values[FORTET_ENSEMBLE_DUAL] = dual - r.epsilon * (mass - outer);
    values[FORTET_ENSEMBLE_MASS] = mass;
    values[FORTET_ENSEMBLE_SOURCE] = source;
    values[FORTET_ENSEMBLE_TARGET] = target;
    values[FORTET_ENSEMBLE_RESIDUAL] = residual;
  }
  __syncthreads();
  return residual;
}

}  // namespace

#endif
