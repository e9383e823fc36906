/* reduce.h - sums, maxima and log-sum-exps over a warp or a block.
 *
 * All results reach all threads. The order of additions is fixed by the shape
 * of the block, so results repeat bit for bit. Blocks are one-dimensional and
 * of a multiple of 32 threads, all of which must take part. Block reductions
 * contain barriers and may follow each other directly. NaN is passed on by
 * sums and log-sum-exps; maxima ignore it, as fmax does.
 *
 * Included by fortet.h, for float and double. */
#ifndef FORTET_REDUCE_H
#define FORTET_REDUCE_H

#define FORTET_ALL_LANES 0xffffffffu

static __device__ __forceinline__ float fortet_exp(float x) { return expf(x); }
static __device__ __forceinline__ double fortet_exp(double x) { return exp(x); }
static __device__ __forceinline__ float fortet_log(float x) { return logf(x); }
static __device__ __forceinline__ double fortet_log(double x) { return log(x); }
static __device__ __forceinline__ float fortet_fmax(float x, float y) { return fmaxf(x, y); }
static __device__ __forceinline__ double fortet_fmax(double x, double y) { return fmax(x, y); }

/* fortet_lse<T> is the online log-sum-exp of Milakov and Gimelshein 2018
 * (arXiv:1805.02867): sum holds sum_j exp(z_j - top), top = max_j z_j.
 * z = -inf is a term of weight zero; without any other term value() is -inf.
 * A NaN among the z makes value() NaN. z must be below +inf. */
template <class T>
struct fortet_lse {
  T top, sum;

  __device__ __forceinline__ fortet_lse() : top(-static_cast<T>(INFINITY)), sum(0) {}
  __device__ __forceinline__ fortet_lse(T top, T sum) : top(top), sum(sum) {}

  __device__ __forceinline__ void add(T z) {
    if (z == -static_cast<T>(INFINITY)) return;
    const bool higher = z > top; /* false for NaN, which then reaches sum */
    const T e = fortet_exp(higher ? top - z : z - top);
    sum = higher ? sum * e + T(1) : sum + e;
    top = higher ? z : top;
  }
  /* a.merge(b) and b.merge(a) agree bit for bit, contracted to fma or not. */
  __device__ __forceinline__ void merge(const fortet_lse &o) {
    if (o.top == -static_cast<T>(INFINITY) && o.sum == T(0)) return; /* not so if o holds a NaN */
    const bool higher = o.top > top;
    const T e = fortet_exp(higher ? top - o.top : o.top - top);
    sum = higher ? sum * e + o.sum : o.sum * e + sum;
    top = higher ? o.top : top;
  }
  __device__ __forceinline__ T value() const { return top + fortet_log(sum); }
};

/* The operations that a reduction can fold with. */
struct fortet_add_op {
  template <class T>
  static __device__ __forceinline__ T fold(T a, T b) { return a + b; }
};
struct fortet_max_op {
  template <class T>
  static __device__ __forceinline__ T fold(T a, T b) { return fortet_fmax(a, b); }
};
struct fortet_lse_op {
  template <class T>
  static __device__ __forceinline__ fortet_lse<T> fold(fortet_lse<T> a, const fortet_lse<T> &b) {
    a.merge(b);
    return a;
  }
};

template <class T>
static __device__ __forceinline__ T fortet_shuffle_xor(T v, int lanes) {
  return __shfl_xor_sync(FORTET_ALL_LANES, v, lanes);
}
template <class T>
static __device__ __forceinline__ fortet_lse<T> fortet_shuffle_xor(fortet_lse<T> v, int lanes) {
  return fortet_lse<T>(__shfl_xor_sync(FORTET_ALL_LANES, v.top, lanes),
                       __shfl_xor_sync(FORTET_ALL_LANES, v.sum, lanes));
}

/* A butterfly: after the step with distance d every lane holds the fold of the
 * 2d lanes around it; fold(a, b) == fold(b, a), so all lanes agree bit for bit. */
template <class Op, class T>
static __device__ __forceinline__ T fortet_warp_reduce(T v) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) v = Op::fold(v, fortet_shuffle_xor(v, lanes));
  return v;
}

/* One value per warp through shared memory; every warp then reduces those. */
template <class Op, class T>
static __device__ __forceinline__ T fortet_block_reduce(T v, T neutral) {
  __shared__ __align__(16) unsigned char room[32 * sizeof(T)];
  T *const parts = reinterpret_cast<T *>(room);
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  v = fortet_warp_reduce<Op>(v);
  if (lane == 0) parts[warp] = v;
  __syncthreads();
  v = lane < warps ? parts[lane] : neutral;
  __syncthreads(); /* parts may be written again by a following reduction */
  return fortet_warp_reduce<Op>(v);
}

template <class T>
static __device__ __forceinline__ T fortet_warp_sum(T v) { return fortet_warp_reduce<fortet_add_op>(v); }
template <class T>
static __device__ __forceinline__ T fortet_warp_max(T v) { return fortet_warp_reduce<fortet_max_op>(v); }
template <class T>
static __device__ __forceinline__ fortet_lse<T> fortet_warp_lse(fortet_lse<T> v) { return fortet_warp_reduce<fortet_lse_op>(v); }

template <class T>
static __device__ __forceinline__ T fortet_block_sum(T v) { return fortet_block_reduce<fortet_add_op>(v, T(0)); }
template <class T>
static __device__ __forceinline__ T fortet_block_max(T v) {
  return fortet_block_reduce<fortet_max_op>(v, -static_cast<T>(INFINITY));
}
template <class T>
static __device__ __forceinline__ fortet_lse<T> fortet_block_lse(fortet_lse<T> v) {
  return fortet_block_reduce<fortet_lse_op>(v, fortet_lse<T>());
}

#endif
