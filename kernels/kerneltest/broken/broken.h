/* broken.h - y_i = 2 x_i, once right and in many ways wrong: what kerneltest
 * must catch. */
#ifndef FORTET_BROKEN_H
#define FORTET_BROKEN_H

#include "fortet.h"

typedef struct {
  float *x;
  float *y;
  int64_t n;
  int32_t fault; /* 0: none; see broken.c */
  int32_t reserved;
} fortet_broken_args;

enum { FORTET_BROKEN_TILE = 16 };

int fortet_broken_cpu(const void *args, int64_t begin, int64_t end, int level);

#endif
