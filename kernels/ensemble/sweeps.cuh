/* sweeps.cuh - sweeps with the kept matrix, their mixing, and the iteration. */
#ifndef FORTET_ENSEMBLE_SWEEPS_CUH
#define FORTET_ENSEMBLE_SWEEPS_CUH

namespace {

/* See ensemble_level.h. */
template <class T>
struct Limits;
template <>
struct Limits<float> {
  static constexpr double lowest = -126, range = 20, lost = 0x1p-100;
};
template <>
struct Limits<double> {
  static constexpr double lowest = -1022, range = 150, lost = 0x1p-900;
};

__device__ __forceinline__ double clipped(double t) { return t > 1000 ? 1000.0 : t; }

/* Makes the matrix at gamma and the nearest phi. */
template <class T>
__device__ void absorb(Room<T> &r) {
  r.absorbed++;
  for (int64_t j = threadIdx.x; j < r.m; j += kThreads) r.zero()[j] = r.gamma()[j];
  nearest(r, r.gamma(), r.phi0());
#pragma unroll 1
  for (int64_t e = threadIdx.x; e < r.n * r.m; e += kThreads) {
    const int64_t i = e / r.m, j = e % r.m;
    const double t = (r.phi0()[i] + r.la()[i] / 2) + (r.zero()[j] + r.lb()[j] / 2) - r.cost()[e] * r.unit;
    r.k[e] = t < Limits<T>::lowest ? T(0) : static_cast<T>(exp2(clipped(t)));
  }
  __syncthreads();
}

/* The image of gamma, and the residual. */
template <class T>
__device__ double sweep(Room<T> &r, Shared &s) {
  const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int near = 1;
  for (int64_t j = threadIdx.x; j < r.m; j += kThreads) near &= fabs(r.gamma()[j] - r.zero()[j]) <= Limits<T>::range;
  if (!__syncthreads_and(near)) absorb(r);
#pragma unroll 1
  for (int64_t j = threadIdx.x; j < r.m; j += kThreads)
    r.v[j] = static_cast<T>(sqrt(r.b()[j]) * exp2(clipped(r.gamma()[j] - r.zero()[j])));
  __syncthreads();
  int kept = 1;
#pragma unroll 1
  for (int64_t i = warp; i < r.n; i += kWarps) {
    T sum = 0;
    for (int64_t j = lane; j < r.m; j += 32) sum += r.k[i * r.m + j] * r.v[j];
    sum = fortet_warp_sum(sum);
    const double w = r.a()[i];
    T y = 0;
    if (w > 0) {
      kept &= sum >= static_cast<T>(Limits<T>::lost) && sum < static_cast<T>(INFINITY);
      if (r.damp1 == 1) {
        y = static_cast<T>(w) / sum;
      } else {
        const double phi = r.damp1 * ((r.phi0()[i] - log2(static_cast<double>(sum))) + r.la()[i] / 2);
        y = static_cast<T>(exp2(clipped((phi - r.phi0()[i]) + r.la()[i] / 2)));
      }
    }
    if (lane == 0) r.y[i] = y;
  }
  __syncthreads();
  /* Few columns: groups of threads share the rows of each. */
  const int64_t wide = (r.m + 31) / 32 * 32;
  const int64_t groups = wide < kThreads ? kThreads / wide : 1, share = (r.n + groups - 1) / groups;
  double residual = 0;
#pragma unroll 1
  for (int64_t first = 0; first < r.m; first += kThreads) {
    const int64_t group = groups > 1 ? threadIdx.x / wide : 0, j = groups > 1 ? threadIdx.x % wide : first + threadIdx.x;
    double w = 0;
    if (j < r.m && group < groups) {
      const int64_t last = min((group + 1) * share, r.n);
      for (int64_t i0 = group * share; i0 < last; i0 += 64) {
        T part = 0;
        for (int64_t i = i0; i < min(i0 + 64, last); i++) part += r.k[i * r.m + j] * r.y[i];
        w += static_cast<double>(part);
      }
    }
    if (groups > 1) {
      s.part[threadIdx.x] = w;
      __syncthreads();
      for (int64_t k = 1; k < groups; k++)
        if (threadIdx.x < wide) w += s.part[k * wide + threadIdx.x];
      __syncthreads();
    }
    if (group > 0 || j >= r.m) continue;
    const double b = r.b()[j], gamma = r.gamma()[j];
    if (!(b > 0)) {
      r.image()[j] = gamma;
      continue;
    }
    kept &= w >= Limits<T>::lost;
    residual += fabs(static_cast<double>(r.v[j]) * w - wanted(r, j));
    r.image()[j] = r.damp2 * ((r.zero()[j] + r.lb()[j] / 2) - log2(w));
  }
  residual = fortet_block_sum(residual) / r.mass;
  if (__syncthreads_and(kept && residual < FORTET_INF)) return residual;
  return log_sweep(r);
}

/* Type-II Anderson mixing of gamma and its image, in the metric of the target's
 * weights: gamma becomes the next iterate. */
template <class T>
__device__ void mix(Room<T> &r, Shared &s) {
  const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  double square = 0;
  for (int64_t j = threadIdx.x; j < r.m; j += kThreads) {
    const double f = (r.image()[j] - r.gamma()[j]) * sqrt(r.b()[j]), t = r.filled ? f - r.f_last()[j] : 0.0;
    r.f()[j] = f;
    square += t * t;
  }
  square = fortet_block_sum(square);
  if (r.filled) {
    const double scale = 1 / sqrt(square);
    if (!(scale < 0x1p100)) {
      r.held = r.slot = 0;
    } else {
      for (int64_t j = threadIdx.x; j < r.m; j += kThreads) {
        r.df(r.slot)[j] = static_cast<T>((r.f()[j] - r.f_last()[j]) * scale);
        r.dt(r.slot)[j] = static_cast<T>((r.image()[j] - r.image_last()[j]) * scale);
      }
      if (r.held < kDepth) r.held++;
      __syncthreads();
      for (int p = static_cast<int>(warp); p < r.held; p += kWarps) {
        T dot = 0;
        for (int64_t j = lane; j < r.m; j += 32) dot += r.df(r.slot)[j] * r.df(p)[j];
        dot = fortet_warp_sum(dot);
        if (lane == 0) {
          const double entry = p == r.slot ? 1 + FORTET_ENSEMBLE_RIDGE : static_cast<double>(dot);
          s.gram[r.slot][p] = s.gram[p][r.slot] = entry;
        }
      }
      r.slot = (r.slot + 1) % kDepth;
    }
  }
  __syncthreads();
  for (int p = static_cast<int>(warp); p < r.held; p += kWarps) {
    double dot = 0;
    for (int64_t j = lane; j < r.m; j += 32) dot += static_cast<double>(r.df(p)[j]) * r.f()[j];
    dot = fortet_warp_sum(dot);
    if (static_cast<int>(lane) < r.held) s.system[p][lane] = s.gram[p][lane];
    if (lane == 0) s.system[p][kDepth] = dot;
  }
  __syncthreads();
  if (warp == 0) { /* elimination without pivots: the matrix is positive definite */
    const int column = static_cast<int>(lane) == r.held ? kDepth : static_cast<int>(lane);
    for (int p = 0; p < r.held; p++) {
      if (static_cast<int>(lane) > p && static_cast<int>(lane) <= r.held)
        for (int i = p + 1; i < r.held; i++)
          s.system[i][column] -= s.system[i][p] / s.system[p][p] * s.system[p][column];
      __syncwarp();
    }
    for (int p = r.held - 1; p >= 0; p--) {
      const double x = s.system[p][kDepth] / s.system[p][p];
      __syncwarp();
      if (lane == 0) s.factor[p] = x;
      if (static_cast<int>(lane) < p) s.system[lane][kDepth] -= s.system[lane][p] * x;
      __syncwarp();
    }
  }
  __syncthreads();
  int near = 1;
  for (int64_t j = threadIdx.x; j < r.m; j += kThreads) {
    double step = 0;
    r.image_last()[j] = r.image()[j];
    r.f_last()[j] = r.f()[j];
    for (int p = 0; p < r.held; p++) step += static_cast<double>(r.dt(p)[j]) * s.factor[p];
    r.gamma()[j] = r.image()[j] - step;
    near &= fabs(step) <= r.spread * r.unit;
  }
  r.filled = 1;
  if (__syncthreads_and(near)) return;
  /* Potentials differ by no more than costs do; see ensemble_solve.h. */
  for (int64_t j = threadIdx.x; j < r.m; j += kThreads) r.gamma()[j] = r.image()[j];
  r.held = r.slot = r.filled = 0;
  __syncthreads();
}

template <class T>
__device__ void copy(const Room<T> &r, double *to, const double *from) {
  for (int64_t j = threadIdx.x; j < r.m; j += kThreads) to[j] = from[j];
  __syncthreads();
}

/* As iterate of ensemble_solve.h. */
template <class T>
__device__ int iterate(Room<T> &r, Shared &s, const fortet_ensemble_args &a, double tolerance, int &sweeps) {
  double accepted = FORTET_INF, best = FORTET_INF, mark = FORTET_INF;
  int plain = 0, penalty = 1, since = 0, marked = 0, status = FORTET_ENSEMBLE_MAX_SWEEPS;
  bool mixed = false;
  r.held = r.slot = r.filled = 0;
  if (threadIdx.x == 0) r.zero()[0] = NAN; /* which no gamma is near: the first sweep makes the matrix */
  copy(r, r.best(), r.gamma());
  while (sweeps > 0) {
    if (stopped(a)) {
      status = FORTET_ENSEMBLE_CANCELED;
      break;
    }
    const double residual = sweep(r, s);
    sweeps--;
    if (residual <= tolerance) return FORTET_ENSEMBLE_CONVERGED;
    if (mixed && !(residual <= 2 * accepted)) {
      copy(r, r.gamma(), r.fallback());
      r.held = r.slot = r.filled = 0;
      plain = penalty;
      penalty = penalty < 32 ? 2 * penalty : 64;
      mixed = false;
      continue;
    }
    if (!(residual < FORTET_INF)) {
      status = FORTET_ENSEMBLE_DIVERGED;
      break;
    }
    if (residual < best) {
      best = residual, since = 0;
      copy(r, r.best(), r.gamma());
    } else if (++since > FORTET_ENSEMBLE_PATIENCE) {
      status = FORTET_ENSEMBLE_STALLED;
      break;
    }
    if (best <= mark / 2) {
      mark = best, marked = 0;
    } else if (a.give_up > 0 && ++marked > a.give_up) {
      status = FORTET_ENSEMBLE_STALLED;
      break;
    }
    accepted = residual;
    copy(r, r.fallback(), r.image());
    mixed = a.mix && plain == 0;
    if (mixed) {
      mix(r, s);
    } else {
      if (plain > 0) plain--;
      copy(r, r.gamma(), r.image());
    }
  }
  copy(r, r.gamma(), r.best());
  return status;
}

}  // namespace

#endif
