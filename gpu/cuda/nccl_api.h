/* nccl_api.h - the part of NCCL's C interface that nccl.cu calls, declared here
 * from its documentation (docs.nvidia.com/deeplearning/nccl, "NCCL API"), so
 * that neither building nor starting needs NCCL. The interface is that of NCCL
 * 2.13 or later. Where <nccl.h> is there to be compiled with, the compiler
 * compares the two. */
#ifndef FORTET_NCCL_API_H
#define FORTET_NCCL_API_H

#include <stddef.h>

struct nccl_id { char internal[128]; };
typedef struct nccl_comm *nccl_comm_ptr;
typedef void *nccl_stream; /* cudaStream_t */

enum { NCCL_SUCCESS = 0, NCCL_INVALID_ARGUMENT = 4, NCCL_INVALID_USAGE = 5, NCCL_IN_PROGRESS = 7 };
enum { NCCL_INT8 = 0, NCCL_FLOAT32 = 7, NCCL_FLOAT64 = 8 };
enum { NCCL_SUM = 0 };

/* X(name, result, parameters) for each function. */
#define FORTET_NCCL_FUNCTIONS(X) \
  X(ncclGetVersion, int, (int *version)) \
  X(ncclGetUniqueId, int, (nccl_id *id)) \
  X(ncclCommInitRank, int, (nccl_comm_ptr *comm, int size, nccl_id id, int rank)) \
  X(ncclCommDestroy, int, (nccl_comm_ptr comm)) \
  X(ncclCommAbort, int, (nccl_comm_ptr comm)) \
  X(ncclCommGetAsyncError, int, (nccl_comm_ptr comm, int *error)) \
  X(ncclGetErrorString, const char *, (int result)) \
  X(ncclGetLastError, const char *, (nccl_comm_ptr comm)) \
  X(ncclAllGather, int, (const void *in, void *out, size_t count, int type, nccl_comm_ptr comm, nccl_stream stream)) \
  X(ncclAllReduce, int, (const void *in, void *out, size_t count, int type, int op, nccl_comm_ptr comm, nccl_stream stream)) \
  X(ncclBroadcast, int, (const void *in, void *out, size_t count, int type, int root, nccl_comm_ptr comm, nccl_stream stream))

#if defined(__CUDACC__) && __has_include(<nccl.h>)
#include <nccl.h>
#include <type_traits>
static_assert(sizeof(nccl_id) == sizeof(ncclUniqueId), "ncclUniqueId");
static_assert((int)ncclSuccess == NCCL_SUCCESS && (int)ncclInvalidArgument == NCCL_INVALID_ARGUMENT &&
              (int)ncclInvalidUsage == NCCL_INVALID_USAGE && (int)ncclInProgress == NCCL_IN_PROGRESS, "ncclResult_t");
static_assert((int)ncclInt8 == NCCL_INT8 && (int)ncclFloat32 == NCCL_FLOAT32 && (int)ncclFloat64 == NCCL_FLOAT64, "ncclDataType_t");
static_assert((int)ncclSum == NCCL_SUM, "ncclRedOp_t");
static_assert(sizeof(ncclResult_t) == sizeof(int) && sizeof(ncclDataType_t) == sizeof(int) && sizeof(ncclRedOp_t) == sizeof(int), "enums");
#define FORTET_NCCL_IS(name, ...) \
  static_assert(std::is_same<decltype(&::name), __VA_ARGS__>::value, #name)
FORTET_NCCL_IS(ncclGetVersion, ncclResult_t (*)(int *));
FORTET_NCCL_IS(ncclGetUniqueId, ncclResult_t (*)(ncclUniqueId *));
FORTET_NCCL_IS(ncclCommInitRank, ncclResult_t (*)(ncclComm_t *, int, ncclUniqueId, int));
FORTET_NCCL_IS(ncclCommDestroy, ncclResult_t (*)(ncclComm_t));
FORTET_NCCL_IS(ncclCommAbort, ncclResult_t (*)(ncclComm_t));
FORTET_NCCL_IS(ncclCommGetAsyncError, ncclResult_t (*)(ncclComm_t, ncclResult_t *));
FORTET_NCCL_IS(ncclGetErrorString, const char *(*)(ncclResult_t));
FORTET_NCCL_IS(ncclGetLastError, const char *(*)(ncclComm_t));
FORTET_NCCL_IS(ncclAllGather, ncclResult_t (*)(const void *, void *, size_t, ncclDataType_t, ncclComm_t, cudaStream_t));
FORTET_NCCL_IS(ncclAllReduce, ncclResult_t (*)(const void *, void *, size_t, ncclDataType_t, ncclRedOp_t, ncclComm_t, cudaStream_t));
FORTET_NCCL_IS(ncclBroadcast, ncclResult_t (*)(const void *, void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t));
#undef FORTET_NCCL_IS
#endif

#endif
