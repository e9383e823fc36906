#include "block.h"

#include <dlfcn.h>
#include <link.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <new>

namespace emu {

__thread Local local;

namespace {

constexpr size_t kStack = 256 << 10;  // of which the system provides what is used
constexpr size_t kThreads = 1024;  // of a block, at most
constexpr size_t kGuard = 256;  // bytes after dynamic shared memory
constexpr unsigned char kGuardByte = 0xa5;
constexpr uint64_t kStackEnd = 0x5a5a5a5a5a5a5a5a;

unsigned lanes(unsigned n) { return n >= 32 ? 0xffffffffu : (1u << n) - 1; }

std::string hex(unsigned v) {
  char text[16];
  snprintf(text, sizeof text, "%#x", v);
  return text;
}

std::string triple(unsigned x, unsigned y, unsigned z) {
  return "(" + std::to_string(x) + "," + std::to_string(y) + "," + std::to_string(z) + ")";
}

const char *title(Meeting what) {
  switch (what) {
    case kSync: return "__syncwarp";
    case kShuffle: return "a shuffle";
    case kVote: return "a vote";
    case kReduce: return "a warp reduction";
  }
  return "?";
}

// Finds the thread-local storage of the module that this code is part of.
int find_storage(dl_phdr_info *info, size_t, void *) {
  const auto here = reinterpret_cast<uintptr_t>(&find_storage);
  bool ours = false;
  size_t bytes = 0;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const auto &p = info->dlpi_phdr[i];
    const uintptr_t begin = info->dlpi_addr + p.p_vaddr;
    if (p.p_type == PT_LOAD && here >= begin && here < begin + p.p_memsz) ours = true;
    if (p.p_type == PT_TLS) bytes = p.p_memsz;
  }
  if (!ours) return 0;
  local.storage = static_cast<char *>(info->dlpi_tls_data);
  local.bytes = bytes;
  return 1;
}

}  // namespace

std::string Grid::name() const {
  Dl_info info;
  std::string text;
  if (entry && dladdr(entry, &info) && info.dli_sname) text = std::string(info.dli_sname) + ", ";
  return text + "kernel " + kernel;
}

Room::~Room() {
  if (stacks_) munmap(stacks_, kStack * kThreads);
  free(dynamic_);
}

void Room::enter(const Grid &grid) {
  grid_ = &grid;
  count_ = grid.threads.x * grid.threads.y * grid.threads.z;
  if (!stacks_) {
    void *p = mmap(nullptr, kStack * kThreads, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    stacks_ = static_cast<char *>(p);
  }
  while (threads_.size() < count_) {
    Thread t{};
    t.stack = stacks_ + kStack * threads_.size();
    *reinterpret_cast<uint64_t *>(t.stack) = kStackEnd;
    threads_.push_back(t);
  }
  warps_.resize((count_ + 31) / 32);
  if (capacity_ < grid.shared + kGuard) {
    free(dynamic_);
    capacity_ = (grid.shared + kGuard + 1023) / 1024 * 1024;
    dynamic_ = static_cast<char *>(aligned_alloc(1024, capacity_));
    if (!dynamic_) throw std::bad_alloc();
  }
  for (unsigned i = 0; i < count_; i++) {
    const unsigned x = grid.threads.x, y = grid.threads.y;
    threads_[i].place = Place{{i % x, i / x % y, i / (x * y)}, {0, 0, 0}, grid.threads, grid.blocks, i, count_, dynamic_};
  }
  blocks_ = 0;
  if (!local.storage) dl_iterate_phdr(find_storage, nullptr);
}

std::string Room::leave() {
  std::string what;
  for (unsigned i = 0; i < count_; i++) {
    auto *end = reinterpret_cast<uint64_t *>(threads_[i].stack);
    if (*end != kStackEnd) {
      *end = kStackEnd;
      what = grid_->name() + ", thread " + std::to_string(i) +
             ": its local variables need more than " + std::to_string(kStack >> 10) + " KiB of stack";
    }
  }
  return what;
}

// poison fills all shared memory. Static __shared__ variables are thread-local
// and cannot be told apart, so a launch's first block poisons all of them, and
// the following ones the part that the first block wrote to.
void Room::poison() {
  memset(dynamic_, 0xff, grid_->shared);
  memset(dynamic_ + grid_->shared, kGuardByte, kGuard);
  if (!local.storage) return;
  const Local keep = local;
  if (blocks_ == 0) {
    dirty_begin_ = 0;
    dirty_end_ = keep.bytes;
  } else if (blocks_ == 1) {
    measure();
  }
  memset(keep.storage + dirty_begin_, 0xff, dirty_end_ - dirty_begin_);
  local = keep;
}

// measure narrows dirty_begin_ and dirty_end_ to what is no longer poisoned.
void Room::measure() {
  const Local keep = local;
  memset(&local, 0xff, sizeof local);  // no shared memory, so not to be found
  constexpr size_t kStep = 64;
  unsigned char clean[kStep];
  memset(clean, 0xff, kStep);
  const char *const s = keep.storage;
  while (dirty_begin_ + kStep <= dirty_end_ && !memcmp(s + dirty_begin_, clean, kStep)) dirty_begin_ += kStep;
  while (dirty_begin_ + kStep <= dirty_end_ && !memcmp(s + dirty_end_ - kStep, clean, kStep)) dirty_end_ -= kStep;
  local = keep;
}

std::string Room::run(size_t index, unsigned seed) {
  const dim3 g = grid_->blocks;
  const uint3 block{static_cast<unsigned>(index % g.x), static_cast<unsigned>(index / g.x % g.y),
                    static_cast<unsigned>(index / g.x / g.y)};
  poison();
  failure_.clear();
  head_ = tail_ = nullptr;
  live_ = count_;
  waiting_ = votes_ = 0;
  first_ = nullptr;
  for (size_t w = 0; w < warps_.size(); w++) {
    warps_[w].alive = lanes(count_ - 32 * static_cast<unsigned>(w));
    warps_[w].sites = 0;
  }
  // Some block starts anywhere, up or down; 0x9e3779b9 is 2^32 over the golden ratio.
  const unsigned mixed = (static_cast<unsigned>(index) + 1 + seed) * 0x9e3779b9u;
  start_ = static_cast<unsigned>(static_cast<uint64_t>(mixed) * count_ >> 32);
  down_ = (index + seed) % 2 != 0;
  for (unsigned i = 0; i < count_; i++) {
    Thread &t = at(i);
    t.place.block = block;
    // The tops of the stacks are spread, or they would all fall into the same
    // few sets of the first-level cache.
    prepare(t.context, t.stack, kStack - t.place.rank % 61 * 192, entry);
    wake(t);
  }
  local.room = this;
  while (live_ > 0 && failure_.empty()) {
    if (Thread *t = take()) {
      current_ = t;
      swap(scheduler_, t->context);
    } else if (waiting_ == live_) {
      release();
    } else {
      failure_ = deadlock();
    }
  }
  local.room = nullptr;
  if (failure_.empty()) {
    const char *guard = dynamic_ + grid_->shared;
    if (std::any_of(guard, guard + kGuard, [](char c) { return static_cast<unsigned char>(c) != kGuardByte; }))
      failure_ = name(threads_[0]) + ": the block wrote past its " + std::to_string(grid_->shared) +
                 " bytes of dynamic shared memory";
  }
  blocks_++;
  return failure_;
}

// ---- Fibers.

void Room::entry() {
  Room *const room = local.room;
  room->grid_->body();
  room->exit_thread();
  __builtin_unreachable();
}

void Room::wake(Thread &t) {
  t.state = Thread::kRuns;
  t.next = nullptr;
  (tail_ ? tail_->next : head_) = &t;
  tail_ = &t;
}

Thread *Room::take() {
  Thread *t = head_;
  if (t) {
    head_ = t->next;
    if (!head_) tail_ = nullptr;
  }
  return t;
}

// yield lets another thread run, until this one is woken.
void Room::yield() {
  Thread &me = *current_;
  Thread *t = take();
  if (t == &me) return;
  current_ = t;
  swap(me.context, t ? t->context : scheduler_);
}

void Room::exit_thread() {
  Thread &me = *current_;
  me.state = Thread::kReturned;
  live_--;
  Warp &w = warps_[me.place.rank / 32];
  w.alive &= ~(1u << me.place.rank % 32);
  for (unsigned i = 0; i < w.sites; i++) {  // lanes that now wait for nobody
    Site &s = w.site[i];
    if (s.arrived && (s.arrived & w.alive) == (s.mask & w.alive)) complete(me.place.rank & ~31u, s);
  }
  yield();
}

void Room::fail(const std::string &what) {
  failure_ = name(*current_) + ": " + what;
  swap(current_->context, scheduler_);  // which never comes back
  __builtin_unreachable();
}

std::string Room::name(const Thread &t) const {
  return grid_->name() + ", block " + triple(t.place.block.x, t.place.block.y, t.place.block.z) +
         ", thread " + triple(t.place.thread.x, t.place.thread.y, t.place.thread.z);
}

// ---- Barriers.

unsigned Room::barrier(int vote, const char *file, int line) {
  Thread &me = *current_;
  if (!first_) {
    first_ = &me;
    file_ = file;
    line_ = line;
  } else if (line != line_ || (file != file_ && strcmp(file, file_) != 0)) {
    const uint3 t = first_->place.thread;
    fail("divergent barrier: waits at " + std::string(file) + ":" + std::to_string(line) + ", thread " +
         triple(t.x, t.y, t.z) + " at " + file_ + ":" + std::to_string(line_));
  }
  waiting_++;
  votes_ += vote != 0;
  me.state = Thread::kAtBarrier;
  if (waiting_ == live_) release();
  yield();
  return result_;
}

void Room::release() {
  result_ = votes_;
  waiting_ = votes_ = 0;
  first_ = nullptr;
  for (unsigned i = 0; i < count_; i++) {
    Thread &t = at(i);
    if (t.state == Thread::kAtBarrier) wake(t);
  }
}

// ---- Warp operations.

Site &Room::site(Warp &w, unsigned mask) {
  Site *free = nullptr;
  for (unsigned i = 0; i < w.sites; i++) {
    Site &s = w.site[i];
    if (s.mask == mask) return s;
    if (!s.arrived && !s.unread) free = &s;
  }
  if (!free && w.sites < std::size(w.site)) free = &w.site[w.sites++];
  if (!free) fail("a warp meets under more than " + std::to_string(std::size(w.site)) + " masks at once");
  free->mask = mask;
  free->arrived = free->unread = free->turn = 0;
  return *free;
}

Hands Room::meet(Meeting what, unsigned mask, uint64_t value) {
  Thread &me = *current_;
  const unsigned lane = me.place.rank % 32, base = me.place.rank & ~31u;
  if (!(mask >> lane & 1)) fail("calls " + std::string(title(what)) + " with mask " + hex(mask) + ", which is without it");
  mask &= lanes(count_ - base);
  Warp &w = warps_[me.place.rank / 32];
  Site &s = site(w, mask);
  if (s.arrived && s.what != what)
    fail("divergent warp: comes to " + std::string(title(what)) + " where other lanes of mask " + hex(mask) +
         " wait at " + title(s.what));
  const unsigned turn = s.turn & 1;
  s.what = what;
  s.value[turn][lane] = value;
  s.arrived |= 1u << lane;
  if ((s.arrived & w.alive) == (mask & w.alive)) {
    complete(base, s);
  } else {
    me.state = Thread::kAtMeeting;
    me.what = what;
    me.mask = mask;
    yield();
  }
  s.unread--;
  return Hands{s.value[turn], s.present[turn], lane};
}

// complete ends a turn: all lanes that can come have come.
void Room::complete(unsigned base, Site &s) {
  const unsigned turn = s.turn & 1;
  s.present[turn] = s.arrived;
  for (unsigned lane = 0; lane < 32; lane++) {
    if (!(s.arrived >> lane & 1)) {
      s.value[turn][lane] = ~uint64_t(0);
      continue;
    }
    s.unread++;
    Thread &t = threads_[base + lane];
    if (t.state == Thread::kAtMeeting) wake(t);
  }
  s.arrived = 0;
  s.turn++;
}

std::string Room::deadlock() const {
  const Thread *meeting = nullptr, *barrier = nullptr;
  for (unsigned i = 0; i < count_; i++) {
    const Thread &t = threads_[i];
    if (t.state == Thread::kAtMeeting && !meeting) meeting = &t;
    if (t.state == Thread::kAtBarrier && !barrier) barrier = &t;
  }
  if (!meeting) return grid_->name() + ": deadlock";
  std::string what = name(*meeting) + ": divergent: waits at " + title(meeting->what) + " with mask " + hex(meeting->mask);
  if (barrier) {
    const uint3 t = barrier->place.thread;
    what += ", thread " + triple(t.x, t.y, t.z) + " at " + file_ + ":" + std::to_string(line_);
  }
  return what + "; none can go on";
}

// ---- The names of emu.h.

const Place &place() { return local.room->place(); }
unsigned barrier(int vote, const char *file, int line) { return local.room->barrier(vote, file, line); }
Hands meet(Meeting what, unsigned mask, uint64_t value) { return local.room->meet(what, mask, value); }

}  // namespace emu
