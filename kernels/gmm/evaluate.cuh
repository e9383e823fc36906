// evaluate.cuh - value, drift, weights and derivatives of the drift: a warp, which
// is a block, for each sample. A sample's component and coordinate take about 12
// operations, a division and a logarithm for the value, and 10 and a division again
// for each further pass; parameters come from the caches.
#ifndef FORTET_GMM_EVALUATE_CUH
#define FORTET_GMM_EVALUATE_CUH

#include "component.cuh"

namespace gmm {

// Rows of the Jacobian that a lane has in registers.
constexpr int JACOBIAN_ROWS = 8;

template <class T, bool AXES>
struct point {
  const walk<T, AXES> &a;
  const T *v;      // (d) or null
  T *dots;         // (k): w_j <c_j, v> / epsilon, without axes
  T *c, *sum;      // (d): c_j and Dg v, with axes

  // tr Dg, and Dg v to product.
  __device__ __forceinline__ T products(T *product) const {
    return AXES ? products_along(product) : products_apart(product);
  }

  __device__ __forceinline__ T products_apart(T *product) const {
    const mixture<T> &m = a.m;
    T trace = 0;
    for (int64_t first = 0; first < m.k; first += a.teams) {
      const int64_t j = first + a.team;
      T diagonal = 0, dot = 0;
      for (int64_t k = a.within; j < m.k && k < m.d; k += a.size) {
        const coordinate<T> at = a.at(j, k);
        const T gap = at.g - a.s.g[k];
        diagonal += (m.scales[j * m.d + k] - T(1)) * at.inverse + gap * gap * m.over_epsilon;
        if (v) dot += gap * v[k];
      }
      if (j < m.k) trace += a.s.w[j] * diagonal;
      dot = a.team_sum(dot);
      if (v && a.within == 0 && j < m.k) dots[j] = a.s.w[j] * dot * m.over_epsilon;
    }
    __syncwarp();
    for (int64_t first = 0; v && first < m.d; first += a.size) {
      const int64_t k = first + a.within;
      T out = 0;
      for (int64_t j = a.team; k < m.d && j < m.k; j += a.teams) {
        const coordinate<T> at = a.at(j, k);
        out += a.s.w[j] * (m.scales[j * m.d + k] - T(1)) * at.inverse * v[k] + dots[j] * (at.g - a.s.g[k]);
      }
      out = a.teams_sum(out);
      if (a.team == 0 && k < m.d) product[k] = out;
    }
    return fortet_warp_sum(trace);
  }

  // c = c_j along the unit vectors; answers this lane's part of tr e_j.
  __device__ __forceinline__ T spread(int64_t j, T *c, T *e) const {
    const mixture<T> &m = a.m;
    T diagonal = 0;
    a.begin(j);
    for (int64_t k = lane(); k < m.d; k += 32) {
      const coordinate<T> at = a.at(j, k);
      const T slope = (m.scales[j * m.d + k] - T(1)) * at.inverse;
      a.s.own[k] = at.g;
      if (e) e[k] = slope;
      diagonal += slope;
    }
    __syncwarp();
    for (int64_t k = lane(); k < m.d; k += 32) c[k] = back(m, j, a.s.own, k) - a.s.g[k];
    __syncwarp();
    return diagonal;
  }

  __device__ __forceinline__ T products_along(T *product) const {
    const mixture<T> &m = a.m;
    T trace = 0;
    for (int64_t k = lane(); k < m.d; k += 32) sum[k] = 0;
    for (int64_t j = 0; j < m.k; j++) {
      T diagonal = spread(j, c, static_cast<T *>(nullptr)), dot = 0;
      for (int64_t k = lane(); k < m.d; k += 32) {
        diagonal += c[k] * c[k] * m.over_epsilon;
        if (v) dot += c[k] * v[k];
      }
      trace += a.s.w[j] * diagonal;
      if (!v) continue;
      dot = fortet_warp_sum(dot) * m.over_epsilon;
      for (int64_t p = lane(); p < m.d; p += 32) {
        T along = 0;
        for (int64_t q = 0; q < m.d; q++) along += m.axes[(j * m.d + p) * m.d + q] * v[q];
        a.s.own[p] = (m.scales[j * m.d + p] - T(1)) * a.at(j, p).inverse * along;
      }
      __syncwarp();
      for (int64_t k = lane(); k < m.d; k += 32) sum[k] += a.s.w[j] * (back(m, j, a.s.own, k) + c[k] * dot);
    }
    for (int64_t k = lane(); v && k < m.d; k += 32) product[k] = sum[k];
    return fortet_warp_sum(trace);
  }

  // |Dg|^2, and Dg to out if that is there, in squares of panel coordinates. Without
  // axes the c_jk of a square's rows and columns are in shared memory, (k, panel)
  // each.
  __device__ __forceinline__ T square(T *out, T *rows, T *columns, int panel) const {
    const mixture<T> &m = a.m;
    T norm = 0;
    for (int64_t p0 = 0; p0 < m.d; p0 += panel)
      for (int64_t q0 = 0; q0 <= p0; q0 += panel) {
        __syncwarp();
        for (int64_t i = lane(); i < m.k * panel; i += 32) {
          const int64_t j = i / panel, p = p0 + i % panel, q = q0 + i % panel;
          rows[i] = p < m.d ? a.at(j, p).g - a.s.g[p] : T(0);
          columns[i] = q < m.d ? a.at(j, q).g - a.s.g[q] : T(0);
        }
        __syncwarp();
        const int64_t q = q0 + lane();
        const bool mine = lane() < panel && q < m.d;
        for (int r = 0; mine && r < panel; r += JACOBIAN_ROWS) {
          T sums[JACOBIAN_ROWS] = {};
          for (int64_t j = 0; j < m.k; j++) {
            const T wc = a.s.w[j] * columns[j * panel + lane()] * m.over_epsilon;
#pragma unroll
            for (int i = 0; i < JACOBIAN_ROWS; i++) sums[i] += rows[j * panel + r + i] * wc;
          }
#pragma unroll
          for (int i = 0; i < JACOBIAN_ROWS; i++) {
            const int64_t p = p0 + r + i;
            if (p >= m.d) continue;
            if (p == q)
              for (int64_t j = 0; j < m.k; j++)
                sums[i] += a.s.w[j] * (m.scales[j * m.d + q] - T(1)) * a.at(j, q).inverse;
            norm += sums[i] * sums[i] * T(p0 == q0 ? 1 : 2);
            if (!out) continue;
            out[p * m.d + q] = sums[i];
            if (p0 != q0) out[q * m.d + p] = sums[i];
          }
        }
      }
    return fortet_warp_sum(norm);
  }

  // The same with axes; c and e (k, d) of all components are in shared memory.
  __device__ __forceinline__ T square_along(T *out, T *c, T *e) const {
    const mixture<T> &m = a.m;
    T norm = 0;
    for (int64_t j = 0; j < m.k; j++) spread(j, c + j * m.d, e + j * m.d);
    for (int64_t i = lane(); i < m.d * m.d; i += 32) {
      const int64_t p = i / m.d, q = i % m.d;
      T entry = 0;
      for (int64_t j = 0; j < m.k; j++) {
        T first = 0;
        for (int64_t k = 0; k < m.d; k++)
          first += m.axes[(j * m.d + k) * m.d + p] * m.axes[(j * m.d + k) * m.d + q] * e[j * m.d + k];
        entry += a.s.w[j] * (first + c[j * m.d + p] * c[j * m.d + q] * m.over_epsilon);
      }
      norm += entry * entry;
      if (out) out[i] = entry;
    }
    return fortet_warp_sum(norm);
  }
};

// Elements of a block's shared memory: of room, and of point.
inline int64_t evaluate_size(const fortet_gmm_evaluate_args &a, int panel) {
  const int64_t k = a.m.k, d = a.m.d;
  const bool axes = a.m.axes, whole = a.jacobian || a.norm2;
  int64_t size = k + d + room<float>::size(d, axes) + (axes ? 2 * d : k);
  if (whole) size += axes ? 2 * k * d : 2 * k * panel;
  return size;
}

template <class T, bool AXES>
__global__ void __launch_bounds__(32, 16) evaluate(fortet_gmm_evaluate_args a, mixture<T> m, int panel) {
  FORTET_DYN_SHARED(T, shared);
  const int64_t b = blockIdx.x;
  room<T> s;
  s.w = shared, s.g = s.w + m.k;
  s.axes_at(s.g + m.d, m.d);
  T *const rest = s.g + m.d + room<T>::size(m.d, AXES);
  const T *const v = a.v ? static_cast<const T *>(a.v) + b * m.d : nullptr;
  const walk<T, AXES> at(m, static_cast<const T *>(a.x) + b * m.d,
                         a.t ? static_cast<const T *>(a.t)[b] : static_cast<T>(a.t0), s);
  const point<T, AXES> p{at, v, rest, rest, rest + m.d};
  T *const panels = rest + (AXES ? 2 * m.d : m.k);

  const T value = at.weigh();
  if (a.value && lane() == 0) static_cast<T *>(a.value)[b] = value;
  if (a.weights)
    for (int64_t j = lane(); j < m.k; j += 32) static_cast<T *>(a.weights)[b * m.k + j] = s.w[j];
  const bool whole = a.jacobian || a.norm2;
  if (!a.drift && !a.product && !a.trace && !whole) return;
  at.drift();
  if (a.drift)
    for (int64_t k = lane(); k < m.d; k += 32) static_cast<T *>(a.drift)[b * m.d + k] = s.g[k];
  if (a.product || a.trace) {
    const T trace = p.products(v ? static_cast<T *>(a.product) + b * m.d : nullptr);
    if (a.trace && lane() == 0) static_cast<T *>(a.trace)[b] = trace;
  }
  if (!whole) return;
  T *const out = a.jacobian ? static_cast<T *>(a.jacobian) + b * m.d * m.d : nullptr;
  const T norm = AXES ? p.square_along(out, panels, panels + m.k * m.d) : p.square(out, panels, panels + m.k * panel, panel);
  if (a.norm2 && lane() == 0) static_cast<T *>(a.norm2)[b] = norm;
}

}  // namespace gmm

#endif
