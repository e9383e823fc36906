/* device.cu - device.h answered by the CUDA runtime. Memory is plain device
 * memory (cudaMalloc), never managed. Every call names its device first, for
 * the caller's OS thread changes from call to call. */
#include "device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fortet.h"

namespace {

constexpr int kOldest = 80; /* compute capability that build.sh compiles for */
constexpr size_t kChunk = (size_t)4 << 20;

/* Pinned host memory that a copy passes through. */
struct Staging {
  char *memory;
  cudaEvent_t done; /* the device has finished with memory */
};

thread_local char text[512];

} // namespace

struct fortet_queue {
  int device;
  bool recording;
  cudaStream_t stream;
  Staging staging[2]; /* so that one is filled while the other is under way */
  int turn;
};

struct fortet_graph {
  fortet_queue *queue;
  cudaGraphExec_t exec;
};

struct fortet_event {
  int device;
  cudaEvent_t event;
};

namespace {

int failed(int status, const char *why) {
  snprintf(text, sizeof text, "%s", why);
  return status;
}

/* check notes a failed call. The runtime's own note of it is cleared, or the
 * next FORTET_STATUS would report it as a launch's. */
int check(const char *call, cudaError_t e) {
  if (e == cudaSuccess) return FORTET_OK;
  (void)cudaGetLastError();
  snprintf(text, sizeof text, "%s: %s (%s)", call, cudaGetErrorString(e), cudaGetErrorName(e));
  return fortet_status(e);
}

#define TRY(call) \
  do { \
    const int rc = check(#call, call); \
    if (rc != FORTET_OK) return rc; \
  } while (0)

int not_recording(const fortet_queue *q) {
  return q->recording ? failed(FORTET_INVALID, "not while recording") : FORTET_OK;
}

int count(int *devices) {
  *devices = 0;
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
    return failed(FORTET_UNSUPPORTED, "no NVIDIA driver is installed");
  const cudaError_t e = cudaGetDeviceCount(devices);
  if (e == cudaErrorInsufficientDriver) {
    (void)cudaGetLastError();
    int runtime = 0;
    (void)cudaRuntimeGetVersion(&runtime);
    snprintf(text, sizeof text, "the NVIDIA driver is for CUDA %d.%d, want %d.%d or later", driver / 1000,
             driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    return FORTET_UNSUPPORTED;
  }
  return check("cudaGetDeviceCount", e);
}

int properties(int device, fortet_properties *p) {
  memset(p, 0, sizeof *p);
  cudaDeviceProp d;
  int driver = 0, runtime = 0;
  TRY(cudaGetDeviceProperties(&d, device));
  TRY(cudaDriverGetVersion(&driver));
  TRY(cudaRuntimeGetVersion(&runtime));
  if (10 * d.major + d.minor < kOldest) {
    snprintf(text, sizeof text, "%s has compute capability %d.%d, want %d.%d or later", d.name, d.major, d.minor,
             kOldest / 10, kOldest % 10);
    return FORTET_UNSUPPORTED;
  }
  snprintf(p->model, sizeof p->model, "%s", d.name);
  snprintf(p->features, sizeof p->features, "sm_%d%d", d.major, d.minor);
  snprintf(p->driver, sizeof p->driver, "driver for CUDA %d.%d, runtime %d.%d", driver / 1000, driver % 1000 / 10,
           runtime / 1000, runtime % 1000 / 10);
  p->memory = (int64_t)d.totalGlobalMem;
  p->multiprocessors = d.multiProcessorCount;
  return FORTET_OK;
}

int alloc(int device, size_t bytes, void **ptr) {
  *ptr = nullptr;
  TRY(cudaSetDevice(device));
  TRY(cudaMalloc(ptr, bytes ? bytes : 1));
  return FORTET_OK;
}

int release(int device, void *ptr) {
  TRY(cudaSetDevice(device));
  TRY(cudaFree(ptr)); /* waits for the device by itself */
  return FORTET_OK;
}

int queue_destroy(fortet_queue *q) {
  int rc = check("cudaSetDevice", cudaSetDevice(q->device));
  if (rc == FORTET_OK && q->stream) rc = check("cudaStreamSynchronize", cudaStreamSynchronize(q->stream));
  for (Staging &s : q->staging) {
    if (s.done) (void)cudaEventDestroy(s.done);
    if (s.memory) (void)cudaFreeHost(s.memory);
  }
  if (q->stream) (void)cudaStreamDestroy(q->stream);
  free(q);
  return rc;
}

int queue_create(int device, fortet_queue **out) {
  TRY(cudaSetDevice(device));
  fortet_queue *const q = static_cast<fortet_queue *>(calloc(1, sizeof(fortet_queue)));
  if (!q) return failed(FORTET_OUT_OF_MEMORY, "no host memory");
  q->device = device;
  const int rc = check("cudaStreamCreateWithFlags", cudaStreamCreateWithFlags(&q->stream, cudaStreamNonBlocking));
  if (rc != FORTET_OK) {
    free(q);
    return rc;
  }
  *out = q;
  return FORTET_OK;
}

/* stage answers the staging memory whose turn it is, made at first use. */
int stage(fortet_queue *q, Staging **out) {
  Staging *const s = &q->staging[q->turn];
  q->turn ^= 1;
  if (!s->memory) TRY(cudaHostAlloc(reinterpret_cast<void **>(&s->memory), kChunk, cudaHostAllocDefault));
  if (!s->done) TRY(cudaEventCreateWithFlags(&s->done, cudaEventDisableTiming));
  *out = s;
  return FORTET_OK;
}

int upload(fortet_queue *q, void *dst, const void *host, size_t bytes) {
  if (const int rc = not_recording(q)) return rc;
  TRY(cudaSetDevice(q->device));
  for (size_t at = 0; at < bytes; at += kChunk) {
    const size_t part = bytes - at < kChunk ? bytes - at : kChunk;
    Staging *s = nullptr;
    if (const int rc = stage(q, &s)) return rc;
    TRY(cudaEventSynchronize(s->done)); /* at once if it was never recorded */
    memcpy(s->memory, static_cast<const char *>(host) + at, part);
    TRY(cudaMemcpyAsync(static_cast<char *>(dst) + at, s->memory, part, cudaMemcpyHostToDevice, q->stream));
    TRY(cudaEventRecord(s->done, q->stream));
  }
  return FORTET_OK;
}

/* One chunk is on its way from the device while the one before is copied out. */
int download(fortet_queue *q, void *host, const void *src, size_t bytes) {
  if (const int rc = not_recording(q)) return rc;
  TRY(cudaSetDevice(q->device));
  Staging *before = nullptr;
  size_t before_at = 0, before_part = 0;
  for (size_t at = 0; at < bytes || before; at += kChunk) {
    Staging *s = nullptr;
    size_t part = 0;
    if (at < bytes) {
      part = bytes - at < kChunk ? bytes - at : kChunk;
      if (const int rc = stage(q, &s)) return rc;
      TRY(cudaMemcpyAsync(s->memory, static_cast<const char *>(src) + at, part, cudaMemcpyDeviceToHost, q->stream));
      TRY(cudaEventRecord(s->done, q->stream));
    }
    if (before) {
      TRY(cudaEventSynchronize(before->done));
      memcpy(static_cast<char *>(host) + before_at, before->memory, before_part);
    }
    before = s;
    before_at = at;
    before_part = part;
  }
  TRY(cudaStreamSynchronize(q->stream));
  return FORTET_OK;
}

int launch(fortet_queue *q, fortet_entry entry, const void *args) {
  TRY(cudaSetDevice(q->device));
  text[0] = 0;
  const int rc = entry(q->stream, args);
  if (rc >= FORTET_DEVICE && !text[0]) {
    const cudaError_t e = static_cast<cudaError_t>(rc - FORTET_DEVICE);
    snprintf(text, sizeof text, "%s (%s)", cudaGetErrorString(e), cudaGetErrorName(e));
  }
  return rc;
}

int sync(fortet_queue *q) {
  if (const int rc = not_recording(q)) return rc;
  TRY(cudaSetDevice(q->device));
  TRY(cudaStreamSynchronize(q->stream));
  return FORTET_OK;
}

/* Relaxed: other OS threads may allocate meanwhile, and the one that ends the
 * capture need not be the one that began it. */
int record_begin(fortet_queue *q) {
  if (const int rc = not_recording(q)) return rc;
  TRY(cudaSetDevice(q->device));
  TRY(cudaStreamBeginCapture(q->stream, cudaStreamCaptureModeRelaxed));
  q->recording = true;
  return FORTET_OK;
}

int record_end(fortet_queue *q, fortet_graph **out) {
  if (!q->recording) return failed(FORTET_INVALID, "no record to end");
  q->recording = false;
  TRY(cudaSetDevice(q->device));
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(q->stream, &graph);
  if (!out) { /* thrown away, in whatever state it is */
    if (graph) (void)cudaGraphDestroy(graph);
    (void)cudaGetLastError();
    return FORTET_OK;
  }
  if (const int rc = check("cudaStreamEndCapture", ended)) return rc;
  cudaGraphExec_t exec = nullptr;
  const cudaError_t made = cudaGraphInstantiate(&exec, graph, 0);
  (void)cudaGraphDestroy(graph);
  if (const int rc = check("cudaGraphInstantiate", made)) return rc;
  fortet_graph *const g = static_cast<fortet_graph *>(malloc(sizeof(fortet_graph)));
  if (!g) {
    (void)cudaGraphExecDestroy(exec);
    return failed(FORTET_OUT_OF_MEMORY, "no host memory");
  }
  g->queue = q;
  g->exec = exec;
  *out = g;
  return FORTET_OK;
}

int graph_replay(fortet_graph *g, fortet_queue *q) {
  if (const int rc = not_recording(q)) return rc;
  TRY(cudaSetDevice(q->device));
  TRY(cudaGraphLaunch(g->exec, q->stream));
  return FORTET_OK;
}

int graph_destroy(fortet_graph *g) {
  int rc = check("cudaSetDevice", cudaSetDevice(g->queue->device));
  if (rc == FORTET_OK) rc = check("cudaStreamSynchronize", cudaStreamSynchronize(g->queue->stream));
  const int destroyed = check("cudaGraphExecDestroy", cudaGraphExecDestroy(g->exec));
  free(g);
  return rc != FORTET_OK ? rc : destroyed;
}

int event_create(fortet_queue *q, fortet_event **out) {
  if (const int rc = not_recording(q)) return rc;
  TRY(cudaSetDevice(q->device));
  cudaEvent_t event;
  TRY(cudaEventCreate(&event));
  int rc = check("cudaEventRecord", cudaEventRecord(event, q->stream));
  fortet_event *const e = rc == FORTET_OK ? static_cast<fortet_event *>(malloc(sizeof(fortet_event))) : nullptr;
  if (!e) {
    (void)cudaEventDestroy(event);
    return rc != FORTET_OK ? rc : failed(FORTET_OUT_OF_MEMORY, "no host memory");
  }
  e->device = q->device;
  e->event = event;
  *out = e;
  return FORTET_OK;
}

int event_destroy(fortet_event *e) {
  int rc = check("cudaSetDevice", cudaSetDevice(e->device));
  if (rc == FORTET_OK) rc = check("cudaEventDestroy", cudaEventDestroy(e->event));
  free(e);
  return rc;
}

int event_sync(fortet_event *e) {
  TRY(cudaSetDevice(e->device));
  TRY(cudaEventSynchronize(e->event));
  return FORTET_OK;
}

int event_wait(fortet_queue *q, fortet_event *e) {
  if (const int rc = not_recording(q)) return rc;
  TRY(cudaSetDevice(q->device));
  TRY(cudaStreamWaitEvent(q->stream, e->event, 0));
  return FORTET_OK;
}

int event_elapsed(fortet_event *from, fortet_event *to, double *seconds) {
  TRY(cudaSetDevice(to->device));
  float milliseconds = 0;
  const cudaError_t e = cudaEventElapsedTime(&milliseconds, from->event, to->event);
  if (e == cudaErrorNotReady) {
    (void)cudaGetLastError();
    return failed(FORTET_INVALID, "an event has not happened yet");
  }
  *seconds = 1e-3 * static_cast<double>(milliseconds);
  return check("cudaEventElapsedTime", e);
}

const char *error() { return text; }

const fortet_device_api table = {
    count,        properties,    alloc,      release,      queue_create,  queue_destroy, upload,
    download,     launch,        sync,       record_begin, record_end,    graph_replay,  graph_destroy,
    event_create, event_destroy, event_sync, event_wait,   event_elapsed, error,
};

} // namespace

const char *fortet_abi_hash(void) { return FORTET_ABI_HASH; }
const fortet_device_api *fortet_device(void) { return &table; }
