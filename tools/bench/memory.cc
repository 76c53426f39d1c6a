#include "tools/bench/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace terrace::bench {
namespace {

constexpr uint64_t kHugePage = uint64_t{2} << 20;
constexpr uint64_t kSmallPage = 4096;

// 64 bytes at a time in whatever registers there are; the memory may be aligned to less.
using Wide = uint64_t __attribute__((vector_size(64), aligned(8), may_alias));

volatile uint64_t kept_sum = 0;

// Reading must be bound by memory, so it takes the widest registers that there are.
constexpr size_t kUnrolled =
    2;  // two sums of 64 bytes: all that the sixteen registers of SSE2 hold with the loads

// `count` is a multiple of kUnrolled.
__attribute__((always_inline)) inline uint64_t SumWith(const Wide* from, size_t count) {
  Wide first = {};
  Wide second = {};
  for (size_t i = 0; i < count; i += kUnrolled) {
    first += from[i];
    second += from[i + 1];
  }
  const Wide all = first + second;
  uint64_t sum = 0;
  for (size_t lane = 0; lane < sizeof(Wide) / sizeof(uint64_t); ++lane) {
    sum += all[lane];
  }
  return sum;
}

using SumWide = uint64_t (*)(const Wide* from, size_t count);
uint64_t SumBaseline(const Wide* from, size_t count) {
  return SumWith(from, count);
}
#if defined(__x86_64__)
__attribute__((target("avx2"))) uint64_t SumAvx2(const Wide* from, size_t count) {
  return SumWith(from, count);
}
__attribute__((target("avx512f"))) uint64_t SumAvx512(const Wide* from, size_t count) {
  return SumWith(from, count);
}
#endif
SumWide BestSumWide() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") != 0) {
    return SumAvx512;
  }
  if (__builtin_cpu_supports("avx2") != 0) {
    return SumAvx2;
  }
#endif
  return SumBaseline;
}

}  // namespace

absl::StatusOr<SharedMemory> SharedMemory::Create(uint64_t bytes) {
  bytes = (bytes + kHugePage - 1) / kHugePage * kHugePage;
  SharedMemory memory;
  memory.fd_ = Descriptor(memfd_create("terrace-bench", MFD_CLOEXEC));
  if (!memory.fd_.valid() || ftruncate(memory.fd_.get(), static_cast<off_t>(bytes)) != 0) {
    return absl::ResourceExhaustedError(std::string("memfd: ") + std::strerror(errno));
  }
  absl::StatusOr<Mapping> mapping = Mapping::Map(memory.fd_.get(), 0, bytes, MapAccess::kReadWrite);
  if (!mapping.ok()) {
    return mapping.status();
  }
  memory.mapping_ = *std::move(mapping);
  madvise(memory.mapping_.data(), bytes,
          MADV_HUGEPAGE);  // refused: small pages then, on both sides
  for (uint64_t at = 0; at < bytes; at += kSmallPage) {
    static_cast<volatile char*>(memory.mapping_.data())[at] = 0;
  }
  return memory;
}

uint64_t SumBytes(absl::Span<const char> bytes) {
  const size_t whole = bytes.size() / (kUnrolled * sizeof(Wide)) * kUnrolled;
  const auto* from = reinterpret_cast<const Wide*>(bytes.data());
  static const SumWide sum_wide = BestSumWide();
  uint64_t sum = sum_wide(from, whole);
  for (size_t at = whole * sizeof(Wide); at < bytes.size(); ++at) {
    sum += static_cast<unsigned char>(bytes[at]);
  }
  return sum;
}

void KeepSum(uint64_t sum) {
  kept_sum = kept_sum ^ sum;
}

Crew::Crew(uint32_t threads) {
  for (uint32_t i = 1; i < threads; ++i) {
    members_.emplace_back([this] { Serve(); });
  }
}

Crew::~Crew() {
  over_ = true;
  ++round_;
  round_.notify_all();
  for (std::thread& member : members_) {
    member.join();
  }
}

void Crew::Run(uint32_t count, const std::function<void(uint32_t)>& work) {
  work_ = &work;
  count_ = count;
  next_ = 0;
  busy_ = static_cast<uint32_t>(members_.size());
  ++round_;
  round_.notify_all();
  TakeShares();
  for (uint32_t busy = busy_; busy != 0; busy = busy_) {
    busy_.wait(busy);
  }
}

void Crew::Serve() {
  uint32_t seen = 0;
  for (;;) {
    round_.wait(seen);
    // The crew's owner begins no round before this one is over, so none is missed.
    ++seen;
    if (over_) {
      return;
    }
    TakeShares();
    if (--busy_ == 0) {
      busy_.notify_all();
    }
  }
}

void Crew::TakeShares() {
  for (uint32_t i = next_++; i < count_; i = next_++) {
    (*work_)(i);
  }
}

}  // namespace terrace::bench
