/* A stand-in of NCCL for tests: ranks are processes of one machine, buffers
 * are host memory, calls work at once, and exchange through a file in
 * FORTET_STANDIN_DIR that all map. FORTET_STANDIN_FAIL names a function that
 * fails, or "async" for an error that NCCL found by itself. */
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { SUCCESS = 0, SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4, INVALID_USAGE = 5, REMOTE_ERROR = 6 };
enum { INT8 = 0, FLOAT32 = 7, FLOAT64 = 8, RANKS = 8, AREA = 1 << 16 };

typedef struct { char internal[128]; } id;

typedef struct {
  const char *what;
  size_t count;
  int type, root;
} call;

typedef struct {
  atomic_uint arrived, round;
  call calls[RANKS];
  char areas[RANKS][AREA];
} shared;

typedef struct {
  shared *s;
  int rank, size;
} comm;

static const char *last = "";

static int fails(const char *what) {
  const char *told = getenv("FORTET_STANDIN_FAIL");
  if (!told || strcmp(told, what)) return 0;
  last = "the stand-in fails as told";
  return 1;
}

/* meet waits for all ranks, for ten seconds at most. */
static int meet(comm *c) {
  const unsigned round = c->s->round;
  const time_t start = time(0);
  if (atomic_fetch_add(&c->s->arrived, 1) + 1 == (unsigned)c->size) {
    c->s->arrived = 0;
    c->s->round++;
    return SUCCESS;
  }
  while (c->s->round == round) {
    sched_yield();
    if (time(0) - start > 10) {
      last = "a rank did not come";
      return REMOTE_ERROR;
    }
  }
  return SUCCESS;
}

int ncclGetVersion(int *version) {
  *version = 21300;
  return SUCCESS;
}

const char *ncclGetErrorString(int result) {
  switch (result) {
    case SYSTEM_ERROR: return "unhandled system error";
    case INVALID_ARGUMENT: return "invalid argument";
    case INVALID_USAGE: return "invalid usage";
    case REMOTE_ERROR: return "remote process error";
  }
  return "no error";
}

const char *ncclGetLastError(comm *c) {
  (void)c;
  return last;
}

/* With NCCL_COMM_ID the id is the same on every rank, as NCCL's is. */
int ncclGetUniqueId(id *out) {
  if (fails("ncclGetUniqueId")) return SYSTEM_ERROR;
  memset(out, 0, sizeof *out);
  const char *address = getenv("NCCL_COMM_ID");
  if (address)
    snprintf(out->internal, sizeof out->internal, "at %s", address);
  else
    snprintf(out->internal, sizeof out->internal, "of %d", (int)getpid());
  return SUCCESS;
}

int ncclCommInitRank(comm **out, int size, id unique, int rank) {
  if (fails("ncclCommInitRank")) return SYSTEM_ERROR;
  if (size < 1 || size > RANKS || rank < 0 || rank >= size || !unique.internal[0]) return INVALID_ARGUMENT;
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", getenv("FORTET_STANDIN_DIR"), unique.internal);
  const int fd = open(path, O_RDWR | O_CREAT, 0600);
  if (fd < 0 || ftruncate(fd, sizeof(shared))) return SYSTEM_ERROR;
  shared *const s = mmap(0, sizeof(shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (s == MAP_FAILED) return SYSTEM_ERROR;
  comm *const c = malloc(sizeof *c);
  *c = (comm){s, rank, size};
  *out = c;
  return meet(c);
}

static int leave(comm *c) {
  munmap(c->s, sizeof(shared));
  free(c);
  return SUCCESS;
}
int ncclCommDestroy(comm *c) { return fails("ncclCommDestroy") ? SYSTEM_ERROR : leave(c); }
int ncclCommAbort(comm *c) { return leave(c); }

int ncclCommGetAsyncError(comm *c, int *error) {
  (void)c;
  *error = fails("async") ? REMOTE_ERROR : SUCCESS;
  return SUCCESS;
}

static size_t bytes_of(int type) { return type == INT8 ? 1 : type == FLOAT32 ? 4 : type == FLOAT64 ? 8 : 0; }

/* Every call goes by pieces of an area: mine goes in, all meet, take takes what
 * it wants, all meet. */
static int exchange(comm *c, const char *what, const void *in, size_t count, int type, int root, void *stream,
                    void (*take)(comm *c, void *out, size_t at, size_t n, size_t count, int type, int root), void *out) {
  const size_t element = bytes_of(type);
  if (fails(what)) return SYSTEM_ERROR;
  if (!element || !in || !out || stream || root < 0 || root >= c->size) return INVALID_ARGUMENT;
  c->s->calls[c->rank] = (call){what, count, type, root};
  int rc = meet(c);
  for (int r = 0; rc == SUCCESS && r < c->size; r++) {
    const call *const o = &c->s->calls[r];
    if (o->count != count || o->type != type || o->root != root) rc = INVALID_USAGE;
  }
  for (size_t at = 0; rc == SUCCESS && at < count; at += AREA / element) {
    const size_t n = count - at < AREA / element ? count - at : AREA / element;
    memcpy(c->s->areas[c->rank], (const char *)in + at * element, n * element);
    rc = meet(c);
    if (rc == SUCCESS) take(c, out, at, n, count, type, root);
    if (rc == SUCCESS) rc = meet(c);
  }
  return rc;
}

static void take_all(comm *c, void *out, size_t at, size_t n, size_t count, int type, int root) {
  (void)root;
  for (int r = 0; r < c->size; r++)
    memcpy((char *)out + (r * count + at) * bytes_of(type), c->s->areas[r], n * bytes_of(type));
}

static void take_one(comm *c, void *out, size_t at, size_t n, size_t count, int type, int root) {
  (void)count;
  memcpy((char *)out + at * bytes_of(type), c->s->areas[root], n * bytes_of(type));
}

/* In the reverse order of ranks: the order is not promised. */
static void take_sum(comm *c, void *out, size_t at, size_t n, size_t count, int type, int root) {
  take_one(c, out, at, n, count, type, c->size - 1);
  (void)root;
  for (int r = c->size - 2; r >= 0; r--)
    for (size_t i = 0; i < n; i++) {
      if (type == FLOAT32)
        ((float *)out)[at + i] += ((float *)c->s->areas[r])[i];
      else
        ((double *)out)[at + i] += ((double *)c->s->areas[r])[i];
    }
}

int ncclAllGather(const void *in, void *out, size_t count, int type, comm *c, void *stream) {
  return exchange(c, "ncclAllGather", in, count, type, 0, stream, take_all, out);
}

int ncclAllReduce(const void *in, void *out, size_t count, int type, int op, comm *c, void *stream) {
  if (op != 0 || type == INT8) return INVALID_ARGUMENT;
  return exchange(c, "ncclAllReduce", in, count, type, 0, stream, take_sum, out);
}

int ncclBroadcast(const void *in, void *out, size_t count, int type, int root, comm *c, void *stream) {
  return exchange(c, "ncclBroadcast", in, count, type, root, stream, take_one, out);
}
