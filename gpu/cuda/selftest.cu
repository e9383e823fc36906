#include "selftest.h"

FORTET_CONTRACT(selftest)

namespace {

using Args = fortet_selftest_args;

__device__ int64_t first_index() { return blockIdx.x * (int64_t)blockDim.x + threadIdx.x; }
__device__ int64_t stride() { return gridDim.x * (int64_t)blockDim.x; }

/* out[b], (blocks) float: the sum of the x that block b visits. */
__global__ void block_sums(Args a) {
  float sum = 0;
  for (int64_t i = first_index(); i < a.n; i += stride()) sum += a.x[i];
  sum = fortet_block_sum(sum);
  if (threadIdx.x == 0) static_cast<float *>(a.out)[blockIdx.x] = sum;
}

/* out[b], (blocks, 2) double: maximum and log-sum-exp of what block b visits. */
__global__ void block_lse(Args a) {
  fortet_lse<double> lse;
  for (int64_t i = first_index(); i < a.n; i += stride()) lse.add(a.x[i]);
  const double top = fortet_block_max(lse.top);
  lse = fortet_block_lse(lse);
  double *const out = static_cast<double *>(a.out) + 2 * blockIdx.x;
  if (threadIdx.x == 0) out[0] = top;
  if (threadIdx.x == 0) out[1] = lse.value();
}

/* out, (n) float: x reversed within each block, through dynamic shared memory.
 * n = blocks * threads. */
__global__ void reverse(Args a) {
  FORTET_DYN_SHARED(float, tile);
  const int64_t i = first_index();
  tile[threadIdx.x] = a.x[i];
  __syncthreads();
  static_cast<float *>(a.out)[i] = tile[blockDim.x - 1 - threadIdx.x];
}

/* out, (8) of 8 bytes, cleared by the entry point: what all threads add up to
 * through atomics of every type. */
__global__ void atomics(Args a) {
  char *const out = static_cast<char *>(a.out);
  const int rank = static_cast<int>(first_index());
  atomicAdd(reinterpret_cast<int *>(out), 1);
  atomicAdd(reinterpret_cast<unsigned *>(out + 8), 2u);
  atomicAdd(reinterpret_cast<unsigned long long *>(out + 16), 1ull << 33);
  atomicAdd(reinterpret_cast<float *>(out + 24), 0.5f);
  atomicAdd(reinterpret_cast<double *>(out + 32), 0.25);
  atomicMax(reinterpret_cast<int *>(out + 40), rank);
  atomicExch(reinterpret_cast<unsigned *>(out + 48), 7u);
  unsigned *const claimed = reinterpret_cast<unsigned *>(out + 56);
  if (atomicCAS(claimed, 0u, 9u) == 0u) atomicAdd(claimed, 1u); /* one thread makes it 10 */
}

/* out, (n, 8) int: the warp operations, of lane numbers. One block. */
__global__ void warp(Args a) {
  const unsigned all = FORTET_ALL_LANES;
  const int lane = threadIdx.x % 32;
  int *const out = static_cast<int *>(a.out) + 8 * first_index();
  out[0] = __shfl_xor_sync(all, lane, 5);
  out[1] = __shfl_down_sync(all, lane, 3);
  out[2] = __shfl_up_sync(all, lane, 3);
  out[3] = __shfl_sync(all, lane, 11, 8);
  out[4] = static_cast<int>(__ballot_sync(all, lane % 3 == 0));
  out[5] = __any_sync(all, lane == 31) * 2 + __all_sync(all, lane < 32);
  /* halves of a warp under masks of their own */
  const unsigned half = lane < 16 ? 0x0000ffffu : 0xffff0000u;
  out[6] = static_cast<int>(__shfl_xor_sync(half, static_cast<double>(lane), 1));
  __syncwarp();
  out[7] = __syncthreads_count(lane == 0);
}

/* out, (n) float: x plus one, so that the order of launches shows. */
__global__ void increment(Args a) {
  for (int64_t i = first_index(); i < a.n; i += stride()) static_cast<float *>(a.out)[i] = a.x[i] + 1;
}

template <class K>
int run(K kernel, void *stream, const void *args, size_t shared_per_thread) {
  const Args a = *static_cast<const Args *>(args);
  FORTET_LAUNCH(kernel, a.blocks, a.threads, shared_per_thread * a.threads, stream, a);
  return FORTET_STATUS();
}

} // namespace

FORTET_EXPORT int fortet_selftest_block_sums(void *stream, const void *args) { return run(block_sums, stream, args, 0); }
FORTET_EXPORT int fortet_selftest_block_lse(void *stream, const void *args) { return run(block_lse, stream, args, 0); }
FORTET_EXPORT int fortet_selftest_warp(void *stream, const void *args) { return run(warp, stream, args, 0); }
FORTET_EXPORT int fortet_selftest_increment(void *stream, const void *args) { return run(increment, stream, args, 0); }
FORTET_EXPORT int fortet_selftest_reverse(void *stream, const void *args) {
  return run(reverse, stream, args, sizeof(float));
}
FORTET_EXPORT int fortet_selftest_atomics(void *stream, const void *args) {
  const int rc = fortet_zero(stream, static_cast<const Args *>(args)->out, 64);
  return rc ? rc : run(atomics, stream, args, 0);
}
