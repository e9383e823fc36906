// runtime.h - running whole grids, and the queues they wait in.
#ifndef FORTET_EMU_RUNTIME_H
#define FORTET_EMU_RUNTIME_H

#include <functional>
#include <memory>
#include <string>

#include "block.h"
#include "fortet.h"

struct fortet_queue;

namespace emu {

// Work is something in a queue. It answers an empty text or why it failed.
using Work = std::function<std::string()>;

// run_grid runs a grid on this OS thread and the helpers. One at a time.
std::string run_grid(const Grid &grid);

// push appends work to a queue, or to the graph that it records. With no queue
// the work is done at once; the status is then that of the work.
int push(fortet_queue *q, Work work);

// failed notes why a call on this OS thread fails, and answers code.
int failed(int code, const std::string &text);

// The CUDA runtime's numbers for errors that emulation reports.
enum { kInvalidValue = FORTET_DEVICE + 1, kInvalidConfiguration = FORTET_DEVICE + 9, kLaunchFailure = FORTET_DEVICE + 719 };

}  // namespace emu
#endif
