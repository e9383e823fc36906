/* fortet.h - what every kernel source shares, whichever compiler reads it:
 * nvcc, g++ (emulation), gcc (CPU kernels) and cgo. The first half is plain
 * C11; the second is seen by device code alone. */
#ifndef FORTET_H
#define FORTET_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

/* Status codes; 0 is success. Codes above FORTET_DEVICE are the CUDA
 * runtime's own, plus FORTET_DEVICE. */
enum {
  FORTET_OK = 0,
  FORTET_INVALID = 1,
  FORTET_OUT_OF_MEMORY = 2,
  FORTET_UNSUPPORTED = 3,
  FORTET_DEVICE = 1000
};

/* Instruction levels of CPU kernels, as gpu.Level numbers them. */
enum { FORTET_BASELINE = 1, FORTET_AVX2 = 2, FORTET_AVX512 = 3 };

/* Infinities, usable in every function. */
#define FORTET_INF_F ((float)INFINITY)
#define FORTET_INF ((double)INFINITY)

/* FORTET_HD begins a small function in a header that CPU kernels, CUDA
 * kernels, emulation and cgo all call:
 *     FORTET_HD float fortet_half(float x) { return 0.5f * x; } */
#if defined(__CUDACC__)
#define FORTET_HD static __host__ __device__ __forceinline__
#elif defined(__GNUC__)
#define FORTET_HD static inline __attribute__((always_inline, unused))
#else
#define FORTET_HD static inline
#endif

/* ---- Device code: one .cu source, read by nvcc or, with -DFORTET_EMU, by g++. */
#if defined(__CUDACC__) || defined(FORTET_EMU)

/* FORTET_EXPORT begins an entry point: a host function that checks nothing,
 * launches kernels on stream, and returns FORTET_STATUS(). args is copied
 * before it returns.
 *     FORTET_EXPORT int fortet_<name>(void *stream, const void *args) */
#define FORTET_EXPORT extern "C" __attribute__((visibility("default")))

/* FORTET_CONTRACT(op) stands once in every folder of kernels/, in <op>.cu. It
 * exports the hash of the headers that the library was built from; programs
 * built from others refuse it. */
#if !defined(FORTET_CONTRACT_HASH)
#define FORTET_CONTRACT_HASH "unknown: not built by build.sh"
#endif
#define FORTET_CONTRACT(op) \
  FORTET_EXPORT const char *fortet_##op##_contract(void); \
  const char *fortet_##op##_contract(void) { return FORTET_CONTRACT_HASH; }

#if defined(__CUDACC__)

#include <cuda_runtime.h>

/* FORTET_LAUNCH queues kernel<<<grid, block, shared>>>(args...) on a stream.
 * A template with a comma in its arguments goes in parentheses:
 *     FORTET_LAUNCH((softmin<float, 4>), grid, block, shared, stream, a) */
#define FORTET_LAUNCH(kernel, grid, block, shared, stream, ...) \
  kernel<<<(grid), (block), (shared), (cudaStream_t)(stream)>>>(__VA_ARGS__)

/* FORTET_DYN_SHARED declares T *name: the block's dynamic shared memory,
 * aligned to 16 bytes. Once per kernel. */
#define FORTET_DYN_SHARED(T, name) \
  extern __shared__ __align__(16) unsigned char fortet_dynamic_shared[]; \
  T *const name = reinterpret_cast<T *>(fortet_dynamic_shared)

/* FORTET_STATUS is the status of the launches since the last FORTET_STATUS. */
#define FORTET_STATUS() fortet_status(cudaGetLastError())

static inline int fortet_status(cudaError_t e) {
  if (e == cudaSuccess) return FORTET_OK;
  if (e == cudaErrorMemoryAllocation) return FORTET_OUT_OF_MEMORY;
  return FORTET_DEVICE + (int)e;
}

/* FORTET_MAX_DYN_SHARED lets a kernel be launched with so many bytes of
 * dynamic shared memory. Needed above 48 KiB; answers a status. Ask
 * fortet_max_shared() how much there is. */
#define FORTET_MAX_DYN_SHARED(kernel, bytes) \
  fortet_status(cudaFuncSetAttribute((const void *)(kernel), \
                                     cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(bytes)))

static inline int fortet_attribute(cudaDeviceAttr what, int otherwise) {
  int device = 0, value = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return otherwise;
  return cudaDeviceGetAttribute(&value, what, device) == cudaSuccess ? value : otherwise;
}

/* How many multiprocessors the current device has, to size grids by. */
static inline int fortet_multiprocessors(void) {
  return fortet_attribute(cudaDevAttrMultiProcessorCount, 1);
}

/* The most shared memory of one block, static and dynamic together, in bytes. */
static inline int fortet_max_shared(void) {
  return fortet_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, 48 << 10);
}

/* fortet_zero queues the clearing of device memory. */
static inline int fortet_zero(void *stream, void *ptr, size_t bytes) {
  return fortet_status(cudaMemsetAsync(ptr, 0, bytes, (cudaStream_t)stream));
}

#else
#include "emu.h" /* the same names */
#endif

/* How many pieces of size part cover whole. */
FORTET_HD int64_t fortet_pieces(int64_t whole, int64_t part) { return (whole + part - 1) / part; }

#include "reduce.h"

#endif /* device code */
#endif
