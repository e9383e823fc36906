/* group.c - group.h answered by MPI, version 3 or later. */
#define _GNU_SOURCE /* dladdr1 */
#include "group.h"

#include <mpi.h>
#if defined(MPICH_VERSION) && defined(__GLIBC__)
#include <dlfcn.h>
#include <link.h>
#endif
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fortet.h"

/* Sums of at most SMALL bytes over all ranks take one exchange; longer ones go
 * in pieces of PIECE bytes, which bounds the memory that they need. */
enum { SMALL = 64 << 10, PIECE = 16 << 20 };

struct fortet_group {
  MPI_Comm comm;
  int rank, size;
  int64_t limit;
  char *room;
  int64_t room_bytes;
  int *counts; /* 4 lists of size: what is sent and from where, received and to where */
};

static _Thread_local char text[512 + MPI_MAX_ERROR_STRING];
static int mine; /* start initialised MPI */

__attribute__((format(printf, 2, 3))) static int failed(int status, const char *format, ...) {
  va_list list;
  va_start(list, format);
  vsnprintf(text, sizeof text, format, list);
  va_end(list);
  return status;
}

static int check(const char *call, int rc) {
  if (rc == MPI_SUCCESS) return FORTET_OK;
  char why[MPI_MAX_ERROR_STRING] = "";
  int n = 0;
  if (MPI_Error_string(rc, why, &n) != MPI_SUCCESS) snprintf(why, sizeof why, "code %d", rc);
  for (char *p = why; *p; p++)
    if (*p == '\n') *p = ' ';
  return failed(FORTET_DEVICE, "%s: %s", call, why);
}

/* TRY(MPI_Barrier, (comm)) returns from the caller where the call fails. */
#define TRY(call, arguments) \
  do { \
    const int status = check(#call, call arguments); \
    if (status != FORTET_OK) return status; \
  } while (0)

/* MPICH and its kin take leave of their launcher in a function that they give
 * to atexit. Go ends a process without calling those, and the launcher, which
 * takes that for a crash, kills the ranks that are a moment later. So what the
 * end of a C program would call of the MPI library is called here. */
static void take_leave(void) {
#if defined(MPICH_VERSION) && defined(__GLIBC__)
  Dl_info info;
  struct link_map *map = NULL;
  if (!dladdr1((const void *)(uintptr_t)MPI_Finalize, &info, (void **)&map, RTLD_DL_LINKMAP) || !map) return;
  ElfW(Addr) array = 0, bytes = 0;
  for (const ElfW(Dyn) *d = map->l_ld; d->d_tag != DT_NULL; d++) {
    if (d->d_tag == DT_FINI_ARRAY) array = map->l_addr + d->d_un.d_ptr;
    if (d->d_tag == DT_FINI_ARRAYSZ) bytes = d->d_un.d_val;
  }
  for (size_t i = bytes / sizeof(ElfW(Addr)); array && i-- > 0;) ((void (*const *)(void))array)[i]();
#endif
}

static int stop(void) {
  if (!mine) return FORTET_OK;
  mine = 0;
  TRY(MPI_Finalize, ());
  take_leave();
  return FORTET_OK;
}

/* speaks answers FORTET_OK unless MPI_Init would end the process: MPICH does so
 * where its launcher, such as that of Open MPI, speaks PMIx and it does not. */
static int speaks(const char *version) {
#if defined(MPICH_VERSION) && defined(__GLIBC__)
  if (getenv("PMIX_NAMESPACE") && !getenv("PMI_FD") && !getenv("PMI_PORT") && !dlsym(RTLD_DEFAULT, "PMIx_Init"))
    return failed(FORTET_UNSUPPORTED, "the launcher speaks PMIx, which %s does not: it wants the mpirun beside " FORTET_MPI_COMPILER,
                  version);
#endif
  (void)version;
  return FORTET_OK;
}

static int start(char *version) {
  int done = 0, have = MPI_THREAD_SINGLE, n = 0;
  char name[MPI_MAX_LIBRARY_VERSION_STRING] = "";
  TRY(MPI_Get_library_version, (name, &n));
  snprintf(version, 256, "%.*s", (int)strcspn(name, ",\n"), name);
  for (char *from = version, *to = version; (*to = *from); from++) to += *from != ' ' || from[1] != ' ';
  TRY(MPI_Finalized, (&done));
  if (done) return failed(FORTET_INVALID, "MPI is finalised in this process, and cannot be initialised again");
  TRY(MPI_Initialized, (&done));
  if (done) {
    TRY(MPI_Query_thread, (&have));
  } else {
    const int rc = speaks(version);
    if (rc != FORTET_OK) return rc;
    TRY(MPI_Init_thread, (NULL, NULL, MPI_THREAD_SERIALIZED, &have));
    mine = 1;
  }
  if (have < MPI_THREAD_SERIALIZED) {
    (void)stop();
    return failed(FORTET_UNSUPPORTED, "%s gives MPI_THREAD_%s, want MPI_THREAD_SERIALIZED: Go's calls come from many threads",
                  version, have == MPI_THREAD_FUNNELED ? "FUNNELED" : "SINGLE");
  }
  return FORTET_OK;
}

static int close_group(fortet_group *g) {
  const int rc = g->comm == MPI_COMM_NULL ? FORTET_OK : check("MPI_Comm_free", MPI_Comm_free(&g->comm));
  free(g->room);
  free(g->counts);
  free(g);
  return rc;
}

static int join(fortet_group *g) {
  TRY(MPI_Comm_set_errhandler, (MPI_COMM_WORLD, MPI_ERRORS_RETURN)); /* which the copy inherits */
  TRY(MPI_Comm_dup, (MPI_COMM_WORLD, &g->comm));
  TRY(MPI_Comm_rank, (g->comm, &g->rank));
  TRY(MPI_Comm_size, (g->comm, &g->size));
  g->counts = calloc((size_t)g->size, 4 * sizeof(int));
  return g->counts ? FORTET_OK : failed(FORTET_OUT_OF_MEMORY, "no host memory");
}

static int open_group(int64_t limit, fortet_group **out, int *rank, int *size) {
  fortet_group *const g = calloc(1, sizeof *g);
  if (!g) return failed(FORTET_OUT_OF_MEMORY, "no host memory");
  g->comm = MPI_COMM_NULL;
  g->limit = limit;
  const int rc = join(g);
  if (rc != FORTET_OK) {
    (void)close_group(g);
    return rc;
  }
  *out = g;
  *rank = g->rank;
  *size = g->size;
  return FORTET_OK;
}

static int reserve(fortet_group *g, int64_t bytes) {
  if (bytes <= g->room_bytes) return FORTET_OK;
  char *const room = realloc(g->room, (size_t)bytes);
  if (!room) return failed(FORTET_OUT_OF_MEMORY, "%lld bytes of host memory", (long long)bytes);
  g->room = room;
  g->room_bytes = bytes;
  return FORTET_OK;
}

/* A datatype of more bytes than a count can say: whole parts, and the rest. */
static int long_type(int64_t bytes, int64_t limit, MPI_Datatype *type) {
  MPI_Datatype part, types[2];
  int lengths[2] = {(int)(bytes / limit), (int)(bytes % limit)};
  MPI_Aint at[2] = {0, (MPI_Aint)(bytes - bytes % limit)};
  TRY(MPI_Type_contiguous, ((int)limit, MPI_BYTE, &part));
  types[0] = part;
  types[1] = MPI_BYTE;
  const int made = check("MPI_Type_create_struct", MPI_Type_create_struct(2, lengths, at, types, type));
  TRY(MPI_Type_free, (&part));
  if (made != FORTET_OK) return made;
  TRY(MPI_Type_commit, (type));
  return FORTET_OK;
}

static int gather(fortet_group *g, void *out, const void *in, int64_t bytes) {
  const void *const from = (const char *)in == (char *)out + g->rank * bytes ? MPI_IN_PLACE : in;
  if (bytes <= g->limit) {
    TRY(MPI_Allgather, (from, (int)bytes, MPI_BYTE, out, (int)bytes, MPI_BYTE, g->comm));
    return FORTET_OK;
  }
  MPI_Datatype type;
  const int made = long_type(bytes, g->limit, &type);
  if (made != FORTET_OK) return made;
  const int rc = check("MPI_Allgather", MPI_Allgather(from, 1, type, out, 1, type, g->comm));
  TRY(MPI_Type_free, (&type));
  return rc;
}

/* out[i] = parts[0][i] + parts[1][i] + ..., in this order; part r begins at
 * parts + r * stride, in elements. */
#define ADD(NAME, T) \
  static void NAME(T *restrict out, const T *restrict parts, int64_t n, int64_t stride, int ranks) { \
    memcpy(out, parts, (size_t)n * sizeof(T)); \
    for (int r = 1; r < ranks; r++) { \
      const T *const part = parts + r * stride; \
      for (int64_t i = 0; i < n; i++) out[i] += part[i]; \
    } \
  }
ADD(add_f32, float)
ADD(add_f64, double)

static void add(const fortet_group *g, void *out, int64_t n, int element) {
  if (element == (int)sizeof(float))
    add_f32(out, (const float *)g->room, n, n, g->size);
  else
    add_f64(out, (const double *)g->room, n, n, g->size);
}

/* Each rank gets its part of the piece from all, adds, and gives it to all:
 * every element is added once, in the order of ranks, and travels as little as
 * in the best MPI_Allreduce, of which nothing but equality is promised. */
static int sum_piece(fortet_group *g, char *v, int64_t n, int element) {
  int *const counts = g->counts, *const at = counts + g->size, *const own = at + g->size, *const place = own + g->size;
  for (int r = 0; r < g->size; r++) {
    const int64_t begin = n * r / g->size, end = n * (r + 1) / g->size;
    counts[r] = (int)((end - begin) * element);
    at[r] = (int)(begin * element);
  }
  const int64_t bytes = counts[g->rank];
  const int rc = reserve(g, bytes * g->size);
  if (rc != FORTET_OK) return rc;
  for (int r = 0; r < g->size; r++) {
    own[r] = (int)bytes;
    place[r] = (int)(r * bytes);
  }
  TRY(MPI_Alltoallv, (v, counts, at, MPI_BYTE, g->room, own, place, MPI_BYTE, g->comm));
  add(g, v + at[g->rank], bytes / element, element);
  TRY(MPI_Allgatherv, (MPI_IN_PLACE, 0, MPI_BYTE, v, counts, at, MPI_BYTE, g->comm));
  return FORTET_OK;
}

static int sum(fortet_group *g, void *v, int64_t count, int element) {
  if (g->size == 1) return FORTET_OK;
  if (count * element <= SMALL / g->size) {
    int rc = reserve(g, count * element * g->size);
    if (rc == FORTET_OK) rc = gather(g, g->room, v, count * element);
    if (rc == FORTET_OK) add(g, v, count, element);
    return rc;
  }
  const int64_t most = (g->limit < PIECE ? g->limit : PIECE) / element;
  for (int64_t i = 0; i < count; i += most) {
    const int rc = sum_piece(g, (char *)v + i * element, count - i < most ? count - i : most, element);
    if (rc != FORTET_OK) return rc;
  }
  return FORTET_OK;
}

static int broadcast(fortet_group *g, void *v, int64_t bytes, int root) {
  for (int64_t at = 0; at < bytes; at += g->limit) {
    const int64_t part = bytes - at < g->limit ? bytes - at : g->limit;
    TRY(MPI_Bcast, ((char *)v + at, (int)part, MPI_BYTE, root, g->comm));
  }
  return FORTET_OK;
}

static int barrier(fortet_group *g) {
  TRY(MPI_Barrier, (g->comm));
  return FORTET_OK;
}

static const char *error(void) { return text; }

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
#if defined(OMPI_MAJOR_VERSION)
#define BUILT "Open MPI " TEXT(OMPI_MAJOR_VERSION) "." TEXT(OMPI_MINOR_VERSION) "." TEXT(OMPI_RELEASE_VERSION)
#elif defined(I_MPI_VERSION)
#define BUILT "Intel MPI " I_MPI_VERSION
#elif defined(MPICH_VERSION)
#define BUILT "MPICH " MPICH_VERSION
#else
#define BUILT "an MPI " TEXT(MPI_VERSION) "." TEXT(MPI_SUBVERSION)
#endif

static const fortet_mpi_api table = {
    FORTET_MPI_COMPILER, BUILT, start, stop, open_group, close_group, gather, sum, broadcast, barrier, error,
};

const char *fortet_mpi_contract(void) { return FORTET_CONTRACT_HASH; }
const fortet_mpi_api *fortet_mpi(void) { return &table; }
