#include "fiber.h"

#include <cstdint>

namespace emu {

#if defined(FORTET_EMU_UCONTEXT)

void prepare(Context &c, char *stack, size_t bytes, void (*entry)()) {
  getcontext(&c.u);
  c.u.uc_stack.ss_sp = stack;
  c.u.uc_stack.ss_size = bytes;
  c.u.uc_link = nullptr;
  makecontext(&c.u, entry, 0);
}

void swap(Context &from, Context &to) { swapcontext(&from.u, &to.u); }

#else

// System V x86-64: what a callee must preserve is rbx, rbp, r12-r15 and rsp;
// the floating-point control words are the same in all fibers.
extern "C" __attribute__((visibility("hidden"))) void fortet_emu_swap(void **from, void *to);
__asm__(
    ".text\n"
    ".hidden fortet_emu_swap\n"
    ".globl fortet_emu_swap\n"
    ".type fortet_emu_swap,@function\n"
    "fortet_emu_swap:\n"
    "  pushq %rbp\n"
    "  pushq %rbx\n"
    "  pushq %r12\n"
    "  pushq %r13\n"
    "  pushq %r14\n"
    "  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n"
    "  popq %r14\n"
    "  popq %r13\n"
    "  popq %r12\n"
    "  popq %rbx\n"
    "  popq %rbp\n"
    "  ret\n"
    ".size fortet_emu_swap, .-fortet_emu_swap\n");

void prepare(Context &c, char *stack, size_t bytes, void (*entry)()) {
  void **sp = reinterpret_cast<void **>(reinterpret_cast<uintptr_t>(stack + bytes) & ~uintptr_t(15));
  *--sp = nullptr;  // entry's return address: there is none, and rsp is 8 mod 16 as after a call
  *--sp = reinterpret_cast<void *>(entry);
  for (int i = 0; i < 6; i++) *--sp = nullptr;
  c.sp = sp;
}

void swap(Context &from, Context &to) { fortet_emu_swap(&from.sp, to.sp); }

#endif

}  // namespace emu
