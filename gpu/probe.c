//go:build cgo && !windows

#define _GNU_SOURCE
#include "probe.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

#include "device.h"

int probe_loaded(const char *path) {
  return dlopen(path, RTLD_NOW | RTLD_NOLOAD) != NULL || dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD) != NULL;
}

void probe_here(const char *path, const char *hash, probe_result *r) {
  memset(r, 0, sizeof *r);
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    r->outcome = PROBE_NOT_LOADED;
    snprintf(r->text, sizeof r->text, "%s", dlerror());
    return;
  }
  const char *(*abi_hash)(void) = (const char *(*)(void))dlsym(library, "fortet_abi_hash");
  const fortet_device_api *(*device)(void) = (const fortet_device_api *(*)(void))dlsym(library, "fortet_device");
  if (!abi_hash || !device) {
    r->outcome = PROBE_NO_LIBRARY;
    return;
  }
  if (strcmp(abi_hash(), hash) != 0) {
    r->outcome = PROBE_OTHER_HASH;
    snprintf(r->text, sizeof r->text, "%s", abi_hash());
    return;
  }
  const fortet_device_api *api = device();
  if (api->count(&r->count) != 0) {
    r->outcome = PROBE_NO_DEVICE;
    snprintf(r->text, sizeof r->text, "%s", api->error());
  }
}

static long long milliseconds_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

/* The child: no handlers of Go's run in it, no descriptor of the parent is
 * kept open by it, it leaves no core, prints nothing, and dies with the parent. */
static void child(const char *path, const char *hash, int out) {
  for (int s = 1; s < NSIG; s++) signal(s, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  const struct rlimit no_core = {0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
#if defined(__linux__)
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  prctl(PR_SET_DUMPABLE, 0);
#endif
  if (out != 3) dup2(out, 3);
#if defined(__linux__) && defined(SYS_close_range)
  syscall(SYS_close_range, 4u, ~0u, 0u);
#endif
  const int null = open("/dev/null", O_RDWR);
  for (int fd = 0; fd < 3; fd++) dup2(null, fd);

  probe_result r;
  probe_here(path, hash, &r);
  const ssize_t written = write(3, &r, sizeof r); /* less than PIPE_BUF: whole or not at all */
  _exit(written == (ssize_t)sizeof r ? 0 : 1);
}

/* Collects the child; one that cannot even be killed is left to the system. */
static int reap(pid_t pid, int *status) {
  for (int i = 0; i < 100; i++) {
    const pid_t got = waitpid(pid, status, WNOHANG);
    if (got == pid) return 1;
    if (got < 0 && errno != EINTR) return 0; /* somebody else collects children */
    const struct timespec pause = {0, 1000000};
    nanosleep(&pause, NULL);
  }
  return 0;
}

void probe_forked(const char *path, const char *hash, int milliseconds, probe_result *r) {
  memset(r, 0, sizeof *r);
  int ends[2];
  if (pipe(ends) != 0) {
    r->outcome = PROBE_NO_CHILD;
    snprintf(r->text, sizeof r->text, "pipe: %s", strerror(errno));
    return;
  }
  fcntl(ends[0], F_SETFD, FD_CLOEXEC);
  fcntl(ends[1], F_SETFD, FD_CLOEXEC);
  /* The child begins with all signals blocked, until it has reset the handlers. */
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t pid = fork();
  if (pid == 0) child(path, hash, ends[1]);
  const int fork_errno = errno;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  close(ends[1]);
  if (pid < 0) {
    close(ends[0]);
    r->outcome = PROBE_NO_CHILD;
    snprintf(r->text, sizeof r->text, "fork: %s", strerror(fork_errno));
    return;
  }

  const long long deadline = milliseconds_now() + milliseconds;
  size_t got = 0;
  int hung = 0;
  while (got < sizeof *r) {
    const long long left = deadline - milliseconds_now();
    struct pollfd p = {ends[0], POLLIN, 0};
    const int ready = left > 0 ? poll(&p, 1, (int)left) : 0;
    if (ready == 0) {
      hung = 1;
      break;
    }
    if (ready < 0) {
      if (errno == EINTR) continue;
      break;
    }
    const ssize_t n = read(ends[0], (char *)r + got, sizeof *r - got);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break; /* the child has gone without an answer */
    got += (size_t)n;
  }
  close(ends[0]);
  if (hung) kill(pid, SIGKILL);
  int status = 0;
  const int reaped = reap(pid, &status);
  if (got == sizeof *r) return;
  memset(r, 0, sizeof *r);
  if (hung) {
    r->outcome = PROBE_HUNG;
  } else if (reaped && WIFSIGNALED(status)) {
    r->outcome = PROBE_CRASHED;
    r->signal = WTERMSIG(status);
  } else {
    r->outcome = PROBE_EXITED;
  }
}
