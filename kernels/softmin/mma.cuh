/* mma.cuh - the two tensor core products that softmin uses, D = A B + C for a
 * 16 x 8 tile of a warp with float32 accumulators:
 *     m16n8k8 of TF32 and m16n8k16 of bfloat16 (PTX ISA, sections on the
 *     fragments of mma.m16n8k8 and mma.m16n8k16).
 * Both hold, with g = lane / 4 and t = lane % 4 and words of 32 bits (one TF32
 * number or two neighbouring bfloat16 of a row, the first in the low half),
 *     A  a0 (row g, word t), a1 (g + 8, t), a2 (g, t + 4), a3 (g + 8, t + 4)
 *     B  b0 (word t, column g), b1 (t + 4, g)
 *     C  c0 c1 (row g, columns 2t, 2t + 1), c2 c3 (row g + 8)
 *
 * Under emulation the lanes put their fragments into shared memory and each
 * computes its four elements from there in float, so that everything about a
 * tensor core kernel but these two instructions, and the ldmatrix that feeds
 * them, runs without a GPU. The order
 * of additions inside an instruction is the hardware's own: results differ in
 * the last bits. */
#ifndef FORTET_SOFTMIN_MMA_CUH
#define FORTET_SOFTMIN_MMA_CUH

#include "fortet.h"

namespace {

#if defined(FORTET_EMU)

constexpr int kEmulatedWarps = 8;

/* The products of two words: one of TF32, two of bfloat16. */
static inline float emulated_product(unsigned a, unsigned b, bool tf32) {
  if (tf32) return __uint_as_float(a & 0xffffe000u) * __uint_as_float(b & 0xffffe000u);
  return __uint_as_float(a << 16) * __uint_as_float(b << 16) +
         __uint_as_float(a & 0xffff0000u) * __uint_as_float(b & 0xffff0000u);
}

static inline void emulated_mma(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2], bool tf32) {
  struct fragments { unsigned a[4], b[2]; };
  __shared__ fragments room[kEmulatedWarps][32];
  fragments *const warp = room[threadIdx.x / 32];
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  for (int r = 0; r < 4; r++) warp[lane].a[r] = a[r];
  for (int r = 0; r < 2; r++) warp[lane].b[r] = b[r];
  __syncwarp();
  for (int e = 0; e < 4; e++) {
    const int half = e / 2, column = 2 * t + e % 2;
    float sum = c[e];
    for (int word = 0; word < 8; word++) {
      const unsigned left = warp[g * 4 + word % 4].a[word / 4 * 2 + half];
      const unsigned right = warp[column * 4 + word % 4].b[word / 4];
      sum += emulated_product(left, right, tf32);
    }
    c[e] = sum;
  }
  __syncwarp();
}

static inline void mma_tf32(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { emulated_mma(c, a, b, true); }
static inline void mma_bf16(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { emulated_mma(c, a, b, false); }

#else

static __device__ __forceinline__ void mma_tf32(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
static __device__ __forceinline__ void mma_bf16(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#endif

}  // namespace
#endif
