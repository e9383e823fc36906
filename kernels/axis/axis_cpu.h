/* axis_cpu.h - how the CPU kernels of axis divide their work.
 *
 * The columns of all o and r together are one side of a matrix product, whose
 * other side is exp logk. A product of exponentials is as accurate as the sum of
 * exponentials as long as nothing that counts underflows; terms are relative to
 * the largest of their block of rows of in and of logk, which leaves them a
 * range of 10^304 in double and 10^37 in float. Where an element's sum lies so
 * low that something lost might count, its z are summed one by one instead.
 * So almost every multiply-add stands for an exponential.
 *
 * A call is three launches: scan finds the range of the rows of logk, on which
 * the size of blocks depends, prepare makes exp logk, and the pass itself
 * follows. With few columns there is nothing to share; the pass is then direct,
 * and the only launch. Nothing depends on the number of workers. */
#ifndef FORTET_AXIS_CPU_H
#define FORTET_AXIS_CPU_H

#include "axis.h"

enum {
  AXIS_FEW = 8,            /* columns from which on exp logk is worth making */
  AXIS_COLUMN_BYTES = 256, /* of a tile's row of columns */
  AXIS_ROWS = 96,          /* rows i of a tile, a multiple of AXIS_QUANTUM */
  AXIS_QUANTUM = 12,       /* rows per register tile, at every level, divide this */
  AXIS_NARROW = 16,        /* rows of in per block where logk ranges wide */
  AXIS_DIRECT_ROWS = 32,   /* rows i of a tile of the direct pass */
  AXIS_MOST_BLOCK = 128    /* and where it does not, in double; half as many in float */
};

/* The division of a call; offsets into the workspace are in bytes. */
typedef struct {
  int64_t columns; /* outer inner */
  int32_t direct;  /* the direct pass alone */
  int64_t rows;    /* m, padded */
  int64_t row_tiles, tiles, prepare_tiles;
  int64_t range, top, kernel; /* offsets */
  int64_t bytes;
} fortet_axis_plan;

void fortet_axis_cpu_plan(const fortet_axis_args *a, int32_t element, fortet_axis_plan *plan);

int fortet_axis_scan_f32(const void *args, int64_t begin, int64_t end, int level);
int fortet_axis_scan_f64(const void *args, int64_t begin, int64_t end, int level);
int fortet_axis_prepare_f32(const void *args, int64_t begin, int64_t end, int level);
int fortet_axis_prepare_f64(const void *args, int64_t begin, int64_t end, int level);
int fortet_axis_f32_cpu(const void *args, int64_t begin, int64_t end, int level);
int fortet_axis_f64_cpu(const void *args, int64_t begin, int64_t end, int level);

#endif
