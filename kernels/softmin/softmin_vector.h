/* softmin_vector.h - the vector arithmetic of the CPU kernels, for REAL in
 * vectors of LANES. Included by softmin_body.h, once per level and type; N(name)
 * makes names unique. Everything is a GCC vector extension, which gcc and clang
 * lower to whatever the target has, except minimum, maximum and square root. */

typedef REAL N(vec) __attribute__((vector_size(LANES * sizeof(REAL))));
typedef REAL N(mem) __attribute__((vector_size(LANES * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));
typedef BITS N(bits) __attribute__((vector_size(LANES * sizeof(REAL))));
#define VEC N(vec)
#define LOAD(p) ((VEC) * (const N(mem) *)(p))
#define STORE(p, v) (*(N(mem) *)(p) = (v))
#define SPLAT(a) ((REAL)(a) - (VEC){0})

/* a where a > b, else b: NaN in b passes, NaN in a does not. That is what the
 * x86 instruction does. */
INLINE VEC N(larger)(VEC a, VEC b) {
#ifdef VECTOR_MAX
  return VECTOR_MAX(a, b);
#else
  N(bits) m = (N(bits))(a > b);
  return (VEC)(((N(bits))a & m) | ((N(bits))b & ~m));
#endif
}

/* a where a < b, else b. */
INLINE VEC N(smaller)(VEC a, VEC b) {
#ifdef VECTOR_MIN
  return VECTOR_MIN(a, b);
#else
  N(bits) m = (N(bits))(a < b);
  return (VEC)(((N(bits))a & m) | ((N(bits))b & ~m));
#endif
}

INLINE VEC N(root)(VEC a) {
#ifdef VECTOR_SQRT
  return VECTOR_SQRT(a);
#else
  for (int l = 0; l < LANES; l++) a[l] = (REAL)sqrt((double)a[l]);
  return a;
#endif
}

/* v where mask is set, else 0. */
INLINE VEC N(where)(N(bits) mask, VEC v) { return (VEC)((N(bits))v & mask); }

INLINE REAL N(sum)(VEC v) {
  REAL s[LANES];
  STORE(s, v);
  for (int w = LANES / 2; w > 0; w /= 2)
    for (int l = 0; l < w; l++) s[l] += s[l + w];
  return s[0];
}

INLINE REAL N(most)(VEC v) {
  REAL s[LANES];
  STORE(s, v);
  for (int w = LANES / 2; w > 0; w /= 2)
    for (int l = 0; l < w; l++) s[l] = s[l + w] > s[l] ? s[l + w] : s[l];
  return s[0];
}

/* Sums in double: a register of doubles, WIDE, and as many numbers of REAL. */
#define WIDE_LANES (LANES * sizeof(REAL) / sizeof(double))
typedef double N(wide) __attribute__((vector_size(LANES * sizeof(REAL))));
typedef double N(wide_mem) __attribute__((vector_size(LANES * sizeof(REAL)), aligned(8), may_alias));
typedef REAL N(narrow_mem) __attribute__((vector_size(WIDE_LANES * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));
#define WIDE N(wide)
#define LOAD_WIDE(p) __builtin_convertvector(*(const N(narrow_mem) *)(p), WIDE)

/* sums_l += unit v_l */
INLINE void N(add_wide)(double *sums, VEC v, double unit) {
  REAL t[LANES];
  STORE(t, v);
  UNROLL for (size_t h = 0; h < LANES; h += WIDE_LANES) *(N(wide_mem) *)(sums + h) += LOAD_WIDE(t + h) * unit;
}

/* exp2 of STREAMS vectors t, each as a mantissa, which replaces t, and a scale
 * whose product it is: an accumulation multiplies and adds in one. Vectors go
 * through the steps side by side, since each step waits for the one before and
 * a processor's schedulers do not look far enough ahead to overlap long chains.
 *
 * t is split by the magic number 1.5 * 2^MANTISSA, which leaves round(t), plus
 * the exponent bias, in the low bits; that is exact, so base 2 needs no
 * reduction by ln 2. The polynomials minimise the largest relative error of 2^r on
 * [-1/2, 1/2], by Remez exchange (double: 3.1e-18) and by Lawson iteration with
 * the constant held at one (float: 9.1e-8; 1.7e-7 with rounding).
 *
 * t must not exceed the largest exponent. Below half the smallest normal
 * number the scale is 0, so -inf gives 0; NaN gives NaN. */
#define EACH UNROLL for (int s = 0; s < STREAMS; s++)
#define HORNER(c) EACH p[s] = p[s] * t[s] + (REAL)(c)

INLINE void N(exp2_parts)(VEC *t, VEC *scale) {
  VEC p[STREAMS];
  EACH t[s] = N(larger)(SPLAT(-BIAS), t[s]);
  EACH scale[s] = t[s] + MAGIC;
  EACH t[s] -= scale[s] - MAGIC;
#if MANTISSA == 23
  EACH p[s] = t[s] * 0x1.5bba14p-10f + 0x1.3cea88p-7f;
  HORNER(0x1.c6b752p-5);
  HORNER(0x1.ebf9bcp-3);
  HORNER(0x1.62e42ap-1);
#else
  EACH p[s] = t[s] * 0x1.e7aa0f6005d3cp-32 + 0x1.e620fb765be15p-28;
  HORNER(0x1.b526788b3b73dp-24);
  HORNER(0x1.62bfc3c1c8a7cp-20);
  HORNER(0x1.ffcbfba7b89b6p-17);
  HORNER(0x1.43091310bf6b0p-13);
  HORNER(0x1.5d87fe78cf26dp-10);
  HORNER(0x1.3b2ab6fb9f413p-7);
  HORNER(0x1.c6b08d7049fd1p-5);
  HORNER(0x1.ebfbdff82c5adp-3);
  HORNER(0x1.62e42fefa39efp-1);
#endif
  EACH t[s] = p[s] * t[s] + (REAL)1;
  EACH scale[s] = (VEC)((N(bits))scale[s] << MANTISSA);
}

/* exp2 in place, for arguments of any size: above the range it is +inf. */
INLINE void N(exp2)(VEC *t) {
  VEC scale[STREAMS];
  EACH t[s] = N(smaller)(SPLAT(BIAS + 1), t[s]);
  N(exp2_parts)(t, scale);
  EACH t[s] *= scale[s];
}
