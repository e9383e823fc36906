/* gmm_vector.h - vectors of REAL for one instruction level, with exp and log.
 * Included by gmm_cpu.c once for each level and element type, with
 *
 *     REAL    float or double         INT, UINT  int and uint of that size
 *     BYTES   width of a vector       F(x)   x with a suffix of level and type
 *     REAL_IS_DOUBLE                  TARGET  the attribute of the level
 *
 * Everything is a GCC vector extension, which gcc and clang lower to whatever
 * the target has. */

typedef REAL F(vec) __attribute__((vector_size(BYTES), aligned(sizeof(REAL)), may_alias));
typedef INT F(ivec) __attribute__((vector_size(BYTES), aligned(sizeof(REAL)), may_alias));
typedef UINT F(uvec) __attribute__((vector_size(BYTES), aligned(sizeof(REAL)), may_alias));
#define VEC F(vec)
#define IVEC F(ivec)
#define UVEC F(uvec)
enum { F(lanes) = BYTES / sizeof(REAL) };
#define LANES F(lanes)
#define INLINE TARGET static inline __attribute__((always_inline, unused))
#define LEVEL_FN TARGET static __attribute__((noinline))

INLINE VEC F(all)(REAL a) { return a - (VEC){0}; }
INLINE VEC F(load)(const REAL *p) { return *(const VEC *)p; }
INLINE void F(store)(REAL *p, VEC v) { *(VEC *)p = v; }
INLINE VEC F(select)(IVEC mask, VEC yes, VEC no) { return (VEC)(((IVEC)yes & mask) | ((IVEC)no & ~mask)); }

/* Sum of the lanes, by halves. */
INLINE REAL F(sum)(VEC v) {
#if defined(__clang__)
  REAL t[LANES];
  F(store)(t, v);
  for (int k = LANES / 2; k > 0; k /= 2)
    for (int i = 0; i < k; i++) t[i] += t[i + k];
  return t[0];
#else
  IVEC lane;
  for (int i = 0; i < LANES; i++) lane[i] = i;
#pragma GCC unroll 4
  for (int k = LANES / 2; k > 0; k /= 2) v += __builtin_shuffle(v, lane ^ k);
  return v[0];
#endif
}

/* Constants of the number format: the exponent of the least normal number;
 * 1.5 2^(mantissa bits), to which adding an integer leaves it in the low bits;
 * and the bits of the mantissa, of the exponent of 1, and of 1. */
#if REAL_IS_DOUBLE
#define EXPONENT_LOW (-1022.0)
#define ROUNDER 0x1.8p52
#define EXPONENT_BIAS 1023
#define MANTISSA 52
#define ONE 0x3ff0000000000000LL
#else
#define EXPONENT_LOW (-126.0f)
#define ROUNDER 0x1.8p23f
#define EXPONENT_BIAS 127
#define MANTISSA 23
#define ONE 0x3f800000
#endif

/* e^x for x <= 0; 0 below the least normal number. Of the weights of a softmax
 * those near 1 matter: the error is |x| units in the last place.
 *
 * 2^f for f in [-1/2, 1/2] is the polynomial that interpolates it at Chebyshev
 * nodes; relative error 2.5e-9 for float and 4e-18 for double. */
INLINE VEC F(exp_down)(VEC x) {
#if REAL_IS_DOUBLE
  static const double c[] = {4.4558384999982015e-10, 7.074232929778746e-09, 1.01780569717918e-07,
                             1.3215432318411193e-06, 1.5252733841782436e-05, 0.00015403530464147726,
                             0.0013333558146406295,  0.009618129107586925,  0.055504108664821625,
                             0.2402265069591016,     0.6931471805599453,    1.0};
#else
  static const float c[] = {0.00015461560778872135f, 0.0013400562264223321f, 0.0096180563880577750f,
                            0.055503268911533885f,   0.24022650923651495f,   0.69314720686023623f, 1.0f};
#endif
  const VEC z = x * (REAL)1.44269504088896340736;
  const IVEC under = (IVEC)(z < F(all)(EXPONENT_LOW));
  const VEC t = F(select)(under, F(all)(EXPONENT_LOW), z);
  const VEC shifted = t + (ROUNDER + EXPONENT_BIAS);
  const VEC scale = (VEC)((IVEC)shifted << MANTISSA), f = t - (shifted - (ROUNDER + EXPONENT_BIAS));
  VEC p = F(all)(c[0]);
#pragma GCC unroll 16
  for (int i = 1; i < (int)(sizeof c / sizeof c[0]); i++) p = p * f + c[i];
  return F(select)(under, F(all)(0), p * scale);
}

/* log(m 2^e) for m in [1, 2): with m halved where it is above sqrt 2,
 * log m = 2 artanh((m - 1) / (m + 1)) by its series. ln 2 comes in two parts
 * (fdlibm's), the first with enough trailing zeros for its product with e to be
 * exact. */
INLINE VEC F(log_split)(VEC m, IVEC e) {
#if REAL_IS_DOUBLE
  const REAL head = 6.93147180369123816490e-01, tail = 1.90821492927058770002e-10;
  const int terms = 11;
#else
  const REAL head = 0.693359375f, tail = -2.12194440e-4f;
  const int terms = 5;
#endif
  const IVEC high = (IVEC)(m > F(all)((REAL)1.41421356237309504880));
  m = F(select)(high, m * (REAL)0.5, m);
  const VEC n = (VEC)((IVEC)F(all)(ROUNDER) + (e - high)) - ROUNDER;
  const VEC s = (m - 1) / (m + 1), s2 = s * s;
  VEC p = F(all)((REAL)1 / (2 * terms + 1));
#pragma GCC unroll 16
  for (int k = terms - 1; k > 0; k--) p = p * s2 + (REAL)1 / (2 * k + 1);
  return (n * head + 2 * s) + (n * tail + 2 * s * s2 * p);
}

/* Takes the exponents of normal x > 0 out: *e += exponent, answers the mantissa
 * in [1, 2). It does not pass a NaN on. */
INLINE VEC F(take_exponent)(VEC x, IVEC *e) {
  *e += (IVEC)((UVEC)x >> MANTISSA) - EXPONENT_BIAS;
  return (VEC)(((IVEC)x & (((INT)1 << MANTISSA) - 1)) | (INT)ONE);
}

/* log x for normal x > 0. */
INLINE VEC F(log)(VEC x) {
  IVEC e = {0};
  const VEC m = F(take_exponent)(x, &e);
  return F(log_split)(m, e) + (x - x); /* NaN for NaN */
}

#undef EXPONENT_LOW
#undef ROUNDER
#undef EXPONENT_BIAS
#undef MANTISSA
#undef ONE
