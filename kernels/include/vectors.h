/* vectors.h - vectors of LANES of REAL, for one type at one instruction level: for
 * kernels that compute lane by lane. Included by the bodies of kernels; N(name)
 * makes names unique. All functions work lane by lane, except sum. */

typedef REAL N(vec) __attribute__((vector_size(LANES * sizeof(REAL))));
typedef REAL N(mem) __attribute__((vector_size(LANES * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));
typedef BITS N(bits) __attribute__((vector_size(LANES * sizeof(REAL))));
#define VEC N(vec)
#define LOAD(p) ((VEC) * (const N(mem) *)(p))
#define STORE(p, v) (*(N(mem) *)(p) = (v))
#define SPLAT(a) ((REAL)(a) - (VEC){0})

/* a where mask is set, else b. */
INLINE VEC N(select)(N(bits) mask, VEC a, VEC b) { return (VEC)(((N(bits))a & mask) | ((N(bits))b & ~mask)); }

/* a where a > b, else b: NaN in b passes, NaN in a does not. */
INLINE VEC N(larger)(VEC a, VEC b) {
#ifdef VECTOR_MAX
  return VECTOR_MAX(a, b);
#else
  return N(select)((N(bits))(a > b), a, b);
#endif
}

INLINE VEC N(magnitude)(VEC a) { return (VEC)((N(bits))a & (((BITS)1 << (8 * sizeof(REAL) - 1)) - 1)); }

INLINE REAL N(sum)(VEC v) {
  REAL s[LANES];
  STORE(s, v);
  for (int w = LANES / 2; w > 0; w /= 2)
    for (int l = 0; l < w; l++) s[l] += s[l + w];
  return s[0];
}

/* 2^t for t <= 0; 0 below the smallest normal number, and for -inf; NaN for NaN.
 * t = n + r with |r| <= 1/2; the polynomials minimise the largest relative error
 * of 2^r there, 9.1e-8 and 3.1e-18. */
INLINE VEC N(exp2)(VEC t) {
  t = N(larger)(SPLAT(-BIAS), t);
  VEC scale = t + MAGIC;
  t -= scale - MAGIC;
#if MANTISSA == 23
  VEC p = t * 0x1.5bba14p-10f + 0x1.3cea88p-7f;
  p = p * t + 0x1.c6b752p-5f;
  p = p * t + 0x1.ebf9bcp-3f;
  p = p * t + 0x1.62e42ap-1f;
#else
  VEC p = t * 0x1.e7aa0f6005d3cp-32 + 0x1.e620fb765be15p-28;
  p = p * t + 0x1.b526788b3b73dp-24;
  p = p * t + 0x1.62bfc3c1c8a7cp-20;
  p = p * t + 0x1.ffcbfba7b89b6p-17;
  p = p * t + 0x1.43091310bf6b0p-13;
  p = p * t + 0x1.5d87fe78cf26dp-10;
  p = p * t + 0x1.3b2ab6fb9f413p-7;
  p = p * t + 0x1.c6b08d7049fd1p-5;
  p = p * t + 0x1.ebfbdff82c5adp-3;
  p = p * t + 0x1.62e42fefa39efp-1;
#endif
  scale = (VEC)((N(bits))scale << MANTISSA);
  return (p * t + (REAL)1) * scale;
}

/* log2 x for normal x > 0, NaN for NaN and infinities: x = 2^n m with m in [sqrt(1/2), sqrt 2), and
 * log m = 2 artanh((m - 1) / (m + 1)) by its series. */
INLINE VEC N(log2)(VEC x) {
  const BITS lift = (BITS)(BIAS + 1) << MANTISSA; /* keeps the exponent positive */
#if MANTISSA == 23
  const BITS root_half = 0x3f3504f3u;
  enum { TERMS = 5 };
#else
  const BITS root_half = 0x3fe6a09e667f3bcdull;
  enum { TERMS = 11 };
#endif
  const N(bits) e = (((N(bits))x - root_half + lift) >> MANTISSA) - (BITS)(BIAS + 1);
  const VEC m = (VEC)((N(bits))x - (e << MANTISSA));
  const VEC n = (VEC)((N(bits))SPLAT(MAGIC) + e) - (REAL)MAGIC;
  const VEC s = (m - (REAL)1) / (m + (REAL)1), s2 = s * s;
  VEC p = SPLAT((REAL)1 / (2 * TERMS + 1));
  UNROLL for (int i = TERMS - 1; i >= 0; i--) p = p * s2 + (REAL)1 / (REAL)(2 * i + 1);
  return n + s * p * (REAL)(2 * 1.44269504088896340736) + (x - x);
}
