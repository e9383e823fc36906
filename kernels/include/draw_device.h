/* draw_device.h - draws for CUDA kernels: one thread makes the draws of one
 * block of coordinates and handles their elements. For float and double. */
#ifndef FORTET_DRAW_DEVICE_H
#define FORTET_DRAW_DEVICE_H

#include "draw.h"

/* The normals of a block. */
template <class T>
struct fortet_normals;

template <>
struct fortet_normals<float> {
  enum { width = FORTET_DRAW_32 };
  static __device__ __forceinline__ void of(const fortet_words &w, float (&z)[4]) {
    fortet_normal32(w.v[0], w.v[1], &z[0], &z[1]);
    fortet_normal32(w.v[2], w.v[3], &z[2], &z[3]);
  }
};

template <>
struct fortet_normals<double> {
  enum { width = FORTET_DRAW_64 };
  static __device__ __forceinline__ void of(const fortet_words &w, double (&z)[2]) {
    fortet_normal64(fortet_word64(w.v[0], w.v[1]), fortet_word64(w.v[2], w.v[3]), &z[0], &z[1]);
  }
};

/* How a grid of threads walks the blocks of an array (n, d), a block of width
 * coordinates a thread and step: the division is done once, on entry. */
struct fortet_walk {
  int64_t n, d, blocks;         /* blocks of a row */
  int64_t stride_row, stride_block;
  unsigned grid;

  enum { kThreads = 256 };

  /* Enough blocks to fill the device several times, no more than there is work for. */
  static fortet_walk of(int64_t n, int64_t d, int width) {
    fortet_walk w;
    w.n = n, w.d = d, w.blocks = fortet_pieces(d, width);
    const int64_t most = (int64_t)fortet_multiprocessors() * 32, need = fortet_pieces(n * w.blocks, kThreads);
    w.grid = (unsigned)(need < most ? need : most);
    const int64_t stride = (int64_t)w.grid * kThreads;
    w.stride_row = stride / w.blocks, w.stride_block = stride % w.blocks;
    return w;
  }
};

/* A thread's place on its walk. */
struct fortet_walker {
  int64_t row, block;

  __device__ __forceinline__ explicit fortet_walker(const fortet_walk &w) {
    const int64_t p = (int64_t)blockIdx.x * fortet_walk::kThreads + threadIdx.x;
    row = p / w.blocks, block = p % w.blocks;
  }
  __device__ __forceinline__ bool inside(const fortet_walk &w) const { return row < w.n; }
  __device__ __forceinline__ void next(const fortet_walk &w) {
    row += w.stride_row, block += w.stride_block;
    if (block >= w.blocks) block -= w.blocks, row++;
  }
};

/* The elements of a block of an array: 16 bytes at once where whole says that
 * there are width of them and aligned, else the have that there are. */
template <class T, int width>
struct fortet_block_io {
  struct __align__(16) Sixteen { T v[width]; };
  static_assert(sizeof(Sixteen) == 16, "a block is 16 bytes");

  static __device__ __forceinline__ void load(const T *p, int have, bool whole, T (&v)[width]) {
    if (whole) {
      const Sixteen s = *reinterpret_cast<const Sixteen *>(p);
#pragma unroll
      for (int j = 0; j < width; j++) v[j] = s.v[j];
    } else {
#pragma unroll
      for (int j = 0; j < width; j++) v[j] = j < have ? p[j] : T(0);
    }
  }
  static __device__ __forceinline__ void store(T *p, int have, bool whole, const T (&v)[width]) {
    if (whole) {
      Sixteen s;
#pragma unroll
      for (int j = 0; j < width; j++) s.v[j] = v[j];
      *reinterpret_cast<Sixteen *>(p) = s;
    } else {
#pragma unroll
      for (int j = 0; j < width; j++)
        if (j < have) p[j] = v[j];
    }
  }
};

/* Whether an array of rows of d may be accessed 16 bytes at a time; NULL may. */
static inline bool fortet_whole_blocks(const void *p, int64_t d, int width) {
  return d % width == 0 && reinterpret_cast<uintptr_t>(p) % 16 == 0;
}

#endif
