/* nccl.h - what groups of processes exchange between GPUs, as entries of the
 * device library: gpu/collective calls them like kernels, so that they are
 * ordered in the device's queue and can be recorded in a graph. */
#ifndef FORTET_NCCL_H
#define FORTET_NCCL_H

#include <stdint.h>

enum { FORTET_NCCL_ID_BYTES = 128 }; /* of an id that all ranks must know */

/* What Sum adds, as collective.Element numbers it. */
enum { FORTET_NCCL_F32 = 0, FORTET_NCCL_F64 = 1 };

/* A group in host memory, of the caller. */
typedef struct {
  void *comm;                     /* ncclComm_t; null before open and after close */
  char id[FORTET_NCCL_ID_BYTES];  /* written by id, read by open */
  int32_t rank, size, version;    /* read by open; version is written by it */
  char text[512];                 /* why the last entry that failed did; empty if it is not NCCL's word */
} fortet_nccl_group;

/* One struct for all entries; each reads what it names.
 *   nccl_id         group                         makes the id, on one rank
 *   nccl_open       group                         joins: waits for all ranks
 *   nccl_gather     group, in, out, bytes         bytes: of in
 *   nccl_sum        group, in, out, bytes, element
 *   nccl_broadcast  group, in, out, bytes, root
 *   nccl_error      group                         fails if the group has failed by itself
 *   nccl_close      group                         after a sync
 *   nccl_abort      group                         instead of it, where the queue has failed
 *   nccl_copy       in, out, bytes                needs no NCCL: what a group of one gathers
 * id, open, error, close and abort do their work at once, the others in the queue.
 * out may be in; gather's in may be this rank's part of out. */
typedef struct {
  fortet_nccl_group *group;
  const void *in;
  void *out;
  int64_t bytes;
  int32_t element, root;
} fortet_nccl_args;

#endif
