/* copy.cuh - 16-byte accesses, and cp.async: copies from device to shared
 * memory that pass no register. Emulation copies at once, which is one of the
 * orders that the hardware may choose. */
#ifndef FORTET_SOFTMIN_COPY_CUH
#define FORTET_SOFTMIN_COPY_CUH

#include "fortet.h"

namespace {

static __device__ __forceinline__ void load16(float *to, const float *from) {
  const float4 v = *reinterpret_cast<const float4 *>(from);
  to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
}
static __device__ __forceinline__ void load16(double *to, const double *from) {
  const double2 v = *reinterpret_cast<const double2 *>(from);
  to[0] = v.x, to[1] = v.y;
}
static __device__ __forceinline__ void load16(unsigned *to, const unsigned *from) {
  const uint4 v = *reinterpret_cast<const uint4 *>(from);
  to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
}
static __device__ __forceinline__ void store16(float *to, const float *from) {
  *reinterpret_cast<float4 *>(to) = make_float4(from[0], from[1], from[2], from[3]);
}
static __device__ __forceinline__ void store16(double *to, const double *from) {
  *reinterpret_cast<double2 *>(to) = make_double2(from[0], from[1]);
}

/* Starts the copy of 16 bytes; both addresses are aligned to 16. */
static __device__ __forceinline__ void copy16(void *shared, const void *from) {
#if defined(FORTET_EMU)
  *static_cast<uint4 *>(shared) = *static_cast<const uint4 *>(from);
#else
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(unsigned(__cvta_generic_to_shared(shared))), "l"(from)
               : "memory");
#endif
}
/* Ends a group of copies. */
static __device__ __forceinline__ void copy_commit() {
#if !defined(FORTET_EMU)
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
/* Waits until at most N groups of this thread are under way. */
template <int N>
static __device__ __forceinline__ void copy_wait() {
#if !defined(FORTET_EMU)
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

}  // namespace
#endif
