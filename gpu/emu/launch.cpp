// launch.cpp - checks launches as CUDA does, and spreads their blocks over OS
// threads.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "runtime.h"

namespace emu {
namespace {

constexpr size_t kSharedByDefault = 48 << 10;  // without cudaFuncSetAttribute
constexpr size_t kSharedAtMost = 163 << 10;    // of sm_80, the least that we build for

unsigned number(const char *variable, unsigned otherwise) {
  const char *text = getenv(variable);
  return text && *text ? static_cast<unsigned>(strtoul(text, nullptr, 0)) : otherwise;
}

// A Crew is the helpers, parked between launches. It lives as long as the
// process, for threads cannot be joined while a library is unloaded.
class Crew {
 public:
  Crew() : seed_(number("FORTET_EMU_SEED", 0)) {
    const unsigned cores = std::max(1u, std::thread::hardware_concurrency());
    size_ = std::max(1u, std::min(256u, number("FORTET_EMU_THREADS", cores)));
    for (unsigned i = 1; i < size_; i++) std::thread([this] { help(); }).detach();
  }

  std::string run(const Grid &grid) {
    const size_t blocks = size_t(1) * grid.blocks.x * grid.blocks.y * grid.blocks.z;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      grid_ = &grid;
      blocks_ = blocks;
      next_ = 0;
      failed_ = false;
      failure_.clear();
      if (blocks > 1) round_++;
      busy_ = blocks > 1 ? size_ - 1 : 0;
    }
    if (blocks > 1) wake_.notify_all();
    work(room_);
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return busy_ == 0; });
    return failure_;
  }

 private:
  void help() {
    Room room;
    uint64_t seen = 0;
    for (;;) {
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return round_ != seen; });
        seen = round_;
      }
      work(room);
      std::lock_guard<std::mutex> lock(mutex_);
      if (--busy_ == 0) done_.notify_one();
    }
  }

  // work runs blocks until none is left or one has failed.
  void work(Room &room) {
    size_t i = next_.fetch_add(1);
    if (i >= blocks_) return;
    room.enter(*grid_);
    for (; i < blocks_ && !failed_; i = next_.fetch_add(1)) note(room.run(i, seed_));
    note(room.leave());
  }

  void note(const std::string &what) {
    if (what.empty()) return;
    std::lock_guard<std::mutex> lock(mutex_);
    if (failure_.empty()) failure_ = what;
    failed_ = true;
  }

  const unsigned seed_;
  unsigned size_;
  Room room_;  // of the caller
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  const Grid *grid_ = nullptr;
  size_t blocks_ = 0;
  std::atomic<size_t> next_{0};
  std::atomic<bool> failed_{false};
  std::string failure_;
  uint64_t round_ = 0;
  unsigned busy_ = 0;
};

// How much dynamic shared memory kernels were given leave to use.
struct Allowed {
  std::mutex mutex;
  std::map<const void *, size_t> bytes;
};

Allowed &allowed() {
  static Allowed *const a = new Allowed;  // outlives all users
  return *a;
}

size_t allowance(const void *kernel) {
  Allowed &a = allowed();
  std::lock_guard<std::mutex> lock(a.mutex);
  const auto it = a.bytes.find(kernel);
  return it == a.bytes.end() ? kSharedByDefault : it->second;
}

// The first failure stands until status() is called, as in cudaGetLastError.
void refuse(int code, const Grid &grid, const std::string &why) {
  if (local.status == FORTET_OK) local.status = failed(code, "launch of " + grid.name() + ": " + why);
}

std::string text(dim3 d) {
  return "(" + std::to_string(d.x) + "," + std::to_string(d.y) + "," + std::to_string(d.z) + ")";
}

}  // namespace

std::string run_grid(const Grid &grid) {
  static Crew *const crew = new Crew;  // outlives all users
  static std::mutex one;
  std::lock_guard<std::mutex> lock(one);
  return crew->run(grid);
}

void launch(void *stream, const char *name, const void *kernel, dim3 blocks, dim3 threads, size_t shared,
            std::function<void()> body) {
  const auto grid = std::make_shared<Grid>(Grid{name, local.entry, blocks, threads, shared, std::move(body)});
  const uint64_t count = uint64_t(1) * threads.x * threads.y * threads.z;
  if (blocks.x == 0 || blocks.y == 0 || blocks.z == 0 || blocks.x > 0x7fffffffu || blocks.y > 65535 || blocks.z > 65535)
    return refuse(kInvalidConfiguration, *grid, "grid " + text(blocks) + ", want 1 to (2147483647,65535,65535)");
  if (count == 0 || threads.x > 1024 || threads.y > 1024 || threads.z > 64 || count > 1024)
    return refuse(kInvalidConfiguration, *grid, "block " + text(threads) + ", want 1 to 1024 threads");
  const size_t room = allowance(kernel);
  if (shared > room)
    return refuse(kInvalidValue, *grid,
                  std::to_string(shared) + " bytes of dynamic shared memory, want at most " + std::to_string(room) +
                      " (see FORTET_MAX_DYN_SHARED)");
  const int rc = push(static_cast<fortet_queue *>(stream), [grid] { return run_grid(*grid); });
  if (rc != FORTET_OK && local.status == FORTET_OK) local.status = rc;
}

int status() {
  const int s = local.status;
  local.status = FORTET_OK;
  return s;
}

int allow_shared(const void *kernel, size_t bytes) {
  if (bytes > kSharedAtMost)
    return failed(kInvalidValue, std::to_string(bytes) + " bytes of dynamic shared memory, want at most " +
                                     std::to_string(kSharedAtMost));
  Allowed &a = allowed();
  std::lock_guard<std::mutex> lock(a.mutex);
  a.bytes[kernel] = std::max(bytes, kSharedByDefault);
  return FORTET_OK;
}

int multiprocessors() { return 4; }
int max_shared() { return static_cast<int>(kSharedAtMost); }

}  // namespace emu
