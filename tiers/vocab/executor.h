// Where work runs: a door so that tests can step through it.
#pragma once

#include <functional>

#include "tiers/vocab/outcome.h"

namespace terrace {

// Thread-safe. Accepted work always runs, once, on a thread of the executor; work of a higher
// priority is begun first.
class Executor {
 public:
  virtual ~Executor() = default;
  virtual void Run(Priority priority, std::function<void()> work) = 0;
  // Threads that can run work at the same time, from 1.
  [[nodiscard]] virtual int parallelism() const = 0;
};

}  // namespace terrace
