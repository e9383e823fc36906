/* group.h - the C ABI of libfortet_mpi.so, which gpu/collective opens at run
 * time. All memory is host memory.
 *
 * Functions answer a status of fortet.h, and error says why. One call at a time
 * in the whole process, from any OS thread, but start and stop from the same. */
#ifndef FORTET_GROUP_H
#define FORTET_GROUP_H

#include <stddef.h>
#include <stdint.h>

typedef struct fortet_group fortet_group; /* a communicator of its own */

typedef struct {
  const char *compiler; /* the mpicc that built the library */
  const char *built;    /* the MPI of its headers: "Open MPI 5.0.11" */

  /* Initialises MPI, unless somebody has. version has room for 256 bytes. */
  int (*start)(char *version);
  int (*stop)(void); /* finalises it, if start initialised it; for good */

  /* Joins the group of all processes. No count given to MPI exceeds limit,
   * 8 to INT32_MAX. */
  int (*open)(int64_t limit, fortet_group **g, int *rank, int *size);
  int (*close)(fortet_group *g);

  int (*gather)(fortet_group *g, void *out, const void *in, int64_t bytes); /* bytes of in */
  int (*sum)(fortet_group *g, void *v, int64_t count, int element_bytes);
  int (*broadcast)(fortet_group *g, void *v, int64_t bytes, int root);
  int (*barrier)(fortet_group *g);

  /* Why the calling OS thread's last call failed. */
  const char *(*error)(void);
} fortet_mpi_api;

/* The hash of the headers that the library was built from, as include.Contract
 * computes it. The table has the shape above only where it is the caller's. */
#define FORTET_MPI_EXPORT __attribute__((visibility("default")))
FORTET_MPI_EXPORT const char *fortet_mpi_contract(void);
FORTET_MPI_EXPORT const fortet_mpi_api *fortet_mpi(void);

#endif
