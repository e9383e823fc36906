/* softmin_cpu.h - how the CPU kernels of softmin divide their work.
 *
 * A call is two or three launches: pack lays the points out for vectors, the
 * operation itself follows, and sweep ends by adding up its groups of rows. Tiles and
 * groups depend on the sizes alone, never on the number of workers. */
#ifndef FORTET_SOFTMIN_CPU_H
#define FORTET_SOFTMIN_CPU_H

#include "softmin.h"

/* How the scores of pairs are computed. */
enum {
  FORM_DIRECT,     /* d <= 8: differences of coordinates, in registers */
  FORM_DIFFERENCE, /* blocked as a matrix product, of squared differences */
  FORM_PRODUCT,    /* |x|^2 + |y|^2 - 2 <x, y>: a matrix product */
  FORM_GIVEN       /* a cost matrix */
};

enum {
  DIRECT_LIMIT = 8, /* the most dimensions of FORM_DIRECT */
  COLUMN_PAD = 64,  /* columns are padded to a multiple of this */
  PACK_COLUMNS = 512, /* columns per tile of pack */
  PACK_ROWS = 480,    /* rows per tile of pack, a multiple of ROW_QUANTUM */
  FINISH_COLUMNS = 1024,
  ROW_QUANTUM = 12, /* rows per register tile, at every level, divide this */
  MOST_GROUPS = 32  /* groups of rows of a sweep, each with its partial sums */
};

/* The division of one operation, and where its workspace has what. Offsets
 * are in bytes. */
typedef struct {
  int32_t form;
  int32_t element;        /* bytes */
  int64_t columns;        /* m, padded */
  int64_t tile_rows;      /* softmin, apply: rows per tile */
  int64_t group_rows;     /* sweep: rows per group */
  int64_t sweep_rows;     /* sweep: rows whose scores are kept at once; 0: recompute them */
  int64_t stride;         /* sweep: elements between kept rows */
  int64_t pack_tiles, tiles, finish_tiles;
  int64_t centre, bias, weight, panels, sources, squares, sums, scores; /* offsets */
  int64_t bytes;          /* size of the workspace */
} fortet_softmin_plan;

void fortet_softmin_cpu_plan(int32_t op, const fortet_pairs *p, int32_t element, fortet_softmin_plan *plan);

/* Kernels. pack and finish take the arguments of the operation that they serve. */
int fortet_softmin_pack_f32(const void *args, int64_t begin, int64_t end, int level);
int fortet_softmin_pack_f64(const void *args, int64_t begin, int64_t end, int level);
int fortet_softmin_f32_cpu(const void *args, int64_t begin, int64_t end, int level);
int fortet_softmin_f64_cpu(const void *args, int64_t begin, int64_t end, int level);
int fortet_sweep_pack_f32(const void *args, int64_t begin, int64_t end, int level);
int fortet_sweep_pack_f64(const void *args, int64_t begin, int64_t end, int level);
int fortet_sweep_f32_cpu(const void *args, int64_t begin, int64_t end, int level);
int fortet_sweep_f64_cpu(const void *args, int64_t begin, int64_t end, int level);
int fortet_sweep_finish_f32(const void *args, int64_t begin, int64_t end, int level);
int fortet_sweep_finish_f64(const void *args, int64_t begin, int64_t end, int level);
int fortet_apply_pack_f32(const void *args, int64_t begin, int64_t end, int level);
int fortet_apply_pack_f64(const void *args, int64_t begin, int64_t end, int level);
int fortet_apply_f32_cpu(const void *args, int64_t begin, int64_t end, int level);
int fortet_apply_f64_cpu(const void *args, int64_t begin, int64_t end, int level);

/* For benchmarks: does rounds * 1000 vector multiply-adds, or rounds * 1000 vectors
 * of exponentials in L1, with the instructions of a level, and returns how
 * many numbers that were. */
double fortet_softmin_rate_f32(int exponentials, int64_t rounds, int level);
double fortet_softmin_rate_f64(int exponentials, int64_t rounds, int level);

#endif
