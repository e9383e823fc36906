/* The rows of f-divergence duals on the GPU: a block a row. Where a row of costs
 * fits into shared memory it is computed once, else again for each evaluation of
 * the sum; the coordinates of neighbouring columns lie side by side and serve
 * every block out of the second-level cache. Per pair and evaluation, an
 * exponential for its weight and a division, a root or two transcendentals:
 * bound by arithmetic. Scalars of the search are double and the same in all
 * threads, so no thread waits for another but in the reductions. */
#include "fdual.h"

#include "fdual_law.h"

FORTET_CONTRACT(fdual)

namespace {

constexpr int kThreads = 128;
constexpr int kRun = 64; /* terms of a partial sum in the element type */
constexpr int kCosts = 40 << 10; /* bytes of shared memory for a row of costs */

__device__ __forceinline__ float phi(int form, float z, float power, float sharp, float *rate) {
  return fdual_phi_f32(form, z, power, sharp, rate);
}
__device__ __forceinline__ double phi(int form, double z, double power, double sharp, double *rate) {
  return fdual_phi_f64(form, z, power, sharp, rate);
}
__device__ __forceinline__ float less_one(float x) { return expm1f(x); }
__device__ __forceinline__ double less_one(double x) { return expm1(x); }
__device__ __forceinline__ float root(float x) { return sqrtf(x); }
__device__ __forceinline__ double root(double x) { return sqrt(x); }

template <class T>
struct row_of {
  const fortet_fdual_pairs &p;
  const T *x, *yt, *matrix, *q, *logb, *kept; /* kept: the row's costs, or NULL */
  T slope, decay;
  bool rises;

  __device__ row_of(const fortet_fdual_pairs &p, int64_t i, bool rises)
      : p(p), x(static_cast<const T *>(p.x) + i * p.d), yt(static_cast<const T *>(p.yt)),
        matrix(static_cast<const T *>(p.matrix) + i * p.m), q(static_cast<const T *>(p.q)),
        logb(static_cast<const T *>(p.logb)), kept(nullptr), slope(static_cast<T>(p.slope)),
        decay(static_cast<T>(p.decay)), rises(rises) {}

  __device__ __forceinline__ T computed(int64_t j) const {
    if (p.cost == FORTET_MATRIX) return matrix[j];
    T s = 0;
    for (int64_t k = 0; k < p.d; k++) {
      const T t = x[k] - yt[k * p.m + j];
      s += t * t;
    }
    return p.cost == FORTET_EUCLIDEAN ? root(s) : p.cost == FORTET_HALF_SQEUCLIDEAN ? s * T(0.5) : s;
  }
  __device__ __forceinline__ T cost(int64_t j) const { return kept ? kept[j] : computed(j); }

  /* z without p, and the log weight without shift. */
  __device__ __forceinline__ void pair(int64_t j, T *z, T *logw) const {
    const T c = cost(j);
    const T w = (logb ? logb[j] : T(0)) - (decay != 0 ? decay * c : T(0));
    const T e = q[j] + (slope != 0 ? slope * c : T(0));
    const T none = rises ? -static_cast<T>(INFINITY) : static_cast<T>(INFINITY);
    *z = w == -static_cast<T>(INFINITY) ? none : e;
    *logw = w;
  }
};

/* Reductions of doubles, all through one place. */
__device__ __forceinline__ double block_sum(double v) { return fortet_block_sum(v); }
__device__ __forceinline__ double block_max(double v) { return fortet_block_max(v); }

template <class T>
__global__ void __launch_bounds__(kThreads) rows(fortet_fdual_rows_args args, bool keep) {
  FORTET_DYN_SHARED(T, room);
  const fortet_fdual_pairs &p = args.pairs;
  const int form = fdual_form(&p), single = sizeof(T) == 4;
  const bool rises = fdual_rises(&p);
  const T power = static_cast<T>(1 / (p.a - 1)), sharp = static_cast<T>(1 / p.delta);
  for (int64_t i = blockIdx.x; i < p.n; i += gridDim.x) {
    row_of<T> row(p, i, rises);
    if (keep) {
      __syncthreads(); /* the last row's costs may still be read */
      for (int64_t j = threadIdx.x; j < p.m; j += kThreads) room[j] = row.computed(j); /* read by this thread alone */
      row.kept = room;
    }
    double edge = -FORTET_INF, heaviest = -FORTET_INF, wrong = 0; /* edge: of z, or of -z */
    for (int64_t j = threadIdx.x; j < p.m; j += kThreads) {
      T z, l;
      row.pair(j, &z, &l);
      if (l == -static_cast<T>(INFINITY)) continue;
      if (z != z || l != l) wrong = 1;
      const double key = form == FDUAL_EXP ? static_cast<double>(z + l) : static_cast<double>(rises ? z : -z);
      edge = key > edge ? key : edge;
      heaviest = static_cast<double>(l) > heaviest ? static_cast<double>(l) : heaviest;
    }
    wrong = block_sum(wrong), edge = block_max(edge), heaviest = block_max(heaviest);
    const double from = args.start ? static_cast<double>(static_cast<const T *>(args.start)[i]) : static_cast<double>(NAN);
    double result = NAN, mass = NAN;
    int steps = 1;
    const bool empty = wrong != 0 || heaviest == -FORTET_INF || edge == -FORTET_INF;
    if (!empty && form == FDUAL_EXP) {
      double sum = 0;
      T part = 0;
      int run = 0;
      for (int64_t j = threadIdx.x; j < p.m; j += kThreads) {
        T z, l;
        row.pair(j, &z, &l);
        if (l != -static_cast<T>(INFINITY)) part += fortet_exp((z + l) - static_cast<T>(edge));
        if (++run % kRun == 0) sum += static_cast<double>(part), part = 0;
      }
      result = -(edge + log(block_sum(sum + static_cast<double>(part))) + p.shift);
      mass = exp(from - result);
    } else if (!empty) {
      double all = 0, at_edge = -FORTET_INF;
      const T end = static_cast<T>(rises ? edge : -edge);
      for (int64_t j = threadIdx.x; j < p.m; j += kThreads) {
        T z, l;
        row.pair(j, &z, &l);
        all += static_cast<double>(fortet_exp(l - static_cast<T>(heaviest)));
        if (z == end && static_cast<double>(l) > at_edge) at_edge = static_cast<double>(l);
      }
      all = block_sum(all), at_edge = block_max(at_edge);
      const double tau = -(heaviest + p.shift);
      const T first = static_cast<T>(from + static_cast<double>(end));
      const bool feasible = rises || first > T(0);
      fdual_root s;
      fdual_begin(&s, &p, tau, at_edge - heaviest, log(all), single, feasible ? static_cast<double>(first) : static_cast<double>(NAN));
      mass = s.done || first != first ? static_cast<double>(NAN) : FORTET_INF;
      while (!s.done) {
        const T at = static_cast<T>(s.x);
        s.x = static_cast<double>(at);
        double total = 0, slope = 0;
        T a = 0, b = 0;
        int run = 0;
        for (int64_t j = threadIdx.x; j < p.m; j += kThreads) {
          T z, l, r;
          row.pair(j, &z, &l);
          const T depth = rises ? end - z : z - end;
          const T w = fortet_exp(l - static_cast<T>(heaviest)), y = rises ? at - depth : at + depth;
          const T f = phi(form, form == FDUAL_JS ? less_one(y) : y, power, sharp, &r);
          a += w * f, b += w * r;
          if (++run % kRun == 0) total += static_cast<double>(a), slope += static_cast<double>(b), a = b = 0;
        }
        total = block_sum(total + static_cast<double>(a)), slope = block_sum(slope + static_cast<double>(b));
        if (s.steps == 0 && feasible && first == first) mass = total * exp(-tau);
        fdual_step(&s, total, slope, single);
      }
      result = s.x - static_cast<double>(end);
      steps = s.steps;
    }
    if (threadIdx.x == 0) {
      static_cast<T *>(args.p)[i] = static_cast<T>(result);
      if (args.mass) args.mass[i] = mass;
      if (args.steps) args.steps[i] = steps;
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) eval(fortet_fdual_eval_args args) {
  const fortet_fdual_pairs &p = args.pairs;
  const int form = fdual_form(&p);
  const bool rises = fdual_rises(&p);
  const double sharp = 1 / p.delta;
  for (int64_t i = blockIdx.x; i < p.n; i += gridDim.x) {
    const row_of<T> row(p, i, rises);
    const double own = static_cast<double>(static_cast<const T *>(args.p)[i]);
    double mass = 0, cost = 0, f = 0, psi = 0, edge = -FORTET_INF;
    for (int64_t j = threadIdx.x; j < p.m; j += kThreads) {
      const double c = static_cast<double>(row.computed(j));
      const double logw = (row.logb ? static_cast<double>(row.logb[j]) : 0) - (p.decay != 0 ? p.decay * c : 0) + p.shift;
      if (logw == -FORTET_INF) continue;
      const double z = own + static_cast<double>(row.q[j]) + (p.slope != 0 ? p.slope * c : 0), w = exp(logw);
      const fdual_values v = fdual_evaluate(form, p.a, sharp, z);
      mass += w * v.phi;
      if (!(v.phi == 0)) cost += w * v.phi * c;
      f += w * v.f;
      psi += w * v.psi;
      const double key = rises ? z : -z;
      if (key > edge) edge = key;
    }
    mass = block_sum(mass), cost = block_sum(cost), f = block_sum(f), psi = block_sum(psi), edge = block_max(edge);
    if (threadIdx.x != 0) continue;
    if (args.mass) args.mass[i] = mass;
    if (args.cost) args.cost[i] = cost;
    if (args.f) args.f[i] = f;
    if (args.psi) args.psi[i] = psi;
    if (args.edge) args.edge[i] = rises ? edge : -edge;
  }
}

unsigned blocks(int64_t n) { return static_cast<unsigned>(n < (1 << 24) ? n : 1 << 24); }

template <class T>
int launch_rows(void *stream, const void *args) {
  const fortet_fdual_rows_args a = *static_cast<const fortet_fdual_rows_args *>(args);
  const int64_t bytes = a.pairs.m * static_cast<int64_t>(sizeof(T));
  const bool keep = a.pairs.cost != FORTET_MATRIX && bytes <= kCosts;
  FORTET_LAUNCH(rows<T>, dim3(blocks(a.pairs.n)), kThreads, keep ? static_cast<size_t>(bytes) : 0, stream, a, keep);
  return FORTET_STATUS();
}

template <class T>
int launch_eval(void *stream, const void *args) {
  const fortet_fdual_eval_args a = *static_cast<const fortet_fdual_eval_args *>(args);
  FORTET_LAUNCH(eval<T>, dim3(blocks(a.pairs.n)), kThreads, 0, stream, a);
  return FORTET_STATUS();
}

}  // namespace

FORTET_EXPORT int fortet_fdual_rows_f32(void *stream, const void *args) { return launch_rows<float>(stream, args); }
FORTET_EXPORT int fortet_fdual_rows_f64(void *stream, const void *args) { return launch_rows<double>(stream, args); }
FORTET_EXPORT int fortet_fdual_eval_f32(void *stream, const void *args) { return launch_eval<float>(stream, args); }
FORTET_EXPORT int fortet_fdual_eval_f64(void *stream, const void *args) { return launch_eval<double>(stream, args); }
