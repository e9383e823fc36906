// component.cuh - one sample against all components of a mixture, by a warp.
//
// Without axes a team of lanes, as many as coordinates but at most 32, goes along
// the coordinates of a component, and the teams of a warp take components in
// turn: no lane idles for d = 2, nor for d = 512. With axes the warp takes one
// component after the other and turns x and r_j into its axes first.
//
// D_j^-1 is computed where it is needed, not kept: a division costs less than the
// memory for k d of them a sample.
#ifndef FORTET_GMM_COMPONENT_CUH
#define FORTET_GMM_COMPONENT_CUH

#include "gmm.h"

namespace gmm {

template <class T>
struct mixture {
  const T *logits, *means, *scales, *axes;
  int64_t k, d;
  T over_epsilon;

  explicit mixture(const fortet_mixture &m)
      : logits(static_cast<const T *>(m.logits)), means(static_cast<const T *>(m.means)),
        scales(static_cast<const T *>(m.scales)), axes(static_cast<const T *>(m.axes)), k(m.k), d(m.d),
        over_epsilon(static_cast<T>(1 / m.epsilon)) {}
};

// What a component makes of one coordinate along its axes, as in gmm_block.h.
template <class T>
struct coordinate {
  T stretch, inverse, h, g; // D, 1/D, (x - t r)/D, r + (s - 1) h

  __device__ __forceinline__ coordinate(T x, T r, T s, T t) {
    stretch = (T(1) - t) + t * s;
    inverse = T(1) / stretch;
    h = (x - t * r) * inverse;
    g = r + (s - T(1)) * h;
  }
};

// A warp's shared memory for one sample. With axes there are the three arrays that
// follow g.
template <class T>
struct room {
  T *w;            // (k): weights
  T *g;            // (d): drift
  T *x, *r, *own;  // (d) along the axes of a component: x, r_j, and what a step needs

  static __host__ __device__ int64_t size(int64_t d, bool axes) { return axes ? 3 * d : 0; }
  __device__ __forceinline__ void axes_at(T *p, int64_t d) { x = p, r = p + d, own = p + 2 * d; }
};

__device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) % 32; }

// The lanes of a team: the power of two from d on, at most 32.
template <bool AXES>
__device__ __forceinline__ int team_size(int64_t d) {
  int size = AXES ? 32 : 1;
  while (size < 32 && size < d) size *= 2;
  return size;
}

// s.x = A_j x, s.r = A_j r_j. A warp meets before and after.
template <class T>
__device__ __forceinline__ void turn(const mixture<T> &m, int64_t j, const T *x, const room<T> &s) {
  __syncwarp();
  for (int64_t p = lane(); p < m.d; p += 32) {
    const T *axis = m.axes + (j * m.d + p) * m.d;
    T xp = 0, rp = 0;
    for (int64_t q = 0; q < m.d; q++) xp += axis[q] * x[q], rp += axis[q] * m.means[j * m.d + q];
    s.x[p] = xp, s.r[p] = rp;
  }
  __syncwarp();
}

// (A_j' own)_q
template <class T>
__device__ __forceinline__ T back(const mixture<T> &m, int64_t j, const T *own, int64_t q) {
  T sum = 0;
  for (int64_t p = 0; p < m.d; p++) sum += m.axes[(j * m.d + p) * m.d + q] * own[p];
  return sum;
}

// A walk of a warp over coordinates and components.
template <class T, bool AXES>
struct walk {
  const mixture<T> &m;
  const T *x;
  T t;
  const room<T> &s;
  int size, within, team, teams;

  __device__ __forceinline__ walk(const mixture<T> &m, const T *x, T t, const room<T> &s) : m(m), x(x), t(t), s(s) {
    size = team_size<AXES>(m.d);
    within = lane() % size, team = lane() / size, teams = 32 / size;
  }
  __device__ __forceinline__ void begin(int64_t j) const {
    if (AXES) turn(m, j, x, s);
  }
  __device__ __forceinline__ coordinate<T> at(int64_t j, int64_t k) const {
    const int64_t i = j * m.d + k;
    return AXES ? coordinate<T>(s.x[k], s.r[k], m.scales[i], t) : coordinate<T>(x[k], m.means[i], m.scales[i], t);
  }
  // The sum over the lanes of a team.
  __device__ __forceinline__ T team_sum(T v) const {
    for (int lanes = size / 2; lanes > 0; lanes /= 2) v += fortet_shuffle_xor(v, lanes);
    return v;
  }
  // The sum over the teams of a warp.
  __device__ __forceinline__ T teams_sum(T v) const {
    for (int lanes = size; lanes < 32; lanes *= 2) v += fortet_shuffle_xor(v, lanes);
    return v;
  }

  // s.w = the weights; answers L_t(x).
  __device__ __forceinline__ T weigh() const {
    for (int64_t first = 0; first < m.k; first += teams) {
      const int64_t j = first + team;
      begin(j);
      T q = 0, logs = 0;
      for (int64_t k = within; j < m.k && k < m.d; k += size) {
        const coordinate<T> c = at(j, k);
        q += (AXES ? s.x[k] : x[k]) * c.g + (AXES ? s.r[k] : m.means[j * m.d + k]) * c.h;
        logs += fortet_log(c.stretch);
      }
      q = team_sum(q), logs = team_sum(logs);
      if (within == 0 && j < m.k) s.w[j] = m.logits[j] + T(0.5) * (q * m.over_epsilon - logs);
    }
    __syncwarp();
    T top = -static_cast<T>(INFINITY), sum = 0;
    for (int64_t j = lane(); j < m.k; j += 32) top = fortet_fmax(top, s.w[j]);
    top = fortet_warp_max(top);
    for (int64_t j = lane(); j < m.k; j += 32) sum += s.w[j] = fortet_exp(s.w[j] - top);
    sum = fortet_warp_sum(sum);
    for (int64_t j = lane(); j < m.k; j += 32) s.w[j] /= sum;
    __syncwarp();
    return top + fortet_log(sum);
  }

  // s.g = sum_j w_j g_j
  __device__ __forceinline__ void drift() const {
    if (AXES) {
      for (int64_t k = lane(); k < m.d; k += 32) s.g[k] = 0;
      for (int64_t j = 0; j < m.k; j++) {
        begin(j);
        for (int64_t k = lane(); k < m.d; k += 32) s.own[k] = at(j, k).g;
        __syncwarp();
        for (int64_t k = lane(); k < m.d; k += 32) s.g[k] += s.w[j] * back(m, j, s.own, k);
      }
    } else {
      for (int64_t first = 0; first < m.d; first += size) {
        const int64_t k = first + within;
        T sum = 0;
        for (int64_t j = team; k < m.d && j < m.k; j += teams) sum += s.w[j] * at(j, k).g;
        sum = teams_sum(sum);
        if (team == 0 && k < m.d) s.g[k] = sum;
      }
    }
    __syncwarp();
  }
};

}  // namespace gmm

#endif
