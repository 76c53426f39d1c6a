// A client that writes to its region while the daemon copies from it stores some mixture, but one
// whose hash is right.
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tiers/dram/one_pass.h"
#include "tiers/vocab/block_key.h"

namespace terrace {
namespace {

constexpr size_t kShared = size_t{1} << 20;

// Memory shared with a child that writes to it until it is killed: byte after byte a new value. A
// process of its own, as in life; within one process it would be a data race.
class Scribbler {
 public:
  Scribbler()
      : memory_(static_cast<char*>(
            mmap(nullptr, kShared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))),
        pid_(fork()) {
    if (pid_ == 0) {
      for (uint8_t value = 0;; ++value) {
        volatile char* const bytes = memory_;
        for (size_t i = 0; i < kShared; ++i) {
          bytes[i] = static_cast<char>(value + i / 64);
        }
      }
    }
  }
  Scribbler(const Scribbler&) = delete;
  Scribbler& operator=(const Scribbler&) = delete;
  ~Scribbler() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    munmap(memory_, kShared);
  }

  [[nodiscard]] const char* memory() const { return memory_; }

 private:
  char* memory_;
  pid_t pid_;
};

// Whether the bytes are from more than one of the scribbler's rounds: it wrote while they were
// copied.
bool IsMixture(const std::vector<char>& stored) {
  const auto round_of = [&](size_t i) {
    return static_cast<char>(stored[i] - static_cast<char>(i / 64));
  };
  for (size_t i = 1; i < stored.size(); ++i) {
    if (round_of(i) != round_of(0)) {
      return true;
    }
  }
  return false;
}

class ScribbledSource : public testing::TestWithParam<CopyKernel> {};

INSTANTIATE_TEST_SUITE_P(
    Kernels,
    ScribbledSource,
    testing::Values(CopyKernel::kBaseline, CopyKernel::kAvx2, CopyKernel::kAvx512),
    [](const auto& instance) { return std::string(CopyKernelName(instance.param)); });

TEST_P(ScribbledSource, StoredBytesHaveTheReturnedHash) {
  if (!CopyKernelSupported(GetParam())) {
    GTEST_SKIP() << "this CPU has no " << CopyKernelName(GetParam());
  }
  const CopyKernel before = ActiveCopyKernel();
  SetCopyKernel(GetParam());
  {
    const Scribbler scribbler;
    // Whole stripes, stripes that straddle pieces, an end that overlaps, a misaligned destination,
    // and short payloads.
    const std::vector<std::vector<size_t>> cuts = {
        {kShared}, {kShared - 13}, {1000, 63, 65, 4097, 100000}, {64, 64, 64, 64, 1}, {240},
        {7, 100},  {300}};
    constexpr int kMixturesWanted = 200;
    std::vector<char> stored;
    for (int mixtures = 0, round = 0; mixtures < kMixturesWanted; ++round) {
      const std::vector<size_t>& cut = cuts[static_cast<size_t>(round) % cuts.size()];
      std::vector<ConstPiece> pieces;
      size_t bytes = 0;
      for (const size_t piece : cut) {
        pieces.push_back({scribbler.memory() + bytes, piece});
        bytes += piece;
      }
      const size_t misalignment = static_cast<size_t>(round) % 3;
      stored.assign(bytes + 64 + misalignment, 0);
      char* destination = stored.data();
      destination += (64 - reinterpret_cast<uintptr_t>(destination) % 64) % 64 + misalignment;
      const Digest128 hash = CopyAndHash(pieces, destination);
      ASSERT_EQ(hash, HashPayload({destination, bytes})) << "round " << round;
      mixtures += IsMixture(std::vector<char>(destination, destination + bytes)) ? 1 : 0;
    }
  }
  SetCopyKernel(before);
}

}  // namespace
}  // namespace terrace
