/* exact.h - arithmetic whose results are bit-equal on every device.
 *
 * IEEE 754 fixes +, -, *, /, sqrt and fma to the last bit; compilers do not
 * keep to it where they may contract a product and a sum into one fma. Code
 * that must agree bit for bit is therefore written so that no product is ever
 * an operand of a plain + or -: every multiply-add is an explicit fma. The
 * functions below name the operation that is meant. */
#ifndef FORTET_EXACT_H
#define FORTET_EXACT_H

#include "fortet.h"

#include <string.h>

#if defined(__CUDA_ARCH__)
FORTET_HD float fortet_fma32(float a, float b, float c) { return __fmaf_rn(a, b, c); }
FORTET_HD float fortet_mul32(float a, float b) { return __fmul_rn(a, b); }
FORTET_HD float fortet_div32(float a, float b) { return __fdiv_rn(a, b); }
FORTET_HD float fortet_sqrt32(float a) { return __fsqrt_rn(a); }
FORTET_HD double fortet_fma64(double a, double b, double c) { return __fma_rn(a, b, c); }
FORTET_HD double fortet_mul64(double a, double b) { return __dmul_rn(a, b); }
FORTET_HD double fortet_div64(double a, double b) { return __ddiv_rn(a, b); }
FORTET_HD double fortet_sqrt64(double a) { return __dsqrt_rn(a); }
#else
FORTET_HD float fortet_fma32(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
FORTET_HD float fortet_mul32(float a, float b) { return a * b; }
FORTET_HD float fortet_div32(float a, float b) { return a / b; }
FORTET_HD float fortet_sqrt32(float a) { return __builtin_sqrtf(a); }
FORTET_HD double fortet_fma64(double a, double b, double c) { return __builtin_fma(a, b, c); }
FORTET_HD double fortet_mul64(double a, double b) { return a * b; }
FORTET_HD double fortet_div64(double a, double b) { return a / b; }
FORTET_HD double fortet_sqrt64(double a) { return __builtin_sqrt(a); }
#endif

FORTET_HD uint32_t fortet_bits32(float x) {
  uint32_t u;
  memcpy(&u, &x, sizeof u);
  return u;
}
FORTET_HD float fortet_float32(uint32_t u) {
  float x;
  memcpy(&x, &u, sizeof x);
  return x;
}
FORTET_HD uint64_t fortet_bits64(double x) {
  uint64_t u;
  memcpy(&u, &x, sizeof u);
  return u;
}
FORTET_HD double fortet_float64(uint64_t u) {
  double x;
  memcpy(&x, &u, sizeof x);
  return x;
}

#endif
