/* fetch.cuh - slices of A and B on their way to shared memory, and what is done
 * with sums: the parts that all tiled kernels share.
 *
 * A point is a row of A or a column of B; its terms are the numbers along k.
 * What lies outside of a matrix becomes 0. */
#ifndef FORTET_GEMM_FETCH_CUH
#define FORTET_GEMM_FETCH_CUH

#include "../softmin/copy.cuh"
#include "gemm.h"

namespace {

constexpr int kThreads = 256; /* of a block of every tiled kernel */

/* How the numbers of an operand lie: neighbours are terms or points, in pieces
 * aligned to 16 bytes or not. */
enum order { kTerms, kPoints, kTermPieces, kPointPieces };

template <class T>
struct operand {
  const T *data;
  int64_t point, term, stride; /* steps, in elements */
  order lie;
};

template <class T>
operand<T> operand_of(const fortet_gemm_matrix &m, bool columns) {
  operand<T> o{static_cast<const T *>(m.data), columns ? m.column : m.row, columns ? m.row : m.column, m.stride, kTerms};
  const int64_t V = 16 / sizeof(T), line = o.term == 1 ? o.point : o.term;
  const bool pieces = reinterpret_cast<uintptr_t>(m.data) % 16 == 0 && line % V == 0 && o.stride % V == 0;
  if (o.term == 1) o.lie = pieces ? kTermPieces : kTerms;
  else o.lie = pieces ? kPointPieces : kPoints;
  return o;
}

/* Starts the copy of BYTES, 4, 8 or 16, of which those from valid on become 0. */
template <int BYTES>
static __device__ __forceinline__ void copy_some(void *shared, const void *from, int valid) {
#if defined(FORTET_EMU)
  char bytes[BYTES] = {};
  memcpy(bytes, from, size_t(valid));
  memcpy(shared, bytes, BYTES);
#else
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(unsigned(__cvta_generic_to_shared(shared))), "l"(from),
               "n"(BYTES), "r"(valid)
               : "memory");
#endif
}

/* A slice of POINTS x TERMS numbers whose (point, term) goes to element point BY_POINT + term
 * BY_TERM of a stage, one of which is 1. G numbers are copied at once,
 * neighbours along terms where ALONG. Neighbouring threads copy what is
 * neighbouring in device memory: whole sectors of 32 bytes at least. */
template <class T, int G, bool ALONG, int POINTS, int TERMS, int BY_POINT, int BY_TERM>
static __device__ __forceinline__ void copy_slice(T *stage, const operand<T> &o, const T *from, int points, int terms) {
  constexpr int LINE = ALONG ? TERMS : POINTS, LINES = ALONG ? POINTS : TERMS;
  constexpr int WIDE = G == 1 ? 32 / int(sizeof(T)) : LINE / G; /* threads side by side on a line */
  constexpr int DOWN = kThreads / WIDE < LINES ? kThreads / WIDE : LINES;
  constexpr int ACROSS = kThreads / (WIDE * DOWN) * WIDE * G; /* numbers of a line that are copied at once */
  static_assert(LINES % DOWN == 0 && LINE % ACROSS == 0, "threads cover whole slices");
  const int t = threadIdx.x, x = (t % WIDE + t / (WIDE * DOWN) * WIDE) * G, y = t / WIDE % DOWN;
  const int most = ALONG ? terms : points, lines = ALONG ? points : terms;
  const int64_t step = ALONG ? o.point : o.term;
  const T *line = from + y * step + x;
  T *to = stage + (ALONG ? y * BY_POINT + x * BY_TERM : y * BY_TERM + x * BY_POINT);
#pragma unroll G == 1 ? 1 : LINES / DOWN /* registers are short */
  for (int down = 0; down < LINES; down += DOWN, line += DOWN * step) {
#pragma unroll
    for (int across = 0; across < LINE; across += ACROSS) {
      const int rest = y + down < lines ? most - x - across : 0, some = rest < 0 ? 0 : rest < G ? rest : G;
      copy_some<G * int(sizeof(T))>(to + (ALONG ? down * BY_POINT + across * BY_TERM : down * BY_TERM + across * BY_POINT),
                                    some > 0 ? line + across : from, some * int(sizeof(T)));
    }
  }
}

/* The slice that begins at from, of which so many points and terms exist. */
template <class T, int POINTS, int TERMS, int BY_POINT, int BY_TERM>
static __device__ __forceinline__ void fetch(T *stage, const operand<T> &o, const T *from, int points, int terms) {
  constexpr int V = 16 / int(sizeof(T));
  if (BY_TERM == 1 && o.lie == kTermPieces)
    copy_slice<T, BY_TERM == 1 ? V : 1, true, POINTS, TERMS, BY_POINT, BY_TERM>(stage, o, from, points, terms);
  else if (BY_POINT == 1 && o.lie == kPointPieces)
    copy_slice<T, BY_POINT == 1 ? V : 1, false, POINTS, TERMS, BY_POINT, BY_TERM>(stage, o, from, points, terms);
  else if (o.lie == kTerms || o.lie == kTermPieces)
    copy_slice<T, 1, true, POINTS, TERMS, BY_POINT, BY_TERM>(stage, o, from, points, terms);
  else
    copy_slice<T, 1, false, POINTS, TERMS, BY_POINT, BY_TERM>(stage, o, from, points, terms);
}

/* Where sums go: c = alpha sum + beta c + bias, or parts of split sums. An
 * activation would be applied here, where a bias is. */
template <class T>
struct target {
  T *c;
  int64_t row, column, stride;
  T alpha, beta; /* beta = 0: c is not read */
  const T *bias; /* or NULL */
  int64_t bias_row, bias_column;

  __device__ __forceinline__ void put(int64_t i, int64_t j, T sum) const {
    T *const at = c + i * row + j * column;
    T v = alpha * sum;
    if (beta != T(0)) v += beta * *at;
    if (bias) v += bias[i * bias_row + j * bias_column];
    *at = v;
  }
};

/* One launch: matrices from the first on, in the grid's third axis, and parts
 * of k in its second. */
template <class T>
struct product {
  operand<T> a, b;
  target<T> to; /* parts: stride is that of one part */
  int64_t m, n, k, depth, splits, first;
};

/* The part of k that is a block's, and A and B of its matrix from there. */
template <class T>
struct share {
  const T *a, *b;
  int64_t k0, k1;

  __device__ __forceinline__ explicit share(const product<T> &p) {
    const int64_t s = p.first + blockIdx.z;
    k0 = blockIdx.y * p.depth;
    k1 = p.k - k0 < p.depth ? p.k : k0 + p.depth;
    a = p.a.data + s * p.a.stride + k0 * p.a.term;
    b = p.b.data + s * p.b.stride + k0 * p.b.term;
  }
};

/* Where the block's sums go. Not asked for before the end, for want of registers. */
template <class T>
static __device__ __forceinline__ target<T> own_target(const product<T> &p) {
  target<T> to = p.to;
  to.c += ((p.first + blockIdx.z) * p.splits + blockIdx.y) * to.stride;
  return to;
}

/* The slices of a tile of B x B elements, from (i0, j0) on, in the order in which they are used. */
template <class T, int B, int K, int BY_POINT, int BY_TERM>
struct slices {
  const T *a, *b;
  int rows, columns; /* that exist */
  int64_t terms;     /* still to come */

  __device__ __forceinline__ slices(const product<T> &p, const share<T> &own, int64_t i0, int64_t j0)
      : a(own.a + i0 * p.a.point), b(own.b + j0 * p.b.point), rows(int(p.m - i0 < B ? p.m - i0 : B)),
        columns(int(p.n - j0 < B ? p.n - j0 : B)), terms(own.k1 - own.k0) {}
  __device__ __forceinline__ void next(const product<T> &p, T *left, T *right) {
    if (terms > 0) {
      const int some = int(terms < K ? terms : K);
      fetch<T, B, K, BY_POINT, BY_TERM>(left, p.a, a, rows, some);
      fetch<T, B, K, BY_POINT, BY_TERM>(right, p.b, b, columns, some);
      a += K * p.a.term;
      b += K * p.b.term;
      terms -= K;
    }
    copy_commit(); /* also where there is nothing: groups are counted */
  }
};

/* Which tile is a block's. Blocks go down eight tiles before
 * they go across, so that those which run together share rows and columns in L2. */
struct place {
  unsigned i, j;
  __device__ __forceinline__ place(int64_t rows, int64_t columns, int tile) {
    const unsigned down = unsigned(fortet_pieces(rows, tile)), wide = 8 * unsigned(fortet_pieces(columns, tile));
    const unsigned first = blockIdx.x / wide * 8, high = down - first < 8 ? down - first : 8, rest = blockIdx.x % wide;
    i = first + rest % high;
    j = rest / high;
  }
};

/* c = alpha (sum of parts, in their order) + beta c + bias. Grid: (m n / 256, 1, batch). */
template <class T>
__global__ void add_parts(const T *parts, int64_t splits, int64_t m, int64_t n, int64_t first, target<T> to) {
  const int64_t at = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, s = first + blockIdx.z;
  if (at >= m * n) return;
  T sum = 0;
  for (int64_t h = 0; h < splits; h++) sum += parts[(s * splits + h) * m * n + at];
  to.c += s * to.stride;
  to.put(at / n, at % n, sum);
}

}  // namespace
#endif
