/* krylov.cuh - Newton's method without H, for any d (proximal_krylov.h has the
 * formulas): a block a sample, blocks taking samples in turn, with vectors in
 * global memory that the caches hold. What belongs to a component is a
 * warp's work, lanes along coordinates; what belongs to a coordinate is a
 * thread's, which adds the components in their order. A point tried reads 2 K d
 * numbers and writes K d, with axes it reads 2 K d^2; a product with H reads
 * 2 K d of those. */
#ifndef FORTET_PROXIMAL_KRYLOV_CUH
#define FORTET_PROXIMAL_KRYLOV_CUH

#include "dense.cuh"

namespace {

template <class T>
struct krylov {
  int64_t d, k;
  T t, beta, epsilon, half;
  const T *x, *logits, *means, *scales, *axes;
  T *apart, *line;               /* G_j (k, d), a line (d) for each warp */
  T *y, *at, *f, *h, *dir, *r, *v, *hv; /* (d); h is the diagonal of H's first part */
  T *bias, *weight, *along;      /* (k); along is w_j G_j'v */
  T value, square, noise;
  int lane, warp;

  __device__ __forceinline__ krylov(const fortet_proximal_args &a)
      : d(a.m.d), k(a.m.k), epsilon(static_cast<T>(a.m.epsilon)), half(T(0.5) / epsilon),
        logits(static_cast<const T *>(a.m.logits)), means(static_cast<const T *>(a.m.means)),
        scales(static_cast<const T *>(a.m.scales)), axes(static_cast<const T *>(a.m.axes)), lane(threadIdx.x % 32),
        warp(threadIdx.x / 32) {
    apart = static_cast<T *>(a.work) + blockIdx.x * fortet_proximal_room(&a);
    line = apart + k * d;
    y = line + (axes ? FORTET_PROXIMAL_WARPS * d : 0);
    at = y + d;
    f = at + d;
    h = f + d;
    dir = h + d;
    r = dir + d;
    v = r + d;
    hv = v + d;
    bias = hv + d;
    weight = bias + k;
    along = weight + k;
  }

  __device__ __forceinline__ T dot(const T *a, const T *b) const { /* by the block */
    T s = T(0);
    for (int64_t i = threadIdx.x; i < d; i += kThreads) s += a[i] * b[i];
    return fortet_block_sum(s);
  }
  __device__ __forceinline__ T warp_dot(const T *a, const T *b) const {
    T s = T(0);
    for (int64_t i = lane; i < d; i += 32) s += a[i] * b[i];
    return fortet_warp_sum(s);
  }
  __device__ __forceinline__ T scale(int64_t i) const { return (T(1) - t) + t * scales[i]; }

  /* What of ell_j depends on t alone. */
  __device__ __forceinline__ void biases() {
    for (int64_t j = warp; j < k; j += FORTET_PROXIMAL_WARPS) {
      T sum = T(0);
      if (axes) {
        for (int64_t i = 0; i < d; i++) {
          const T centre = warp_dot(axes + (j * d + i) * d, means + j * d), s = scale(j * d + i);
          sum += T(0.5) * fortet_log(s) + t * half * centre * (centre / s);
        }
      } else {
        for (int64_t i = lane; i < d; i += 32) {
          const T centre = means[j * d + i], s = scale(j * d + i);
          sum += T(0.5) * fortet_log(s) + t * half * centre * (centre / s);
        }
        sum = fortet_warp_sum(sum);
      }
      if (lane == 0) bias[j] = logits[j] - sum;
    }
    __syncthreads();
  }

  /* ell_j into weight, G_j. */
  __device__ __forceinline__ void component(int64_t j) {
    T sum = T(0), *const g = apart + j * d;
    if (axes) {
      T *const u = line + warp * d;
      for (int64_t i = 0; i < d; i++) {
        const T *const axis = axes + (j * d + i) * d;
        const T z = warp_dot(axis, at), s = scale(j * d + i), p = warp_dot(axis, means + j * d) / s;
        const T own = p + (scales[j * d + i] - T(1)) / s * z;
        sum += z * (p + own);
        if (lane == 0) u[i] = own;
      }
      __syncwarp();
      for (int64_t i = lane; i < d; i += 32) {
        T total = T(0);
        for (int64_t e = 0; e < d; e++) total += axes[(j * d + e) * d + i] * u[e];
        g[i] = total - beta * (x[i] - at[i]);
      }
      __syncwarp();
    } else {
      for (int64_t i = lane; i < d; i += 32) {
        const T s = scale(j * d + i), p = means[j * d + i] / s, z = at[i];
        const T own = p + (scales[j * d + i] - T(1)) / s * z;
        sum += z * (p + own);
        g[i] = own - beta * (x[i] - z);
      }
      sum = fortet_warp_sum(sum);
    }
    if (lane == 0) weight[j] = bias[j] + half * sum;
  }

  /* Value, F, |F|^2, the weights and h at the point tried. */
  __device__ __forceinline__ void evaluate() {
    for (int64_t j = warp; j < k; j += FORTET_PROXIMAL_WARPS) component(j);
    __syncthreads();
    T top = -static_cast<T>(INFINITY), sum = T(0), mean = T(0);
    for (int64_t j = threadIdx.x; j < k; j += kThreads) top = fortet_fmax(top, weight[j]);
    top = fortet_block_max(top);
    for (int64_t j = threadIdx.x; j < k; j += kThreads) {
      const T e = weight[j] - top, w = e < limits<T>::least ? T(0) : fortet_exp(e);
      weight[j] = w;
      sum += w;
      if (w != T(0)) mean += w * bias[j]; /* bias may be -inf */
    }
    sum = fortet_block_sum(sum);
    mean = fortet_block_sum(mean) / sum;
    for (int64_t j = threadIdx.x; j < k; j += kThreads) weight[j] /= sum;
    __syncthreads();
    T away = T(0), pull = T(0);
    square = T(0);
    for (int64_t i = threadIdx.x; i < d; i += kThreads) {
      T total = T(0), bend = beta;
      for (int64_t j = 0; j < k; j++) {
        const T w = weight[j];
        if (w == T(0)) continue;
        total += w * apart[j * d + i];
        if (!axes) bend += w * ((scales[j * d + i] - T(1)) / scale(j * d + i));
      }
      f[i] = total;
      h[i] = bend;
      const T gap = x[i] - at[i];
      square += total * total;
      away += gap * gap;
      pull += at[i] * (beta * gap + total);
    }
    square = fortet_block_sum(square);
    away = fortet_block_sum(away);
    pull = fortet_block_sum(pull);
    const T potential = epsilon * (top + fortet_log(sum)), quadratic = T(0.5) * beta * away;
    value = potential + quadratic;
    noise = T(16) * limits<T>::ulp * (magnitude(potential) + epsilon * magnitude(mean) + magnitude(pull) + quadratic);
  }

  /* hv = H v */
  __device__ __forceinline__ void multiply() {
    __syncthreads(); /* v */
    for (int64_t j = warp; j < k; j += FORTET_PROXIMAL_WARPS) {
      const T w = weight[j], s = w == T(0) ? T(0) : w * warp_dot(apart + j * d, v);
      if (lane == 0) along[j] = s;
    }
    const T back = dot(f, v);
    __syncthreads();
    for (int64_t i = threadIdx.x; i < d; i += kThreads) {
      T total = -f[i] * back;
      for (int64_t j = 0; j < k; j++)
        if (weight[j] != T(0)) total += along[j] * apart[j * d + i];
      hv[i] = h[i] * v[i] + T(2) * half * total;
    }
    for (int64_t j = 0; axes && j < k; j++) {
      const T w = weight[j];
      if (w == T(0)) continue;
      for (int64_t i = warp; i < d; i += FORTET_PROXIMAL_WARPS) {
        const int64_t q = j * d + i;
        const T s = w * ((scales[q] - T(1)) / scale(q)) * warp_dot(axes + q * d, v);
        if (lane == 0) line[i] = s;
      }
      __syncthreads();
      for (int64_t i = threadIdx.x; i < d; i += kThreads) {
        T total = T(0);
        for (int64_t e = 0; e < d; e++) total += axes[(j * d + e) * d + i] * line[e];
        hv[i] += total;
      }
      __syncthreads();
    }
  }

  __device__ __forceinline__ T scaled(int64_t i) const { return r[i] / fortet_fmax(magnitude(h[i]), T(1e-3) * beta); }

  /* dir = about -H^-1 F, to part of |F|; its slope. Threads keep to their own
   * coordinates of r and dir, and of v but in multiply. */
  __device__ __forceinline__ T direct(double part) {
    const T enough = static_cast<T>(part * part) * square;
    T rz = T(0);
    for (int64_t i = threadIdx.x; i < d; i += kThreads) {
      dir[i] = T(0);
      r[i] = -f[i];
      v[i] = scaled(i);
      rz += r[i] * v[i];
    }
    rz = fortet_block_sum(rz);
    for (int64_t step = 0; step < d + 50; step++) {
      multiply();
      const T bend = dot(v, hv);
      if (!(bend > T(16) * limits<T>::ulp * beta * dot(v, v))) {
        if (step == 0)
          for (int64_t i = threadIdx.x; i < d; i += kThreads) dir[i] = v[i];
        break;
      }
      const T length = rz / bend;
      T left = T(0), next = T(0);
      for (int64_t i = threadIdx.x; i < d; i += kThreads) {
        dir[i] += length * v[i];
        r[i] -= length * hv[i];
        left += r[i] * r[i];
        next += r[i] * scaled(i);
      }
      left = fortet_block_sum(left);
      next = fortet_block_sum(next);
      if (left <= enough) break;
      const T turn = next / rz;
      rz = next;
      for (int64_t i = threadIdx.x; i < d; i += kThreads) v[i] = scaled(i) + turn * v[i];
    }
    return dot(dir, f);
  }
};

template <class T>
__global__ void __launch_bounds__(kThreads, 1) proximal_krylov(fortet_proximal_args a) {
  krylov<T> c(a);
  const double wide = rounded_beta<T>(a);
  const bool infinite = wide == FORTET_INF;
  c.beta = infinite ? T(0) : static_cast<T>(a.beta);
  for (int64_t b = blockIdx.x; b < a.n; b += gridDim.x) {
    c.t = time_of<T>(a, b);
    c.x = static_cast<const T *>(a.x) + b * c.d;
    T *const out = static_cast<T *>(a.y) + b * c.d;
    const T *const start = a.warm && !infinite ? out : c.x;
    double square = 0;
    for (int64_t i = threadIdx.x; i < c.d; i += kThreads) {
      c.y[i] = c.at[i] = start[i];
      square += static_cast<double>(c.x[i]) * static_cast<double>(c.x[i]);
    }
    square = fortet_block_sum(square); /* the barrier is for at, too */
    c.biases();
    fortet_search s;
    fortet_search_begin(&s, square, wide, a.tolerance);
    for (;;) {
      c.evaluate();
      const int verdict = fortet_search_judge(&s, c.value, sqrt(static_cast<double>(c.square)), c.noise);
      if (verdict == FORTET_SEARCH_STOP) break;
      if (verdict == FORTET_SEARCH_TAKE) {
        for (int64_t i = threadIdx.x; i < c.d; i += kThreads) c.y[i] = c.at[i];
        if (fortet_search_done(&s, a.max_iterations)) break;
        const T slope = c.direct(fortet_search_forcing(&s, a.tolerance));
        if (!fortet_search_turn(&s, slope)) break;
      }
      __syncthreads(); /* at has been read */
      for (int64_t i = threadIdx.x; i < c.d; i += kThreads) c.at[i] = c.y[i] + static_cast<T>(s.step) * c.dir[i];
      __syncthreads();
    }
    __syncthreads();
    for (int64_t i = threadIdx.x; i < c.d; i += kThreads) out[i] = s.value == FORTET_INF ? c.x[i] : c.y[i];
    if (threadIdx.x == 0) report<T>(a, b, s);
    __syncthreads();
  }
}

}  // namespace

#endif
