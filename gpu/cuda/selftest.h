/* selftest.h - small kernels that test a device rather than compute anything:
 * barriers, warp operations, shared memory, atomics, graphs. They ship in the
 * library, so that a device can be tested where it is used. */
#ifndef FORTET_SELFTEST_H
#define FORTET_SELFTEST_H

#include "fortet.h"

/* Every kernel reads n numbers of x and writes to out; blocks and threads are
 * the launch's shape. What they compute stands above them in selftest.cu. */
typedef struct {
  const float *x; /* (n) */
  void *out;
  int64_t n;
  int32_t blocks, threads;
} fortet_selftest_args;

#endif
