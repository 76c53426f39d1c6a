// Tells ThreadSanitizer in which order the distribution's gRPC runs things. Linked into every
// executable of a build with TERRACE_SANITIZE=thread, and into nothing else.
//
// libgrpc is not instrumented: that what a thread wrote before it started a batch of operations is
// seen by the thread that is told of their end is out of ThreadSanitizer's sight, so that reactors,
// and gRPC's own templates in our code, were reported as races. The functions below stand in front
// of those of the library, call them, and say so (sanitizer/tsan_interface.h).
#include <dlfcn.h>

#include <grpc/grpc.h>
#include <sanitizer/tsan_interface.h>
#include <stdio.h>
#include <stdlib.h>

namespace {

template <typename Function>
Function* Next(const char* name) {
  void* const found = dlsym(RTLD_NEXT, name);
  if (found == nullptr) {
    fprintf(stderr, "TSan: no %s in the distribution's gRPC\n", name);
    abort();
  }
  return reinterpret_cast<Function*>(found);
}

grpc_event Ended(const grpc_event& event) {
  if (event.type == GRPC_OP_COMPLETE && event.tag != nullptr) {
    __tsan_acquire(event.tag);
  }
  return event;
}

}  // namespace

extern "C" {

grpc_call_error grpc_call_start_batch(
    grpc_call* call, const grpc_op* operations, size_t count, void* tag, void* reserved) {
  static const auto next = Next<decltype(grpc_call_start_batch)>("grpc_call_start_batch");
  if (tag != nullptr) {
    __tsan_release(tag);
  }
  return next(call, operations, count, tag, reserved);
}

grpc_event grpc_completion_queue_next(grpc_completion_queue* queue,
                                      gpr_timespec deadline,
                                      void* reserved) {
  static const auto next = Next<decltype(grpc_completion_queue_next)>("grpc_completion_queue_next");
  return Ended(next(queue, deadline, reserved));
}

grpc_event grpc_completion_queue_pluck(grpc_completion_queue* queue,
                                       void* tag,
                                       gpr_timespec deadline,
                                       void* reserved) {
  static const auto next =
      Next<decltype(grpc_completion_queue_pluck)>("grpc_completion_queue_pluck");
  return Ended(next(queue, tag, deadline, reserved));
}

}  // extern "C"
