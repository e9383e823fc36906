/* Sampling from Gaussian mixtures on the CPU: tiles of 64 rows, vectors along
 * rows. A row and component cost 2 d operations for its weight, 2 d^2 with axes,
 * and about 20 for its exponential; mixtures are read once a tile. */
#include "draw_lanes.h"
#include "gmm.h"
#include "gmm_sample.h"

#include <stdlib.h>
#include <string.h>

enum { ROWS = FORTET_GMM_SAMPLE_ROWS, CLASSES = FORTET_GMM_SAMPLE_CLASSES };

/* How many chains a sum over d has, and their stride. */
FORTET_HD int64_t stride_of(int64_t d) { return d <= FORTET_GMM_SAMPLE_CHAIN ? 1 : CLASSES; }
FORTET_HD int classes_of(int64_t d) { return d <= FORTET_GMM_SAMPLE_CHAIN ? 1 : d < CLASSES ? (int)d : CLASSES; }

#define JOIN_(name, bits) name##bits
#define JOIN(name, bits) JOIN_(name, bits)
#define F(name) JOIN(name, BITS)

#define BITS 32
#define REAL float
#define INTEGER int32_t
#include "gmm_sample_body.h"
#undef BITS
#undef REAL
#undef INTEGER

#define BITS 64
#define REAL double
#define INTEGER int64_t
#include "gmm_sample_body.h"

FORTET_CPU_KERNEL(gmm_sample_f32, sample32, fortet_gmm_sample_args)
FORTET_CPU_KERNEL(gmm_sample_f64, sample64, fortet_gmm_sample_args)
