/* emu.h - CUDA kernels compiled by g++ (-DFORTET_EMU) and run on the CPU.
 *
 * Every thread of a block is a fiber that runs until it waits at a barrier or
 * a warp operation; blocks are spread over OS threads. The order in which
 * fibers start is rotated from block to block, and all shared memory is filled
 * with 0xff before a block begins (NaN, or -1), so that a missing barrier gives
 * a wrong result instead of a lucky one. A launch ends with an error that names
 * kernel, block and thread where
 *   - threads of a block wait at different barriers, or some wait at a barrier
 *     and others at a warp operation that cannot complete;
 *   - lanes of a warp meet in different operations, or a lane is not in the
 *     mask that it passes;
 *   - a thread writes past the end of dynamic shared memory or of its stack.
 * FORTET_EMU_SEED=n picks another order, FORTET_EMU_THREADS=n so many OS threads.
 *
 * Not emulated: inline PTX, tensor cores, copy engines, cooperative groups,
 * textures, dynamic parallelism, warp-synchronous code without __syncwarp.
 * Put those behind #if defined(__CUDACC__) beside a plain path.
 *
 * This header is what kernels see; the scheduler is in gpu/emu/. */
#ifndef FORTET_EMU_H
#define FORTET_EMU_H

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __managed__ FORTET_has_no_managed_memory
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
/* One instance per OS thread is one per running block. */
#define __shared__ static thread_local

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct uint3 { unsigned x, y, z; };

#define FORTET_EMU_VECTOR2(V, T, A) \
  struct __align__(A) V { T x, y; }; \
  static inline V make_##V(T x, T y) { return V{x, y}; }
#define FORTET_EMU_VECTOR3(V, T) \
  struct V { T x, y, z; }; \
  static inline V make_##V(T x, T y, T z) { return V{x, y, z}; }
#define FORTET_EMU_VECTOR4(V, T, A) \
  struct __align__(A) V { T x, y, z, w; }; \
  static inline V make_##V(T x, T y, T z, T w) { return V{x, y, z, w}; }
FORTET_EMU_VECTOR2(float2, float, 8)
FORTET_EMU_VECTOR3(float3, float)
FORTET_EMU_VECTOR4(float4, float, 16)
FORTET_EMU_VECTOR2(double2, double, 16)
FORTET_EMU_VECTOR2(int2, int, 8)
FORTET_EMU_VECTOR4(int4, int, 16)
FORTET_EMU_VECTOR2(uint2, unsigned, 8)
FORTET_EMU_VECTOR4(uint4, unsigned, 16)
FORTET_EMU_VECTOR2(longlong2, long long, 16)
FORTET_EMU_VECTOR2(ulonglong2, unsigned long long, 16)
static inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return uint3{x, y, z}; }

namespace emu {

#define FORTET_EMU_HIDDEN __attribute__((visibility("hidden")))

/* What a running thread may ask about itself. */
struct Place {
  uint3 thread, block;
  dim3 threads, blocks;
  unsigned rank;  /* thread, linear in its block */
  unsigned count; /* threads of the block */
  char *dynamic;  /* dynamic shared memory */
};
/* const: a fiber asks once, for it stays where it is. */
FORTET_EMU_HIDDEN __attribute__((const)) const Place &place();

/* Waits for all threads of the block that have not returned; answers how many
 * of them passed vote != 0. */
FORTET_EMU_HIDDEN unsigned barrier(int vote, const char *file, int line);

/* The warp operations; lanes that meet must agree. */
enum Meeting { kSync, kShuffle, kVote, kReduce };

/* What the lanes of a mask brought to a meeting. */
struct Hands {
  const uint64_t *value; /* 32 of them; all ones where a lane has returned */
  unsigned present;      /* which lanes brought one */
  unsigned lane;         /* the caller */
};
FORTET_EMU_HIDDEN Hands meet(Meeting what, unsigned mask, uint64_t value);

/* The host side: see FORTET_LAUNCH and its neighbours below. */
FORTET_EMU_HIDDEN void launch(void *stream, const char *name, const void *kernel, dim3 blocks, dim3 threads,
                              size_t shared, std::function<void()> body);
FORTET_EMU_HIDDEN int status();
FORTET_EMU_HIDDEN int allow_shared(const void *kernel, size_t bytes);
FORTET_EMU_HIDDEN int zero(void *stream, void *ptr, size_t bytes);
FORTET_EMU_HIDDEN int multiprocessors();
FORTET_EMU_HIDDEN int max_shared();

/* Converts the arguments to the kernel's parameters now, as <<<>>> does, and
 * runs the kernel with copies of them later. */
template <class... P, class... A>
void call(void *stream, const char *name, void (*kernel)(P...), dim3 blocks, dim3 threads, size_t shared, A &&...args) {
  std::tuple<std::decay_t<P>...> copies(static_cast<P>(std::forward<A>(args))...);
  launch(stream, name, reinterpret_cast<const void *>(kernel), blocks, threads, shared,
         [kernel, copies] { std::apply(kernel, copies); });
}

template <class To, class From>
To bits(From v) {
  static_assert(sizeof(To) == sizeof(From), "bits of another size");
  To to;
  std::memcpy(&to, &v, sizeof to);
  return to;
}

template <class V>
uint64_t widen(V v) {
  static_assert(std::is_arithmetic<V>::value && (sizeof(V) == 4 || sizeof(V) == 8), "shuffles move 4 or 8 bytes");
  uint64_t wide = 0;
  std::memcpy(&wide, &v, sizeof v);
  return wide;
}
template <class V>
V narrow(uint64_t wide) {
  V v;
  std::memcpy(&v, &wide, sizeof v);
  return v;
}

/* A shuffle: source(lane, first, last) answers which lane to read, where
 * first..last is the caller's segment; outside of it the caller reads itself. */
template <class V, class F>
V shuffle(unsigned mask, V v, int width, F source) {
  const Hands h = meet(kShuffle, mask, widen(v));
  const int lane = static_cast<int>(h.lane), first = lane & ~(width - 1), last = first + width - 1;
  const int from = source(lane, first, last);
  return narrow<V>(h.value[from < first || from > last ? lane : from]);
}

template <class F>
unsigned fold(unsigned mask, unsigned v, F f) {
  const Hands h = meet(kReduce, mask, v);
  unsigned r = v;
  for (unsigned i = 0; i < 32; i++)
    if (i != h.lane && (h.present >> i & 1)) r = f(r, static_cast<unsigned>(h.value[i]));
  return r;
}

/* An atomic read-modify-write of any 4- or 8-byte type. */
template <class V, class F>
V update(V *address, F f) {
  using Word = std::conditional_t<sizeof(V) == 8, uint64_t, uint32_t>;
  static_assert(sizeof(V) == sizeof(Word), "atomics move 4 or 8 bytes");
  Word *const word = reinterpret_cast<Word *>(address);
  Word before = __atomic_load_n(word, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(word, &before, bits<Word>(static_cast<V>(f(bits<V>(before)))), true,
                                      __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return bits<V>(before);
}

/* Keeps a second argument from taking part in the deduction of V. */
template <class V>
using Same = std::common_type_t<V>;

} /* namespace emu */

/* ---- Launching: the names of fortet.h. */
#define FORTET_LAUNCH(kernel, grid, block, shared, stream, ...) \
  ::emu::call((stream), #kernel, (kernel), (grid), (block), (shared), ##__VA_ARGS__)
#define FORTET_DYN_SHARED(T, name) T *const name = reinterpret_cast<T *>(::emu::place().dynamic)
#define FORTET_STATUS() ::emu::status()
#define FORTET_MAX_DYN_SHARED(kernel, bytes) ::emu::allow_shared(reinterpret_cast<const void *>(kernel), (bytes))
static inline int fortet_multiprocessors(void) { return ::emu::multiprocessors(); }
static inline int fortet_max_shared(void) { return ::emu::max_shared(); }
static inline int fortet_zero(void *stream, void *ptr, size_t bytes) { return ::emu::zero(stream, ptr, bytes); }

/* ---- Where a thread is. */
#define threadIdx (::emu::place().thread)
#define blockIdx (::emu::place().block)
#define blockDim (::emu::place().threads)
#define gridDim (::emu::place().blocks)
#define warpSize 32

/* ---- Barriers and fences. */
static inline void __syncthreads(const char *file = __builtin_FILE(), int line = __builtin_LINE()) {
  ::emu::barrier(0, file, line);
}
static inline int __syncthreads_count(int p, const char *file = __builtin_FILE(), int line = __builtin_LINE()) {
  return static_cast<int>(::emu::barrier(p, file, line));
}
static inline int __syncthreads_or(int p, const char *file = __builtin_FILE(), int line = __builtin_LINE()) {
  return ::emu::barrier(p, file, line) != 0;
}
static inline int __syncthreads_and(int p, const char *file = __builtin_FILE(), int line = __builtin_LINE()) {
  return ::emu::barrier(!p, file, line) == 0;
}
static inline void __syncwarp(unsigned mask = 0xffffffffu) { ::emu::meet(::emu::kSync, mask, 0); }
static inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

/* ---- Warp operations. */
template <class V>
inline V __shfl_sync(unsigned mask, V v, int from, int width = 32) {
  return ::emu::shuffle(mask, v, width, [=](int, int first, int) { return first + (from & (width - 1)); });
}
template <class V>
inline V __shfl_xor_sync(unsigned mask, V v, int lanes, int width = 32) {
  /* as in hardware, a lower segment may be read, a higher one may not */
  const ::emu::Hands h = ::emu::meet(::emu::kShuffle, mask, ::emu::widen(v));
  const int lane = static_cast<int>(h.lane), from = (lane ^ lanes) & 31, last = lane | (width - 1);
  return ::emu::narrow<V>(h.value[from > last ? lane : from]);
}
template <class V>
inline V __shfl_down_sync(unsigned mask, V v, unsigned by, int width = 32) {
  return ::emu::shuffle(mask, v, width, [=](int lane, int, int) { return lane + static_cast<int>(by); });
}
template <class V>
inline V __shfl_up_sync(unsigned mask, V v, unsigned by, int width = 32) {
  return ::emu::shuffle(mask, v, width, [=](int lane, int, int) { return lane - static_cast<int>(by); });
}
static inline unsigned __ballot_sync(unsigned mask, int p) {
  const ::emu::Hands h = ::emu::meet(::emu::kVote, mask, p != 0);
  unsigned set = 0;
  for (unsigned i = 0; i < 32; i++)
    if ((h.present >> i & 1) && h.value[i]) set |= 1u << i;
  return set;
}
static inline int __any_sync(unsigned mask, int p) { return __ballot_sync(mask, p) != 0; }
static inline int __all_sync(unsigned mask, int p) { return __ballot_sync(mask, !p) == 0; }
static inline unsigned __reduce_add_sync(unsigned mask, unsigned v) {
  return ::emu::fold(mask, v, [](unsigned a, unsigned b) { return a + b; });
}
static inline unsigned __reduce_max_sync(unsigned mask, unsigned v) {
  return ::emu::fold(mask, v, [](unsigned a, unsigned b) { return a > b ? a : b; });
}
static inline unsigned __reduce_min_sync(unsigned mask, unsigned v) {
  return ::emu::fold(mask, v, [](unsigned a, unsigned b) { return a < b ? a : b; });
}

/* ---- Atomics: int, unsigned, long long, unsigned long long, float, double. */
template <class V>
inline V atomicAdd(V *p, ::emu::Same<V> v) {
  return ::emu::update(p, [v](V old) { return old + v; });
}
template <class V>
inline V atomicSub(V *p, ::emu::Same<V> v) {
  return ::emu::update(p, [v](V old) { return old - v; });
}
template <class V>
inline V atomicMax(V *p, ::emu::Same<V> v) {
  static_assert(std::is_integral<V>::value, "CUDA has atomicMax of integers only");
  return ::emu::update(p, [v](V old) { return old > v ? old : v; });
}
template <class V>
inline V atomicMin(V *p, ::emu::Same<V> v) {
  static_assert(std::is_integral<V>::value, "CUDA has atomicMin of integers only");
  return ::emu::update(p, [v](V old) { return old < v ? old : v; });
}
template <class V>
inline V atomicExch(V *p, ::emu::Same<V> v) {
  return ::emu::update(p, [v](V) { return v; });
}
template <class V>
inline V atomicCAS(V *p, ::emu::Same<V> expected, ::emu::Same<V> v) {
  static_assert(std::is_integral<V>::value, "CUDA has atomicCAS of integers only");
  return ::emu::update(p, [=](V old) { return old == expected ? v : old; });
}
template <class V>
inline V atomicOr(V *p, ::emu::Same<V> v) {
  return ::emu::update(p, [v](V old) { return old | v; });
}
template <class V>
inline V atomicAnd(V *p, ::emu::Same<V> v) {
  return ::emu::update(p, [v](V old) { return old & v; });
}

/* ---- Loads and stores with a hint. */
template <class V>
inline V __ldg(const V *p) { return *p; }
template <class V>
inline V __ldcg(const V *p) { return *p; }
template <class V>
inline V __ldcs(const V *p) { return *p; }
template <class V>
inline void __stcs(V *p, ::emu::Same<V> v) { *p = v; }
template <class V>
inline void __stcg(V *p, ::emu::Same<V> v) { *p = v; }

/* ---- Arithmetic that CUDA adds to <math.h>. The fast forms are accurate here. */
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
/* These are macros because the C library reserves the names for itself. */
#define __expf(x) expf(x)
#define __exp10f(x) powf(10.0f, (x))
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __log10f(x) log10f(x)
#define __powf(x, y) powf((x), (y))
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __tanf(x) tanf(x)
#define __sincosf(x, s, c) sincosf((x), (s), (c))
static inline float __fdividef(float x, float y) { return x / y; }
static inline float fdividef(float x, float y) { return x / y; }
static inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
static inline float __fadd_rn(float x, float y) { return x + y; }
static inline float __fsub_rn(float x, float y) { return x - y; }
static inline float __fmul_rn(float x, float y) { return x * y; }
static inline float __fdiv_rn(float x, float y) { return x / y; }
static inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
static inline float __frcp_rn(float x) { return 1.0f / x; }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __frsqrt_rn(float x) { return static_cast<float>(1.0 / sqrt(static_cast<double>(x))); }
static inline double __dadd_rn(double x, double y) { return x + y; }
static inline double __dsub_rn(double x, double y) { return x - y; }
static inline double __dmul_rn(double x, double y) { return x * y; }
static inline double __ddiv_rn(double x, double y) { return x / y; }
static inline double __fma_rn(double x, double y, double z) { return fma(x, y, z); }
static inline double __drcp_rn(double x) { return 1.0 / x; }
static inline double __dsqrt_rn(double x) { return sqrt(x); }

static inline int __float_as_int(float x) { return ::emu::bits<int>(x); }
static inline unsigned __float_as_uint(float x) { return ::emu::bits<unsigned>(x); }
static inline float __int_as_float(int x) { return ::emu::bits<float>(x); }
static inline float __uint_as_float(unsigned x) { return ::emu::bits<float>(x); }
static inline long long __double_as_longlong(double x) { return ::emu::bits<long long>(x); }
static inline double __longlong_as_double(long long x) { return ::emu::bits<double>(x); }

static inline unsigned __umulhi(unsigned x, unsigned y) {
  return static_cast<unsigned>(static_cast<uint64_t>(x) * y >> 32);
}
static inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(x) * y >> 64);
}
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline unsigned __brev(unsigned x) {
  unsigned r = 0;
  for (int i = 0; i < 32; i++) r |= (x >> i & 1) << (31 - i);
  return r;
}

/* min and max of equal types, as CUDA has them; for floating point fmin and fmax. */
template <class T>
static inline T min(T x, T y) {
  if constexpr (std::is_floating_point<T>::value) return std::fmin(x, y);
  else return y < x ? y : x;
}
template <class T>
static inline T max(T x, T y) {
  if constexpr (std::is_floating_point<T>::value) return std::fmax(x, y);
  else return x < y ? y : x;
}

#endif
