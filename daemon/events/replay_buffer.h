// The newest batches of a publisher, for those who missed some. Sequences are without holes.
// Thread-compatible.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <utility>

namespace terrace {

class ReplayBuffer {
 public:
  // `first`: sequence of the first batch.
  ReplayBuffer(uint32_t max_batches, uint64_t max_bytes, uint64_t first)
      : max_batches_(max_batches), max_bytes_(max_bytes), first_(first), end_(first) {}

  void Add(std::string batch) {
    bytes_ += batch.size();
    batches_.push_back(std::move(batch));
    ++end_;
    while (batches_.size() > max_batches_ || bytes_ > max_bytes_) {
      bytes_ -= batches_.front().size();
      batches_.pop_front();
    }
  }

  // Sequences from oldest() to end() - 1 are kept.
  [[nodiscard]] uint64_t first() const { return first_; }
  [[nodiscard]] uint64_t oldest() const { return end_ - batches_.size(); }
  [[nodiscard]] uint64_t end() const { return end_; }
  [[nodiscard]] const std::string& at(uint64_t sequence) const {
    return batches_[sequence - oldest()];
  }

 private:
  const uint32_t max_batches_;
  const uint64_t max_bytes_;
  const uint64_t first_;
  std::deque<std::string> batches_;
  uint64_t bytes_ = 0;
  uint64_t end_;
};

}  // namespace terrace
