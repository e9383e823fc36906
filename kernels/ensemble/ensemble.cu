/* ensemble.cu - ensembles on a GPU: a block solves a problem from its costs to
 * its report. Warps take rows and threads take columns, so that both products
 * of a sweep read the matrix in order; it lies in shared memory where it fits
 * there. A sweep over n x m points takes 4 n m operations and reads the matrix
 * twice; up to a hundred points the barriers and the mixing take longer. */
#include "ensemble.h"

#include "room.cuh"
#include "logs.cuh"
#include "sweeps.cuh"

FORTET_CONTRACT(ensemble)

namespace {

/* Solves problem p in the block's room. */
template <class T>
__device__ void solve(const fortet_ensemble_args &a, Room<T> &r, Shared &s, int64_t p) {
  const int64_t i0 = a.rows[p], j0 = a.columns[p];
  const double rho1 = a.rho1 ? a.rho1[p] : FORTET_INF, rho2 = a.rho2 ? a.rho2[p] : FORTET_INF;
  double *const f = a.f + i0, *const g = a.g + j0, *const values = a.values + p * FORTET_ENSEMBLE_VALUES;
  const double mean = begin(r, a, p, rho1 == FORTET_INF && rho2 == FORTET_INF);
  const double epsilon = a.epsilon[p] * (a.mean ? mean : 1.0);
  const bool sound = epsilon > 0 && epsilon < FORTET_INF && mean < FORTET_INF;
  const bool low = epsilon < a.anneal * mean;
  const bool leave = sizeof(T) < sizeof(double) && a.give_up > 0 && low; /* to the other kernel */
  int status = sound && leave ? FORTET_ENSEMBLE_STALLED : FORTET_ENSEMBLE_DIVERGED, sweeps = a.max_sweeps;
  if (sound && !leave) {
    int finite = 1;
    for (int64_t j = threadIdx.x; a.warm && j < r.m; j += kThreads) finite &= fabs(g[j]) < FORTET_INF;
    const bool warm = __syncthreads_and(finite) && a.warm;
    double at = warm || !low ? epsilon : mean * FORTET_ENSEMBLE_START;
    r.set(at, rho1, rho2);
    if (warm) {
      for (int64_t j = threadIdx.x; j < r.m; j += kThreads) r.gamma()[j] = g[j] * r.unit;
      __syncthreads();
    } else {
      start(r);
    }
    status = FORTET_ENSEMBLE_MAX_SWEEPS;
    for (bool last = false; !last && status != FORTET_ENSEMBLE_CANCELED; at /= 2) {
      last = !(at > epsilon);
      int left = last || sweeps < FORTET_ENSEMBLE_COARSE_SWEEPS ? sweeps : FORTET_ENSEMBLE_COARSE_SWEEPS;
      sweeps -= left;
      r.move(last ? epsilon : at, rho1, rho2);
      const double coarse = a.tolerance > FORTET_ENSEMBLE_COARSE ? a.tolerance : FORTET_ENSEMBLE_COARSE;
      if (left > 0) status = iterate(r, s, a, last ? a.tolerance : coarse, left);
      sweeps += left;
    }
    if (r.epsilon != epsilon) r.move(epsilon, rho1, rho2); /* canceled on the way */
    const double residual = report(r, a, rho1, rho2, f, g, a.map ? a.map + i0 * r.d : nullptr, values);
    if (!(fabs(values[FORTET_ENSEMBLE_PRIMAL]) < FORTET_INF && fabs(values[FORTET_ENSEMBLE_DUAL]) < FORTET_INF)) {
      status = FORTET_ENSEMBLE_DIVERGED;
    } else if (residual <= a.tolerance) {
      status = FORTET_ENSEMBLE_CONVERGED;
    } else if (status == FORTET_ENSEMBLE_CONVERGED) {
      status = FORTET_ENSEMBLE_STALLED; /* only in the precision of the sweeps */
    }
  } else {
    for (int64_t i = threadIdx.x; i < r.n; i += kThreads) f[i] = NAN;
    for (int64_t j = threadIdx.x; j < r.m; j += kThreads) g[j] = NAN;
    for (int64_t k = threadIdx.x; a.map && k < r.n * r.d; k += kThreads) a.map[i0 * r.d + k] = NAN;
    for (int k = threadIdx.x; k < FORTET_ENSEMBLE_VALUES; k += kThreads) values[k] = NAN;
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    int32_t *const counts = a.counts + p * FORTET_ENSEMBLE_COUNTS;
    values[FORTET_ENSEMBLE_EPSILON] = epsilon;
    values[FORTET_ENSEMBLE_MEAN] = mean;
    counts[FORTET_ENSEMBLE_STATUS] = status;
    counts[FORTET_ENSEMBLE_SWEEPS] = a.max_sweeps - sweeps;
    counts[FORTET_ENSEMBLE_ABSORBED] = r.absorbed;
    counts[FORTET_ENSEMBLE_LOGS] = r.logs;
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads, 2) ensemble(fortet_ensemble_args a, int64_t room, int64_t shared) {
  FORTET_DYN_SHARED(T, fast);
  __shared__ Shared s;
  for (int64_t t = blockIdx.x; t < a.count; t += gridDim.x) {
    if (stopped(a)) return;
    const int64_t p = a.order[t];
    Room<T> r(static_cast<char *>(a.work) + blockIdx.x * room, fast, shared, a.rows[p + 1] - a.rows[p],
              a.columns[p + 1] - a.columns[p], a.d);
    solve(a, r, s, p);
    __syncthreads();
  }
}

template <class T>
int launch(void *stream, const void *args) {
  const fortet_ensemble_args a = *static_cast<const fortet_ensemble_args *>(args);
  const int64_t room = fortet_ensemble_room_bytes(a.n_most, a.m_most, sizeof(T));
  const int64_t limit = fortet_max_shared() - static_cast<int64_t>(sizeof(Shared)) - 4096;
  int64_t shared = fast_bytes<T>(a.n_most, a.m_most);
  if (shared > limit) shared = limit;
  const int status = FORTET_MAX_DYN_SHARED(ensemble<T>, shared);
  if (status != FORTET_OK) return status;
  const dim3 grid(static_cast<unsigned>(fortet_ensemble_blocks(&a, sizeof(T))));
  FORTET_LAUNCH(ensemble<T>, grid, kThreads, static_cast<size_t>(shared), stream, a, room, shared);
  return FORTET_STATUS();
}

}  // namespace

FORTET_EXPORT int fortet_ensemble_f32(void *stream, const void *args) { return launch<float>(stream, args); }
FORTET_EXPORT int fortet_ensemble_f64(void *stream, const void *args) { return launch<double>(stream, args); }
