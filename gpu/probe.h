/* probe.h - asks a device library for its number of devices in a child process. */
#ifndef FORTET_PROBE_H
#define FORTET_PROBE_H

enum {
  PROBE_OK,
  PROBE_NOT_LOADED, /* text: why the library could not be opened */
  PROBE_NO_LIBRARY, /* it is no device library */
  PROBE_OTHER_HASH, /* text: the hash of its headers */
  PROBE_NO_DEVICE,  /* text: what it says */
  PROBE_CRASHED,    /* signal */
  PROBE_EXITED,     /* the library ended the child by itself */
  PROBE_HUNG,
  PROBE_NO_CHILD    /* text: the child could not be started */
};

typedef struct {
  int outcome;
  int count;
  int signal;
  char text[480];
} probe_result;

/* In a child process, bounded by a time. */
void probe_forked(const char *path, const char *hash, int milliseconds, probe_result *r);

/* In this process. */
void probe_here(const char *path, const char *hash, probe_result *r);

/* Whether the library or a driver is in this process already. */
int probe_loaded(const char *path);

#endif
