// A client that writes to its region while the daemon copies from it stores some mixture, but one
// whose hash is right.
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tiers/copy/one_pass.h"
#include "tiers/vocab/block_key.h"

namespace terrace {
namespace {

constexpr size_t kShared = size_t{1} << 20;

// Memory shared with a child that writes to it until it is killed: pass after pass, a new byte in
// every 64. A process of its own, as in life; within one process it would be a data race.
class Scribbler {
 public:
  Scribbler()
      : memory_(static_cast<char*>(mmap(nullptr,
                                        kShared + sizeof(uint64_t),
                                        PROT_READ | PROT_WRITE,
                                        MAP_SHARED | MAP_ANONYMOUS,
                                        -1,
                                        0))),
        pid_(fork()) {
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      volatile char* const bytes = memory_;
      for (uint64_t pass = 1;; ++pass) {
        for (size_t i = 0; i < kShared; i += 64) {
          bytes[i + pass % 64] = static_cast<char>(pass + i);
        }
        *Passes() = pass;
      }
    }
  }
  Scribbler(const Scribbler&) = delete;
  Scribbler& operator=(const Scribbler&) = delete;
  ~Scribbler() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    munmap(memory_, kShared + sizeof(uint64_t));
  }

  [[nodiscard]] const char* memory() const { return memory_; }
  [[nodiscard]] uint64_t passes() const { return *Passes(); }

 private:
  [[nodiscard]] volatile uint64_t* Passes() const {
    return reinterpret_cast<uint64_t*>(memory_ + kShared);
  }

  char* memory_;
  pid_t pid_;
};

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
    // Copies that ran while the scribbler went over all of the memory: those in which a second look
    // would differ.
    constexpr int kScribbledWanted = 50;
    std::vector<char> stored;
    for (int scribbled = 0, round = 0; scribbled < kScribbledWanted; ++round) {
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
      const uint64_t passes = scribbler.passes();
      const Digest128 hash = CopyAndHash(pieces, destination);
      scribbled += scribbler.passes() != passes ? 1 : 0;
      ASSERT_EQ(hash, HashPayload({destination, bytes})) << "round " << round;
    }
  }
  SetCopyKernel(before);
}

}  // namespace
}  // namespace terrace
