// Calls that must run when a lock has been given back: declare it before the lock.
#pragma once

#include <functional>
#include <utility>
#include <vector>

namespace terrace {

// Thread-compatible. What the calls add themselves runs behind them.
class DeferredCalls {
 public:
  DeferredCalls() = default;
  ~DeferredCalls() { Run(); }
  DeferredCalls(const DeferredCalls&) = delete;
  DeferredCalls& operator=(const DeferredCalls&) = delete;

  void Add(std::function<void()> call) { calls_.push_back(std::move(call)); }
  void Run() {
    while (!calls_.empty()) {
      std::vector<std::function<void()>> calls;
      calls.swap(calls_);
      for (std::function<void()>& call : calls) {
        call();
      }
    }
  }

 private:
  std::vector<std::function<void()>> calls_;
};

}  // namespace terrace
