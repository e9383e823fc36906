// gradient.cuh - losses and parameter gradients: a block for each chunk of samples,
// in batches of rows. First warps take samples and leave in shared memory what
// their components weigh in the loss; then threads take parameters and sum over
// the batch's samples, in order. Between batches sums wait in the chunk's row of
// partial, which costs a read and a write for as many samples as fit.
#ifndef FORTET_GMM_GRADIENT_CUH
#define FORTET_GMM_GRADIENT_CUH

#include "component.cuh"

namespace gmm {

constexpr int THREADS = 256, WARPS = THREADS / 32, MOST_ROWS = 32;

template <class T>
struct samples {
  const T *x, *u, *t; // t null: t0
  T t0, share;        // weight / n
  int64_t n, chunk, chunks;

  __device__ __forceinline__ T time(int64_t row) const { return t ? t[row] : t0; }
};

// The loss is mean |g - u|^2 (MATCH) or mean L.
template <class T, bool AXES, bool MATCH>
struct batch {
  const mixture<T> &m;
  const samples<T> &in;
  int rows; // of a batch
  T *loss;  // (rows)
  T *a;     // (rows, k): the derivative of the loss by ell_j
  T *w;     // (rows, k): w_j, for MATCH alone
  T *g;     // (rows, d): drift, for MATCH alone
  T *h, *b, *fall; // (rows, d) of a component, with axes; they begin with the room of walks
  T *r;            // (d): r_j along its axes

  static __host__ __device__ int64_t size(int64_t k, int64_t d, int rows) {
    int64_t size = rows * (1 + k);
    if (MATCH) size += rows * (k + d);
    else size += WARPS * d;
    if (AXES) size += 3 * d * (rows > WARPS ? rows : WARPS) + d;
    return size;
  }

  __device__ __forceinline__ batch(const mixture<T> &m, const samples<T> &in, int rows, T *shared) : m(m), in(in), rows(rows) {
    loss = shared, a = loss + rows, w = a + rows * m.k;
    g = MATCH ? w + rows * m.k : w;
    h = g + (MATCH ? rows : WARPS) * m.d;
    b = h + rows * m.d, fall = b + rows * m.d;
    r = h + 3 * m.d * (rows > WARPS ? rows : WARPS);
  }

  // The derivative of the loss by coordinate k of the drift.
  __device__ __forceinline__ T pull(int64_t row, int i, int64_t k) const {
    return T(2) * in.share * (g[i * m.d + k] - in.u[row * m.d + k]);
  }

  // Row i of the batch, by a warp.
  __device__ __forceinline__ void weigh(int64_t row, int i) const {
    const int warp = static_cast<int>(threadIdx.x) / 32;
    room<T> s;
    s.w = (MATCH ? w : a) + i * m.k;
    s.g = g + (MATCH ? i : warp) * m.d;
    s.axes_at(h + 3 * warp * m.d, m.d);
    const walk<T, AXES> at(m, in.x + row * m.d, in.time(row), s);
    const T value = at.weigh();
    if (!MATCH) {
      for (int64_t j = lane(); j < m.k; j += 32) s.w[j] *= in.share;
      if (lane() == 0) loss[i] = in.share * value;
      return;
    }
    at.drift();
    T square = 0;
    for (int64_t k = lane(); k < m.d; k += 32) {
      const T gap = s.g[k] - in.u[row * m.d + k];
      square += gap * gap;
    }
    square = fortet_warp_sum(square);
    if (lane() == 0) loss[i] = in.share * square;
    for (int64_t first = 0; first < m.k; first += at.teams) {
      const int64_t j = first + at.team;
      at.begin(j);
      if (AXES) {
        for (int64_t k = lane(); k < m.d; k += 32) s.own[k] = at.at(j, k).g;
        __syncwarp();
      }
      T dot = 0;
      for (int64_t k = at.within; j < m.k && k < m.d; k += at.size)
        dot += pull(row, i, k) * ((AXES ? back(m, j, s.own, k) : at.at(j, k).g) - s.g[k]);
      dot = at.team_sum(dot);
      if (at.within == 0 && j < m.k) a[i * m.k + j] = s.w[j] * dot;
    }
  }

  // (A_j x)_p
  __device__ __forceinline__ T along(int64_t j, int64_t p, const T *x) const {
    T sum = 0;
    for (int64_t q = 0; q < m.d; q++) sum += m.axes[(j * m.d + p) * m.d + q] * x[q];
    return sum;
  }

  // With q = w_j D^-1 e, b = q + a h / (2 epsilon) and fall = a t / (2 D), the
  // derivatives are a by la, b + a h / (2 epsilon) by r, and b h - fall by S.
  __device__ __forceinline__ T bend(int64_t j, int i, T pull, const coordinate<T> &c) const {
    const T half = T(0.5) * m.over_epsilon * a[i * m.k + j] * c.h;
    return MATCH ? w[i * m.k + j] * pull * c.inverse + half : half;
  }

  __device__ __forceinline__ void sum_apart(int64_t row, int count, bool first, T *means, T *scales) const {
    for (int64_t i = threadIdx.x; i < m.k * m.d; i += THREADS) {
      const int64_t j = i / m.d, k = i % m.d;
      const T mean = m.means[i], scale = m.scales[i];
      T by_mean = first ? T(0) : means[i], by_scale = first ? T(0) : scales[i];
      for (int n = 0; n < count; n++) {
        const T t = in.time(row + n), an = a[n * m.k + j];
        const coordinate<T> c(in.x[(row + n) * m.d + k], mean, scale, t);
        const T bn = bend(j, n, MATCH ? pull(row + n, n, k) : T(0), c);
        by_mean += bn + T(0.5) * m.over_epsilon * an * c.h;
        by_scale += bn * c.h - T(0.5) * an * t * c.inverse;
      }
      means[i] = by_mean, scales[i] = by_scale;
    }
  }

  __device__ __forceinline__ void sum_along(int64_t row, int count, bool first, T *means, T *squares) const {
    for (int64_t j = 0; j < m.k; j++) {
      __syncthreads();
      for (int64_t p = threadIdx.x; p < m.d; p += THREADS) r[p] = along(j, p, m.means + j * m.d);
      __syncthreads();
      for (int64_t i = threadIdx.x; i < count * m.d; i += THREADS) {
        const int n = static_cast<int>(i / m.d);
        const int64_t p = i % m.d;
        const T t = in.time(row + n);
        const coordinate<T> c(along(j, p, in.x + (row + n) * m.d), r[p], m.scales[j * m.d + p], t);
        T e = 0;
        if (MATCH)
          for (int64_t q = 0; q < m.d; q++) e += m.axes[(j * m.d + p) * m.d + q] * pull(row + n, n, q);
        h[i] = c.h, b[i] = bend(j, n, e, c), fall[i] = T(0.5) * a[n * m.k + j] * t * c.inverse;
      }
      __syncthreads();
      for (int64_t p = threadIdx.x; p < m.d; p += THREADS) {
        T sum = first ? T(0) : means[j * m.d + p];
        for (int n = 0; n < count; n++)
          sum += b[n * m.d + p] + T(0.5) * m.over_epsilon * a[n * m.k + j] * h[n * m.d + p];
        means[j * m.d + p] = sum;
      }
      for (int64_t i = threadIdx.x; i < m.d * m.d; i += THREADS) {
        const int64_t p = i / m.d, q = i % m.d;
        T *const to = squares + j * m.d * m.d + i;
        T sum = first ? T(0) : *to;
        for (int n = 0; n < count; n++) {
          sum += T(0.5) * (b[n * m.d + p] * h[n * m.d + q] + h[n * m.d + p] * b[n * m.d + q]);
          if (p == q) sum -= fall[n * m.d + p];
        }
        *to = sum;
      }
    }
  }

  __device__ __forceinline__ void run(int64_t index, T *partial) const {
    const int64_t from = index * in.chunk, to = from + in.chunk < in.n ? from + in.chunk : in.n;
    T *const logits = partial + 1, *const means = logits + m.k, *const scales = means + m.k * m.d;
    for (int64_t row = from; row < to; row += rows) {
      const int count = to - row < rows ? static_cast<int>(to - row) : rows;
      const bool first = row == from;
      __syncthreads();
      for (int i = static_cast<int>(threadIdx.x) / 32; i < count; i += WARPS) weigh(row + i, i);
      __syncthreads();
      if (threadIdx.x == 0) {
        T sum = first ? T(0) : partial[0];
        for (int i = 0; i < count; i++) sum += loss[i];
        partial[0] = sum;
      }
      for (int64_t j = threadIdx.x; j < m.k; j += THREADS) {
        T sum = first ? T(0) : logits[j];
        for (int i = 0; i < count; i++) sum += a[i * m.k + j];
        logits[j] = sum;
      }
      if (AXES) sum_along(row, count, first, means, scales);
      else sum_apart(row, count, first, means, scales);
    }
  }
};

// Blocks of the chunks of one batch of samples, then of another.
template <class T, bool AXES, bool MATCH>
__global__ void __launch_bounds__(THREADS, 2) gradient(mixture<T> m, samples<T> one, samples<T> two, int rows, T *partial, int64_t width) {
  FORTET_DYN_SHARED(T, shared);
  const int64_t index = blockIdx.x;
  const int64_t before = one.chunks;
  const bool later = index >= before;
  if (later) one = two;
  const batch<T, AXES, MATCH> c(m, one, rows, shared);
  c.run(later ? index - before : index, partial + index * width);
}

// out = sum over chunks of element i.
template <class T>
__device__ __forceinline__ double total(const T *partial, int64_t chunks, int64_t width, int64_t i) {
  double sum = 0;
  for (int64_t c = 0; c < chunks; c++) sum += static_cast<double>(partial[c * width + i]);
  return sum;
}

// A thread for each sum; neighbours read neighbours.
template <class T>
__global__ void __launch_bounds__(THREADS) reduce(fortet_gmm_reduce_args a, int64_t width) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x, k = a.m.k, kd = k * a.m.d;
  if (i >= width) return;
  const T sum = static_cast<T>(total(static_cast<const T *>(a.partial), a.chunks, width, i));
  if (i == 0) {
    if (a.loss) *static_cast<T *>(a.loss) = sum;
  } else if (i < 1 + k) {
    static_cast<T *>(a.dlogits)[i - 1] = sum;
  } else if (i < 1 + k + kd) {
    static_cast<T *>(a.dmeans)[i - 1 - k] = sum;
  } else {
    const int64_t e = i - 1 - k - kd;
    static_cast<T *>(a.draw)[e] = sum * (static_cast<const T *>(a.m.scales)[e] - static_cast<T>(a.floor));
  }
}

// With axes: a block for each component, which turns its sums back.
template <class T>
__global__ void __launch_bounds__(THREADS) reduce_along(fortet_gmm_reduce_args a, int64_t width) {
  FORTET_DYN_SHARED(T, means);
  const int64_t j = blockIdx.x, k = a.m.k, d = a.m.d;
  const T *const partial = static_cast<const T *>(a.partial);
  const T *const axes = static_cast<const T *>(a.m.axes) + j * d * d, *const scales = static_cast<const T *>(a.m.scales) + j * d;
  if (threadIdx.x == 0) {
    if (j == 0 && a.loss) *static_cast<T *>(a.loss) = static_cast<T>(total(partial, a.chunks, width, 0));
    static_cast<T *>(a.dlogits)[j] = static_cast<T>(total(partial, a.chunks, width, 1 + j));
  }
  for (int64_t p = threadIdx.x; p < d; p += THREADS)
    means[p] = static_cast<T>(total(partial, a.chunks, width, 1 + k + j * d + p));
  __syncthreads();
  for (int64_t q = threadIdx.x; q < d; q += THREADS) {
    T sum = 0;
    for (int64_t p = 0; p < d; p++) sum += axes[p * d + q] * means[p];
    static_cast<T *>(a.dmeans)[j * d + q] = sum;
  }
  for (int64_t i = threadIdx.x; i < d * d; i += THREADS) {
    const int64_t p = i / d, q = i % d;
    if (p != q && !a.dturn) continue;
    const T sum = static_cast<T>(total(partial, a.chunks, width, 1 + k + k * d + j * d * d + i));
    if (p == q) static_cast<T *>(a.draw)[j * d + p] = sum * (scales[p] - static_cast<T>(a.floor));
    if (a.dturn) static_cast<T *>(a.dturn)[j * d * d + i] = T(2) * sum * (scales[p] - scales[q]);
  }
}

}  // namespace gmm

#endif
