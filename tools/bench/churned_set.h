// Blocks of one namespace that are put, got, probed, deleted and cleared at random, each answer
// held against a ledger of what the daemon owes. The ledger stays while daemons come and go.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "tools/bench/block_ledger.h"
#include "tools/bench/client_session.h"
#include "tools/bench/memory.h"
#include "tools/bench/operator_calls.h"
#include "tools/bench/payload.h"

namespace terrace::bench {

// Confined to one thread at a time.
class ChurnedSet {
 public:
  static constexpr uint64_t kMaxPayloadBytes = uint64_t{24} << 10;

  struct Options {
    std::string name;  // of the namespace
    uint64_t seed = 1;
    uint32_t blocks = 0;
    BlockLedger::Promise promise = BlockLedger::Promise::kKeepsAll;
  };
  // Errors: RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<ChurnedSet>> Create(const Options& options);

  // What was found; taken and begun anew by whoever reports it.
  struct Findings {
    uint64_t checked = 0;  // blocks that a get answered
    uint64_t wrong_bytes = 0;
    uint64_t lost = 0;         // owed, and a miss
    uint64_t came_back = 0;    // deleted or cleared, and found
    uint64_t undecided = 0;    // owed, and neither delivered nor a miss
    uint64_t puts = 0;         // blocks
    uint64_t short_puts = 0;   // that did not reach their level, but for those of a stop
    uint64_t tier_faults = 0;  // among them
    uint64_t deletes = 0;      // blocks
    uint64_t clears = 0;
    uint64_t flushes = 0;
    void Add(const Findings& other);  // but for its errors

    std::vector<std::string> errors;  // calls that failed for other reasons than the daemon's end
  };
  Findings TakeFindings();

  // Waits for the daemon at most so long, as all that follow: UNAVAILABLE where it is not there.
  absl::Status Connect(const std::string& runtime_dir, std::chrono::milliseconds limit);
  // Waits until the local tier has found what it holds: from now on what is owed and missing is
  // lost.
  absl::Status AwaitRecovery();
  // Gets `count` blocks from any one on, over the end to the beginning. What is owed and does not
  // come for want of room is asked for again, a few times.
  absl::Status Verify(uint32_t count);
  // One call, or a few that belong together, chosen at random. Any error leaves it unknown what the
  // daemon still does, so that the session must not be used any more.
  absl::Status Turn();
  // To fill a tier: the next few batches, and every block.
  absl::Status PutMany();
  absl::Status DeleteAll();
  void Disconnect();

  // Of all files of the local tier; 0: the daemon does not answer.
  [[nodiscard]] uint64_t LocalFileBytes() const;
  [[nodiscard]] uint32_t blocks() const { return ledger_.blocks(); }

 private:
  ChurnedSet(const Options& options, SharedMemory memory);

  [[nodiscard]] KeyChain Chain(uint32_t begin, uint32_t count) const;
  // Of a block's present version.
  [[nodiscard]] uint32_t PayloadBytes(uint32_t block) const;
  [[nodiscard]] PayloadSource Content(uint32_t block) const;

  absl::Status PutNext();
  absl::Status Put(uint32_t begin, uint32_t count, terrace_level level);
  absl::Status Get(uint32_t begin, uint32_t count, uint32_t* undecided);
  void NoteMiss(uint32_t block, const char* verb);
  void CheckDelivered(uint32_t block, absl::Span<const char> payload);
  absl::Status Probe(uint32_t begin, uint32_t count);
  absl::Status Delete(uint32_t begin, uint32_t count);
  absl::Status Clear();
  absl::Status Flush();
  // Passes the status on, and notes it unless it is UNAVAILABLE.
  absl::Status Noted(absl::Status status);
  uint32_t Below(uint64_t limit) { return static_cast<uint32_t>(random_() % limit); }

  const Options options_;
  const PayloadSource names_;
  SharedMemory memory_;
  std::string keys_;
  std::mt19937_64 random_;
  BlockLedger ledger_;
  Findings findings_;
  uint32_t next_put_ = 0;
  bool recovered_ = false;
  std::unique_ptr<ClientSession> session_;
  std::unique_ptr<OperatorCalls> operator_calls_;
  terrace_namespace ns_ = 0;
  terrace_region region_ = 0;
};

}  // namespace terrace::bench
