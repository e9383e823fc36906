/* device.h - the C ABI of a device library: what libfortet_cuda.so (nvcc) and
 * libfortet_emu.so (g++, emulation) both answer, and gpu/plugin.go calls.
 *
 * Beside the two functions below, a library exports for every folder
 * kernels/<op>/
 *     const char *fortet_<op>_contract(void);              FORTET_CONTRACT(op)
 *     int fortet_<name>(void *stream, const void *args);   for each kernel
 *
 * All functions of the table answer a status of fortet.h. They may be called
 * from any OS thread. Calls on one queue must not overlap. */
#ifndef FORTET_DEVICE_H
#define FORTET_DEVICE_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
  char model[256];    /* the hardware's own name */
  char features[32];  /* "sm_90" */
  char driver[128];   /* driver and runtime versions; empty in emulation */
  int64_t memory;     /* bytes */
  int32_t multiprocessors;
  int32_t emulation;  /* 1 if the kernels run on the CPU */
} fortet_properties;

typedef struct fortet_queue fortet_queue; /* an in-order queue of one device */
typedef struct fortet_graph fortet_graph; /* recorded launches */
typedef struct fortet_event fortet_event; /* a moment in a queue */

typedef int (*fortet_entry)(void *stream, const void *args);

typedef struct {
  int (*count)(int *devices);
  int (*properties)(int device, fortet_properties *p);

  /* Uninitialised memory, aligned to 256 bytes; 0 bytes are no error. release
   * waits until no queue of the device uses the memory. */
  int (*alloc)(int device, size_t bytes, void **ptr);
  int (*release)(int device, void *ptr);

  int (*queue_create)(int device, fortet_queue **q);
  int (*queue_destroy)(fortet_queue *q); /* waits for what is queued */

  /* host may be reused on return of upload; download waits for the queue. */
  int (*upload)(fortet_queue *q, void *dst, const void *host, size_t bytes);
  int (*download)(fortet_queue *q, void *host, const void *src, size_t bytes);

  int (*launch)(fortet_queue *q, fortet_entry entry, const void *args);
  int (*sync)(fortet_queue *q);

  /* Launches between begin and end are noted instead of queued. With g == NULL
   * record_end throws them away. */
  int (*record_begin)(fortet_queue *q);
  int (*record_end)(fortet_queue *q, fortet_graph **g);
  int (*graph_replay)(fortet_graph *g, fortet_queue *q);
  int (*graph_destroy)(fortet_graph *g); /* waits for what is queued */

  int (*event_create)(fortet_queue *q, fortet_event **e); /* recorded now */
  int (*event_destroy)(fortet_event *e);
  int (*event_sync)(fortet_event *e);
  int (*event_wait)(fortet_queue *q, fortet_event *e); /* holds q until e */
  int (*event_elapsed)(fortet_event *from, fortet_event *to, double *seconds);

  /* Why the calling OS thread's last call failed. */
  const char *(*error)(void);
} fortet_device_api;

#ifdef __cplusplus
#define FORTET_DEVICE_EXPORT extern "C" __attribute__((visibility("default")))
#else
#define FORTET_DEVICE_EXPORT
#endif

/* The SHA-256 of kernels/include/ that the library was built from. The table
 * has the shape above only where it is the caller's own. */
FORTET_DEVICE_EXPORT const char *fortet_abi_hash(void);
FORTET_DEVICE_EXPORT const fortet_device_api *fortet_device(void);

#endif
