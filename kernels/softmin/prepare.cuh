/* prepare.cuh - what the tiled kernels read: points less a common centre,
 * scaled, padded to whole tiles and laid out for their loads, with their half
 * norms and the columns' biases. O((n + m) d), against n m d for the kernels.
 *
 * With x' = a (x - mu), y' = a (y - mu) and a^2 = 2 kappa log2(e) / epsilon,
 *
 *     z_ij log2(e) = x'_i . y'_j + bias_j - |x'_i|^2 / 2
 *     bias_j = (logb_j + g_j / epsilon) log2(e) - |y'_j|^2 / 2,
 *
 * so that product plus bias is the exponent, up to a number per row which is
 * added to the result. (Euclidean keeps a = 1 and
 * subtracts coordinates; a matrix has no points. Both have bias_j without the
 * norm.) The centre keeps the cancellation in |x|^2 + |y|^2 - 2 x.y at the
 * scale of the cloud's width, not of its distance from the origin. */
#ifndef FORTET_SOFTMIN_PREPARE_CUH
#define FORTET_SOFTMIN_PREPARE_CUH

#include "online.cuh"

namespace {

/* The layouts of prepared points, d padded to dp, n to np.
 *   kTransposed  T (dp, np)
 *   kTF32        words (np, dp): float rounded to 10 bits of mantissa
 *   kBF16x3      words (np, dp), of which each 32 hold 32 coordinates as 16
 *                pairs of their bfloat16 parts hi and then 16 pairs of lo */
enum layout { kTransposed, kTF32, kBF16x3 };

/* Round to nearest, ties away: cvt.rna.tf32.f32. */
static __device__ __forceinline__ unsigned tf32_bits(float v) {
  const unsigned u = __float_as_uint(v);
  if (!(v == v)) return 0x7fc00000u;
  return (u & 0x7fffffffu) == 0x7f800000u ? u : (u + 0x1000u) & 0xffffe000u;
}
/* Round to nearest even: cvt.rn.bf16.f32. */
static __device__ __forceinline__ unsigned bf16_bits(float v) {
  const unsigned u = __float_as_uint(v);
  if (!(v == v)) return 0x7fc0u;
  return (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
}
static __device__ __forceinline__ float bf16_value(unsigned bits) { return __uint_as_float(bits << 16); }

/* mu: the mean of up to 32 rows of either side, of what is finite there. Any
 * point near the cloud will do. Grid: d / 32 blocks of 32 x 8. */
template <class T>
__global__ __launch_bounds__(256) void centre(const T *x, int64_t n, const T *y, int64_t m, int64_t d, T *mu) {
  __shared__ T sums[8][32];
  const int tx = threadIdx.x % 32, ty = threadIdx.x / 32;
  const int64_t k = int64_t(blockIdx.x) * 32 + tx;
  T sum = 0;
  if (k < d) {
#pragma unroll
    for (int r = 0; r < 4; r++) {
      const int64_t s = ty + 8 * r; /* 0..31: rows s n / 32, which repeat where n < 32 */
      const T a = x[s * n / 32 * d + k], b = y[s * m / 32 * d + k];
      sum += a - a == T(0) ? a : T(0);
      sum += b - b == T(0) ? b : T(0);
    }
  }
  sums[ty][tx] = sum;
  __syncthreads();
  if (ty > 0 || k >= d) return;
  for (int r = 1; r < 8; r++) sum += sums[r][tx];
  mu[k] = sum / T(64);
}

/* x (n, d) -> out, half (np). Norms are those of the rounded coordinates: the
 * kernel then computes the exact squared distance of rounded points (for
 * kBF16x3 up to the product lo.lo, left out on both sides), so that rounding
 * perturbs c by O(|x - y|), not O(|x| |y|). Grid: np / 32 blocks of 32 x 8,
 * which transpose tiles of 32 x 32 through shared memory. */
template <class T, layout L>
__global__ __launch_bounds__(256) void prepare(const T *x, int64_t n, int64_t d, const T *mu, T scale, int64_t np,
                                               int64_t dp, void *out, T *half) {
  __shared__ T tile[32][33], sums[8][32];
  const int tx = threadIdx.x % 32, ty = threadIdx.x / 32;
  const int64_t i0 = int64_t(blockIdx.x) * 32;
  T sum = 0;
  for (int64_t k0 = 0; k0 < dp; k0 += 32) {
    __syncthreads();
#pragma unroll
    for (int r = ty; r < 32; r += 8)
      tile[r][tx] = i0 + r < n && k0 + tx < d ? (x[(i0 + r) * d + k0 + tx] - mu[k0 + tx]) * scale : T(0);
    __syncthreads();
#pragma unroll
    for (int r = ty; r < 32; r += 8) {
      const T v = tile[tx][r]; /* coordinate k0 + r of point i0 + tx */
      if constexpr (L == kTransposed) {
        if (k0 + r < dp) static_cast<T *>(out)[(k0 + r) * np + i0 + tx] = v;
        sum = multiply_add(v, v, sum);
      } else if constexpr (L == kTF32) {
        const float rounded = __uint_as_float(tf32_bits(v));
        sum = fmaf(rounded, rounded, sum);
        static_cast<unsigned *>(out)[(i0 + r) * dp + k0 + tx] = tf32_bits(tile[r][tx]);
      } else {
        const float hi = bf16_value(bf16_bits(v)), lo = bf16_value(bf16_bits(v - hi));
        sum = fmaf(hi, hi, fmaf(2 * hi, lo, sum));
        unsigned pair[2];
#pragma unroll
        for (int s = 0; s < 2; s++) {
          const float w = tile[r][2 * (tx % 16) + s];
          const unsigned high = bf16_bits(w);
          pair[s] = tx < 16 ? high : bf16_bits(w - bf16_value(high));
        }
        static_cast<unsigned *>(out)[(i0 + r) * dp + k0 + tx] = pair[0] | pair[1] << 16;
      }
    }
  }
  sums[ty][tx] = sum;
  __syncthreads();
  if (ty > 0) return;
  for (int r = 1; r < 8; r++) sum += sums[r][tx];
  half[i0 + tx] = sum / 2;
}

/* bias (mp), -inf in the padding. half, or NULL, is subtracted. reached: a
 * g_j of +inf, which is a softmin that nothing reaches, weighs nothing. */
template <class T>
__global__ void biases(const T *g, const T *logb, double damp, bool reached, double epsilon, const T *half, int64_t m,
                       int64_t mp, T *bias) {
  const int64_t j = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (j >= mp) return;
  const double infinity = FORTET_INF;
  double b = -infinity;
  if (j < m) {
    const double potential = g ? double(g[j]) : 0;
    if (!(reached && potential == infinity)) b = ((logb ? double(logb[j]) : 0) + damp * potential / epsilon) * kLog2E;
    if (half) b -= double(half[j]);
  }
  bias[j] = T(b);
}

}  // namespace
#endif
