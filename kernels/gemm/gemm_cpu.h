/* gemm_cpu.h - how the CPU kernels of gemm divide a product.
 *
 * A product is computed in rounds, so that packed columns of B stay within a
 * cache: a round is some matrices of the batch, some columns and some of k.
 * Each is two launches: pack lays B out in panels, and the product follows. In
 * the end finish adds the parts of a split sum. Everything depends on the sizes
 * alone, never on the number of workers. */
#ifndef FORTET_GEMM_CPU_H
#define FORTET_GEMM_CPU_H

#include "gemm.h"

typedef struct {
  int32_t few;    /* rows: B is not packed, and there is one round */
  int32_t shared; /* one B for all matrices, packed once a round */
  int64_t tile_rows, tile_columns;
  int64_t group;  /* matrices of a tile */
  int64_t splits; /* of k in every round; 0 where k = 0 */
  int64_t matrices, columns, depth; /* of a round: at most, columns a multiple of COLUMN_PAD */
  int64_t finish_rows; /* of a tile of finish */
  int64_t panels, parts; /* offsets in the workspace, in bytes */
  int64_t bytes;
} fortet_gemm_plan;

/* What a launch gets: the turned product, its plan, and the round's part of it:
 * matrices [s0, s1), columns [j0, j1), terms [k0, k1). finish is for all of it. */
typedef struct {
  fortet_gemm_args g;
  fortet_gemm_plan plan;
  int64_t s0, s1, j0, j1, k0, k1;
} fortet_gemm_round;

fortet_gemm_plan fortet_gemm_cpu_plan(const fortet_gemm_args *turned, int64_t element);

int64_t fortet_gemm_pack_tiles(const fortet_gemm_round *r);
int64_t fortet_gemm_tiles(const fortet_gemm_round *r);
int64_t fortet_gemm_finish_tiles(const fortet_gemm_round *r);

int fortet_gemm_pack_f32_cpu(const void *round, int64_t begin, int64_t end, int level);
int fortet_gemm_pack_f64_cpu(const void *round, int64_t begin, int64_t end, int level);
int fortet_gemm_f32_cpu(const void *round, int64_t begin, int64_t end, int level);
int fortet_gemm_f64_cpu(const void *round, int64_t begin, int64_t end, int level);
int fortet_gemm_finish_f32_cpu(const void *round, int64_t begin, int64_t end, int level);
int fortet_gemm_finish_f64_cpu(const void *round, int64_t begin, int64_t end, int level);

#endif
