/* Loops that keep one core's units busy and nothing else: what they reach is
 * what a kernel's time is compared with. */
#include "limits.h"

#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define AVX2 __attribute__((target("avx2,fma"), noinline))
#define AVX512 __attribute__((target("avx2,fma,avx512f,avx512vl,avx512bw,avx512dq"), noinline))
#define X86 1
#endif

/* Twelve chains hide the latency of 4 or 5 cycles at two per cycle. The empty
 * asm keeps a step from being merged with the next. */
#define FMA_BODY(V, T, bytes) \
  V a[12], x, y; \
  T one[bytes / sizeof(T)], tiny[bytes / sizeof(T)], sum = 0; \
  for (unsigned k = 0; k < bytes / sizeof(T); k++) one[k] = (T)0.999, tiny[k] = (T)1e-3; \
  memcpy(&x, one, bytes); \
  memcpy(&y, tiny, bytes); \
  for (int k = 0; k < 12; k++) a[k] = x; \
  for (int64_t i = 0; i < steps; i++) { \
    _Pragma("GCC unroll 12") for (int k = 0; k < 12; k++) { \
      a[k] = a[k] * x + y; \
      __asm__("" : "+v"(a[k])); \
    } \
  } \
  for (int k = 0; k < 12; k++) \
    for (unsigned j = 0; j < bytes / sizeof(T); j++) sum += ((T *)&a[k])[j]; \
  return (double)sum;

/* 2^x for x in [-100, 0], by rounding and a polynomial of the given degree: 4
 * operations beside the polynomial's. The coefficients do not matter here; the
 * degrees are those that reach the accuracy of the type. Six arguments at a
 * time hide the latency. */
#define EXP_BODY(V, I, T, U, bytes, degree, shift, magic) \
  V x[6], sum[6], down; \
  T lane[bytes / sizeof(T)], total = 0; \
  for (unsigned k = 0; k < bytes / sizeof(T); k++) lane[k] = (T)-0.37 * (T)k; \
  for (int k = 0; k < 6; k++) memcpy(&x[k], lane, bytes), sum[k] = x[k] * 0; \
  down = x[0] * 0 - (T)1e-6; \
  for (int64_t i = 0; i < steps; i++) { \
    _Pragma("GCC unroll 6") for (int k = 0; k < 6; k++) { \
      V t = x[k] + (T)magic, r, p; \
      I e; \
      __asm__("" : "+v"(t)); \
      r = x[k] - (t - (T)magic); \
      p = r * (T)1e-5 + (T)1e-4; \
      _Pragma("GCC unroll 16") for (int c = 1; c < degree; c++) p = p * r + (T)(0.7 / c); \
      memcpy(&e, &t, bytes); \
      e = e << shift; \
      { \
        I q; \
        memcpy(&q, &p, bytes); \
        q += e; \
        memcpy(&p, &q, bytes); \
      } \
      sum[k] += p; \
      x[k] += down; \
      __asm__("" : "+v"(x[k])); \
    } \
  } \
  for (int k = 0; k < 6; k++) \
    for (unsigned j = 0; j < bytes / sizeof(T); j++) total += ((T *)&sum[k])[j]; \
  return (double)total;

#define LOOPS(name, at, bytes) \
  typedef float f32_##name __attribute__((vector_size(bytes), may_alias)); \
  typedef double f64_##name __attribute__((vector_size(bytes), may_alias)); \
  typedef int32_t i32_##name __attribute__((vector_size(bytes))); \
  typedef int64_t i64_##name __attribute__((vector_size(bytes))); \
  at static double fma32_##name(int64_t steps) { FMA_BODY(f32_##name, float, bytes) } \
  at static double fma64_##name(int64_t steps) { FMA_BODY(f64_##name, double, bytes) } \
  at static double exp32_##name(int64_t steps) { EXP_BODY(f32_##name, i32_##name, float, int32_t, bytes, 6, 23, 0x1.8p23f) } \
  at static double exp64_##name(int64_t steps) { EXP_BODY(f64_##name, i64_##name, double, int64_t, bytes, 11, 52, 0x1.8p52) }

#ifdef X86
LOOPS(avx512, AVX512, 64)
LOOPS(avx2, AVX2, 32)
#define PLAIN __attribute__((noinline))
LOOPS(baseline, PLAIN, 16)
#define CHOOSE(op, steps) \
  (level == 3 ? op##_avx512(steps) : level == 2 ? op##_avx2(steps) : op##_baseline(steps))
#define WIDTH (level == 3 ? 64 : level == 2 ? 32 : 16)
#else
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

double bench_read(const double *v, int64_t n) {
  double s[16] = {0};
  for (int64_t i = 0; i + 16 <= n; i += 16)
    for (int k = 0; k < 16; k++) s[k] += v[i + k];
  for (int k = 1; k < 16; k++) s[0] += s[k];
  return s[0];
}
