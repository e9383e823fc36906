// block.h - one block of threads: fibers, barriers, warp operations.
#ifndef FORTET_EMU_BLOCK_H
#define FORTET_EMU_BLOCK_H

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "emu.h"
#include "fiber.h"

namespace emu {

class Room;

// Grid is a launch: what all its blocks have in common.
struct Grid {
  const char *kernel;
  const void *entry;  // the entry point that launched it, or null
  dim3 blocks, threads;
  size_t shared;
  std::function<void()> body;

  std::string name() const;  // "fortet_softmin_f32, kernel row<float>"
};

// A Thread of a block.
struct Thread {
  Place place;
  Context context;
  Thread *next;  // in the queue of those that can run
  char *stack;
  enum { kRuns, kAtBarrier, kAtMeeting, kReturned } state;
  Meeting what;  // where it waits, for the report of a deadlock
  unsigned mask;
};

// A Site is where the lanes of one mask meet. Two turns alternate, so that a
// lane that is first at the next meeting does not overwrite what a slower one
// has yet to read from the last.
struct Site {
  unsigned mask, arrived, unread, turn;
  Meeting what;
  unsigned present[2];
  uint64_t value[2][32];
};

struct Warp {
  unsigned alive;  // lanes that have not returned
  unsigned sites;
  Site site[8];
};

// Local is all that the emulation keeps per OS thread, beside __shared__.
struct Local {
  Room *room;      // the room this OS thread works in; null outside kernels
  char *storage;   // this module's thread-local storage on this OS thread
  size_t bytes;
  void *entry;     // the entry point that runs; null outside of one
  int status;      // of the launches since the last status()
  char text[512];  // why the last call on this OS thread failed
};
extern __attribute__((visibility("hidden"))) __thread Local local;

// A Room has stacks and shared memory for one block at a time. Rooms are kept
// from launch to launch; one OS thread at a time uses a room.
class Room {
 public:
  Room() = default;
  ~Room();
  Room(const Room &) = delete;
  Room &operator=(const Room &) = delete;

  // A launch is enter, run for some of its blocks, and leave. run and leave
  // return an empty text, or what was done wrong.
  void enter(const Grid &grid);
  std::string run(size_t index, unsigned seed);
  std::string leave();

  // What running threads call.
  const Place &place() const { return current_->place; }
  unsigned barrier(int vote, const char *file, int line);
  Hands meet(Meeting what, unsigned mask, uint64_t value);

 private:
  static void entry();
  void poison();
  void measure();
  void wake(Thread &t);
  Thread *take();
  void yield();
  void exit_thread();
  void release();
  void complete(unsigned base, Site &s);
  Site &site(Warp &w, unsigned mask);
  Thread &at(unsigned i) { return threads_[down_ ? (start_ + count_ - i) % count_ : (start_ + i) % count_]; }
  std::string name(const Thread &t) const;
  std::string deadlock() const;
  [[noreturn]] void fail(const std::string &what);

  const Grid *grid_ = nullptr;
  unsigned count_ = 0;  // threads of a block
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  char *stacks_ = nullptr;
  char *dynamic_ = nullptr;  // grid_->shared bytes and a guard
  size_t capacity_ = 0;

  unsigned start_ = 0;  // fibers are started in the order of at()
  bool down_ = false;
  Context scheduler_{};
  Thread *current_ = nullptr;
  Thread *head_ = nullptr, *tail_ = nullptr;  // those that can run
  unsigned live_ = 0, waiting_ = 0, votes_ = 0, result_ = 0;
  const Thread *first_ = nullptr;  // that waits at the barrier in file_:line_
  const char *file_ = nullptr;
  int line_ = 0;
  std::string failure_;

  // The part of Local::storage that the first block of a launch wrote to.
  size_t dirty_begin_ = 0, dirty_end_ = 0;
  unsigned blocks_ = 0;  // run since enter
};

}  // namespace emu
#endif
