// Gaussian-mixture potentials on the GPU: launches. component.cuh has what a warp
// makes of a sample, evaluate.cuh and gradient.cuh what comes of it.
#include "gmm.h"

#include "evaluate.cuh"
#include "gradient.cuh"

FORTET_CONTRACT(gmm)

namespace {

using namespace gmm;

constexpr int64_t PLAIN_SHARED = 48 << 10; // what every kernel may have without asking

unsigned blocks(int64_t n, int64_t part) { return static_cast<unsigned>(fortet_pieces(n, part)); }

// out = floor + exp(clamp(raw))
template <class T>
__global__ void __launch_bounds__(THREADS) scale(const T *raw, T *out, int64_t n, double floor) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;
  if (i >= n) return;
  T r = raw[i];
  r = r < T(-14) ? T(-14) : r > T(14) ? T(14) : r;
  out[i] = static_cast<T>(floor + static_cast<double>(fortet_exp(r)));
}

template <class T>
int run_scales(void *stream, const fortet_gmm_scales_args &a) {
  FORTET_LAUNCH(scale<T>, blocks(a.n, THREADS), THREADS, 0, stream, static_cast<const T *>(a.raw), static_cast<T *>(a.out),
                a.n, a.floor);
  return FORTET_STATUS();
}

template <class T, bool AXES>
int launch_evaluate(void *stream, const fortet_gmm_evaluate_args &a) {
  int panel = 32;
  const auto bytes = [&] { return evaluate_size(a, panel) * static_cast<int64_t>(sizeof(T)); };
  while (panel > JACOBIAN_ROWS && bytes() > PLAIN_SHARED) panel /= 2;
  if (bytes() > fortet_max_shared()) return FORTET_UNSUPPORTED;
  if (bytes() > PLAIN_SHARED) {
    const int rc = FORTET_MAX_DYN_SHARED((evaluate<T, AXES>), bytes());
    if (rc != FORTET_OK) return rc;
  }
  FORTET_LAUNCH((evaluate<T, AXES>), blocks(a.n, 1), 32, static_cast<size_t>(bytes()), stream, a, mixture<T>(a.m), panel);
  return FORTET_STATUS();
}

template <class T>
int run_evaluate(void *stream, const fortet_gmm_evaluate_args &a) {
  return a.m.axes ? launch_evaluate<T, true>(stream, a) : launch_evaluate<T, false>(stream, a);
}

int64_t width_of(const fortet_mixture &m) { return 1 + m.k + m.k * m.d * (m.axes ? 1 + m.d : 2); }

template <class T, bool AXES, bool MATCH>
int launch_gradient(void *stream, const fortet_mixture &m, const samples<T> &one, const samples<T> &two, void *partial) {
  int rows = MOST_ROWS;
  const auto bytes = [&] { return batch<T, AXES, MATCH>::size(m.k, m.d, rows) * static_cast<int64_t>(sizeof(T)); };
  while (rows > 1 && bytes() > PLAIN_SHARED) rows /= 2;
  if (bytes() > fortet_max_shared()) return FORTET_UNSUPPORTED;
  if (bytes() > PLAIN_SHARED) {
    const int rc = FORTET_MAX_DYN_SHARED((gradient<T, AXES, MATCH>), bytes());
    if (rc != FORTET_OK) return rc;
  }
  FORTET_LAUNCH((gradient<T, AXES, MATCH>), blocks(one.chunks + two.chunks, 1), THREADS, static_cast<size_t>(bytes()), stream,
                mixture<T>(m), one, two, rows, static_cast<T *>(partial), width_of(m));
  return FORTET_STATUS();
}

template <class T>
samples<T> term(const fortet_gmm_term &a) {
  samples<T> s = {};
  s.x = static_cast<const T *>(a.x), s.t0 = static_cast<T>(a.t);
  s.n = a.n, s.chunk = a.chunk;
  if (a.n) s.chunks = fortet_pieces(a.n, a.chunk), s.share = static_cast<T>(a.weight / static_cast<double>(a.n));
  return s;
}

template <class T>
int run_likelihood(void *stream, const fortet_gmm_likelihood_args &a) {
  const samples<T> one = term<T>(a.term[0]), two = term<T>(a.term[1]);
  return a.m.axes ? launch_gradient<T, true, false>(stream, a.m, one, two, a.partial)
                  : launch_gradient<T, false, false>(stream, a.m, one, two, a.partial);
}

template <class T>
int run_match(void *stream, const fortet_gmm_match_args &a) {
  samples<T> one = {};
  const samples<T> two = {};
  one.x = static_cast<const T *>(a.x), one.u = static_cast<const T *>(a.u), one.t = static_cast<const T *>(a.t);
  one.n = a.n, one.chunk = a.chunk, one.chunks = fortet_pieces(a.n, a.chunk);
  one.share = static_cast<T>(a.weight / static_cast<double>(a.n));
  return a.m.axes ? launch_gradient<T, true, true>(stream, a.m, one, two, a.partial)
                  : launch_gradient<T, false, true>(stream, a.m, one, two, a.partial);
}

template <class T>
int run_reduce(void *stream, const fortet_gmm_reduce_args &a) {
  const int64_t width = width_of(a.m);
  if (a.m.axes) {
    const int64_t bytes = a.m.d * static_cast<int64_t>(sizeof(T));
    if (bytes > PLAIN_SHARED) return FORTET_UNSUPPORTED; // gradients have needed more
    FORTET_LAUNCH(reduce_along<T>, blocks(a.m.k, 1), THREADS, static_cast<size_t>(bytes), stream, a, width);
  } else {
    FORTET_LAUNCH(reduce<T>, blocks(width, THREADS), THREADS, 0, stream, a, width);
  }
  return FORTET_STATUS();
}

}  // namespace

#define ENTRY(name, type, T)                                                     \
  FORTET_EXPORT int fortet_gmm_##name##_##type(void *stream, const void *args) { \
    return run_##name<T>(stream, *static_cast<const fortet_gmm_##name##_args *>(args)); \
  }
#define ENTRIES(name) ENTRY(name, f32, float) ENTRY(name, f64, double)

ENTRIES(scales)
ENTRIES(evaluate)
ENTRIES(likelihood)
ENTRIES(match)
ENTRIES(reduce)
