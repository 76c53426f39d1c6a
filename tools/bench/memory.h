// Memory and threads for the copies that figures are measured against, and the loop that reads
// every byte.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "tiers/os/descriptor.h"

namespace terrace::bench {

// Shared memory that a daemon may map for writing: what an engine registers as a region. Huge pages
// are asked for, all pages are touched. Move-only.
class SharedMemory {
 public:
  // Errors: RESOURCE_EXHAUSTED.
  static absl::StatusOr<SharedMemory> Create(uint64_t bytes);
  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] absl::Span<char> bytes() const { return {mapping_.data(), mapping_.size()}; }

 private:
  Descriptor fd_;
  Mapping mapping_;
};

// Reads every byte once with wide loads; the sum is there so that no compiler can skip it.
uint64_t SumBytes(absl::Span<const char> bytes);
// Where sums go to be used.
void KeepSum(uint64_t sum);

// Threads that wait to do a share of a job. Thread-compatible.
class Crew {
 public:
  explicit Crew(uint32_t threads);
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;
  Crew(Crew&&) = delete;
  Crew& operator=(Crew&&) = delete;
  ~Crew();

  // Calls work(i) for i below `count`, spread over the threads (the calling one is one of them);
  // returns when all are done.
  void Run(uint32_t count, const std::function<void(uint32_t)>& work);
  [[nodiscard]] uint32_t threads() const { return static_cast<uint32_t>(members_.size()) + 1; }

 private:
  void Serve();
  void TakeShares();

  std::vector<std::thread> members_;
  const std::function<void(uint32_t)>* work_ = nullptr;
  uint32_t count_ = 0;
  std::atomic<uint32_t> next_{0};
  std::atomic<uint32_t> busy_{0};
  std::atomic<uint32_t> round_{0};
  std::atomic<bool> over_{false};
};

}  // namespace terrace::bench
