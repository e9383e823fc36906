/* Loops that keep one core's units busy and nothing else: what they reach is
 * what a kernel's time is compared with. */
#define _POSIX_C_SOURCE 200809L
#include "limits.h"

#include <time.h>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2,fma"), noinline))
#define AVX512 __attribute__((target("avx2,fma,avx512f,avx512vl,avx512bw,avx512dq"), noinline))
#define X86 1
#endif

#if defined(X86)
#define KEEP(v) __asm__("" : "+x"(v));
#elif defined(__aarch64__)
#define KEEP(v) __asm__("" : "+w"(v));
#else
#define KEEP(v)
#endif

#define EACH6(f) f(0) f(1) f(2) f(3) f(4) f(5)
#define EACH12(f) EACH6(f) f(6) f(7) f(8) f(9) f(10) f(11)

/* Twelve chains hide the latency of 4 or 5 cycles at two per cycle. They are
 * variables of their own, because compilers keep arrays in memory. The empty
 * asm keeps a step from being merged with the next. */
#define FMA_BEGIN(k) a##k = zero + (float)k;
#define FMA_STEP(k) \
  a##k = a##k * x + y; \
  KEEP(a##k)
#define FMA_END(k) x += a##k;
#define FMA_BODY(V, T, bytes) \
  V zero = {0}, x = zero + (T)0.999, y = zero + (T)1e-3; \
  V a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11; \
  T sum = 0; \
  EACH12(FMA_BEGIN) \
  for (int64_t i = 0; i < steps; i++) { EACH12(FMA_STEP) } \
  EACH12(FMA_END) \
  for (unsigned j = 0; j < bytes / sizeof(T); j++) sum += x[j]; \
  return (double)sum;

/* 2^x for small x <= 0, by rounding and a polynomial: the degrees are those that
 * reach the accuracy of the type, the coefficients do not matter here. Six
 * arguments at a time hide the latency. */
#define EXP_BEGIN(k) x##k = zero - (float)k * 0.37f;
#define EXP_STEP(k, V, I, polynomial, shift) \
  t = x##k + magic; \
  KEEP(t) \
  r = x##k - (t - magic); \
  p = polynomial(r); \
  sum += (V)((I)p + ((I)t << shift)); \
  x##k += down;
#define EXP_STEPS(...) \
  EXP_STEP(0, __VA_ARGS__) EXP_STEP(1, __VA_ARGS__) EXP_STEP(2, __VA_ARGS__) \
  EXP_STEP(3, __VA_ARGS__) EXP_STEP(4, __VA_ARGS__) EXP_STEP(5, __VA_ARGS__)
#define EXP_END(k) sum += x##k;
#define EXP_BODY(V, I, T, bytes, polynomial, shift, round) \
  V zero = {0}, magic = zero + round, down = zero - (T)1e-6, sum = zero, t, r, p; \
  V x0, x1, x2, x3, x4, x5; \
  T total = 0; \
  EACH6(EXP_BEGIN) \
  for (int64_t i = 0; i < steps; i++) { EXP_STEPS(V, I, polynomial, shift) } \
  EACH6(EXP_END) \
  for (unsigned j = 0; j < bytes / sizeof(T); j++) total += sum[j]; \
  return (double)total;
#define DEGREE6(r) ((((((1.5e-4f * r + 1.3e-3f) * r + 9.6e-3f) * r + 5.6e-2f) * r + 2.4e-1f) * r + 6.9e-1f) * r + 1.0f)
#define DEGREE11(r) \
  (((((((((((4e-10 * r + 7e-9) * r + 1e-7) * r + 1.3e-6) * r + 1.5e-5) * r + 1.5e-4) * r + 1.3e-3) * r + 9.6e-3) * r + \
       5.6e-2) * r + 2.4e-1) * r + 6.9e-1) * r + 1.0)

/* A round takes two products and two exclusive ors of three; words are kept in
 * the low halves of 64 bits, as the widening product wants them. Four counters
 * at a time hide the latency. */
#define INT_ROUND(k, U, PRODUCT) \
  p = (U)PRODUCT(a##k, m0); \
  q = (U)PRODUCT(b##k, m1); \
  a##k = (q >> 32) ^ p ^ key; \
  b##k = (p >> 32) ^ q ^ key;
#define INT_BEGIN(k) a##k = zero + (uint64_t)(2 * k + 1), b##k = zero + (uint64_t)(3 * k + 5);
#define INT_END(k) key ^= a##k ^ b##k;
#define INT_ROUNDS(...) INT_ROUND(0, __VA_ARGS__) INT_ROUND(1, __VA_ARGS__) INT_ROUND(2, __VA_ARGS__) INT_ROUND(3, __VA_ARGS__)
#define EACH4(f) f(0) f(1) f(2) f(3)
#define INT_BODY(U, bytes, PRODUCT) \
  U zero = {0}, m0 = zero + 0xD2511F53u, m1 = zero + 0xCD9E8D57u, key = zero + 7; \
  U a0, a1, a2, a3, b0, b1, b2, b3, p, q; \
  uint64_t sum = 0; \
  EACH4(INT_BEGIN) \
  for (int64_t i = 0; i < steps; i++) { INT_ROUNDS(U, PRODUCT) key += 0x9E3779B9u; } \
  EACH4(INT_END) \
  for (unsigned j = 0; j < bytes / sizeof(uint64_t); j++) sum ^= key[j]; \
  return (double)sum;

#define LOOPS(name, at, bytes) \
  typedef float f32_##name __attribute__((vector_size(bytes))); \
  typedef double f64_##name __attribute__((vector_size(bytes))); \
  typedef int32_t i32_##name __attribute__((vector_size(bytes))); \
  typedef int64_t i64_##name __attribute__((vector_size(bytes))); \
  typedef uint64_t u64_##name __attribute__((vector_size(bytes))); \
  at static double int_##name(int64_t steps) { INT_BODY(u64_##name, bytes, PRODUCT_##name) } \
  at static double fma32_##name(int64_t steps) { FMA_BODY(f32_##name, float, bytes) } \
  at static double fma64_##name(int64_t steps) { FMA_BODY(f64_##name, double, bytes) } \
  at static double exp32_##name(int64_t steps) { EXP_BODY(f32_##name, i32_##name, float, bytes, DEGREE6, 23, 0x1.8p23f) } \
  at static double exp64_##name(int64_t steps) { EXP_BODY(f64_##name, i64_##name, double, bytes, DEGREE11, 52, 0x1.8p52) }

#ifdef X86
#define PRODUCT_avx512(a, m) _mm512_mul_epu32((__m512i)(a), (__m512i)(m))
#define PRODUCT_avx2(a, m) _mm256_mul_epu32((__m256i)(a), (__m256i)(m))
#define PRODUCT_baseline(a, m) _mm_mul_epu32((__m128i)(a), (__m128i)(m))
LOOPS(avx512, AVX512, 64)
LOOPS(avx2, AVX2, 32)
#define PLAIN __attribute__((noinline))
LOOPS(baseline, PLAIN, 16)
#define CHOOSE(op, steps) \
  (level == 3 ? op##_avx512(steps) : level == 2 ? op##_avx2(steps) : op##_baseline(steps))
#define WIDTH (level == 3 ? 64 : level == 2 ? 32 : 16)
#else
#define PRODUCT_baseline(a, m) (((a) & 0xffffffffu) * (m))
#define PLAIN __attribute__((noinline))
LOOPS(baseline, PLAIN, 16)
#define CHOOSE(op, steps) (op##_baseline(steps))
#define WIDTH 16
#endif

double bench_fma(int level, int bits, int64_t steps, double *flops) {
  *flops = 2.0 * 12 * (double)steps * WIDTH * 8 / bits;
  return bits == 32 ? CHOOSE(fma32, steps) : CHOOSE(fma64, steps);
}

double bench_exp(int level, int bits, int64_t steps, double *exps) {
  *exps = 6.0 * (double)steps * WIDTH * 8 / bits;
  return bits == 32 ? CHOOSE(exp32, steps) : CHOOSE(exp64, steps);
}

double bench_int(int level, int64_t steps, double *ops) {
  *ops = 4.0 * 4 * (double)steps * WIDTH / 8;
  return CHOOSE(int, steps);
}

double bench_read(const double *v, int64_t n) {
  double s[16] = {0};
  for (int64_t i = 0; i + 16 <= n; i += 16)
    for (int k = 0; k < 16; k++) s[k] += v[i + k];
  for (int k = 1; k < 16; k++) s[0] += s[k];
  return s[0];
}

double bench_thread_time(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
