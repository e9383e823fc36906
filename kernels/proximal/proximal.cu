/* proximal.cu - the proximal map on a GPU: which kernel runs. The kernels are in
 * dense.cuh (few dimensions) and krylov.cuh. */
#include "proximal.h"

#include "dense.cuh"
#include "krylov.cuh"

FORTET_CONTRACT(proximal)

namespace {

template <class T, bool AXES>
void launch_dense(void *stream, const fortet_proximal_args &a) {
  const dim3 grid(static_cast<unsigned>(fortet_pieces(a.n, FORTET_PROXIMAL_WARPS)));
  switch (a.m.d) {
    case 1: FORTET_LAUNCH((proximal_dense<T, 1, AXES>), grid, kThreads, 0, stream, a); break;
    case 2: FORTET_LAUNCH((proximal_dense<T, 2, AXES>), grid, kThreads, 0, stream, a); break;
    case 3: FORTET_LAUNCH((proximal_dense<T, 3, AXES>), grid, kThreads, 0, stream, a); break;
    default: FORTET_LAUNCH((proximal_dense<T, 4, AXES>), grid, kThreads, 0, stream, a);
  }
}

template <class T>
int launch(void *stream, const void *args) {
  const fortet_proximal_args a = *static_cast<const fortet_proximal_args *>(args);
  if (!fortet_proximal_gpu_dense(&a)) {
    const dim3 grid(static_cast<unsigned>(fortet_proximal_blocks(&a, sizeof(T))));
    FORTET_LAUNCH(proximal_krylov<T>, grid, kThreads, 0, stream, a);
  } else if (a.m.axes) {
    launch_dense<T, true>(stream, a);
  } else {
    launch_dense<T, false>(stream, a);
  }
  return FORTET_STATUS();
}

}  // namespace

FORTET_EXPORT int fortet_proximal_f32(void *stream, const void *args) { return launch<float>(stream, args); }
FORTET_EXPORT int fortet_proximal_f64(void *stream, const void *args) { return launch<double>(stream, args); }
