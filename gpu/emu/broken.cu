// broken.cu - kernels with one fault each, to prove that emulation finds it.
// They are not part of the CUDA library.
#include "../cuda/selftest.h"

FORTET_CONTRACT(broken)

namespace {

using Args = fortet_selftest_args;

// out, (blocks, threads) float: what the next thread wrote; the barrier before
// reading is missing.
__global__ void missing_barrier_next(Args a) {
  FORTET_DYN_SHARED(float, tile);
  const unsigned t = threadIdx.x, n = blockDim.x;
  tile[t] = a.x[t];
  static_cast<float *>(a.out)[blockIdx.x * n + t] = tile[(t + 1) % n];
}

// The same with the previous thread, which an order that counts up would hide.
__global__ void missing_barrier_previous(Args a) {
  FORTET_DYN_SHARED(float, tile);
  const unsigned t = threadIdx.x, n = blockDim.x;
  tile[t] = a.x[t];
  static_cast<float *>(a.out)[blockIdx.x * n + t] = tile[(t + n - 1) % n];
}

// out, (blocks, threads) float: x[0] for all, through a static variable that
// an earlier block has left the right value in.
__global__ void missing_barrier_static(Args a) {
  __shared__ float first;
  if (threadIdx.x == 0) first = a.x[0];
  static_cast<float *>(a.out)[blockIdx.x * blockDim.x + threadIdx.x] = first;
}

// out, (blocks, threads) float: what the neighbour wrote; __syncwarp is missing.
__global__ void missing_syncwarp(Args a) {
  __shared__ float tile[32];
  const unsigned lane = threadIdx.x % 32;
  tile[lane] = a.x[lane];
  static_cast<float *>(a.out)[blockIdx.x * blockDim.x + threadIdx.x] = tile[lane ^ 1];
}

__global__ void divergent_barrier(Args) {
  if (threadIdx.x < 40) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

__global__ void barrier_against_shuffle(Args) {
  if (threadIdx.x < 40) {
    __shfl_xor_sync(FORTET_ALL_LANES, 1.0f, 1);
  } else {
    __syncthreads();
  }
}

__global__ void shuffle_against_vote(Args) {
  if (threadIdx.x % 32 < 16) {
    __shfl_xor_sync(FORTET_ALL_LANES, 1.0f, 1);
  } else {
    __any_sync(FORTET_ALL_LANES, 1);
  }
}

__global__ void lane_without_mask(Args) { __shfl_xor_sync(0x0000ffffu, 1.0f, 1); }

__global__ void shared_overrun(Args a) {
  FORTET_DYN_SHARED(float, tile);
  tile[threadIdx.x + 1] = a.x[threadIdx.x];
}

// The last thread needs 258 KiB of stack when the others, whose stacks lie
// below the end of its own, have returned.
__device__ __noinline__ float much_room(float x) {
  volatile char room[258 << 10];
  for (size_t i = 0; i < sizeof room; i++) room[i] = static_cast<char>(i);
  return x + room[1];
}
__global__ void stack_overrun(Args a) {
  if (threadIdx.x + 1 < blockDim.x) return;
  __syncthreads();
  static_cast<float *>(a.out)[0] = much_room(a.x[0]);
}

template <class K>
int run(K kernel, void *stream, const void *args) {
  const Args a = *static_cast<const Args *>(args);
  FORTET_LAUNCH(kernel, a.blocks, a.threads, sizeof(float) * a.threads, stream, a);
  return FORTET_STATUS();
}

}  // namespace

#define ENTRY(name) \
  FORTET_EXPORT int fortet_broken_##name(void *stream, const void *args) { return run(name, stream, args); }
ENTRY(missing_barrier_next)
ENTRY(missing_barrier_previous)
ENTRY(missing_barrier_static)
ENTRY(missing_syncwarp)
ENTRY(divergent_barrier)
ENTRY(barrier_against_shuffle)
ENTRY(shuffle_against_vote)
ENTRY(lane_without_mask)
ENTRY(shared_overrun)
ENTRY(stack_overrun)
