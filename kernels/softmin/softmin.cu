/* softmin.cu - softmin, sweep and apply on a GPU: which kernels run, in what
 * order. The kernels are in points.cuh (points of up to 8 dimensions),
 * tiles.cuh (more, and a cost matrix) and tensor.cuh (tensor cores). All are
 * deterministic: no atomics, and a division of the work that depends on the
 * sizes alone (softmin.h). */
// SASS: HMMA\.1688\.F32\.TF32 in softmin_tensor.*layoutE1
// SASS: HMMA\.16816\.F32\.BF16 in softmin_tensor.*layoutE2
// SASS: LDGSTS.*128 in (softmin_tensor|softmin_tilesI.LNS_5scoreE[01])
// SASS: LDSM\.16\.M88\.4 in softmin_tensor
// SASS: LDS\.128 in (softmin|apply)_tilesI.LNS_5scoreE[01]
// SASS: MUFU\.EX2 in (softmin|apply)_(points|tiles)If
// SHARED: 65536 in softmin_tensor
#include "softmin.h"

#include "points.cuh"
#include "prepare.cuh"
#include "tensor.cuh"
#include "tiles.cuh"

FORTET_CONTRACT(softmin)

namespace {

/* One side of the pairs, as columns: its points and what is added to -c_ij. */
template <class T>
struct side {
  const T *points, *potential, *logs;
  double damp;  /* of the potential */
  bool reached; /* potential = +inf weighs nothing */
};

/* A call: its pairs with their element type, and its workspace. */
template <class T>
struct call {
  void *stream;
  fortet_pairs pairs;
  int32_t precision;
  fortet_softmin_layout at;
  unsigned char *work;

  call(void *stream, const fortet_pairs &pairs, int32_t op, int32_t precision, int64_t k, void *work)
      : stream(stream), pairs(pairs), precision(precision),
        at(fortet_softmin_lay_out(op, precision, &pairs, sizeof(T), k)), work(static_cast<unsigned char *>(work)) {}

  T *place(int64_t offset) const { return reinterpret_cast<T *>(work + offset); }
  bool matrix() const { return pairs.cost == FORTET_MATRIX; }
  bool euclidean() const { return pairs.cost == FORTET_EUCLIDEAN; }
  bool low() const { return precision == FORTET_NATIVE && !matrix() && pairs.d <= FORTET_SOFTMIN_POINT_DIM; }
  double kappa() const { return pairs.cost == FORTET_HALF_SQEUCLIDEAN ? 0.5 : 1; }
  /* Prepared points are scaled so that half their squared distance is an exponent. */
  double scale() const { return euclidean() ? 1 : sqrt(2 * kappa() * kLog2E / pairs.epsilon); }
  bool products() const { return !matrix() && !euclidean(); }
  bool supported() const { return precision == FORTET_NATIVE || products(); }
};

unsigned blocks(int64_t whole, int64_t part) { return unsigned(fortet_pieces(whole, part)); }

/* ---- Preparation (prepare.cuh). */

template <class T, layout L>
void prepare_sides(const call<T> &c) {
  const fortet_pairs &p = c.pairs;
  const T *const x = static_cast<const T *>(p.x), *const y = static_cast<const T *>(p.y);
  T *const mu = c.place(c.at.centre);
  FORTET_LAUNCH(centre<T>, blocks(p.d, 32), 256, 0, c.stream, x, p.n, y, p.m, p.d, mu);
  FORTET_LAUNCH((prepare<T, L>), blocks(c.at.np, 32), 256, 0, c.stream, x, p.n, p.d, mu, T(c.scale()), c.at.np, c.at.dp,
                c.place(c.at.x), c.place(c.at.half_x));
  FORTET_LAUNCH((prepare<T, L>), blocks(c.at.mp, 32), 256, 0, c.stream, y, p.m, p.d, mu, T(c.scale()), c.at.mp, c.at.dp,
                c.place(c.at.y), c.place(c.at.half_y));
}

template <class T>
void prepare_points(const call<T> &c) {
  if (c.low() || c.matrix()) return;
  if constexpr (sizeof(T) == 4) {
    if (c.precision == FORTET_TF32) return prepare_sides<T, kTF32>(c);
    if (c.precision == FORTET_BF16X3) return prepare_sides<T, kBF16x3>(c);
  }
  prepare_sides<T, kTransposed>(c);
}

template <class T>
void prepare_biases(const call<T> &c, const side<T> &s, const T *half, int64_t m, int64_t mp) {
  FORTET_LAUNCH(biases<T>, blocks(mp, 256), 256, 0, c.stream, s.potential, s.logs, s.damp, s.reached, c.pairs.epsilon,
                half, m, mp, c.place(c.at.bias));
}

/* ---- Points of low dimension. */

template <class T>
points<T> point_arguments(const call<T> &c, const T *x, const side<T> &s, int64_t n, int64_t m, fortet_softmin_split split) {
  return points<T>{x, s.points, s.potential, s.logs, n, m, split.tiles, int(c.pairs.d),
                   T(c.kappa() * kLog2E / c.pairs.epsilon), T(c.pairs.epsilon), T(1 / c.kappa()), T(s.damp), s.reached,
                   c.place(c.at.part)};
}

template <class T, int D, bool ROOT>
struct run_softmin_points {
  static void run(const call<T> &c, const points<T> &a, const fortet_softmin_split &split) {
    const dim3 grid(blocks(a.n, FORTET_SOFTMIN_POINT_ROWS), unsigned(split.splits));
    FORTET_LAUNCH((softmin_points<T, D, ROOT>), grid, kPointThreads, 0, c.stream, a);
  }
};

template <class T, int D, bool ROOT>
struct run_apply_points {
  static void run(const call<T> &c, const points_apply<T> &a, const fortet_softmin_split &split) {
    const unsigned repeats = a.k > kPointValues ? blocks(a.k, kPointValues) : 1;
    const dim3 grid(blocks(a.p.n, kPointThreads), unsigned(split.splits), repeats);
    FORTET_LAUNCH((apply_points<T, D, ROOT>), grid, kPointThreads, 0, c.stream, a);
  }
};

/* Calls Run for the least compiled dimension that has room for d; coordinates
 * beyond d are 0. */
template <class T, template <class, int, bool> class Run, bool ROOT, class... A>
void with_dimension(int64_t d, const A &...a) {
  switch (d) {
    case 1: return Run<T, 1, ROOT>::run(a...);
    case 2: return Run<T, 2, ROOT>::run(a...);
    case 3: return Run<T, 3, ROOT>::run(a...);
    case 4: return Run<T, 4, ROOT>::run(a...);
    case 5:
    case 6: return Run<T, 6, ROOT>::run(a...);
    default: return Run<T, 8, ROOT>::run(a...);
  }
}
template <class T, template <class, int, bool> class Run, class... A>
void with_points(const call<T> &c, const A &...a) {
  if (c.euclidean()) with_dimension<T, Run, true>(c.pairs.d, c, a...);
  else with_dimension<T, Run, false>(c.pairs.d, c, a...);
}

/* ---- Tiles. */

/* The rows are x's where forth, else y's. */
template <class T>
tiles<T> tile_arguments(const call<T> &c, bool forth, fortet_softmin_split split) {
  tiles<T> t{};
  t.x = c.place(forth ? c.at.x : c.at.y);
  t.y = c.place(forth ? c.at.y : c.at.x);
  t.matrix = static_cast<const T *>(c.pairs.matrix);
  t.row_step = forth ? c.pairs.m : 1;
  t.column_step = forth ? 1 : c.pairs.m;
  t.bias = c.place(c.at.bias);
  t.n = forth ? c.pairs.n : c.pairs.m;
  t.m = forth ? c.pairs.m : c.pairs.n;
  t.np = forth ? c.at.np : c.at.mp;
  t.mp = forth ? c.at.mp : c.at.np;
  t.slices = c.at.dp / shape<T>::K;
  t.tiles = split.tiles;
  t.S = T(kLog2E / c.pairs.epsilon);
  t.part = c.place(c.at.part);
  return t;
}

template <class T>
void run_softmin_tiles(const call<T> &c, bool forth, fortet_softmin_split split) {
  const tiles<T> t = tile_arguments(c, forth, split);
  const dim3 grid(blocks(t.n, shape<T>::BM), unsigned(split.splits));
  if (c.matrix()) FORTET_LAUNCH((softmin_tiles<T, kGiven>), grid, kTileThreads, 0, c.stream, t);
  else if (c.euclidean()) FORTET_LAUNCH((softmin_tiles<T, kEuclidean>), grid, kTileThreads, 0, c.stream, t);
  else FORTET_LAUNCH((softmin_tiles<T, kDot>), grid, kTileThreads, 0, c.stream, t);
}

template <layout L>
int run_softmin_tensor(const call<float> &c, bool forth, fortet_softmin_split split) {
  const tiles<float> s = tile_arguments(c, forth, split);
  const tensor_tiles t{reinterpret_cast<const unsigned *>(s.x), reinterpret_cast<const unsigned *>(s.y), s.bias, s.n,
                       s.mp / kTensorColumns, int(c.at.dp / kSlice), s.tiles, s.part};
  const size_t shared = tensor_shared(t.slices);
  const int status = FORTET_MAX_DYN_SHARED((softmin_tensor<L>), shared);
  if (status != FORTET_OK) return status;
  FORTET_LAUNCH((softmin_tensor<L>), dim3(blocks(t.n, kTensorRows), unsigned(split.splits)), kTensorThreads, shared,
                c.stream, t);
  return FORTET_OK;
}

/* Partial sums of one half: rows x against columns y where forth, else rows y
 * against columns x. Answers what the row's exponents lack, or NULL. */
template <class T>
int half_pass(const call<T> &c, bool forth, const side<T> &s, const T *rows, fortet_softmin_split split, const T **shift) {
  const int64_t n = forth ? c.pairs.n : c.pairs.m, m = forth ? c.pairs.m : c.pairs.n;
  *shift = nullptr;
  if (c.low()) {
    with_points<T, run_softmin_points>(c, point_arguments(c, rows, s, n, m, split), split);
    return FORTET_OK;
  }
  const T *const own = c.place(forth ? c.at.half_x : c.at.half_y);
  const T *const other = c.place(forth ? c.at.half_y : c.at.half_x);
  prepare_biases(c, s, c.products() ? other : nullptr, m, forth ? c.at.mp : c.at.np);
  if (c.products()) *shift = own;
  if constexpr (sizeof(T) == 4) {
    if (c.precision == FORTET_TF32) return run_softmin_tensor<kTF32>(c, forth, split);
    if (c.precision == FORTET_BF16X3) return run_softmin_tensor<kBF16x3>(c, forth, split);
  }
  run_softmin_tiles(c, forth, split);
  return FORTET_OK;
}

/* The targets as columns. */
template <class T>
side<T> targets(const fortet_pairs &p) {
  return {static_cast<const T *>(p.y), static_cast<const T *>(p.g), static_cast<const T *>(p.logb), 1, false};
}

template <class T>
int forward(const call<T> &c, void *out) {
  const T *shift;
  const int status = half_pass(c, true, targets<T>(c.pairs), static_cast<const T *>(c.pairs.x), c.at.rows, &shift);
  if (status != FORTET_OK) return status;
  FORTET_LAUNCH(finish_softmin<T>, blocks(c.pairs.n, 128), 128, 0, c.stream, c.place(c.at.part), c.at.rows.splits, shift,
                c.pairs.epsilon, c.pairs.n, static_cast<T *>(out));
  return FORTET_STATUS();
}

/* ---- The operations. */

template <class T>
int softmin(void *stream, const fortet_softmin_args &a, int32_t precision) {
  const call<T> c(stream, a.pairs, FORTET_OP_SOFTMIN, precision, 0, a.work);
  if (!c.supported()) return FORTET_UNSUPPORTED;
  prepare_points(c);
  return forward(c, a.out);
}

/* sweep is softmin and then, with the roles of the sides exchanged, the softmin
 * of damp f and loga over the rows, of which finish_column makes col. */
template <class T>
int sweep(void *stream, const fortet_sweep_args &a, int32_t precision) {
  const call<T> c(stream, a.pairs, FORTET_OP_SWEEP, precision, 0, a.work);
  if (!c.supported()) return FORTET_UNSUPPORTED;
  prepare_points(c);
  int status = forward(c, a.out);
  if (status != FORTET_OK) return status;
  const fortet_pairs &p = c.pairs;
  const side<T> sources{static_cast<const T *>(p.x), static_cast<const T *>(a.out), static_cast<const T *>(a.loga), a.damp,
                        true};
  const T *shift;
  status = half_pass(c, false, sources, static_cast<const T *>(p.y), c.at.back, &shift);
  if (status != FORTET_OK) return status;
  FORTET_LAUNCH(finish_column<T>, blocks(p.m, 128), 128, 0, stream, c.place(c.at.part), c.at.back.splits, shift,
                static_cast<const T *>(p.g), static_cast<const T *>(p.logb), p.epsilon, p.m, a.col);
  return FORTET_STATUS();
}

/* Sums the splits' parts in their order. Channel 0 is the mass, 1 the mean, then
 * k of r, then d of grad. Grid: (n / 128, channels). */
template <class T>
__global__ void finish_apply(const T *part, int64_t splits, int64_t channels, int64_t n, int64_t k, int64_t d, T mean_unit,
                             T slope, T *mass, T *mean, T *r, T *grad) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, c = blockIdx.y;
  if (i >= n) return;
  T sum = 0;
  for (int64_t s = 0; s < splits; s++) sum += part[(s * channels + c) * n + i];
  if (c == 0) {
    if (mass) mass[i] = sum;
  } else if (c == 1) {
    if (mean) mean[i] = mean_unit * sum;
  } else if (c < 2 + k) {
    if (r) r[i * k + c - 2] = sum;
  } else if (grad) {
    grad[i * d + c - 2 - k] = slope * sum;
  }
}

/* grad_i = slope ((sum_j w_ij) (x_i - mu) - sum_j w_ij (y_j - mu)). Grid: (n / 128, d). */
template <class T>
__global__ void finish_gradient(const T *part, int64_t splits, int64_t n, int64_t d, const T *x, const T *mu, T slope,
                                T *grad) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, k = blockIdx.y;
  if (i >= n) return;
  T mass = 0, sum = 0;
  for (int64_t s = 0; s < splits; s++) {
    mass += part[s * (2 + d) * n + i];
    sum += part[(s * (2 + d) + 2 + k) * n + i];
  }
  grad[i * d + k] = slope * (mass * (x[i * d + k] - mu[k]) - sum);
}

template <class T, score SCORE>
int run_apply_tiles(const call<T> &c, const tiles_apply<T> &a, fortet_softmin_split split) {
  const size_t shared = tiles_apply_shared<T>(SCORE);
  const int status = FORTET_MAX_DYN_SHARED((apply_tiles<T, SCORE>), shared);
  if (status != FORTET_OK) return status;
  const unsigned repeats = a.k > kTileColumns ? blocks(a.k, kTileColumns) : 1;
  const dim3 grid(blocks(a.p.n, shape<T>::BM), unsigned(split.splits), repeats);
  FORTET_LAUNCH((apply_tiles<T, SCORE>), grid, kTileThreads, shared, c.stream, a);
  return FORTET_OK;
}

template <class T>
int apply_by_tiles(const call<T> &c, tiles_apply<T> a, fortet_softmin_split split) {
  a.p = tile_arguments(c, true, split);
  if (c.matrix()) return run_apply_tiles<T, kGiven>(c, a, split);
  if (c.euclidean()) return run_apply_tiles<T, kEuclidean>(c, a, split);
  return run_apply_tiles<T, kDot>(c, a, split);
}

template <class T>
int apply(void *stream, const fortet_apply_args &a) {
  const int64_t k = a.v ? a.k : 0;
  const call<T> c(stream, a.pairs, FORTET_OP_APPLY, FORTET_NATIVE, k, a.work);
  const fortet_pairs &p = c.pairs;
  if (2 + k + p.d > 65535) return FORTET_UNSUPPORTED; /* a grid's second axis */
  T *const mass = static_cast<T *>(a.mass), *const mean = static_cast<T *>(a.mean), *const r = static_cast<T *>(a.r),
          *const grad = static_cast<T *>(a.grad), *const part = c.place(c.at.part);
  const T *const f = static_cast<const T *>(a.f), *const v = static_cast<const T *>(a.v);
  const T slope = T(c.euclidean() ? 1 : 2 * c.kappa());
  const unsigned rows = blocks(p.n, 128);

  if (c.low()) {
    const points_apply<T> q{point_arguments(c, static_cast<const T *>(p.x), targets<T>(p), p.n, p.m, c.at.rows), f, v, k};
    with_points<T, run_apply_points>(c, q, c.at.rows);
    FORTET_LAUNCH(finish_apply<T>, dim3(rows, unsigned(2 + k + p.d)), 128, 0, stream, part, c.at.rows.splits, 2 + k + p.d,
                  p.n, k, p.d, T(c.kappa()), slope, mass, mean, r, grad);
    return FORTET_STATUS();
  }
  tiles_apply<T> t{};
  t.f = f;
  t.half_x = c.place(c.at.half_x);
  t.half_y = c.place(c.at.half_y);
  t.epsilon = p.epsilon;
  prepare_points(c);
  prepare_biases(c, targets<T>(p), c.products() ? t.half_y : nullptr, p.m, c.at.mp);
  if (mass || mean || r) {
    t.v = v;
    t.k = k;
    const int status = apply_by_tiles(c, t, c.at.rows);
    if (status != FORTET_OK) return status;
    FORTET_LAUNCH(finish_apply<T>, dim3(rows, unsigned(2 + k)), 128, 0, stream, part, c.at.rows.splits, 2 + k, p.n, k,
                  int64_t(0), T(c.products() ? p.epsilon * kLn2 : 1), slope, mass, mean, r, static_cast<T *>(nullptr));
  }
  if (grad) {
    t.v = static_cast<const T *>(p.y);
    t.k = p.d;
    t.centre = c.place(c.at.centre);
    t.gradient = true;
    const int status = apply_by_tiles(c, t, c.at.slopes);
    if (status != FORTET_OK) return status;
    FORTET_LAUNCH(finish_gradient<T>, dim3(rows, unsigned(p.d)), 128, 0, stream, part, c.at.slopes.splits, p.n, p.d,
                  static_cast<const T *>(p.x), t.centre, slope, grad);
  }
  return FORTET_STATUS();
}

template <class A>
const A &as(const void *args) { return *static_cast<const A *>(args); }

}  // namespace

FORTET_EXPORT int fortet_softmin_f32(void *stream, const void *args) {
  return softmin<float>(stream, as<fortet_softmin_args>(args), FORTET_NATIVE);
}
FORTET_EXPORT int fortet_softmin_f64(void *stream, const void *args) {
  return softmin<double>(stream, as<fortet_softmin_args>(args), FORTET_NATIVE);
}
FORTET_EXPORT int fortet_softmin_tf32(void *stream, const void *args) {
  return softmin<float>(stream, as<fortet_softmin_args>(args), FORTET_TF32);
}
FORTET_EXPORT int fortet_softmin_bf16x3(void *stream, const void *args) {
  return softmin<float>(stream, as<fortet_softmin_args>(args), FORTET_BF16X3);
}
FORTET_EXPORT int fortet_sweep_f32(void *stream, const void *args) {
  return sweep<float>(stream, as<fortet_sweep_args>(args), FORTET_NATIVE);
}
FORTET_EXPORT int fortet_sweep_f64(void *stream, const void *args) {
  return sweep<double>(stream, as<fortet_sweep_args>(args), FORTET_NATIVE);
}
FORTET_EXPORT int fortet_sweep_tf32(void *stream, const void *args) {
  return sweep<float>(stream, as<fortet_sweep_args>(args), FORTET_TF32);
}
FORTET_EXPORT int fortet_sweep_bf16x3(void *stream, const void *args) {
  return sweep<float>(stream, as<fortet_sweep_args>(args), FORTET_BF16X3);
}
FORTET_EXPORT int fortet_apply_f32(void *stream, const void *args) {
  return apply<float>(stream, as<fortet_apply_args>(args));
}
FORTET_EXPORT int fortet_apply_f64(void *stream, const void *args) {
  return apply<double>(stream, as<fortet_apply_args>(args));
}
FORTET_EXPORT int fortet_apply_tf32(void *, const void *) { return FORTET_UNSUPPORTED; }
FORTET_EXPORT int fortet_apply_bf16x3(void *, const void *) { return FORTET_UNSUPPORTED; }
