// device.cpp - device.h answered from the heap.
//
// Queues are lazy: work is noted when it is queued and done when somebody waits
// for it. So a kernel that reads its arguments too late, memory that is used
// after it was freed, or a stream that does not wait for another one gives
// wrong results here, too.
#include "device.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <vector>

#include "runtime.h"

using emu::failed;
using emu::Work;

namespace {

using Clock = std::chrono::steady_clock;

// Moment is what an event and the queue it was recorded in share.
struct Moment {
  fortet_queue *queue;  // null once happened
  Clock::time_point time;
};

struct Item {
  Work work;
  std::shared_ptr<Moment> moment;  // happens after work, which may be empty
};

using Recording = std::vector<Work>;

// Queues that wait this long are emptied, so that memory stays bounded.
constexpr size_t kBacklog = 4096;

}  // namespace

struct fortet_queue {
  std::deque<Item> items;
  std::shared_ptr<Recording> recording;
  std::string failure;  // of work that was done; reported by the next wait
};

struct fortet_graph {
  std::shared_ptr<const Recording> recording;
  fortet_queue *queue;
};

struct fortet_event {
  std::shared_ptr<Moment> moment;
};

namespace {

// One lock for everything: emulation is for tests.
struct State {
  std::recursive_mutex mutex;
  std::vector<fortet_queue *> queues;
  std::map<void *, size_t> memory;
  size_t used = 0;
};

State &state() {
  static State *const s = new State;  // outlives all users
  return *s;
}

using Lock = std::lock_guard<std::recursive_mutex>;

// The memory of the emulated device: FORTET_EMU_MEMORY bytes, or 16 GiB.
size_t memory() {
  const char *text = getenv("FORTET_EMU_MEMORY");
  return text && *text ? strtoull(text, nullptr, 0) : size_t(16) << 30;
}

// step does the first item of a queue. After a failure, work is skipped until
// somebody has been told.
void step(fortet_queue *q) {
  Item item = std::move(q->items.front());
  q->items.pop_front();
  if (item.work && q->failure.empty()) q->failure = item.work();
  if (item.moment) {
    item.moment->time = Clock::now();
    item.moment->queue = nullptr;
  }
}

void drain(fortet_queue *q) {
  while (!q->items.empty()) step(q);
}

void reach(const std::shared_ptr<Moment> &m) {
  while (m->queue) step(m->queue);
}

int report(fortet_queue *q) {
  if (q->failure.empty()) return FORTET_OK;
  const int rc = failed(emu::kLaunchFailure, q->failure);
  q->failure.clear();
  return rc;
}

int not_recording(const fortet_queue *q, const char *what) {
  return q->recording ? failed(FORTET_INVALID, std::string(what) + " while recording") : FORTET_OK;
}

int count(int *devices) {
  *devices = 1;
  return FORTET_OK;
}

int check(int device) {
  return device == 0 ? FORTET_OK : failed(FORTET_INVALID, "device " + std::to_string(device) + " of 1");
}

int properties(int device, fortet_properties *p) {
  if (int rc = check(device)) return rc;
  *p = fortet_properties{};
  strcpy(p->model, "CUDA emulation");
  strcpy(p->features, "emulation");
  p->memory = static_cast<int64_t>(memory());
  p->multiprocessors = emu::multiprocessors();
  p->emulation = 1;
  return FORTET_OK;
}

int alloc(int device, size_t bytes, void **ptr) {
  if (int rc = check(device)) return rc;
  State &s = state();
  Lock lock(s.mutex);
  *ptr = nullptr;
  void *p = nullptr;
  const size_t room = memory() - std::min(memory(), s.used);
  if (bytes > room || !(p = aligned_alloc(256, std::max<size_t>(256, (bytes + 255) / 256 * 256))))
    return failed(FORTET_OUT_OF_MEMORY, std::to_string(bytes) + " bytes asked, " + std::to_string(room) + " free");
  memset(p, 0xff, bytes);  // NaN to whoever reads it uninitialised
  s.memory[p] = bytes;
  s.used += bytes;
  *ptr = p;
  return FORTET_OK;
}

int release(int device, void *ptr) {
  if (int rc = check(device)) return rc;
  State &s = state();
  Lock lock(s.mutex);
  for (fortet_queue *q : s.queues) drain(q);
  const auto it = s.memory.find(ptr);
  if (it == s.memory.end()) return failed(FORTET_INVALID, "release of memory that was not allocated");
  s.used -= it->second;
  s.memory.erase(it);
  free(ptr);
  return FORTET_OK;
}

int queue_create(int device, fortet_queue **q) {
  if (int rc = check(device)) return rc;
  State &s = state();
  Lock lock(s.mutex);
  *q = new fortet_queue;
  s.queues.push_back(*q);
  return FORTET_OK;
}

int queue_destroy(fortet_queue *q) {
  State &s = state();
  Lock lock(s.mutex);
  drain(q);
  const int rc = report(q);
  s.queues.erase(std::find(s.queues.begin(), s.queues.end(), q));
  delete q;
  return rc;
}

int upload(fortet_queue *q, void *dst, const void *host, size_t bytes) {
  Lock lock(state().mutex);
  if (int rc = not_recording(q, "upload")) return rc;
  const char *from = static_cast<const char *>(host);
  const auto copy = std::make_shared<std::vector<char>>(from, from + bytes);
  return emu::push(q, [=] {
    memcpy(dst, copy->data(), bytes);
    return std::string();
  });
}

int download(fortet_queue *q, void *host, const void *src, size_t bytes) {
  Lock lock(state().mutex);
  if (int rc = not_recording(q, "download")) return rc;
  drain(q);
  if (int rc = report(q)) return rc;
  memcpy(host, src, bytes);
  return FORTET_OK;
}

int launch(fortet_queue *q, fortet_entry entry, const void *args) {
  Lock lock(state().mutex);
  emu::local.text[0] = 0;
  emu::local.entry = reinterpret_cast<void *>(entry);
  const int rc = entry(q, args);
  emu::local.entry = nullptr;
  return rc;
}

int sync(fortet_queue *q) {
  Lock lock(state().mutex);
  if (int rc = not_recording(q, "sync")) return rc;
  drain(q);
  return report(q);
}

int record_begin(fortet_queue *q) {
  Lock lock(state().mutex);
  if (int rc = not_recording(q, "another record")) return rc;
  q->recording = std::make_shared<Recording>();
  return FORTET_OK;
}

int record_end(fortet_queue *q, fortet_graph **g) {
  Lock lock(state().mutex);
  if (!q->recording) return failed(FORTET_INVALID, "no record to end");
  if (g) *g = new fortet_graph{q->recording, q};
  q->recording = nullptr;
  return FORTET_OK;
}

int graph_replay(fortet_graph *g, fortet_queue *q) {
  Lock lock(state().mutex);
  if (int rc = not_recording(q, "replay")) return rc;
  const auto recording = g->recording;
  return emu::push(q, [recording] {
    for (const Work &work : *recording) {
      const std::string failure = work();
      if (!failure.empty()) return failure;
    }
    return std::string();
  });
}

int graph_destroy(fortet_graph *g) {
  Lock lock(state().mutex);
  drain(g->queue);
  delete g;
  return FORTET_OK;
}

int event_create(fortet_queue *q, fortet_event **e) {
  Lock lock(state().mutex);
  if (int rc = not_recording(q, "event")) return rc;
  const auto moment = std::make_shared<Moment>(Moment{q, {}});
  q->items.push_back(Item{nullptr, moment});
  *e = new fortet_event{moment};
  return FORTET_OK;
}

int event_destroy(fortet_event *e) {
  Lock lock(state().mutex);
  delete e;
  return FORTET_OK;
}

int event_sync(fortet_event *e) {
  Lock lock(state().mutex);
  reach(e->moment);
  return FORTET_OK;
}

int event_wait(fortet_queue *q, fortet_event *e) {
  Lock lock(state().mutex);
  if (int rc = not_recording(q, "wait")) return rc;
  const auto moment = e->moment;
  return emu::push(q, [moment] {
    reach(moment);
    return std::string();
  });
}

int event_elapsed(fortet_event *from, fortet_event *to, double *seconds) {
  Lock lock(state().mutex);
  if (from->moment->queue || to->moment->queue) return failed(FORTET_INVALID, "an event has not happened yet");
  *seconds = std::chrono::duration<double>(to->moment->time - from->moment->time).count();
  return FORTET_OK;
}

const char *error() { return emu::local.text; }

const fortet_device_api table = {
    count,        properties,    alloc,      release,      queue_create,  queue_destroy, upload,
    download,     launch,        sync,       record_begin, record_end,    graph_replay,  graph_destroy,
    event_create, event_destroy, event_sync, event_wait,   event_elapsed, error,
};

}  // namespace

namespace emu {

int failed(int code, const std::string &text) {
  snprintf(local.text, sizeof local.text, "%s", text.c_str());
  return code;
}

int push(fortet_queue *q, Work work) {
  Lock lock(state().mutex);
  if (!q) {
    const std::string failure = work();
    return failure.empty() ? FORTET_OK : failed(kLaunchFailure, failure);
  }
  if (q->recording) {
    q->recording->push_back(std::move(work));
    return FORTET_OK;
  }
  q->items.push_back(Item{std::move(work), nullptr});
  if (q->items.size() > kBacklog) drain(q);
  return FORTET_OK;
}

int zero(void *stream, void *ptr, size_t bytes) {
  return push(static_cast<fortet_queue *>(stream), [=] {
    memset(ptr, 0, bytes);
    return std::string();
  });
}

}  // namespace emu

const char *fortet_abi_hash(void) { return FORTET_ABI_HASH; }
const fortet_device_api *fortet_device(void) { return &table; }
