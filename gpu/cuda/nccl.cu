/* nccl.cu - groups of processes on GPUs. NCCL is opened at the first call, and
 * nothing of it is linked. Under emulation the same code calls the same
 * functions from the emulated queue, with the null stream, for a stand-in of
 * NCCL that works at once. */
#include "nccl.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(FORTET_EMU)
#include "runtime.h" /* before fortet.h, whose macros the C++ library does not stand */
#endif

#include "fortet.h"
#include "nccl_api.h"

FORTET_CONTRACT(nccl)

namespace {

using Args = fortet_nccl_args;
using Group = fortet_nccl_group;

constexpr int kFailed = FORTET_DEVICE + 999; /* cudaErrorUnknown: why stands in text */

struct Library {
#define X(name, result, parameters) result(*name) parameters;
  FORTET_NCCL_FUNCTIONS(X)
#undef X
  char why[256]; /* it is not there; empty if it is */
};

Library open_library() {
  Library l = {};
  const char *const chosen = getenv("FORTET_NCCL_LIB");
  void *const handle = dlopen(chosen && *chosen ? chosen : "libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    snprintf(l.why, sizeof l.why, "no NCCL: %s (FORTET_NCCL_LIB names another)", dlerror());
    return l;
  }
  const char *missing = nullptr;
#define X(name, result, parameters) \
  l.name = reinterpret_cast<result(*) parameters>(dlsym(handle, #name)); \
  if (!l.name) missing = #name;
  FORTET_NCCL_FUNCTIONS(X)
#undef X
  if (missing) snprintf(l.why, sizeof l.why, "NCCL has no %s, want NCCL 2.13 or later", missing);
  return l;
}

const Library &nccl() {
  static const Library l = open_library();
  return l;
}

/* check writes why a call failed to the group, and answers a status. */
int check(Group *g, const char *call, int result) {
  if (result == NCCL_SUCCESS) return FORTET_OK;
  const char *const last = nccl().ncclGetLastError(static_cast<nccl_comm_ptr>(g->comm));
  snprintf(g->text, sizeof g->text, "%s: %s%s%s", call, nccl().ncclGetErrorString(result), last && *last ? ": " : "",
           last ? last : "");
  return result == NCCL_INVALID_ARGUMENT || result == NCCL_INVALID_USAGE ? FORTET_INVALID : kFailed;
}

#define TRY(g, call, arguments) \
  do { \
    const int rc = check(g, #call, nccl().call arguments); \
    if (rc != FORTET_OK) return rc; \
  } while (0)

/* begin answers whether NCCL, and, if wanted, the group is there. */
int begin(Group *g, bool joined) {
  g->text[0] = 0;
  if (nccl().why[0]) {
    snprintf(g->text, sizeof g->text, "%s", nccl().why);
    return FORTET_UNSUPPORTED;
  }
  if (joined != (g->comm != nullptr)) {
    snprintf(g->text, sizeof g->text, joined ? "the group is not open" : "the group is open already");
    return FORTET_INVALID;
  }
  return FORTET_OK;
}

nccl_comm_ptr comm(const Args &a) { return static_cast<nccl_comm_ptr>(a.group->comm); }

/* enqueue lets f(args, stream) queue one call of NCCL's on a stream. */
using Call = int (*)(const Args &, nccl_stream);

int enqueue(void *stream, const void *args, Call f) {
  const Args a = *static_cast<const Args *>(args);
  if (const int rc = begin(a.group, true)) return rc;
#if defined(FORTET_EMU)
  return emu::push(static_cast<fortet_queue *>(stream), [a, f] {
    return f(a, nullptr) == FORTET_OK ? std::string() : std::string(a.group->text);
  });
#else
  return f(a, stream);
#endif
}

int gather(const Args &a, nccl_stream stream) {
  TRY(a.group, ncclAllGather, (a.in, a.out, static_cast<size_t>(a.bytes), NCCL_INT8, comm(a), stream));
  return FORTET_OK;
}

int sum(const Args &a, nccl_stream stream) {
  const bool f32 = a.element == FORTET_NCCL_F32;
  const size_t count = static_cast<size_t>(a.bytes) / (f32 ? sizeof(float) : sizeof(double));
  TRY(a.group, ncclAllReduce, (a.in, a.out, count, f32 ? NCCL_FLOAT32 : NCCL_FLOAT64, NCCL_SUM, comm(a), stream));
  return FORTET_OK;
}

int broadcast(const Args &a, nccl_stream stream) {
  TRY(a.group, ncclBroadcast, (a.in, a.out, static_cast<size_t>(a.bytes), NCCL_INT8, a.root, comm(a), stream));
  return FORTET_OK;
}

Group *group(const void *args) { return static_cast<const Args *>(args)->group; }

} // namespace

FORTET_EXPORT int fortet_nccl_gather(void *stream, const void *args) { return enqueue(stream, args, gather); }
FORTET_EXPORT int fortet_nccl_sum(void *stream, const void *args) { return enqueue(stream, args, sum); }
FORTET_EXPORT int fortet_nccl_broadcast(void *stream, const void *args) { return enqueue(stream, args, broadcast); }

FORTET_EXPORT int fortet_nccl_id(void *, const void *args) {
  Group *const g = group(args);
  if (const int rc = begin(g, false)) return rc;
  nccl_id id;
  TRY(g, ncclGetUniqueId, (&id));
  memcpy(g->id, id.internal, sizeof g->id);
  return FORTET_OK;
}

FORTET_EXPORT int fortet_nccl_open(void *, const void *args) {
  Group *const g = group(args);
  if (const int rc = begin(g, false)) return rc;
  nccl_id id;
  memcpy(id.internal, g->id, sizeof g->id);
  TRY(g, ncclGetVersion, (&g->version));
  nccl_comm_ptr made = nullptr;
  TRY(g, ncclCommInitRank, (&made, g->size, id, g->rank));
  g->comm = made;
  return FORTET_OK;
}

FORTET_EXPORT int fortet_nccl_error(void *, const void *args) {
  Group *const g = group(args);
  if (const int rc = begin(g, true)) return rc;
  int result = NCCL_SUCCESS;
  TRY(g, ncclCommGetAsyncError, (static_cast<nccl_comm_ptr>(g->comm), &result));
  return result == NCCL_IN_PROGRESS ? FORTET_OK : check(g, "an exchange", result);
}

FORTET_EXPORT int fortet_nccl_close(void *, const void *args) {
  Group *const g = group(args);
  if (const int rc = begin(g, true)) return rc;
  const nccl_comm_ptr made = static_cast<nccl_comm_ptr>(g->comm);
  g->comm = nullptr;
  TRY(g, ncclCommDestroy, (made));
  return FORTET_OK;
}

FORTET_EXPORT int fortet_nccl_abort(void *, const void *args) {
  Group *const g = group(args);
  if (const int rc = begin(g, true)) return rc;
  const nccl_comm_ptr made = static_cast<nccl_comm_ptr>(g->comm);
  g->comm = nullptr;
  TRY(g, ncclCommAbort, (made));
  return FORTET_OK;
}

FORTET_EXPORT int fortet_nccl_copy(void *stream, const void *args) {
  const Args a = *static_cast<const Args *>(args);
#if defined(FORTET_EMU)
  return emu::push(static_cast<fortet_queue *>(stream), [a] {
    memcpy(a.out, a.in, static_cast<size_t>(a.bytes));
    return std::string();
  });
#else
  return fortet_status(
      cudaMemcpyAsync(a.out, a.in, static_cast<size_t>(a.bytes), cudaMemcpyDeviceToDevice, static_cast<cudaStream_t>(stream)));
#endif
}
