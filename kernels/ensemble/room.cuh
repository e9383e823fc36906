/* room.cuh - the memory in which a block solves one problem, and its beginning.
 * Potentials are in units of epsilon / log2(e), as in ensemble_room.h. */
#ifndef FORTET_ENSEMBLE_ROOM_CUH
#define FORTET_ENSEMBLE_ROOM_CUH

namespace {

constexpr int kThreads = 128, kWarps = kThreads / 32, kDepth = FORTET_ENSEMBLE_DEPTH;

/* The normal equations of the mixing, and partial sums over columns. */
struct Shared {
  double gram[kDepth][kDepth];
  double system[kDepth][kDepth + 1];
  double factor[kDepth];
  double part[kThreads];
};

/* Bytes of what is worth being in shared memory: the matrix and its vectors. */
template <class T>
int64_t fast_bytes(int64_t n, int64_t m) { return (n * m + n + m) * static_cast<int64_t>(sizeof(T)); }

template <class T>
struct Room {
  int64_t n, m, d;
  double epsilon, unit, damp1, damp2, decay2, mass, spread;
  T *k, *v, *y;  /* (n, m), (m), (n) */
  int held, slot, filled, absorbed, logs;

  __device__ Room(char *base, T *fast, int64_t shared, int64_t n, int64_t m, int64_t d)
      : n(n), m(m), d(d), epsilon(0), unit(0), damp1(1), damp2(1), decay2(0), mass(0), spread(0),
        held(0), slot(0), filled(0), absorbed(0), logs(0) {
    length_ = n > m ? n : m;
    doubles_ = reinterpret_cast<double *>(base);
    T *const slow = reinterpret_cast<T *>(doubles_ + FORTET_ENSEMBLE_VECTORS * length_ + n * m);
    const bool fits = (n * m + n + m) * static_cast<int64_t>(sizeof(T)) <= shared;
    v = fits ? fast : slow;
    y = v + m;
    k = y + n;
    differences_ = slow + (n * m + n + m);
  }

  __device__ double *a() const { return vector(0); }
  __device__ double *la() const { return vector(1); }
  __device__ double *phi() const { return vector(2); }
  __device__ double *phi0() const { return vector(3); }
  __device__ double *b() const { return vector(4); }
  __device__ double *lb() const { return vector(5); }
  __device__ double *gamma() const { return vector(6); }
  __device__ double *image() const { return vector(7); }
  __device__ double *zero() const { return vector(8); } /* gamma of the kept matrix */
  __device__ double *fallback() const { return vector(9); }
  __device__ double *best() const { return vector(10); }
  __device__ double *f() const { return vector(11); } /* of the mixing, and the last ones */
  __device__ double *f_last() const { return vector(12); }
  __device__ double *image_last() const { return vector(13); }
  __device__ double *col() const { return vector(14); }
  __device__ double *row(unsigned warp) const { return vector(15 + static_cast<int>(warp)); }
  __device__ double *cost() const { return vector(FORTET_ENSEMBLE_VECTORS); }
  __device__ T *df(int p) const { return differences_ + p * m; }
  __device__ T *dt(int p) const { return differences_ + (kDepth + p) * m; }

  __device__ void set(double at, double rho1, double rho2) {
    epsilon = at;
    unit = 1.44269504088896340736 / at;
    damp1 = rho1 == FORTET_INF ? 1.0 : rho1 / (rho1 + at);
    damp2 = rho2 == FORTET_INF ? 1.0 : rho2 / (rho2 + at);
    decay2 = at / rho2;
  }
  /* Another epsilon; gamma stays the same potential in the cost's unit. */
  __device__ void move(double at, double rho1, double rho2) {
    const double change = epsilon / at;
    for (int64_t j = threadIdx.x; j < m; j += kThreads) gamma()[j] *= change;
    __syncthreads();
    set(at, rho1, rho2);
  }

 private:
  int64_t length_;
  double *doubles_;
  T *differences_;
  __device__ double *vector(int k) const { return doubles_ + k * length_; }
};

__device__ __forceinline__ bool stopped(const fortet_ensemble_args &a) {
  if (!a.stop) return false;
  return __syncthreads_or(threadIdx.x == 0 && *static_cast<const volatile int32_t *>(a.stop) != 0) != 0;
}

/* Costs, weights and their logarithms; b is scaled to the mass of a where both
 * marginals are exact. Answers the mean cost under both. */
template <class T>
__device__ double begin(Room<T> &r, const fortet_ensemble_args &a, int64_t p, bool balanced) {
  const double *const x = a.x + a.rows[p] * r.d, *const y = a.y + a.columns[p] * r.d;
  double *const c = r.cost();
  for (int64_t e = threadIdx.x; e < r.n * r.m; e += kThreads) {
    if (a.matrix) {
      c[e] = a.matrix[a.pairs[p] + e];
      continue;
    }
    const int64_t i = e / r.m, j = e % r.m;
    double s = 0;
    for (int64_t k = 0; k < r.d; k++) {
      const double t = x[i * r.d + k] - y[j * r.d + k];
      s += t * t;
    }
    c[e] = a.cost == FORTET_EUCLIDEAN ? sqrt(s) : a.cost == FORTET_HALF_SQEUCLIDEAN ? 0.5 * s : s;
  }
  double ma = 0, mb = 0;
  for (int64_t i = threadIdx.x; i < r.n; i += kThreads)
    ma += r.a()[i] = a.a ? a.a[a.rows[p] + i] : 1.0 / static_cast<double>(r.n);
  for (int64_t j = threadIdx.x; j < r.m; j += kThreads)
    mb += r.b()[j] = a.b ? a.b[a.columns[p] + j] : 1.0 / static_cast<double>(r.m);
  ma = fortet_block_sum(ma);
  mb = fortet_block_sum(mb);
  r.mass = ma;
  const double scale = balanced ? ma / mb : 1.0;
#pragma unroll 1
  for (int64_t i = threadIdx.x; i < r.n; i += kThreads) r.la()[i] = log2(r.a()[i]);
#pragma unroll 1
  for (int64_t j = threadIdx.x; j < r.m; j += kThreads) {
    r.b()[j] *= scale;
    r.lb()[j] = log2(r.b()[j]);
  }
  __syncthreads();
  double mean = 0, least = FORTET_INF, greatest = -FORTET_INF;
  for (int64_t i = threadIdx.x / 32; i < r.n; i += kWarps) {
    double s = 0;
    for (int64_t j = threadIdx.x % 32; j < r.m; j += 32) {
      s += c[i * r.m + j] * r.b()[j];
      least = fmin(least, c[i * r.m + j]);
      greatest = fmax(greatest, c[i * r.m + j]);
    }
    mean += r.a()[i] * s;
  }
  r.spread = fortet_block_max(greatest) + fortet_block_max(-least);
  return fortet_block_sum(mean) / (ma * mb * scale);
}

}  // namespace

#endif
