// Time that the simulation moves, and an executor that runs when the simulation says so. Each is
// confined to the simulation's thread.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <utility>

#include "absl/time/time.h"

#include "tiers/vocab/clock.h"
#include "tiers/vocab/executor.h"

namespace terrace::sim {

class VirtualClock final : public Clock {
 public:
  [[nodiscard]] absl::Duration Now() const override { return now_; }
  void Set(absl::Duration now) { now_ = now; }

 private:
  // Not zero, so that "never" can be told from "now".
  absl::Duration now_ = absl::Hours(1);
};

class QueuedExecutor final : public Executor {
 public:
  void Run(Priority priority, std::function<void()> work) override {
    queues_[priority].push_back(std::move(work));
  }
  [[nodiscard]] int parallelism() const override { return 2; }

  // Also what is accepted meanwhile.
  void RunAll() {
    for (std::function<void()> work = Next(); work != nullptr; work = Next()) {
      work();
    }
  }

 private:
  std::function<void()> Next() {
    for (auto queue = queues_.rbegin(); queue != queues_.rend(); ++queue) {
      if (!queue->second.empty()) {
        std::function<void()> work = std::move(queue->second.front());
        queue->second.pop_front();
        return work;
      }
    }
    return nullptr;
  }

  std::map<Priority, std::deque<std::function<void()>>> queues_;
};

}  // namespace terrace::sim
