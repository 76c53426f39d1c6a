// Executor on a fixed number of threads: the daemon's copy threads.
//
// Work of a higher priority is begun first, work of one priority in the order in which it came. The
// queue has no maximum of its own, because accepted work always runs: its bound is what the callers
// admit (calls in flight x keys).
//
// Hand-over: on machines with more than two cores one idle thread looks for work for a while before
// it sleeps, so that back-to-back batches pay no futex wake-up; with two cores or fewer the
// spinning would take the core that produces.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "tiers/vocab/executor.h"

namespace terrace {

inline constexpr int kMaxExecutorThreads = 256;

// 20 us on machines with more than two cores, else zero.
absl::Duration DefaultSpin();

struct ThreadExecutorOptions {
  int threads = 2;            // 1 to kMaxExecutorThreads
  std::string name = "copy";  // threads are named NAME-0, NAME-1, ...; at most 11 bytes are used
  absl::Duration spin = DefaultSpin();
};

// Thread-safe. The destructor runs everything that was accepted, what such work hands in meanwhile
// included, and joins the threads; nobody else may call Run any more then. Work must not throw.
// Errors: INVALID_ARGUMENT (threads), RESOURCE_EXHAUSTED (the system gives no more threads).
absl::StatusOr<std::unique_ptr<Executor>> MakeThreadExecutor(const ThreadExecutorOptions& options);

}  // namespace terrace
