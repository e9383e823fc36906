/* duallse_vec.h - vectors of REAL for one instruction level, with exp2, log,
 * and the conjugates of divergences.h. Included by duallse_cpu.c once for each
 * level and element type, with
 *
 *     REAL    float or double         INT, UINT  int and uint of that size
 *     BYTES   width of a vector       F(x)   x with a suffix of level and type
 *     REAL_IS_DOUBLE, VEC_SQRT        TARGET  the attribute of the level
 *
 * Every function passes a NaN on. */

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
INLINE VEC F(greater)(VEC a, VEC b) { return F(select)((IVEC)(a > b), a, b); }

/* Sum and maximum of the lanes, by a butterfly whose order is fixed. */
#if defined(__clang__)
INLINE REAL F(sum)(VEC v) {
  REAL t[LANES];
  F(store)(t, v);
  for (int k = LANES / 2; k > 0; k /= 2)
    for (int i = 0; i < k; i++) t[i] = t[i + k] + t[i];
  return t[0];
}
INLINE REAL F(max)(VEC v) {
  REAL t[LANES];
  F(store)(t, v);
  for (int k = LANES / 2; k > 0; k /= 2)
    for (int i = 0; i < k; i++) t[i] = t[i] > t[i + k] ? t[i] : t[i + k];
  return t[0];
}
#else
INLINE IVEC F(lane)(void) {
  IVEC v;
  for (int i = 0; i < LANES; i++) v[i] = i;
  return v;
}
INLINE REAL F(sum)(VEC v) {
#pragma GCC unroll 4
  for (int k = LANES / 2; k > 0; k /= 2) v += __builtin_shuffle(v, F(lane)() ^ k);
  return v[0];
}
INLINE REAL F(max)(VEC v) {
#pragma GCC unroll 4
  for (int k = LANES / 2; k > 0; k /= 2) v = F(greater)(v, __builtin_shuffle(v, F(lane)() ^ k));
  return v[0];
}
#endif

/* Constants of the number format: the exponents of the least normal and of the
 * first number that is too large, and 1.5 2^(mantissa bits) + bias, which
 * added to n in that range leaves n + bias in the low bits. */
#if REAL_IS_DOUBLE
#define EXPONENT_LOW (-1022.0)
#define EXPONENT_HIGH 1024.0
#define ROUNDER 0x1.8p52
#define MAGIC (ROUNDER + 1023)
#define MANTISSA 52
#else
#define EXPONENT_LOW (-126.0f)
#define EXPONENT_HIGH 128.0f
#define ROUNDER 0x1.8p23f
#define MAGIC (ROUNDER + 127)
#define MANTISSA 23
#endif

/* 2^f for f in [-1/2, 1/2]: the polynomial that interpolates it at Chebyshev
 * nodes; relative error 2.5e-9 for float and 4e-18 for double. */
INLINE VEC F(exp2_poly)(VEC f) {
#if REAL_IS_DOUBLE
  static const double c[] = {4.4558384999982015e-10, 7.074232929778746e-09, 1.01780569717918e-07,
                             1.3215432318391193e-06, 1.5252733841782436e-05, 0.00015403530464147726,
                             0.0013333558146406295,  0.009618129107586925,  0.055504108664821625,
                             0.2402265069591016,     0.6931471805599453,    1.0};
#else
  static const float c[] = {0.00015461560778872135f, 0.0013400562264223321f, 0.0096180563880577750f,
                            0.055503268911533885f,   0.24022650923651495f,   0.69314720686023623f, 1.0f};
#endif
  VEC p = F(all)(c[0]);
#pragma GCC unroll 16
  for (int i = 1; i < (int)(sizeof c / sizeof c[0]); i++) p = p * f + c[i];
  return p;
}

/* 2^x. Below the exponent of the least normal number it is 0, from half a unit
 * below the exponent of the first too large number on it is +inf. */
INLINE VEC F(exp2)(VEC x) {
  const IVEC under = (IVEC)(x < F(all)(EXPONENT_LOW));
  VEC t = F(select)(under, F(all)(EXPONENT_LOW), x);
  t = F(select)((IVEC)(t > F(all)(EXPONENT_HIGH)), F(all)(EXPONENT_HIGH), t);
  const VEC shifted = t + MAGIC;
  const VEC scale = (VEC)((IVEC)shifted << MANTISSA);
  return F(select)(under, F(all)(0), F(exp2_poly)(t - (shifted - MAGIC)) * scale);
}

/* 2^x for the terms x <= 0 of a log-sum-exp whose largest is 1: what is below
 * the least normal number may as well be that number. */
INLINE VEC F(exp2_down)(VEC x) {
  const VEC t = F(select)((IVEC)(x < F(all)(EXPONENT_LOW)), F(all)(EXPONENT_LOW), x);
  const VEC shifted = t + MAGIC;
  const VEC scale = (VEC)((IVEC)shifted << MANTISSA);
  return F(exp2_poly)(t - (shifted - MAGIC)) * scale;
}

/* ln 2 in two parts (fdlibm's), the first with enough trailing zeros for its
 * product with n to be exact. */
#if REAL_IS_DOUBLE
#define LN2_HEAD 6.93147180369123816490e-01
#define LN2_TAIL 1.90821492927058770002e-10
#else
#define LN2_HEAD 0.693359375f
#define LN2_TAIL (-2.12194440e-4f)
#endif

/* e^x, with the limits of exp2. */
INLINE VEC F(exp)(VEC x) {
  const REAL log2e = (REAL)1.44269504088896340736, ln2 = (REAL)0.693147180559945309417;
  const REAL low = EXPONENT_LOW * ln2, high = EXPONENT_HIGH * ln2;
  const IVEC under = (IVEC)(x < F(all)(low));
  VEC t = F(select)(under, F(all)(low), x);
  t = F(select)((IVEC)(t > F(all)(high)), F(all)(high), t);
  const VEC shifted = t * log2e + MAGIC;
  const VEC scale = (VEC)((IVEC)shifted << MANTISSA);
  const VEC n = shifted - MAGIC;
  const VEC r = (t - n * LN2_HEAD) - n * LN2_TAIL;
  return F(select)(under, F(all)(0), F(exp2_poly)(r * log2e) * scale);
}

/* log x for normal x > 0, and -inf for x = 0: x = 2^n m with m in
 * [sqrt(1/2), sqrt 2), log m = 2 artanh((m-1)/(m+1)) by its series. */
INLINE VEC F(log)(VEC x) {
#if REAL_IS_DOUBLE
  const INT half = 0x3fe6a09e667f3bcdLL;
  const int terms = 11;
#else
  const INT half = 0x3f3504f3;
  const int terms = 5;
#endif
  const INT offset = (INT)1 << (MANTISSA + (REAL_IS_DOUBLE ? 10 : 7)); /* keeps the difference positive */
  const UVEC biased = (UVEC)((IVEC)x - half) + (UINT)offset;
  const IVEC e = (IVEC)(biased >> MANTISSA) - (INT)(REAL_IS_DOUBLE ? 1024 : 128);
  const VEC m = (VEC)((IVEC)x - (e << MANTISSA));
  const VEC n = (VEC)((IVEC)F(all)(ROUNDER) + e) - ROUNDER;
  const VEC s = (m - 1) / (m + 1), s2 = s * s;
  VEC p = F(all)((REAL)1 / (2 * terms + 1));
#pragma GCC unroll 16
  for (int k = terms - 1; k > 0; k--) p = p * s2 + (REAL)1 / (2 * k + 1);
  const VEC tail = n * LN2_TAIL + 2 * s * s2 * p;
  const VEC value = (n * LN2_HEAD + 2 * s) + tail;
  const VEC zero = F(select)((IVEC)(x == F(all)(0)), F(all)(-(REAL)INFINITY), value);
  return zero + (x - x); /* NaN for NaN */
}

/* log(1 + w) for w > -1, and -inf for w = -1: with u = 1 + w rounded, log u
 * plus what the rounding lost. */
INLINE VEC F(log1p)(VEC w) {
  const VEC u = (REAL)1 + w;
  const VEC lost = (w - (u - 1)) / F(select)((IVEC)(u == F(all)(0)), F(all)(1), u);
  return F(log)(u) + lost;
}

INLINE VEC F(sqrt)(VEC v) {
#if defined(SQRT_F32)
  return VEC_SQRT(v);
#else
  for (int i = 0; i < LANES; i++) v[i] = SCALAR_SQRT(v[i]);
  return v;
#endif
}

/* psi and *dpsi = psi' of divergences.h; kind is a constant where this is called. */
INLINE VEC F(conjugate)(int kind, const fortet_divergence *f, VEC y, VEC *dpsi) {
  const VEC one = F(all)(1), zero = F(all)(0), cap = F(all)((REAL)f->cap);
  const IVEC over = (IVEC)(y > cap);
  const VEC yc = F(select)(over, cap, y);
  VEC psi, d;
  switch (kind) {
    case FORTET_TOTAL_VARIATION: {
      const REAL k = (REAL)(1 / f->delta);
      const VEC low = F(all)((REAL)-0.5), past = y - yc;
      const IVEC flat = (IVEC)(y <= low);
      *dpsi = F(select)(flat, zero, one + past * k) + (y - y);
      return F(select)(flat, low, y + past * past * (k / 2));
    }
    case FORTET_REVERSE_KL:
      d = one / (one - yc);
      psi = -F(log1p)(-yc);
      break;
    case FORTET_PEARSON: {
      const VEC u = one + yc * (REAL)0.5;
      const IVEC dead = (IVEC)(u < zero);
      d = F(select)(dead, zero, u);
      psi = F(select)(dead, -one, yc + yc * yc * (REAL)0.25);
      break;
    }
    case FORTET_NEYMAN: {
      const VEC r = F(sqrt)(one - yc);
      d = one / r;
      psi = 2 * yc / (one + r);
      break;
    }
    case FORTET_HELLINGER: {
      const VEC v = one / (one - yc);
      d = v * v;
      psi = yc * v;
      break;
    }
    case FORTET_JENSEN_SHANNON: {
      const VEC e = F(exp)(yc), v = 2 - e;
      d = e / v;
      psi = -F(log)(v);
      break;
    }
    case FORTET_ALPHA: {
      const REAL a = (REAL)f->alpha, slope = (REAL)(f->alpha - 1), power = (REAL)(1 / (f->alpha - 1));
      const VEC w = yc * slope;
      const IVEC dead = (IVEC)(w <= -one);
      const VEC l = F(log1p)(F(select)(dead, zero, w));
      d = F(select)(dead, zero, F(exp)(l * power));
      psi = (F(select)(dead, zero, (one + w) * d) - one) / a;
      break;
    }
    default: /* FORTET_KL */
      d = F(exp)(yc);
      psi = d - one;
  }
  *dpsi = d;
  return F(select)(over, psi + d * (y - cap), psi);
}

#undef EXPONENT_LOW
#undef EXPONENT_HIGH
#undef MAGIC
#undef ROUNDER
#undef MANTISSA
#undef LN2_HEAD
#undef LN2_TAIL
