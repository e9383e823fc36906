// fiber.h - the context switch under the emulation: a Fiber is a stack and the
// place on it where execution goes on. Hand-switched on x86-64 (a handful of
// instructions); through ucontext elsewhere, or with -DFORTET_EMU_UCONTEXT.
#ifndef FORTET_EMU_FIBER_H
#define FORTET_EMU_FIBER_H

#include <cstddef>

#if !defined(__x86_64__) && !defined(FORTET_EMU_UCONTEXT)
#define FORTET_EMU_UCONTEXT
#endif
#if defined(FORTET_EMU_UCONTEXT)
#include <ucontext.h>
#endif

namespace emu {

struct Context {
#if defined(FORTET_EMU_UCONTEXT)
  ucontext_t u;
#else
  void *sp;
#endif
};

// prepare makes a context that calls entry, which must not return, on a stack.
void prepare(Context &c, char *stack, size_t bytes, void (*entry)());

// swap leaves the running context in from, and goes on in to.
void swap(Context &from, Context &to);

}  // namespace emu
#endif
