/* limits.h - loops that measure what one core can do. Each returns a number
 * that depends on all of its work, so that none of it can be left out. */
#ifndef FORTET_BENCH_LIMITS_H
#define FORTET_BENCH_LIMITS_H

#include <stdint.h>

/* Fused multiply-adds on registers; flops is how many operations, two each.
 * level as in fortet.h: 1 baseline, 2 AVX2, 3 AVX-512. bits: 32 or 64. */
double bench_fma(int level, int bits, int64_t steps, double *flops);

/* Exponentials by polynomial on registers, summed up. */
double bench_exp(int level, int bits, int64_t steps, double *exps);

/* Rounds of Philox on registers: ops is how many products of 32 bits to 64 and
 * how many exclusive ors. */
double bench_int(int level, int64_t steps, double *ops);

/* The sum of an array. */
double bench_read(const double *v, int64_t n);

/* The processor time that this thread has had, in seconds. */
double bench_thread_time(void);

#endif
