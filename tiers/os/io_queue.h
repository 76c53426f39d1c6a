// Operations that an engine has accepted and not begun: three queues by priority, oldest first.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "tiers/os/async_io.h"
#include "tiers/os/transfer_progress.h"

namespace terrace {

struct IoOperation {
  IoRequest request;
  std::function<void(IoCompletion)> done;
  uint64_t token = 0;
  TransferProgress progress;
  absl::Status ended_early;  // why, once it was asked to end

  // `status` unless the transfer says otherwise: one that finished although it was asked to end is
  // finished.
  void Complete(absl::Status status) {
    done({std::move(status), progress.bytes(), std::move(request.pieces)});
  }
};

// Thread-compatible.
class IoQueue {
 public:
  void Push(std::unique_ptr<IoOperation> operation) {
    queues_[Level(operation->request.priority)].push_back(std::move(operation));
    ++size_;
  }
  // nullptr: empty.
  std::unique_ptr<IoOperation> Pop() {
    for (auto queue = queues_.rbegin(); queue != queues_.rend(); ++queue) {
      if (!queue->empty()) {
        std::unique_ptr<IoOperation> operation = std::move(queue->front());
        queue->pop_front();
        --size_;
        return operation;
      }
    }
    return nullptr;
  }
  // Takes out what `ends` says, oldest first.
  std::vector<std::unique_ptr<IoOperation>> TakeIf(
      const std::function<bool(const IoOperation&)>& ends) {
    std::vector<std::unique_ptr<IoOperation>> taken;
    for (auto& queue : queues_) {
      std::deque<std::unique_ptr<IoOperation>> kept;
      for (std::unique_ptr<IoOperation>& operation : queue) {
        (ends(*operation) ? taken.push_back(std::move(operation))
                          : kept.push_back(std::move(operation)));
      }
      queue = std::move(kept);
    }
    size_ -= taken.size();
    return taken;
  }
  [[nodiscard]] size_t size() const { return size_; }
  [[nodiscard]] bool empty() const { return size_ == 0; }

 private:
  static size_t Level(Priority priority) { return static_cast<size_t>(priority) - 1; }

  std::array<std::deque<std::unique_ptr<IoOperation>>, 3> queues_;
  size_t size_ = 0;
};

}  // namespace terrace
