/* The fold on the GPU: a thread for each column, so that a row is read in
 * order, 8 rows at a time in registers. Bound by memory: (rows + 1) m elements.
 * Sums of 8 rows wait for their neighbour in shared memory, one for each level
 * of the tree. */
#include "fold.h"

FORTET_CONTRACT(fold)

namespace {

enum { kThreads = 128 };

template <class T>
__device__ __forceinline__ double group(const T *in, int64_t left, int64_t width) {
  double v[FORTET_FOLD_GROUP];
#pragma unroll
  for (int s = 0; s < FORTET_FOLD_GROUP; s++) v[s] = s < left ? static_cast<double>(in[s * width]) : -0.0;
  return ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
}

template <class T>
__global__ void __launch_bounds__(kThreads) fold(fortet_fold_args a) {
  FORTET_DYN_SHARED(double, waiting); /* (levels, kThreads): a thread's own, so that there are no barriers */
  const int64_t j = (int64_t)blockIdx.x * kThreads + threadIdx.x;
  if (j >= a.m) return;
  const T *const in = static_cast<const T *>(a.in) + j;
  double *const mine = waiting + threadIdx.x;
  double sum;
  int64_t done = 0; /* groups; a bit that is set is a sum that waits */
  for (int64_t s = 0;; s += FORTET_FOLD_GROUP, done++) {
    sum = group(in + s * a.width, a.rows - s, a.width);
    int level = 0;
    for (; done >> level & 1; level++) sum = mine[level * kThreads] + sum;
    if (s + FORTET_FOLD_GROUP >= a.rows) {
      /* The right one at all levels above. */
      for (; done >> level; level++)
        if (done >> level & 1) sum = mine[level * kThreads] + sum;
      break;
    }
    mine[level * kThreads] = sum;
  }
  static_cast<T *>(a.out)[j] = static_cast<T>(sum);
}

template <class T>
int launch(void *stream, const void *args) {
  const fortet_fold_args a = *static_cast<const fortet_fold_args *>(args);
  int levels = 1;
  for (int64_t groups = fortet_pieces(a.rows, FORTET_FOLD_GROUP); groups >> levels; levels++) {
  }
  FORTET_LAUNCH(fold<T>, dim3((unsigned)fortet_pieces(a.m, kThreads)), kThreads, levels * kThreads * sizeof(double), stream, a);
  return FORTET_STATUS();
}

}  // namespace

FORTET_EXPORT int fortet_fold_f32(void *stream, const void *args) { return launch<float>(stream, args); }
FORTET_EXPORT int fortet_fold_f64(void *stream, const void *args) { return launch<double>(stream, args); }
